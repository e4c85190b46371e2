"""Areas found by comparing a clean video with the same one patched (D12; YouOnlyAttackOnce, paper 000 §3.3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data.areas import Points, is_convex, upright
from audit.errors import DataError

_LEAST = 12.0
"""Grey levels by which a patch has to differ at least; what codecs do to a still picture stays below."""
_FILLED = 0.85
"""Overlap (IoU) of the changed region with its quadrilateral, under which it is not one area."""


def find_areas(clean: Iterable[Tensor | None], patched: Iterable[Tensor | None], *, smallest: float = 1e-4) -> Tensor:
    """Corners of what differs, frame by frame: difference, threshold, largest region, its four sides by least squares.

    The threshold follows the frame's own noise: median + 8 · 1.4826 · MAD of the largest difference over the colours,
    smoothed, at least 12 grey levels. Frames are taken one pair at a time, so memory does not grow with them.

    Args:
        clean, patched: uint8 (3, H, W) each, in the same order; None for a frame that could not be read.
        smallest: share of the frame that a region needs.

    Returns:
        (F, 4, 2) float32 px, from the upper left in the image clockwise; NaN where nothing, or no quadrilateral, was
        found. A patch that looks like what it covers is found in part, or not at all.

    Raises:
        DataError: different numbers of frames, or sizes.
    """
    quads: list[Points] = []
    end = object()
    for before, after in zip_longest(clean, patched, fillvalue=end):
        if before is end or after is end:
            raise _unlike("the same number of frames in both", f"only {len(quads)} in the shorter one")
        if isinstance(before, Tensor) and isinstance(after, Tensor):
            quads.append(_find(before, after, smallest))
        else:
            quads.append(_nothing())
    return torch.from_numpy(np.stack(quads)).float() if quads else torch.zeros(0, 4, 2)


def _find(before: Tensor, after: Tensor, smallest: float) -> Points:
    if before.shape != after.shape:
        a, b = tuple(before.shape), tuple(after.shape)
        raise _unlike("frames of the same size in both", f"{a[2]}x{a[1]} px and {b[2]}x{b[1]} px")
    difference = cv2.absdiff(_picture(before), _picture(after)).max(2)
    smooth = cv2.medianBlur(difference, 3)
    middle = float(np.median(smooth))
    spread = 1.4826 * float(np.median(np.abs(smooth.astype(np.float32) - middle)))
    mask = (smooth > max(_LEAST, middle + 8 * spread)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, names, table, _ = cv2.connectedComponentsWithStats(_closed(mask), connectivity=8)
    if count < 2:
        return _nothing()
    largest = 1 + int(np.argmax(table[1:, cv2.CC_STAT_AREA]))
    if table[largest, cv2.CC_STAT_AREA] < max(16.0, smallest * mask.size):
        return _nothing()
    region = (names == largest).astype(np.uint8)
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len).reshape(-1, 2).astype(np.float64)
    rough = _four(cv2.convexHull(outline.astype(np.float32)))
    if rough is None:
        return _nothing()
    quad = _refined(upright(rough), outline)
    return quad if is_convex(quad) and _overlap(quad, outline, region.shape) >= _FILLED else _nothing()


def _closed(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gaps where the patch happens to look like what it covers are filled, in proportion to what was found."""
    side = int(max(3, np.sqrt(float(mask.sum())) / 8)) | 1
    padded = cv2.copyMakeBorder(mask, side, side, side, side, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    return np.asarray(closed[side:-side, side:-side], dtype=np.uint8)


def _four(hull: Any) -> Points | None:
    """Four corners of the hull, by the coarsest outline that still has four."""
    length = cv2.arcLength(hull, closed=True)
    for share in np.geomspace(0.005, 0.2, 40):
        outline = cv2.approxPolyDP(hull, float(share) * length, closed=True)
        if len(outline) == 4:
            return np.asarray(outline, dtype=np.float64).reshape(4, 2)
        if len(outline) < 4:
            return None
    return None


def _refined(rough: Points, outline: Points) -> Points:
    """Corners where the lines through the outline along each side meet, in px whose integers are the pixels' edges.

    The outline runs through the middles of the outermost pixels: half a pixel inside the edge on the average.
    """
    lines = []
    middle = rough.mean(0)
    for a, b in zip(rough, np.roll(rough, -1, 0), strict=True):
        length = float(np.hypot(*(b - a)))
        along = (b - a) / max(length, 1e-9)
        normal = np.array([-along[1], along[0]])
        share = (outline - a) @ along / max(length, 1e-9)
        near = (np.abs((outline - a) @ normal) < max(2.0, 0.04 * length)) & (share > 0.1) & (share < 0.9)
        point = a
        if near.sum() >= 3:
            vx, vy, x, y = cv2.fitLine(outline[near].astype(np.float32), cv2.DIST_HUBER, 0, 0.01, 0.01).ravel()
            normal, point = np.array([-vy, vx], dtype=np.float64), np.array([x, y], dtype=np.float64)
        if (middle - point) @ normal > 0:
            normal = -normal
        lines.append((normal, float(point @ normal) + 0.5 * float(np.abs(normal).max())))
    quad = np.full((4, 2), np.inf)
    for i in range(4):
        (m, c), (n, d) = lines[i - 1], lines[i]
        matrix = np.stack([m, n])
        if abs(np.linalg.det(matrix)) > 1e-3:
            quad[i] = np.linalg.solve(matrix, [c, d]) + 0.5
    return quad


def _overlap(quad: Points, outline: Points, shape: tuple[int, ...]) -> float:
    """IoU of the quadrilateral with what the outline holds."""
    if not np.isfinite(quad).all() or np.abs(quad).max() > 4 * max(shape):
        return 0.0
    a, b = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    cv2.fillPoly(a, [np.round(quad - 0.5).astype(np.int32)], 1)
    cv2.fillPoly(b, [outline.astype(np.int32)], 1)
    return float((a & b).sum()) / max(1.0, float((a | b).sum()))


def _picture(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _nothing() -> Points:
    return np.full((4, 2), np.nan)


def _unlike(expected: str, got: str) -> DataError:
    return DataError(
        "clean and patched frames",
        expected=expected,
        got=got,
        mend="give the same recording twice",
    )
