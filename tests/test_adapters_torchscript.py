"""TorchScript files: scripted and traced, with candidates or with detections of their own."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from audit.adapters import AnchorGrid, CenterHeatmap, Yolo, torchscript_detector, torchvision_detector
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError
from tests.adapted import (
    best,
    doctored,
    gradient_agrees,
    one_control,
    overlap,
    painted,
    usable_after_inference_mode,
)
from tests.planted import SIDE, STRIDE
from tests.test_adapters_examples import load
from tests.test_adapters_torchvision import images as smooth
from tests.test_adapters_torchvision import net as torchvision_net


def windows(seen: Tensor) -> Tensor:
    """The boxes (N, A, 4) of windows of 48 px, 8 px apart."""
    y = 8 * torch.arange(seen.shape[2], device=seen.device)
    x = 8 * torch.arange(seen.shape[3], device=seen.device)
    left, top = x[None].expand(seen.shape[2], -1), y[:, None].expand(-1, seen.shape[3])
    boxes = torch.stack((left, top, left + 48, top + 48), -1).reshape(1, -1, 4).float()
    return boxes.expand(seen.shape[0], -1, 4)


class Squares(nn.Module):
    """The planted detector as a network: a window of 48 px slides by 8 and takes the mean redness."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(3, 1, SIDE, STRIDE)
        with torch.no_grad():
            self.look.weight.copy_((30 / SIDE**2 * torch.tensor([1.0, -0.5, -0.5]))[None, :, None, None])
            self.look.bias.fill_(-9.0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.look(images)
        return windows(seen), seen.flatten(1)[..., None]


class AsYolo(Squares):
    """The same as rows (cx, cy, w, h, objectness, class), with an objectness that is sure."""

    def forward(self, images: Tensor) -> Tensor:
        seen = self.look(images)
        boxes, logits = windows(seen), seen.flatten(1)[..., None]
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        return torch.cat((centres, boxes[..., 2:] - boxes[..., :2], 50.0 + 0.0 * logits, logits), -1)


class AsAnchors(Squares):
    """The same as a dict of softmax columns and decoded boxes."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        seen = self.look(images)
        flat = seen.flatten(1)
        return {"scores": torch.stack((-flat / 2, flat / 2), -1), "boxes": windows(seen)}


class AsHeat(Squares):
    """The same as a heat-map whose cells' middles are the windows'."""

    def forward(self, images: Tensor) -> list[Tensor]:
        heat = self.look(images)
        return [heat, torch.full((images.shape[0], 2, heat.shape[2], heat.shape[3]), 6.0)]


class Choosy(Squares):
    """The same for one size alone."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.shape[2] == 128, "made for images of 128 rows"
        seen = self.look(images)
        return windows(seen), seen.flatten(1)[..., None]


class AsProbabilities(Squares):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.look(images)
        return windows(seen), seen.flatten(1)[..., None].sigmoid()


class NoGradient(Squares):
    """The same behind rounding: nothing flows back."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.look((images.detach() * 255).round() / 255)
        return windows(seen), seen.flatten(1)[..., None]


class Listed(nn.Module):
    """As torchvision's scripted detectors: a list of images in, (losses, detections) out, labels from 1."""

    def __init__(self):
        super().__init__()
        self.inner = Squares()

    def forward(self, images: list[Tensor]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        losses: dict[str, Tensor] = {}
        found: list[dict[str, Tensor]] = []
        for image in images:
            boxes, logits = self.inner(image[None])
            score, index = logits[0, :, 0].sigmoid().max(0)
            one = {"boxes": boxes[0, index][None], "scores": score[None], "labels": torch.ones(1, dtype=torch.int64)}
            found.append(one)
        return losses, found


class Plain(Listed):
    """A batch in, a list of dicts out, labels from 0."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        for image in images:
            boxes, logits = self.inner(image[None])
            score, index = logits[0, :, 0].sigmoid().max(0)
            one = {"boxes": boxes[0, index][None], "scores": score[None], "labels": torch.zeros(1, dtype=torch.int64)}
            found.append(one)
        return found


class Kind(NamedTuple):
    net: type[nn.Module]
    options: dict
    white_box: bool
    classes: tuple[str, ...] = ("square",)


pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")

KINDS = {
    "boxes and logits": Kind(Squares, {}, True),
    "yolo": Kind(AsYolo, {"decoder": Yolo(boxes="decoded")}, True),
    "anchors": Kind(AsAnchors, {"decoder": AnchorGrid(boxes="pixels")}, True),
    "heat": Kind(
        AsHeat, {"decoder": CenterHeatmap(offsets=None, stride=8, shift=3.0, exponential=False, order="xy")}, True
    ),
    "a function": Kind(AsHeat, {"decoder": lambda o: (windows(o[0]), o[0].flatten(1)[..., None])}, True),
    "no gradient": Kind(NoGradient, {}, False),
    "torchvision's pair": Kind(Listed, {}, False, ("__background__", "square")),
    "list of dicts": Kind(Plain, {}, False),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(folder, net, name="detector.pt", freeze=False):
    made = torch.jit.script(net.eval())
    path = folder / name
    torch.jit.save(torch.jit.freeze(made) if freeze else made, str(path))
    return path


@pytest.mark.parametrize("freeze", [False, True], ids=["", "frozen"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_finds_the_squares(tmp_path, kind, freeze):
    kind = KINDS[kind]
    path = saved(tmp_path, kind.net(), freeze=freeze)
    detector = torchscript_detector(path, kind.classes, 0.5, **kind.options)
    assert isinstance(detector, Detector)
    assert isinstance(detector, WhiteBoxDetector) == kind.white_box
    assert detector.classes == ("square",)
    assert detector.files == (path,)
    for size, corners in (((128, 160), [(80, 40), (8, 72)]), ((200, 96), [(32, 136), (0, 0)])):
        x, boxes = painted(corners, size)
        with torch.inference_mode():
            found = detector(x)
        for d, box in zip(found, boxes, strict=True):
            torch.testing.assert_close(best(d), box)
            assert d.labels[d.scores.argmax()] == 0
            assert float(d.scores.max()) == pytest.approx(float(1 / (1 + torch.tensor(-9.0).exp())), abs=1e-3)
    if kind.white_box:
        usable_after_inference_mode(detector, x)
        with torch.no_grad():
            shown, own = detector.candidates(x), Squares()(x)
        torch.testing.assert_close(shown.boxes, own[0])
        torch.testing.assert_close(shown.logits, own[1], atol=1e-3, rtol=1e-4)


def test_a_traced_file_and_a_module_will_do(tmp_path):
    x, boxes = painted([(80, 40)])
    traced = torch.jit.trace(Squares(), x)
    torch.jit.save(traced, str(tmp_path / "traced.pt"))
    for given in (tmp_path / "traced.pt", traced):
        detector = torchscript_detector(given, ("square",), 0.5, input_size=(128, 160), resize="stretch")
        torch.testing.assert_close(best(detector(x)[0]), boxes[0])
        assert isinstance(detector, WhiteBoxDetector)


@pytest.mark.parametrize(("size", "side"), [((256, 320), 96), ((160, 320), 96), ((320, 160), 96), ((64, 80), 24)])
def test_boxes_come_back_through_the_letterbox(tmp_path, size, side):
    path = saved(tmp_path, Squares())
    detector = torchscript_detector(path, ("square",), 0.5, input_size=(160, 160), resize="letterbox", nms_iou=0.3)
    corner = (size[1] - side, (size[0] - side) // 2)
    x, boxes = painted([corner], size, side)
    assert overlap(best(detector(x)[0]), boxes[0]) > 0.7


def test_a_finite_difference_agrees_with_the_gradient(tmp_path):
    path = saved(tmp_path, Squares())
    detector = torchscript_detector(path, ("square",), 0.5, input_size=(128, 160), resize="letterbox")
    gradient_agrees(detector, painted([(40, 25)], (150, 200), 60)[0])


def test_gradients_may_be_left_out(tmp_path):
    path = saved(tmp_path, Squares())
    shown = torchscript_detector(path, ("square",), 0.5)
    hidden = torchscript_detector(path, ("square",), 0.5, white_box=False)
    assert not isinstance(hidden, WhiteBoxDetector)
    x, _ = painted([(80, 40)])
    assert hidden(x)[0].boxes.equal(shown(x)[0].boxes)
    assert hidden(x)[0].scores.equal(shown(x)[0].scores)
    assert hidden.module is not None


@pytest.mark.slow
def test_torchvisions_scripted_detector_says_what_it_said_before(tmp_path):
    net = torchvision_net("ssdlite320_mobilenet_v3_large")
    names = ("__background__", "cat", "dog", "kite")
    x = smooth(2, 120, 180)
    before = torchvision_detector(net, names, 0.5)(x)
    detector = torchscript_detector(saved(tmp_path, net), names, 0.5)
    assert detector.classes == names[1:]
    assert not isinstance(detector, WhiteBoxDetector)
    for found, own in zip(detector(x), before, strict=True):
        assert len(own.boxes) > 5
        assert found.labels.tolist() == own.labels.tolist()
        torch.testing.assert_close(found.boxes, own.boxes, atol=1e-2, rtol=0)
        torch.testing.assert_close(found.scores, own.scores, atol=1e-4, rtol=0)


MODEL = """
import audit
from tests.adapted import data

def model(device):
    return audit.adapters.torchscript_detector({path!r}, ["square"], 0.5, nms_iou=0.3, device=device)
"""


def test_the_doctor_finds_nothing_to_mend(tmp_path, capsys):
    path = tmp_path / "mymodel.py"
    path.write_text(MODEL.format(path=str(saved(tmp_path, Squares()))))
    out = doctored(path, capsys)
    assert "gradients: attacks are optimised through the model itself" in out
    assert "!!" not in out
    assert "detector.pt" in out


@pytest.mark.slow
def test_a_control_runs_on_it(tmp_path):
    path = tmp_path / "mymodel.py"
    path.write_text(MODEL.format(path=str(saved(tmp_path, Squares()))))
    row = one_control(path, tmp_path, "DET-CONTROL/noise")
    assert row["verdict"] == "pass", row["reason"]


def test_the_example(tmp_path, monkeypatch):
    class Yolox(nn.Module):
        """Rows of a YOLOX head: a bright cell of 32 px is a face of 32 px in its middle."""

        def forward(self, images: Tensor) -> Tensor:
            rows: list[Tensor] = []
            for stride in (8, 16, 32):
                bright = nn.functional.avg_pool2d(images, stride).mean(1).flatten(1)
                sure = 40 * bright - 20 if stride == 32 else -20 + 0 * bright
                rows.append(torch.stack((0.5 + 0 * sure, 0.5 + 0 * sure, 0 * sure, 0 * sure, sure, sure, -sure), 2))
            return torch.cat(rows, 1)

    monkeypatch.chdir(tmp_path)
    saved(tmp_path, Yolox())
    detector = load("torchscript").model(torch.device("cpu"))
    assert isinstance(detector, WhiteBoxDetector)
    assert [f.name for f in detector.files] == ["detector.pt"]
    x = torch.zeros(1, 3, 160, 320)
    x[..., 16:48, 64:96] = 1  # letterboxed, the picture fills rows 80 to 240 of 320: here rows 96 to 128
    (found,) = detector(x)
    sure = found.scores >= 0.5
    assert found.labels[sure].tolist() == [0]
    torch.testing.assert_close(found.boxes[sure], torch.tensor([[64.0, 16.0, 96.0, 48.0]]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"file": "nowhere.pt"}, "no such file"),
        ({"file": "text.pt"}, "a file of torch.jit.save"),
        ({"file": "weights.pt"}, "a file of torch.jit.save"),
        ({"file": nn.Conv2d(3, 3, 1)}, "a torch.jit.ScriptModule, got Conv2d"),
        ({"decoder": "yolo"}, "takes Outputs, got str"),
        ({"classes": ("a", "b")}, "2), one per box and class"),
        ({"classes": "square"}, "the text 'square'"),
        ({"score_threshold": -1}, "from 0 to 1"),
        ({"swap": True}, "swap"),
        ({"files": ["nowhere.pt"]}, "no such file"),
        ({"file": AsYolo}, "two outputs, boxes and logits, got (2, 1225, 6); hand in a decoder"),
        ({"file": AsYolo, "decoder": Yolo()}, "cells for an input of 320x320"),
        ({"file": AsProbabilities}, "logits before the final activation"),
        (
            {"file": Choosy},
            "a network that takes (2, 3, 320, 320), got RuntimeError: AssertionError: made for images of",
        ),
        ({"file": Choosy}, "say its size by input_size"),
        ({"input_size": (32, 32), "resize": "stretch"}, "a network that takes (2, 3, 32, 32)"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("not a network")
    torch.save(Squares().state_dict(), tmp_path / "weights.pt")
    given = {"file": Squares, "classes": ("square",), "score_threshold": 0.5} | given
    file = given.pop("file")
    file = saved(tmp_path, file()) if isinstance(file, type) else file
    with pytest.raises(ModelError) as told:
        torchscript_detector(file, **given)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_labels_beyond_the_classes_are_told(tmp_path):
    detector = torchscript_detector(saved(tmp_path, Listed()), ("square",), 0.5)
    with pytest.raises(ModelError, match="indices into the 1 classes"):
        detector(painted([(80, 40)])[0])
