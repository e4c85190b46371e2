"""OpenCV as the runtime: cv2.dnn against onnxruntime on real networks, FaceDetectorYN against its formulas."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from skimage import data
from torchvision.ops import box_iou

from audit.adapters import CenterHeatmap, opencv_detector, opencv_face_detector
from audit.cli import main
from audit.contracts import WhiteBoxDetector
from audit.errors import ModelError
from tests import mother
from tests.test_adapters_examples import CPU, load, picture
from tests.test_adapters_real import MADE, PATHS, photographs

ROOT = Path(__file__).resolve().parents[1]
STRIDES = (8, 16, 32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def agree(ours, theirs, threshold):
    for mine, other in zip(ours, theirs, strict=True):
        sure = other.scores >= threshold
        assert len(mine.scores) == len(other.scores)
        torch.testing.assert_close(mine.scores, other.scores, atol=1e-3, rtol=0)
        torch.testing.assert_close(mine.boxes[sure], other.boxes[sure], atol=0.1, rtol=0)
        assert torch.equal(mine.labels[sure], other.labels[sure])


def test_centerface_says_what_onnxruntime_says():
    ours, theirs = load("opencv_dnn").model(CPU), load("onnx_blackbox").model(CPU)
    assert not isinstance(ours, WhiteBoxDetector)
    assert [f.name for f in ours.files] == ["centerface.onnx"]
    for height, width in ((300, 400), (256, 160)):
        x = photographs(height, width)
        found = ours(x)
        assert sum(int((d.scores > 0.5).sum()) for d in found) >= 1
        agree(found, theirs(x), 0.3)


@pytest.mark.kit
@pytest.mark.parametrize("name", ["yolox", "fastestdet", "ultralight"])
def test_the_kits_networks_say_what_onnxruntime_says(name, monkeypatch):
    theirs = MADE[name](white_box=False)

    def same_arguments(path, decoder, classes, score_threshold, **options):
        options.pop("white_box")
        return opencv_detector(path, classes, score_threshold, decoder=decoder, **options)

    monkeypatch.setattr("tests.test_adapters_real.onnx_detector", same_arguments)
    ours = MADE[name](white_box=False)
    assert [f.name for f in ours.files] == [Path(PATHS[name][1]).name]
    assert ours.preprocess == theirs.preprocess
    x = photographs(300, 400)
    found = ours(x)
    assert sum(len(d.scores) for d in found) >= 1
    agree(found, theirs(x), 0.3)
    best = found[0].scores.argmax()
    assert ours.classes[found[0].labels[best]] in ("face", "person")


def grid_net(path, batch=1, *, last="", op="AveragePool"):
    """A network that hands on 8 x 8 means of channel 0 as heat, and constants of 3 cells' size; batch as fixed."""
    nodes = [
        helper.make_node(op, ["x"], ["mean"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["mean", "pick", "bias"], ["logit"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["mean", "zero", "size"], ["sizes"], kernel_shape=[1, 1]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["logit"], ["heat"]))
    pick = np.zeros((1, 3, 1, 1), np.float32)
    pick[0, 0] = 20
    weights = {"pick": pick, "bias": [-10.0], "zero": np.zeros((2, 3, 1, 1)), "size": [math.log(3.0)] * 2}
    outputs = [("heat" if last else "logit", 1), ("sizes", 2)]
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 32, 48])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, c, 4, 6]) for n, c in outputs],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


HEAT = CenterHeatmap(offsets=None, stride=8)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("last", ["", "Sigmoid"])
def test_a_network_built_by_hand_says_what_its_formula_says(tmp_path, batch, last):
    path = grid_net(tmp_path / "grid.onnx", batch, last=last)
    detector = opencv_detector(path, ["bright"], 0.5, decoder=HEAT, resize="stretch", nms_iou=1.0)
    assert detector.preprocess.input_size == (32, 48)
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    x[1, 0, 8:16, 16:24] = 1
    for image, found in zip(x, detector(x), strict=True):
        means = image[0].reshape(4, 8, 6, 8).mean((1, 3))
        expected = torch.sigmoid(20 * means - 10).flatten()
        torch.testing.assert_close(found.scores, expected[expected > 0.05].sort(descending=True).values)
    # the white cell: row 1, column 2, three cells wide about its middle, cut off at the edge
    torch.testing.assert_close(found.boxes[0], torch.tensor([8.0, 0.0, 32.0, 24.0]))
    assert found.scores[0] > 0.999


def test_threads_are_torchs(tmp_path):
    detector = opencv_detector(grid_net(tmp_path / "grid.onnx"), ["bright"], 0.5, decoder=HEAT, resize="stretch")
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        detector(torch.rand(1, 3, 32, 48))
        assert cv2.getNumThreads() == torch.get_num_threads() == 1
    finally:
        cv2.setNumThreads(before)


