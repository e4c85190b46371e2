"""Planted model files for the loader's tests: a sound toy detector, and ways to spoil it."""

from __future__ import annotations

import textwrap
from pathlib import Path

SOUND = """
import torch
from torch import nn
from audit.contracts import Candidates, Detections

CELL = 16


class Toy:
    '''For every cell of 16 x 16 px: how likely it is a face. Linear in the image.'''

    classes = ["face"]
    score_threshold = 0.5

    def __init__(self):
        self.net = nn.Conv2d(3, 1, CELL, CELL)
        values = torch.linspace(-1, 1, self.net.weight.numel()).reshape(self.net.weight.shape)
        with torch.no_grad():
            self.net.weight.copy_(values / 20)
            self.net.bias.zero_()

    def candidates(self, images):
        grid = self.net(images - 0.5)
        n, _, rows, columns = grid.shape
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        corner = CELL * torch.stack([x, y], -1).reshape(1, -1, 2).float()
        boxes = torch.cat([corner, corner + CELL], -1).expand(n, -1, -1)
        return Candidates(boxes, grid.reshape(n, -1, 1))

    def __call__(self, images):
        found = self.candidates(images)
        out = []
        for boxes, logits in zip(found.boxes, found.logits):
            scores = logits[:, 0].sigmoid()
            keep = scores > 0.5
            out.append(Detections(boxes[keep], scores[keep], torch.zeros(int(keep.sum()), dtype=torch.int64)))
        return out


class Dark(Toy):
    '''A black box: the same without candidates.'''

    def __getattribute__(self, name):
        if name == "candidates":
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def __call__(self, images):
        self = vars_of(self)
        return Toy.__call__(self, images)


def vars_of(dark):
    bright = Toy.__new__(Toy)
    bright.__dict__.update(dark.__dict__)
    return bright


def boxes_of(count=1, box=(10.0, 10.0, 40.0, 50.0)):
    return torch.tensor([box] * count).reshape(-1, 4)


def model(device):
    return Toy()
"""


def write(folder: Path, source: str, name: str = "mymodel.py") -> Path:
    """A model file of exactly that source."""
    path = folder / name
    path.write_text(textwrap.dedent(source))
    return path


def spoiled(folder: Path, source: str, name: str = "mymodel.py") -> Path:
    """The sound model file with more at its end; the last `model` counts."""
    return write(folder, SOUND + "\n\n" + textwrap.dedent(source), name)


def detections(folder: Path, expression: str) -> Path:
    """A black-box detector whose call returns that expression of `images` and `n`, its number of images."""
    return spoiled(
        folder,
        f"""
        class Bad:
            classes = ["face"]
            score_threshold = 0.5

            def __call__(self, images):
                n = len(images)
                one = torch.ones(1)
                zero = torch.zeros(1, dtype=torch.int64)
                return {expression}


        def model(device):
            return Bad()
        """,
    )


def candidates(folder: Path, expression: str) -> Path:
    """A detector whose candidates are that expression of the sound ones, `c`, and of `images`."""
    return spoiled(
        folder,
        f"""
        class Bad(Toy):
            def candidates(self, images):
                c = super().candidates(images)
                return {expression}

            def __call__(self, images):
                return [Detections(boxes_of(0), torch.zeros(0), torch.zeros(0, dtype=torch.int64)) for _ in images]


        def model(device):
            return Bad()
        """,
    )
