"""Pairs, recognizers and rules for the tests of attacks on recognizers."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from audit.alignment import ARCFACE
from audit.budget import Budget
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.examples import Attacked
from audit.execution import Execution
from tests.kit import lfw_pairs, mobilefacenet


class Pooled:
    """Embeds a face as random combinations of its 7 x 7 mean colours: quick, differentiable, fooled by any square."""

    face_size = (112, 112)
    threshold = 0.5

    def __init__(self, threshold=0.5):
        self.threshold = threshold
        self.weights = torch.randn(147, 32, generator=torch.Generator().manual_seed(0))

    def __call__(self, faces):
        return (F.avg_pool2d(faces, 16).flatten(1) - 0.5) @ self.weights


def effort(queries=40, steps=10, batch=16):
    return Budget("test", steps, batch, queries, 50, 100)


def craft(probe, models, attacked, seed=1, **budget):
    models = models if isinstance(models, list) else [models]
    return probe.craft(models, attacked, execution=Execution(), budget=effort(**budget), seed=seed)


def portraits(n, seed=0, size=(120, 130), who="p"):
    """Random smooth pictures with jittered landmarks: faces for models that know no faces."""
    stream = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 3, 6, 6, generator=stream)
    images = (F.interpolate(low, size=size, mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)
    landmarks = ARCFACE + 6 + 4 * torch.rand(n, 5, 2, generator=stream)
    names = tuple(f"{who}{seed}-{i}" for i in range(n))
    return Portraits(images, landmarks, names, names)


def made_up(goal, n, seed=0):
    sources = portraits(n, seed)
    targets = portraits(n, seed + 100) if goal == "impersonate" else sources
    return Attacked(goal, sources, targets, portraits(8, seed + 200))


@cache
def lfw(goal, n, background=24):
    """Pairs of the kit's LFW fold, and portraits of people of whom none is in them."""
    data = lfw_pairs(40)
    rows = torch.nonzero(data.same == (goal == "dodge"))[:n, 0]
    pairs = data.pairs[rows]
    used = {data.faces[i].identity for i in pairs.flatten().tolist()}
    others = {f.identity: i for i, f in enumerate(data.faces) if f.identity not in used}
    return Attacked(
        goal,
        data.portraits(pairs[:, 0]),
        data.portraits(pairs[:, 1]),
        data.portraits(sorted(others.values())[:background]),
    )


@cache
def real():
    return Comparison("MobileFaceNet", mobilefacenet(), True)


def margins(model, examples, attacked):
    """(N,) asked anew: how far beyond the threshold, in the attacker's sense."""
    sources, targets = attacked.sources, attacked.targets
    score = model.ask(examples.images, sources.landmarks, targets.images, targets.landmarks)
    return (score - model.cut) * (1 if attacked.goal == "impersonate" else -1)


def changed(examples, attacked):
    """(N, H, W) bool."""
    return (examples.images != attacked.sources.images).any(1)


def regions(mask):
    return ndimage.label(mask.numpy(), np.ones((3, 3)))[1]