def refused(make, *parts):
    with pytest.raises(ModelError) as told:
        make()
    assert "\n" not in str(told.value)
    for part in parts:
        assert part in str(told.value)


def test_what_is_wrong_is_said_in_one_sentence(tmp_path, capfd):
    good = {"classes": ["bright"], "score_threshold": 0.5, "decoder": HEAT, "resize": "stretch"}
    refused(lambda: opencv_detector(tmp_path / "none.onnx", **good), "none.onnx", "no such file")
    (tmp_path / "text.onnx").write_text("no network")
    refused(lambda: opencv_detector(tmp_path / "text.onnx", **good), "text.onnx", "valid ONNX model")
    refused(lambda: opencv_face_detector(tmp_path / "text.onnx", score_threshold=0.5), "text.onnx", "YuNet".lower())
    path = grid_net(tmp_path / "grid.onnx")
    refused(lambda: opencv_detector(path, **(good | {"classes": ["a", "b"]})), "logits", "(2, 24, 2)")
    refused(lambda: opencv_detector(path, **(good | {"decoder": 3})), "decoder", "int")
    refused(lambda: opencv_detector(path, **(good | {"score_threshold": 50})), "score_threshold", "50")
    refused(lambda: opencv_detector(path, **(good | {"resize": None})), "resize", "32x48")
    refused(lambda: opencv_detector(path, **good, scal=255), "scal", "spelling")
    unknown = grid_net(tmp_path / "unknown.onnx", op="NoSuchPool")
    refused(lambda: opencv_detector(unknown, **good), "unknown.onnx", "OpenCV")
    refused(lambda: opencv_face_detector(path, score_threshold=0.5), "grid.onnx", "cls_8")
    refused(lambda: opencv_face_detector(path, score_threshold=0.5, top_k=0), "top_k", "0")
    refused(lambda: opencv_face_detector(path, score_threshold=2), "score_threshold", "2")
    assert capfd.readouterr().err == "", "OpenCV's own log stays out of the user's sight"


def yunet(path, *, nan=False):
    """YuNet's outputs from a net whose answer is known: a cell's cls is sigmoid((mean blue − 127.5) / 20), its obj 0.81
    (1.21 at stride 32, to be cut to 1); its box is 3 cells wide and 2 high, a quarter of a cell right of its corner and
    half below it."""
    nodes, outputs, weights = [], [], {}
    blue = np.zeros((1, 3, 1, 1), np.float32)
    blue[0, 0] = 1 / 20
    weights |= {"blue": blue, "minus": np.array([-127.5 / 20], np.float32)}
    heads = {"obj": [0.81], "bbox": [0.25, 0.5, math.log(3), math.log(2)], "kps": [0.5] * 10}
    for name, values in heads.items():
        weights[f"{name}_w"] = np.zeros((len(values), 3, 1, 1), np.float32)
    for s in STRIDES:
        nodes.append(helper.make_node("AveragePool", ["input"], [f"mean_{s}"], kernel_shape=[s, s], strides=[s, s]))
        nodes.append(helper.make_node("Conv", [f"mean_{s}", "blue", "minus"], [f"logit_{s}"], kernel_shape=[1, 1]))
        nodes.append(helper.make_node("Sigmoid", [f"logit_{s}"], [f"cls_map_{s}"]))
        columns = {"cls": 1, **{k: len(v) for k, v in heads.items()}}
        for name, values in heads.items():
            own = [1.21] if (name, s) == ("obj", 32) else [math.nan] * 4 if nan and name == "bbox" else values
            weights[f"{name}_b_{s}"] = np.array(own, np.float32)
            ends = [f"mean_{s}", f"{name}_w", f"{name}_b_{s}"], [f"{name}_map_{s}"]
            nodes.append(helper.make_node("Conv", *ends, kernel_shape=[1, 1]))
        for name, k in columns.items():
            weights[f"{name}_shape"] = np.array([1, -1, k], np.int64)
            nodes.append(helper.make_node("Transpose", [f"{name}_map_{s}"], [f"{name}_last_{s}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"{name}_last_{s}", f"{name}_shape"], [f"{name}_{s}"]))
            outputs.append(helper.make_tensor_value_info(f"{name}_{s}", TensorProto.FLOAT, [1, f"A{s}", k]))
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "H", "W"])],
        outputs,
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def expected_faces(image, floor):
    """Boxes and scores before suppression, from the formulas; ``image`` (3, H, W) RGB in [0, 1], padded here."""
    blue = np.round(image[2].numpy().astype(np.float64) * 255)
    height, width = blue.shape
    blue = np.pad(blue, ((0, -height % 32), (0, -width % 32)))
    boxes, scores = [], []
    for s in STRIDES:
        rows, columns = blue.shape[0] // s, blue.shape[1] // s
        means = blue.reshape(rows, s, columns, s).mean((1, 3))
        score = np.sqrt(1 / (1 + np.exp(-(means - 127.5) / 20)) * (1.0 if s == 32 else 0.81))
        for r, c in zip(*np.nonzero(score >= floor), strict=True):
            x, y = (c + 0.25) * s, (r + 0.5) * s
            box = np.array([x - 1.5 * s, y - s, x + 1.5 * s, y + s])
            boxes.append(np.minimum(np.maximum(box, 0), [width, height] * 2))
            scores.append(score[r, c])
    order = np.argsort(-np.array(scores), kind="stable")
    return np.array(boxes)[order], np.array(scores)[order]


