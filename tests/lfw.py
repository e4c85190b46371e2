"""LFW photographs of the kit as scenes, for tests that want real faces in numbers."""

from __future__ import annotations

from dataclasses import replace

import torch

from audit.data import Scenes, group_by, read_folder
from tests.kit import kit

FACE = (78.4, 64.9, 172.8, 189.8)
"""The face in a deep-funneled LFW photograph of 250×250 px: the funnel brings it to one place. It is the median of
CenterFace's boxes on 150 photographs; on each of them it finds one with an IoU of at least 0.54 with this."""


def lfw_scenes(count: int, seed: int = 0) -> Scenes:
    """``count`` photographs chosen by ``seed``, one box each, grouped by person."""
    found = group_by(read_folder(kit("lfw_fold1", "images")).sample(count, seed), "folder")
    box, zero = torch.tensor([FACE]), torch.zeros(1, dtype=torch.int64)
    scenes = [replace(s, boxes=box, labels=zero, ignore=zero.bool()) for s in found]
    return replace(found, scenes=tuple(scenes), classes=("face",), name="LFW", labelled_by="construction")
