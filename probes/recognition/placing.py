"""One face laid onto another, the aligned frame in a photograph, and random numbers that belong to a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import ARCFACE, CHIP, similarity_transform


def onto(images: Tensor, landmarks: Tensor, onto_landmarks: Tensor, size: tuple[int, int]) -> Tensor:
    """Faces laid onto other faces: both are aligned to the usual 112 × 112, pixel by pixel of the second photograph.

    Args:
        images: (N, 3, H, W) in [0, 1], the faces to lay on, with landmarks (N, 5, 2) px.
        onto_landmarks: (N, 5, 2) px in photographs of ``size``, (height, width).

    Returns:
        (N, 3, *size) in [0, 1]; black where the first photograph ends.
    """
    device = images.device
    here = similarity_transform(onto_landmarks.to(device), ARCFACE)
    there = similarity_transform(landmarks.to(device), ARCFACE)
    at = torch.einsum("nij,nhwj->nhwi", here[:, :, :2], _pixels(size, device)[None]) + here[:, None, None, :, 2]
    read = torch.einsum("nij,nhwj->nhwi", torch.linalg.inv(there[:, :, :2]), at - there[:, None, None, :, 2])
    return F.grid_sample(images, unit_grid(read, (images.shape[2], images.shape[3])), align_corners=True)


def chip_coordinates(landmarks: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, *size, 2) float64: where each pixel of the photographs lies in the 112 × 112 frame, (x, y) px."""
    matrix = similarity_transform(landmarks, ARCFACE)
    pixels = _pixels(size, landmarks.device)
    return torch.einsum("nij,hwj->nhwi", matrix[:, :, :2], pixels) + matrix[:, None, None, :, 2]


def chips(images: Tensor, landmarks: Tensor) -> Tensor:
    """(N, 3, 112, 112) in [0, 1]: faces of photographs (N, 3, H, W) in [0, 1], aligned as usual."""
    template = ARCFACE.to(landmarks.device).expand(len(images), -1, -1)
    return onto(images, landmarks, template, (CHIP, CHIP))


def unit_grid(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Points (…, 2) px of a picture of ``size`` as ``grid_sample`` with aligned corners asks for them, float32."""
    reach = points.new_tensor([size[1] - 1, size[0] - 1]).clamp(min=1)
    grid: Tensor = (2 * points / reach - 1).float()
    return grid


def to_bytes(images: Tensor) -> Tensor:
    """Values in [0, 1] to 8 bits."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


class Numbers:
    """Random numbers by (seed, pair, step, place) alone: no pair's numbers depend on which others are attacked."""

    def __init__(self, seed: int, *names: Sequence[str]) -> None:
        """For N pairs, each known by its names, one from each sequence."""
        text = ["\0".join((str(seed), *parts)).encode() for parts in zip(*names, strict=True)]
        self._keys = np.array([int.from_bytes(hashlib.sha256(t).digest()[:8], "big") for t in text], np.uint64)

    def uniform(self, step: int, count: int, rows: Tensor | None = None) -> Tensor:
        """(N, count) float64 in [0, 1) for a step; only of these rows, if any are named. On the CPU."""
        keys = self._keys if rows is None else self._keys[rows.cpu().numpy()]
        places = np.arange(count, dtype=np.uint64) + np.uint64(step) * np.uint64(4096)
        with np.errstate(over="ignore"):
            mixed = _hashed(_hashed(keys)[:, None] ^ _hashed(places)[None])
        return torch.from_numpy((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _hashed(x: np.ndarray) -> np.ndarray:
    """64 well mixed bits of 64 bits (the finaliser of SplitMix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: np.ndarray = x ^ (x >> np.uint64(31))
    return out


def _pixels(size: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W, 2) float64 (x, y)."""
    y, x = torch.meshgrid(torch.arange(size[0], device=device), torch.arange(size[1], device=device), indexing="ij")
    return torch.stack([x, y], -1).double()
