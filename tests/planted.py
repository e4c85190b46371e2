"""Planted subjects: detectors whose weakness or strength is known by construction, and scenes for them.

An object is a red square of 48 px on grey ground. The detector slides a window of 48 px and takes the mean redness
r − (g + b)/2 of it. An object has mean redness 0.6. A patch with α = 0.5 covers a quarter of it: an ordinary one leaves
about 0.45, a cyan one (redness −1) only 0.2. The threshold stands at 0.3, so the plain detector is weak to a trained
patch and to no ordinary one.
"""

from __future__ import annotations

import hashlib

import torch
from torch.nn import functional as F
from torchvision.ops import nms

from audit.contracts import Candidates, Detections
from audit.data import Scene, Scenes

SIDE = 48
STRIDE = 8
SIZE = (128, 160)
ROW = 40
"""Where squares stand in ``scenes(row=ROW)``, the only row that the blind detector looks at."""


def redness(images):
    return images[:, 0] - (images[:, 1] + images[:, 2]) / 2


class Red:
    """The plain detector: weak to a cyan patch, known to itself through its gradients."""

    classes = ("square",)
    score_threshold = 0.5

    def seen(self, images):
        return redness(images)

    def evidence(self, seen):
        return F.avg_pool2d(seen[:, None], SIDE, STRIDE)[:, 0]

    def candidates(self, images):
        mean = self.evidence(self.seen(images))
        n, rows, cols = mean.shape
        y, x = torch.meshgrid(torch.arange(rows) * STRIDE, torch.arange(cols) * STRIDE, indexing="ij")
        boxes = torch.stack([x, y, x + SIDE, y + SIDE], -1).reshape(-1, 4).float()
        return Candidates(boxes.expand(n, -1, 4), 30 * (mean.reshape(n, -1, 1) - 0.3))

    def __call__(self, images):
        out = []
        with torch.no_grad():
            found = self.candidates(images)
        for boxes, logits in zip(found.boxes, found.logits[..., 0], strict=True):
            scores = logits.sigmoid()
            some = scores > 0.01
            keep = nms(boxes[some], scores[some], 0.3)
            boxes_, scores_ = boxes[some][keep], scores[some][keep]
            out.append(Detections(boxes_, scores_, torch.zeros(len(keep), dtype=torch.int64)))
        return out


class Robust(Red):
    """Redness under zero counts as zero: no patch of a quarter can hide an object."""

    def seen(self, images):
        return redness(images).clamp(0, 0.6)


class Blind(Red):
    """Looks at the lower half of squares in one row only: a patch at the top changes nothing in what it says."""

    def candidates(self, images):
        lower = redness(images)[:, None, ROW + SIDE // 2 : ROW + SIDE]
        mean = F.avg_pool2d(lower, (SIDE // 2, SIDE), STRIDE).reshape(len(images), -1, 1)
        x = STRIDE * torch.arange(mean.shape[1]).float()
        boxes = torch.stack([x, torch.full_like(x, ROW), x + SIDE, torch.full_like(x, ROW + SIDE)], -1)
        return Candidates(boxes.expand(len(images), -1, 4), 30 * (mean - 0.3))


class Quantised(Red):
    """As weak as the plain one, but its input is rounded: gradients are zero everywhere."""

    def candidates(self, images):
        return super().candidates((images * 8).round() / 8)


class NoisyGradient(Red):
    """As weak as the plain one, but what flows back is noise."""

    def candidates(self, images):
        return super().candidates(_Scrambled.apply(images))


class _Scrambled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.randn_like(grad) * 1e-3


class Random(Red):
    """Its answers change from call to call."""

    def candidates(self, images):
        found = super().candidates(images)
        return Candidates(found.boxes, found.logits + torch.randn_like(found.logits) * 3)


class QueryOnly:
    """The plain detector behind an interface: boxes and scores, no candidates."""

    classes = Red.classes
    score_threshold = Red.score_threshold

    def __call__(self, images):
        return Red()(images)


def scenes(count=24, seed=0, squares=2, row=None):
    """Scenes with red squares on the detector's grid, each image a group of its own."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for i in range(count):
        image = 0.4 + 0.2 * torch.rand(1, *SIZE, generator=g).repeat(3, 1, 1)
        boxes = []
        for k in range(squares):
            x = STRIDE * int(torch.randint(0, 2, (1,), generator=g)) + 104 * k  # 48 px apart: nothing between them
            y = STRIDE * int(torch.randint(0, 10, (1,), generator=g)) if row is None else row
            image[:, y : y + SIDE, x : x + SIDE] = torch.tensor([0.8, 0.2, 0.2])[:, None, None]
            boxes.append([x, y, x + SIDE, y + SIDE])
        pixels = (image * 255).round().to(torch.uint8)
        out.append(
            Scene(
                id=f"square-{seed}-{i:03d}",
                group=f"square-{seed}-{i:03d}",
                size=SIZE,
                boxes=torch.tensor(boxes, dtype=torch.float32),
                labels=torch.zeros(len(boxes), dtype=torch.int64),
                ignore=torch.zeros(len(boxes), dtype=torch.bool),
                digest=hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
                load=lambda pixels=pixels: pixels,
            )
        )
    return Scenes(tuple(out), ("square",), "squares", "built by the tests", labelled_by="construction")


def model_file(kind: str, extra: str = "") -> str:
    """The text of a model file for one of the detectors above."""
    row = "row=40" if kind == "Blind" else ""
    return (
        f"from tests.planted import {kind}, scenes\n\n"
        f"def model(device):\n    return {kind}()\n\n"
        f"def data(root):\n    return scenes({row})\n{extra}"
    )