@pytest.mark.parametrize("size", [(64, 96), (75, 90)])
def test_face_detector_yn_says_what_its_formulas_say(tmp_path, size):
    detector = opencv_face_detector(yunet(tmp_path / "yunet.onnx"), score_threshold=0.8, score_floor=0.3, nms_iou=1.0)
    assert detector.classes == ("face",)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3)) * 0.3
    x[0, 2, 32:64, 32:64] = 1
    x[1, 2, 8:16, 40:48] = 0.9
    x = (x * 255).round() / 255
    for image, found in zip(x, detector(x), strict=True):
        boxes, scores = expected_faces(image, 0.3)
        assert len(found.scores) == len(scores) >= 1
        np.testing.assert_allclose(np.sort(found.scores)[::-1], scores, atol=1e-4)
        rows = {tuple(np.round(b, 2)) for b in boxes}
        assert {tuple(np.round(b, 2)) for b in found.boxes.double().numpy()} == rows
        assert found.labels.tolist() == [0] * len(scores)


def test_face_detector_yn_suppresses_and_counts(tmp_path):
    path = yunet(tmp_path / "yunet.onnx")
    x = torch.zeros(1, 3, 192, 192)
    x[0, 2, 64:128, 64:128] = 1
    found = {iou: opencv_face_detector(path, score_threshold=0.5, nms_iou=iou)(x)[0] for iou in (0.3, 1.0)}
    assert 1 <= len(found[0.3].boxes) < len(found[1.0].boxes)
    overlaps = box_iou(found[0.3].boxes, found[0.3].boxes).fill_diagonal_(0)
    assert overlaps.max() <= 0.35, "OpenCV suppresses on whole pixels"
    assert box_iou(found[1.0].boxes, found[1.0].boxes).fill_diagonal_(0).max() > 0.35
    assert opencv_face_detector(path, score_threshold=0.5)(torch.zeros(1, 3, 64, 96))[0].boxes.shape == (0, 4)


def test_face_detector_yn_that_says_nan_is_refused(tmp_path):
    path = yunet(tmp_path / "yunet.onnx", nan=True)
    refused(lambda: opencv_face_detector(path, score_threshold=0.5), "yunet.onnx", "finite", "nan")


def test_doctor_on_the_examples(tmp_path, capsys, monkeypatch):
    assert main(["doctor", str(ROOT / "examples" / "opencv_dnn.py"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "queries only" in out
    assert "centerface.onnx  sha256" in out
    assert "!!" not in out
    monkeypatch.chdir(tmp_path)
    yunet(tmp_path / "face_detection_yunet_2023mar.onnx")
    assert main(["doctor", str(ROOT / "examples" / "opencv_yunet.py"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "queries only" in out
    assert "face_detection_yunet_2023mar.onnx  sha256" in out
    assert "!!" not in out


@pytest.mark.slow
def test_a_control_on_real_faces(tmp_path):
    words = ["-m", "pytest", str(ROOT / "suites" / "test_detection.py"), "-p", "no:cacheprovider"]
    words += ["--audit-model", str(ROOT / "examples" / "opencv_dnn.py"), "--audit-control", "DET-CONTROL/noise"]
    words += [
        "--audit-report",
        str(tmp_path / "out"),
        "--audit-cache",
        str(tmp_path / "cache"),
        "--audit-device",
        "cpu",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = mother.run(words, cwd=tmp_path, env=env)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (row,) = [c for c in report["controls"] if c["id"] == "DET-CONTROL/noise"]
    assert report["subject"]["access"] == {"detector": "query"}, done.stdout + done.stderr
    assert row["verdict"] in ("pass", "fail"), row["reason"] + done.stdout + done.stderr
    # onnxruntime's adapter on the same file and images: 17 of 43
    assert row["measure"]["n"] == 43
    assert abs(row["measure"]["k"] - 17) <= 1
    clean = next(p for p in report["preconditions"] if p["name"] == "detector: same images, same detections")
    assert clean["ok"]


def test_images_are_told_to_be_images(tmp_path):
    detector = opencv_face_detector(yunet(tmp_path / "yunet.onnx"), score_threshold=0.5)
    refused(lambda: detector(torch.zeros(3, 64, 64)), "images", "(N, 3, H, W)")
    (found,) = load("opencv_dnn").model(CPU)(picture(data.astronaut()[:300, 100:400]))
    assert (found.scores > 0.5).sum() == 1
