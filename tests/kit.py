"""The shared kit of real models and images, where it stands beside the checkout."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import torch

import audit

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
