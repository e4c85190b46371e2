"""Ultralytics' YOLOs: a small one that was taught red squares, and the real heads with random weights."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from audit.adapters import ultralytics_detector
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError
from tests.adapted import (
    SIDE,
    best,
    clean_recall,
    doctored,
    gradient_agrees,
    needs,
    one_control,
    overlap,
    painted,
    usable_after_inference_mode,
)
from tests.test_adapters_examples import load
from tests.test_adapters_torchvision import calibrate


@pytest.fixture(autouse=True, scope="module")
def pillow():
    """Importing the package changes ``PIL.Image.open`` for the whole process."""
    before = Image.open
    yield
    Image.open = before


TINY = {
    "nc": 1,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [32, 5, 2]],
    ],
    "head": [[[3], 1, "Detect", ["nc"]]],
}
HEADS = {
    "yolov5n": ("yolov5n.yaml", None),
    "yolov8n": ("yolov8n.yaml", None),
    "yolo11n": ("yolo11n.yaml", None),
    "yolov10n": ("yolov10n.yaml", True),
    "yolo26n": ("yolo26n.yaml", True),
    "yolo26n one to many": ("yolo26n.yaml", False),
}


@pytest.fixture(scope="module", autouse=True)
def alone(pillow, tmp_path_factory):
    """One thread; the package asks nobody, installs nothing, and keeps its settings here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        for name, value in (("YOLO_OFFLINE", "True"), ("YOLO_AUTOINSTALL", "False"), ("YOLO_VERBOSE", "False")):
            patch.setenv(name, value)
        needs("ultralytics")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A .pt file as the package saves it, of a net that was taught to find the squares for a few seconds."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    net = DetectionModel(TINY, nc=1, verbose=False)
    net.args = get_cfg()
    net.names = {0: "square"}
    g = torch.Generator().manual_seed(0)
    learn = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(150):
        corners = torch.stack([torch.randint(0, n, (8,), generator=g) for n in (113, 81)], 1).tolist()
        images, boxes = painted(corners, seed=step)
        centres = torch.cat((boxes[:, :2] + SIDE / 2, torch.full((8, 2), float(SIDE))), 1)
        batch = {"img": images, "cls": torch.zeros(8, 1), "batch_idx": torch.arange(8).float()}
        loss, _ = net(batch | {"bboxes": centres / torch.tensor([160, 128, 160, 128])})
        learn.zero_grad()
        loss.sum().backward()
        learn.step()
    path = tmp_path_factory.mktemp("yolo") / "taught.pt"
    torch.save({"model": net.eval(), "train_args": {"imgsz": 160}, "date": None, "version": "8"}, path)
    return path


def detector_of(path, **options):
    return ultralytics_detector(path, **{"score_threshold": 0.2, "imgsz": 160} | options)


