"""The shared kit of real models and images, where it stands beside the checkout."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import audit
from audit.adapters.logodds import from_log_probability

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
KIT = SHARED / "kit"


def kit(*parts: str) -> Path:
    """The path of a kit file; skips where there is no ``../shared`` at all, fails where the kit is broken."""
    if not SHARED.exists():
        pytest.skip("no ../shared beside the checkout: the kit of real models and images is not at hand")
    path = KIT.joinpath(*parts)
    if not path.exists():
        pytest.fail(f"../shared is there but the kit is broken: {path.relative_to(SHARED)} is missing")
    return path


def kit_nets(name: str):
    """A module of the kit's loaders, e.g. ``nets_face``."""
    folder = str(kit("nets"))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return __import__(name)


def retinaface(score_threshold: float = 0.5):
    """RetinaFace MobileNet-0.25 as a white-box detector of faces: any image size, boxes from the net's own decoding,
    log-odds from its class heads (the net itself hands out probabilities, which saturate)."""
    weights = kit("face_det_retinaface_mnet025", "mobilenet0.25_Final.pth")
    net = kit_nets("nets_face").RetinaMnet(str(weights))

    def candidates(x):
        with _heard([head.conv1x1 for head in net.ClassHead]) as heads:
            _, boxes, _ = net(x)
        scores = torch.cat([t.permute(0, 2, 3, 1).reshape(len(x), -1, 2) for t in heads], 1)
        return boxes, (scores[..., 1] - scores[..., 0])[..., None]

    return audit.adapters.callable_detector(
        None,
        ["face"],
        score_threshold,
        candidates=candidates,
        module=net,
        files=[weights],
        scale=255,
        nms_iou=0.4,
        score_floor=0.02,
    )


def ultralight(score_threshold: float = 0.6):
    """Ultra-Light RFB-320 as a white-box detector of faces: images stretched to 320 x 240, log-odds from its heads."""
    weights = kit("face_det_ultralight", "version-RFB-320.pth")
    net = kit_nets("nets_face").UltraLight(str(weights))

    def candidates(x):
        # the last layer of each class head
        last = [h if isinstance(h, torch.nn.Conv2d) else h[-1] for h in net.classification_headers]
        with _heard(last) as heads:
            _, boxes = net(x)
        scores = torch.cat([t.permute(0, 2, 3, 1).reshape(len(x), -1, 2) for t in heads], 1)
        return boxes * boxes.new_tensor((320, 240, 320, 240)), (scores[..., 1] - scores[..., 0])[..., None]

    return audit.adapters.callable_detector(
        None,
        ["face"],
        score_threshold,
        candidates=candidates,
        module=net,
        files=[weights],
        input_size=(240, 320),
        resize="stretch",
        scale=255,
        nms_iou=0.4,
    )


def fastestdet(score_threshold: float = 0.5):
    """FastestDet, COCO's 80 classes, as a white-box detector: images stretched to 352 x 352, score obj^0.6 cls^0.4."""
    weights = kit("coco_det_fastestdet", "weight_AP05_0.253207_280-epoch.pth")
    net = kit_nets("nets_coco").FastestDet(str(weights))
    heads = net.detect_head

    def candidates(x):
        with _heard([heads.obj_layers.conv5x5, heads.cls_layers.conv5x5]) as seen:
            boxes, _ = net(x)
        objectness, classes = (t.permute(0, 2, 3, 1).reshape(len(x), -1, t.shape[1]) for t in seen)
        log_score = 0.6 * F.logsigmoid(objectness) + 0.4 * F.log_softmax(classes, 2)
        return boxes, from_log_probability(log_score)

    return audit.adapters.callable_detector(
        None,
        audit.adapters.COCO80,
        score_threshold,
        candidates=candidates,
        module=net,
        files=[weights],
        input_size=(352, 352),
        resize="stretch",
        scale=255,
        nms_iou=0.5,
        one_label=True,
    )


def yolox_nano(score_threshold: float = 0.3):
    """YOLOX-nano from its ONNX file, as a white-box detector, as examples/onnx_yolox.py has it."""
    return audit.adapters.onnx_detector(
        str(kit("coco_det_yolox_nano", "yolox_nano.onnx")),
        audit.adapters.Yolo(boxes="yolox", strides=(8, 16, 32)),
        classes=audit.adapters.COCO80,
        score_threshold=score_threshold,
        resize="letterbox-corner",
        channels="bgr",
        scale=255,
        one_label=True,
        device="cpu",
    )


@contextlib.contextmanager
def _heard(layers):
    """The outputs of layers while the net runs, in order."""
    found: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, o: found.append(o)) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
