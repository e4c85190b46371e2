"""Planted detectors for goals other than hiding, and candidates at random for comparisons with plain loops."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from audit.contracts import Candidates, Detections
from probes.geometry import Placement
from tests.planted import SIDE, STRIDE, Red, redness

PLACE = Placement("top", 0.5)


def greenness(images):
    """Of each window, the mean of max(0, g − (r + b)/2): 0 on an object, 0.25 with a green patch of a quarter."""
    green = (images[:, 1] - (images[:, 0] + images[:, 2]) / 2).clamp(min=0)
    return F.avg_pool2d(green[:, None], SIDE, STRIDE)[:, 0].flatten(1)


class Colours(Red):
    """Three classes: red squares, plants (a quarter of green is plenty), and sky, which it hardly ever sees."""

    classes = ("square", "potted plant", "sky")

    def candidates(self, images):
        found = super().candidates(images)
        plant = 30 * (greenness(images)[..., None] - 0.1)
        sky = 30 * (F.avg_pool2d(-redness(images)[:, None], SIDE, STRIDE).flatten(1)[..., None] - 0.6)
        return Candidates(found.boxes, torch.cat([found.logits, plant, sky], -1))

    def __call__(self, images):
        """One label per window, doubles suppressed whatever their class."""
        from torchvision.ops import nms

        out = []
        with torch.no_grad():
            found = self.candidates(images)
        for boxes, logits in zip(found.boxes, found.logits, strict=True):
            scores, labels = logits.sigmoid().max(1)
            some = (scores > 0.01).nonzero()[:, 0]
            keep = some[nms(boxes[some], scores[some], 0.3)]
            out.append(Detections(boxes[keep], scores[keep], labels[keep]))
        return out


class Sliding(Red):
    """Its boxes slide to the right by as much as 25 px where a window is a quarter green."""

    def candidates(self, images):
        found = super().candidates(images)
        slide = 100 * greenness(images)[..., None] * torch.tensor([1.0, 0, 1, 0])
        return Candidates(found.boxes + slide, found.logits)


def iou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = w * h
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def touches(a, b):
    """Whether candidate ``a`` belongs to region ``b``."""
    x, y = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2
    return iou(a, b) > 0.1 or (b[0] < x < b[2] and b[1] < y < b[3])


def random_batch(seed=0, classes=4):
    """Candidates, boxes and labels (0 or 2) of three images with 2, 0 and 3 objects."""
    g = torch.Generator().manual_seed(seed)
    lists = []
    for k in (2, 0, 3):
        corner = torch.rand(k, 2, generator=g) * 60
        lists.append(torch.cat([corner, corner + 15 + 25 * torch.rand(k, 2, generator=g)], 1))
    labels = [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.long), torch.tensor([2, 2, 0])]
    boxes = []
    for b in lists:
        around = torch.cat([b, PLACE.squares(b)] * 8) if len(b) else torch.zeros(0, 4)
        rest = torch.rand(60 - len(around), 2, generator=g) * 80
        every = torch.cat([around, torch.cat([rest, rest + 20], 1)])
        boxes.append(every + torch.randn(every.shape, generator=g) * 2)
    return Candidates(torch.stack(boxes), torch.randn(3, 60, classes, generator=g) * 3), lists, labels