def random_yolo(config: str):
    """Random weights, loud enough for cells and classes to differ."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    made = YOLO(config, verbose=False)
    calibrate(made.model)
    heads = made.model.model[-1]
    for head in (heads.cv3, getattr(heads, "one2one_cv3", None) or ()):
        for level in head:
            torch.nn.init.normal_(level[-1].weight, std=0.3)
    return made


def pixels(image):
    """(3, H, W) in [0, 1] as OpenCV reads it, (H, W, 3) BGR uint8, and what came of the rounding."""
    rounded = (image * 255).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(1, 2, 0).numpy()[..., ::-1]), rounded.float()[None] / 255


@pytest.mark.parametrize(("size", "side"), [((128, 160), 48), ((256, 320), 96), ((200, 160), 60), ((96, 200), 60)])
def test_boxes_are_where_the_squares_are(taught, size, side):
    detector = detector_of(taught)
    room = (size[1] - side, size[0] - side)
    corners = [(0, 0), (room[0], room[1] // 2), (room[0] // 2, room[1])]
    images, boxes = painted(corners, size, side)
    for found, box in zip(detector(images), boxes, strict=True):
        assert found.scores.max() > detector.score_threshold
        assert overlap(best(found), box) > 0.7
    shown = detector.candidates(images)
    for logits, where, box in zip(shown.logits, shown.boxes, boxes, strict=True):
        assert overlap(where[logits[:, 0].argmax()], box) > 0.7


@pytest.mark.parametrize("size", [(128, 160), (160, 96), (64, 160)])
def test_detections_are_those_of_the_packages_own_predict(taught, size):
    from ultralytics import YOLO

    images, _ = painted([(20, 10)], size)
    read, x = pixels(images[0])
    (own,) = YOLO(taught).predict(read, imgsz=160, conf=0.01, iou=0.7, save=False, verbose=False, device="cpu")
    (found,) = detector_of(taught)(x)
    assert len(found.boxes) >= 1
    torch.testing.assert_close(found.boxes, own.boxes.xyxy, atol=1e-2, rtol=0)
    torch.testing.assert_close(found.scores, own.boxes.conf, atol=1e-4, rtol=0)
    assert found.labels.tolist() == own.boxes.cls.int().tolist()


def test_after_resizing_detections_are_nearly_those_of_predict(taught):
    """OpenCV rounds while it resizes, so scores move a little."""
    from ultralytics import YOLO

    images, _ = painted([(70, 40)], (211, 300), 90)
    read, x = pixels(images[0])
    (own,) = YOLO(taught).predict(read, imgsz=160, conf=0.2, iou=0.7, save=False, verbose=False, device="cpu")
    (found,) = detector_of(taught)(x)
    assert len(own.boxes) == 1
    torch.testing.assert_close(best(found), own.boxes.xyxy[0], atol=1, rtol=0)
    assert float(found.scores.max()) == pytest.approx(float(own.boxes.conf[0]), abs=0.02)


@given(height=st.integers(20, 500), width=st.integers(20, 500), imgsz=st.sampled_from([64, 160, (96, 224)]))
@settings(max_examples=40, deadline=None)
def test_the_letterbox_is_the_packages_own(taught, height, width, imgsz):
    from ultralytics.data.augment import LetterBox

    ramp = torch.stack(torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij"))
    image = torch.cat((ramp, 1 - ramp[:1]))
    read, x = pixels(image)
    wanted = LetterBox((imgsz, imgsz) if isinstance(imgsz, int) else imgsz, auto=True, stride=32)(image=read)
    seen, geometry = detector_of(taught, imgsz=imgsz).letterbox(x)
    mine = seen[0].permute(1, 2, 0).numpy()[..., ::-1] * 255
    assert mine.shape == wanted.shape
    assert np.abs(mine - wanted).max() <= 1.5
    whole = geometry.back(torch.tensor([geometry.offset_x, geometry.offset_y, *geometry_end(geometry, height, width)]))
    torch.testing.assert_close(whole, torch.tensor([0.0, 0.0, width, height]), atol=1e-3, rtol=0)


def geometry_end(geometry, height, width):
    """Where the image's lower right corner lies in the input."""
    return width * geometry.scale_x + geometry.offset_x, height * geometry.scale_y + geometry.offset_y


