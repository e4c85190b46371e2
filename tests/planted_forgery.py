"""Planted forgery detectors, robust or weak by construction, and a folder of pictures for them.

A real picture is a smooth random surface of 64 × 64 around grey. Method ``grid`` adds the finest chequerboard, ±10
levels, as a careless up-sampling does; method ``waves`` adds waves of 16 px, ±10 levels; method ``dark`` makes it 100
levels darker. ``Fine`` looks for the chequerboard and nothing else: blind to waves and dark, and any blur hides what
it sees. ``Level`` looks at the mean: only ``dark`` is fake to it, by a margin that 4 levels cannot bridge and blur does
not change. ``Masked`` is Fine whose gradient is that of noise.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

SIDE = 64
METHODS = ("grid", "waves", "dark")


def surface(number: int) -> np.ndarray:
    """float64 (64, 64, 3), around grey."""
    rng = np.random.default_rng(number)
    coarse = rng.uniform(-40, 40, (5, 5, 3)).astype(np.float32)
    return 150 + cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.float64)


def fake(real: np.ndarray, method: str) -> np.ndarray:
    """The picture after the method."""
    y, x = np.mgrid[:SIDE, :SIDE]
    if method == "grid":
        return real + 10 * (1 - 2 * ((x + y) % 2))[..., None]
    if method == "waves":
        return real + 10 * np.sin(2 * np.pi * x / 16)[..., None]
    return real - 100


def folder(place: Path, pictures: int = 12, methods=METHODS, *, first: int = 0, frames: int = 1) -> Path:
    """``real/`` and ``fake/<method>/`` with PNG files, or folders of frames; what has one number is one source."""
    for i in range(first, first + pictures):
        for k in range(frames):
            real = surface(1000 * k + i)
            for name, picture in {"real": real, **{f"fake/{m}": fake(real, m) for m in methods}}.items():
                write(place / name / (f"{i:03d}.png" if frames == 1 else f"{i:03d}/{k:02d}.png"), picture)
    return place


def write(path: Path, picture: np.ndarray) -> None:
    """Levels (64, 64, 3) as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture.round().clip(0, 255).astype(np.uint8)[..., ::-1])


class Fine:
    """Fake where the finest chequerboard is there: how strongly the picture goes along with it, over 5 levels."""

    task, face_size, threshold = "forgery", (SIDE, SIDE), 0.0
    trained_on = ("grid",)

    def seen(self, faces):
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        board = (1 - 2 * ((x + y) % 2)).to(faces)
        return (faces * board).mean((1, 2, 3)) * 255

    def __call__(self, faces):
        return 2 * (self.seen(faces) - 5)

    def embed(self, faces):
        flat = faces.mean(1)
        along = flat.mean(1) - flat.mean((1, 2))[:, None]
        return torch.stack(
            [
                self.seen(faces),
                255 * along[:, 4::16].mean(1),
                (flat.mean((1, 2)) * 255 - 150) / 10,
                flat.new_ones(len(flat)),
            ],
            1,
        )


class Level(Fine):
    """Fake where the picture is dark."""

    trained_on = ("dark",)

    def __call__(self, faces):
        return (100 - faces.mean((1, 2, 3)) * 255) / 5


class Masked(Fine):
    """Fine without a useful gradient: what comes back is noise of the picture's own size."""

    def __call__(self, faces):
        plain = super().__call__(faces.detach())
        wave = torch.sin(torch.arange(3 * SIDE * SIDE) * 1.7).view(1, 3, SIDE, SIDE).to(faces)
        straight = ((faces - faces.detach()) * wave).sum((1, 2, 3))
        return plain + straight


class Clips(Fine):
    """Fine on clips of two frames: the mean of both."""

    clip_frames = 2

    def __call__(self, faces):
        return super().__call__(faces.flatten(0, 1)).unflatten(0, faces.shape[:2]).mean(1)

    def embed(self, faces):
        return super().embed(faces.flatten(0, 1)).unflatten(0, faces.shape[:2]).mean(1)


class Live:
    """A liveness detector: live where the picture is not darker than grey, as ``fake(…, "dark")`` is."""

    task, face_size, threshold, trained_on = "liveness", (SIDE, SIDE), 0.5, ("lab",)

    def __call__(self, faces):
        return (faces.mean((1, 2, 3)) * 255 / 200).clamp(0, 1)


class Classes:
    """A classifier: which third of the picture is the brightest."""

    input_size = (SIDE, SIDE)

    def __call__(self, images):
        thirds = images.mean(1)[:, :63].unflatten(1, (3, 21)).mean((2, 3))
        return 40 * thirds


KINDS = {"Fine": Fine, "Level": Level, "Masked": Masked, "Clips": Clips, "Live": Live, "Classes": Classes}


def model_file(kind: str, surrogate: str = "") -> str:
    """Source of a model file."""
    text = f"from tests.planted_forgery import KINDS\n\n\ndef model(device):\n    return KINDS['{kind}']()\n"
    if surrogate:
        text += f"\n\ndef surrogates(device):\n    return {{'{surrogate}': KINDS['{surrogate}']()}}\n"
    return text
