"""Where a face and its parts lie in a picture, from five landmarks: outlines in px, filled as masks.

Outlines are drawn by hand in the usual 112 × 112 alignment, after the mean of the 68 points that face annotations have,
and are carried to the picture by the similarity that brings the template nearest to the face's own landmarks.
Coordinates are (x, y) px with whole numbers in the middle of pixels.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.alignment import ARCFACE, CHIP, similarity_transform
from audit.errors import DataError

Points = NDArray[np.float64]
"""float64 (n, 2) px."""
Mask = NDArray[np.bool_]
"""bool (H, W)."""
Part = Literal["eyes", "nose", "mouth"]
PARTS: tuple[Part, ...] = get_args(Part)
MARGIN = 1.3
"""Sides of a cut out face in sides of the face's box, as FaceForensics++ has it."""

OUTLINE: Points = np.array([
    [22, 43], [29, 37], [40, 34.5], [56, 34], [72, 34.5], [83, 37], [90, 43],
    [94, 56], [93, 72], [88, 89], [79, 103], [67, 112], [56, 114], [45, 112], [33, 103], [24, 89], [19, 72], [18, 56],
], dtype=np.float64)  # fmt: skip
"""Brows and jaw: what the convex hull of 68 landmarks holds."""
INNER: Points = np.array([
    [22, 43], [29, 37], [40, 34.5], [56, 34], [72, 34.5], [83, 37], [90, 43],
    [89, 60], [84, 78], [76, 93], [66, 100], [56, 102], [46, 100], [36, 93], [28, 78], [23, 60],
], dtype=np.float64)  # fmt: skip
"""Brows to below the mouth, without jaw and chin: what a face swap replaces."""
SQUARE: Points = np.array([[22, 34], [90, 34], [90, 102], [22, 102]], dtype=np.float64)
"""The square around the inner face, that a face swap's generator is given."""

_MIDDLE = (56.0, 64.0)
_REACH: dict[Part, tuple[float, float]] = {"eyes": (13.0, 8.0), "nose": (11.0, 16.0), "mouth": (22.0, 11.0)}


def usual_place(size: tuple[int, int]) -> Points:
    """(5, 2) px: where the landmarks usually lie in a cut out face of ``size`` (height, width).

    A face cut out with a margin of 1.3 has its box in the middle, and the box of a detector is as large as the usual
    alignment, 8 of its 112 px further down.
    """
    scale = min(size) / MARGIN / CHIP
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return np.asarray((ARCFACE.double().numpy() - _MIDDLE) * scale + middle, np.float64)


def unlocated(landmarks: Tensor | None, count: int) -> Tensor:
    """(count,) bool: faces without landmarks, for which ``usual_place`` is taken."""
    if landmarks is None:
        return torch.ones(count, dtype=torch.bool)
    return ~landmarks.isfinite().flatten(1).all(1)


def located(landmarks: Tensor | None, count: int, size: tuple[int, int]) -> Points:
    """(count, 5, 2) px: the given landmarks, and the usual place where there are none or where they are not finite.

    Raises:
        DataError: landmarks of another shape.
    """
    if landmarks is not None and tuple(landmarks.shape) != (count, 5, 2):
        raise DataError("landmarks of faces", expected=f"shape ({count}, 5, 2)", got=f"{tuple(landmarks.shape)}",
                        mend="give five (x, y) px for each face")  # fmt: skip
    places = np.repeat(usual_place(size)[None], count, 0)
    if landmarks is not None:
        known = ~unlocated(landmarks, count).numpy()
        places[known] = landmarks.double().cpu().numpy()[known]
    return places


def from_template(points: Points) -> Points:
    """(2, 3): the similarity from the 112 × 112 alignment to a picture whose landmarks are ``points`` (5, 2)."""
    return similarity_transform(ARCFACE[None], torch.from_numpy(points))[0].numpy()


def carried(matrix: Points, points: Points) -> Points:
    """(n, 2): points under an affine matrix (2, 3)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def filled(outline: Points, size: tuple[int, int]) -> Mask:
    """The pixels (H, W) whose middle lies in a convex outline (n, 2) px that goes round clockwise as one sees it."""
    y, x = np.arange(size[0], dtype=np.float64)[:, None], np.arange(size[1], dtype=np.float64)
    inside = np.ones(size, dtype=np.bool_)
    for (ax, ay), (bx, by) in zip(outline, np.roll(outline, -1, 0), strict=True):
        inside &= (bx - ax) * (y - ay) >= (by - ay) * (x - ax)
    return inside


def region(shape: Points, points: Points, size: tuple[int, int]) -> Mask:
    """``OUTLINE``, ``INNER`` or ``SQUARE`` on a face with landmarks ``points`` (5, 2) px."""
    return filled(carried(from_template(points), shape), size)


def part_of(part: Part, points: Points, size: tuple[int, int]) -> Mask:
    """Ellipses around a face's own eyes, nose or mouth; they reach 13 × 8, 11 × 16 and 22 × 11 px of the 112."""
    matrix = from_template(points)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ellipse = np.stack([np.cos(angle), np.sin(angle)], 1) * _REACH[part] @ matrix[:, :2].T
    centres = {"eyes": points[:2], "nose": points[2:3], "mouth": points[3:].mean(0, keepdims=True)}[part]
    masks = [filled(ellipse + centre, size) for centre in centres]
    return np.asarray(np.logical_or.reduce(masks))