@pytest.mark.parametrize("name", HEADS)
def test_candidates_are_what_the_head_says(name):
    config, mode = HEADS[name]
    yolo = random_yolo(config)
    detector = ultralytics_detector(yolo, imgsz=96, end_to_end=mode)
    assert len(detector.classes) == 80
    x = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, own = detector.candidates(x), yolo.model(x)[0]
    assert found.logits.shape == (2, (8 * 12) + (4 * 6) + (2 * 3), 80)
    assert float(found.logits.std(1).mean()) > 0.3, "the test's net has to tell its cells apart"
    if mode:
        # the head's own best: (x1, y1, x2, y2, score, class), the largest pairs of candidate and class
        scores, index = found.logits.sigmoid().flatten(1).topk(own.shape[1])
        torch.testing.assert_close(scores, own[..., 4])
        sure = scores[:, :-1] - scores[:, 1:] > 1e-6
        assert (index % 80)[:, :-1][sure].float().equal(own[:, :-1, 5][sure])
        boxes = found.boxes.gather(1, (index // 80)[..., None].expand(-1, -1, 4))
        torch.testing.assert_close(boxes[:, :-1][sure], own[:, :-1, :4][sure])
        detections = detector(x)
        some = own[0, :, 4] > 0.01
        torch.testing.assert_close(detections[0].scores, own[0, some, 4])
    else:
        torch.testing.assert_close(found.logits.sigmoid(), own[:, 4:].transpose(1, 2))
        centre, sides = own[:, :4].transpose(1, 2).chunk(2, -1)
        torch.testing.assert_close(found.boxes, torch.cat((centre - sides / 2, centre + sides / 2), -1))
    assert "postprocess" not in vars(yolo.model.model[-1])
    usable_after_inference_mode(detector, x)


def test_a_saturated_score_keeps_its_gradient(taught):
    detector = detector_of(taught)
    with torch.no_grad():
        detector.module.model[-1].cv3[0][-1].bias.add_(60.0)
    images, _ = painted([(30, 30)])
    x = images.requires_grad_()
    found = detector.candidates(x)
    assert float(found.logits.detach().sigmoid().min()) == 1.0
    (gradient,) = torch.autograd.grad(found.logits.sum(), x)
    assert gradient.abs().max() > 0


def test_a_finite_difference_agrees_with_the_gradient(taught):
    gradient_agrees(detector_of(taught), painted([(40, 25)], (150, 200), 60)[0])


def test_a_predict_before_does_not_spoil_the_gradients(taught):
    from ultralytics import YOLO

    yolo = YOLO(taught)
    images, _ = painted([(30, 30)])
    yolo.predict(pixels(images[0])[0], imgsz=160, save=False, verbose=False, device="cpu")
    with torch.inference_mode():
        yolo.model.eval()(images)
    usable_after_inference_mode(ultralytics_detector(yolo, imgsz=160), images)
    usable_after_inference_mode(ultralytics_detector(yolo.model, imgsz=160), images)


def test_the_doctor_finds_nothing_to_mend(taught, capsys):
    path = taught.with_name("mymodel.py")
    path.write_text(MODEL.format(weights=taught))
    out = doctored(path, capsys)
    assert "gradients: attacks are optimised through the model itself" in out
    assert "!!" not in out
    assert "taught.pt" in out


MODEL = """
import audit
from tests.adapted import data

def model(device):
    return audit.adapters.ultralytics_detector({str!r}, score_threshold=0.2, imgsz=160, device=device)
""".replace("{str!r}", '"{weights}"')


@pytest.mark.slow
def test_a_control_runs_on_it(taught, tmp_path):
    path = tmp_path / "mymodel.py"
    path.write_text(MODEL.format(weights=taught))
    row = one_control(path, tmp_path, "DET-CONTROL/noise")
    assert row["verdict"] in ("pass", "fail"), row["reason"]
    assert clean_recall(row) > 0.9


def test_the_example(taught, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo11n.pt").write_bytes(taught.read_bytes())
    detector = load("ultralytics_yolo").model(torch.device("cpu"))
    assert isinstance(detector, WhiteBoxDetector)
    assert isinstance(detector, Detector)
    assert detector.classes == ("square",)
    assert [f.name for f in detector.files] == ["yolo11n.pt"]
    assert "square" in repr(detector)
    images, boxes = painted([(160, 300)], (512, 640))
    assert overlap(best(detector(images)[0]), boxes[0]) > 0.7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model_or_path": "nowhere.pt"}, "no such file"),
        ({"model_or_path": "text.pt"}, "that ultralytics can load"),
        ({"model_or_path": "net.onnx"}, "a .pt file"),
        ({"model_or_path": torch.nn.Conv2d(3, 3, 1)}, "got Conv2d"),
        ({"model_or_path": torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))}, "got Sequential"),
        ({"model_or_path": 7}, "got int"),
        ({"classes": ("a", "b")}, "1 names, one per output, got 2"),
        ({"classes": "square"}, "the text 'square'"),
        ({"imgsz": 100}, "a multiple of 32, or two as (height, width), got 100; write 128"),
        ({"imgsz": (64, 96, 128)}, "a multiple of 32"),
        ({"imgsz": True}, "a multiple of 32"),
        ({"score_threshold": 25}, "from 0 to 1"),
        ({"score_threshold": 0.1, "score_floor": 0.2}, "at most the score threshold 0.1"),
        ({"end_to_end": True}, "a model with an end-to-end head"),
        ({"files": ["nowhere.yaml"]}, "no such file"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(taught, tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("not a network")
    (tmp_path / "net.onnx").write_text("")
    with pytest.raises(ModelError) as told:
        detector_of(**{"path": given.pop("model_or_path", taught)} | given)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_other_heads_are_refused():
    from ultralytics import YOLO

    with pytest.raises(ModelError, match="got Segment"):
        ultralytics_detector(YOLO("yolov8n-seg.yaml", verbose=False))


def test_images_of_the_wrong_kind_are_refused(taught):
    with pytest.raises(ModelError, match="float tensor"):
        detector_of(taught)(torch.zeros((1, 3, 8, 8), dtype=torch.uint8))


def test_without_the_package_the_licence_is_named(taught, monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(ModelError, match=r"ultralytics \(AGPL-3.0\).*pip install ultralytics"):
        detector_of(taught)


def test_a_broken_picture_stays_a_broken_picture(taught, tmp_path):
    """The package would try to install a decoder for it, in the middle of an audit."""
    ultralytics_detector(taught)
    (tmp_path / "no.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "no.jpg")
