"""Photographs of faces brought to one size: a square around the face, as LFW's are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor

from audit.alignment import ARCFACE, similarity_transform
from audit.data.images import read_as

SHARED = 320
"""px; photographs of one size stay as they are up to this."""
SIDE = 256
EYES = 6.0
"""Sides of the square in distances between the eyes: hair, chin and ears are in it, as in LFW's photographs."""
LARGEST = 3
"""A square of more than this many sides of the photograph: the landmarks cannot be right."""

_MIDDLE = (56.0, 64.0)
"""The middle of a face from hair line to chin, in the usual chip."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A square of a photograph: ``side`` px from column ``x`` and row ``y``, which may lie outside."""

    x: int
    y: int
    side: int


def frame_of(landmarks: Tensor) -> Frame:
    """The square around a face with landmarks (5, 2) px.

    The distance of the eyes is that of the whole template laid on the face: a face in profile keeps its size.
    """
    (matrix,) = similarity_transform(landmarks[None], ARCFACE)
    turn = matrix[:, :2]
    eyes = float((ARCFACE[1] - ARCFACE[0]).norm()) / float(torch.linalg.det(turn).abs().sqrt())
    middle = torch.linalg.solve(turn, torch.tensor(_MIDDLE, dtype=torch.float64) - matrix[:, 2])
    side = max(1, round(EYES * eyes))
    x, y = (round(float(m) - (side - 1) / 2) for m in middle)
    return Frame(x, y, side)


def framed(path: Path, size: tuple[int, int], frame: Frame) -> Tensor:
    """uint8 (3, 256, 256) of the photograph's square, black outside of the photograph.

    Shrunk by area, so that nothing aliases; enlarged bilinearly.

    Raises:
        DataError: as ``read_as``.
    """
    whole = read_as(path, size)
    left, top = max(0, frame.x), max(0, frame.y)
    right, bottom = min(size[1], frame.x + frame.side), min(size[0], frame.y + frame.side)
    square = whole.new_zeros(frame.side, frame.side, 3)
    if right > left and bottom > top:
        inside = whole[:, top:bottom, left:right].permute(1, 2, 0)
        square[top - frame.y : bottom - frame.y, left - frame.x : right - frame.x] = inside
    how = cv2.INTER_AREA if frame.side > SIDE else cv2.INTER_LINEAR
    pixels = cv2.resize(square.numpy(), (SIDE, SIDE), interpolation=how)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def moved(landmarks: Tensor, frame: Frame) -> Tensor:
    """Landmarks (…, 2) px of the photograph as px of its square; middles of pixels are whole numbers in both."""
    return (landmarks - landmarks.new_tensor([frame.x, frame.y]) + 0.5) * (SIDE / frame.side) - 0.5
