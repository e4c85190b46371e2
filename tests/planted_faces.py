"""Planted recognizers: weak or strong by construction, and a world of faces for them.

A face is a grey 112 × 112 picture of 7 × 7 cells of 16 px; each cell's colour is off grey by ±0.03 per channel, as the
person has it, and by up to 0.006 more, as the photograph has it. An embedding is the 147 cell means less grey, so that
photographs of one person have a cosine near 1 and those of two people one near 0, with a deviation of 0.08. A patch
of a tenth of the face covers some 15 of 147 numbers: with colours far from grey it owns the direction, and reaches a
cosine of √(15/147) = 0.32 with anybody. The threshold stands at 0.25.
"""

from __future__ import annotations

import hashlib
from functools import partial

import torch
from torch.nn import functional as F

from audit.alignment import ARCFACE
from audit.data.faces import Face, FacePairs

SIDE, CELL, STEP = 112, 16, 0.03


def read(person: int, photo: int):
    """uint8 (3, 112, 112)."""
    mine = torch.Generator().manual_seed(1000 + person)
    look = torch.Generator().manual_seed(10_000 * (person + 1) + photo)
    cells = 0.5 + STEP * (torch.randint(0, 2, (3, 7, 7), generator=mine) * 2 - 1)
    cells = cells + 0.006 * (torch.rand(3, 7, 7, generator=look) * 2 - 1)
    return (cells.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2) * 255).round().to(torch.uint8)


def pairs(people: int = 40) -> FacePairs:
    """Two photographs each; everybody with themselves, and with the next three people."""
    faces = [
        Face(
            f"{p:02d}-{k}",
            f"person {p:02d}",
            partial(read, p, k),
            hashlib.sha256(f"{p} {k}".encode()).hexdigest(),
            ARCFACE.clone(),
            {"hair": "dark" if p % 2 else "fair"},
        )
        for p in range(people)
        for k in range(2)
    ]
    rows = [(2 * p, 2 * p + 1, True) for p in range(people)]
    rows += [(2 * p, 2 * ((p + d) % people) + 1, False) for p in range(people) for d in (1, 2, 3)]
    index = torch.tensor([r[:2] for r in rows])
    return FacePairs(tuple(faces), index, torch.tensor([r[2] for r in rows]), (SIDE, SIDE), "planted", "made here")


class Weak:
    """The plain recognizer: weak to a patch of a tenth, and to no ordinary one."""

    face_size = (SIDE, SIDE)
    threshold = 0.25

    def seen(self, faces):
        return faces

    def __call__(self, faces):
        return F.avg_pool2d(self.seen(faces), CELL).flatten(1) - 0.5


class Robust(Weak):
    """No pixel counts for more than twice a person's own: a tenth of the face is at most a fifth of the embedding.

    Its gradients are small far from grey, but never zero.
    """

    threshold = 0.4

    def seen(self, faces):
        return 0.5 + STEP * F.softsign((faces - 0.5) / STEP)


class Distance(Weak):
    """As weak as the plain one, by distance; two people are about 0.86 apart."""

    metric = "euclidean"
    threshold = 0.4

    def __call__(self, faces):
        return F.normalize(super().__call__(faces), dim=1) * 0.6


class Quantised(Weak):
    """As weak as the plain one, but its input is rounded: gradients are zero everywhere."""

    def seen(self, faces):
        return (faces * 64).round() / 64


class Random(Weak):
    """Its embeddings change from call to call."""

    def __call__(self, faces):
        out = super().__call__(faces)
        return out + torch.randn_like(out)


class Closed:
    """The plain recognizer behind an interface that gives similarities of pairs and nothing else, and is strict.

    Somebody else's tenth takes a cosine of 0.98 to about 0.88, noise and grey no further than to 0.93.
    """

    face_size = Weak.face_size
    threshold = 0.91

    def similarity(self, a, b):
        with torch.no_grad():
            return F.cosine_similarity(Weak()(a), Weak()(b))


class Alive:
    """Live where the middle of the face is about as bright as a face is."""

    threshold = 0.0

    def __call__(self, faces):
        return 0.1 - (faces[:, :, 28:84, 28:84].mean((1, 2, 3)) - 0.5).abs()


def model_file(kind: str, *, liveness: bool = False, surrogate: str = "") -> str:
    """A model file with one of them, its data, and what else is asked for."""
    made = f"{{'recognizer': faces.{kind}(), 'liveness': faces.Alive()}}" if liveness else f"faces.{kind}()"
    text = f"from tests import planted_faces as faces\n\ndef model(device):\n    return {made}\n"
    text += "\ndef data(root):\n    return faces.pairs()\n"
    return text + (f"\ndef surrogates(device):\n    return {{'other': faces.{surrogate}()}}\n" if surrogate else "")
