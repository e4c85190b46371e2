"""The parts of a face that a patch may cover: how far each pixel is from each part's skeleton, by the five landmarks.

A level is lowest in the middle of a part and grows outwards; the pixels below any level are the part at one size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import CHIP, Alignment

Grid = tuple[Tensor, Tensor]
"""x and y of pixels in the 112 × 112 alignment, float32 (N, h, w) each."""
_MARGIN = 14.0


def canonical(landmarks: Tensor, photo: tuple[int, int]) -> tuple[tuple[int, int], Grid, Tensor]:
    """(top, left) of the part of the photographs that holds all the aligned faces, where its pixels lie in the
    112 × 112 alignment, and (N, 5, 2) where the faces' own landmarks lie there.
    """
    matrix = Alignment.by_landmarks(landmarks, photo, (CHIP, CHIP)).matrix
    low, high = -_MARGIN, CHIP - 1 + _MARGIN
    corners = matrix.new_tensor([[low, low], [low, high], [high, low], [high, high]])
    back = torch.linalg.inv(matrix[:, :, :2]) @ (corners[None] - matrix[:, None, :, 2]).transpose(1, 2)
    first, last = back.amin((0, 2)).floor().long().tolist(), back.amax((0, 2)).ceil().long().tolist()
    left, top = (max(0, min(first[i], size - 1)) for i, size in ((0, photo[1]), (1, photo[0])))
    right, bottom = (max(1, min(last[i] + 1, size)) for i, size in ((0, photo[1]), (1, photo[0])))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    x, y = torch.arange(left, right), torch.arange(top, bottom)[:, None]
    m = matrix[:, :, :, None, None]
    grid = [(m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2]).float() for i in (0, 1)]
    own = torch.einsum("nij,nkj->nki", matrix, F.pad(landmarks.double(), (0, 1), value=1.0))
    return (top, left), (grid[0], grid[1]), own.float()


def _from(at: Grid, point: Tensor) -> Grid:
    """How far right and down as seen from points (N, 2)."""
    return at[0] - point[:, 0, None, None], at[1] - point[:, 1, None, None]


def _apart(at: Grid, point: Tensor) -> Tensor:
    """(N, h, w) px from points (N, 2)."""
    return torch.hypot(*_from(at, point))


def _along(rel: Grid, direction: Tensor) -> Tensor:
    return rel[0] * direction[:, 0, None, None] + rel[1] * direction[:, 1, None, None]


def _segment(at: Grid, a: Tensor, b: Tensor) -> Tensor:
    """(N, h, w) px from the segments from a to b, (N, 2) each."""
    way = b - a
    length = (way**2).sum(1).clamp(min=1e-9)[:, None, None]
    rel = _from(at, a)
    t = (_along(rel, way) / length).clamp_(0, 1)
    return torch.hypot(rel[0] - t * way[:, 0, None, None], rel[1] - t * way[:, 1, None, None])


def _box(at: Grid, centre: Tensor, u: Tensor, half: tuple[float, float]) -> Tensor:
    """(N, h, w): 1 on the edge of a box with round corners (a superellipse), growing outwards."""
    rel = _from(at, centre)
    v = torch.stack([-u[:, 1], u[:, 0]], 1)
    return (_along(rel, u) / half[0]).square().square() + (_along(rel, v) / half[1]).square().square()


def _axes(points: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors (N, 2): along the eyes, and across them towards the mouth."""
    along = F.normalize(points[:, 1] - points[:, 0], dim=1)
    across = torch.stack([-along[:, 1], along[:, 0]], 1)
    down = points[:, 3:].mean(1) - points[:, :2].mean(1)
    return along, torch.where((across * down).sum(1, keepdim=True) < 0, -across, across)


def _lenses(at: Grid, points: Tensor, u: Tensor) -> Tensor:
    return torch.minimum(*(_segment(at, points[:, i] - 3 * u, points[:, i] + 3 * u) for i in (0, 1)))


def _glasses(at: Grid, points: Tensor) -> Tensor:
    u, _ = _axes(points)
    return torch.minimum(_lenses(at, points, u), _segment(at, points[:, 0], points[:, 1]) + 9)


def _frame(at: Grid, points: Tensor) -> Tensor:
    u, _ = _axes(points)
    rims = (_lenses(at, points, u) - 11).abs()
    # between the eyes, outside of both rims
    middle = points[:, :2].mean(1)
    half = ((points[:, 1] - points[:, 0]).norm(dim=1, keepdim=True) / 2 - 14).clamp(min=0) * u
    temples = [_segment(at, points[:, i] + s * 14 * u, points[:, i] + s * 24 * u) for i, s in ((0, -1), (1, 1))]
    return torch.stack([rims, _segment(at, middle - half, middle + half), *temples]).amin(0)


def _forehead(at: Grid, points: Tensor) -> Tensor:
    u, v = _axes(points)
    return _box(at, points[:, :2].mean(1) - 21.5 * v, u, (27.0, 12.5))


def _nose(at: Grid, points: Tensor) -> Tensor:
    top, tip = 0.75 * points[:, :2].mean(1) + 0.25 * points[:, 2], points[:, 2]
    return torch.minimum(_segment(at, top, tip) + 4, _apart(at, tip))


def _respirator(at: Grid, points: Tensor) -> Tensor:
    mouth = points[:, 3:].mean(1)
    u = F.normalize(points[:, 4] - points[:, 3], dim=1)
    return _box(at, mouth + 0.15 * (mouth - points[:, 2]), u, (25.0, 13.0))


def _features(at: Grid, points: Tensor) -> Tensor:
    u, v = _axes(points)
    eyes, mouth, tip = points[:, :2].mean(1), points[:, 3:].mean(1), points[:, 2]
    sockets = [(points[:, i] - 6 * u - 2 * v, points[:, i] + 6 * u - 2 * v, 1.0) for i in (0, 1)]
    rest = [(points[:, 0], points[:, 1], 0.3), (eyes, tip, 0.6), (tip, mouth, 0.2), (points[:, 3], points[:, 4], 0.6)]
    # Less one pixel: the whole skeleton is in before anything grows, so that the region stays connected.
    return torch.stack([(_segment(at, a, b) - 1) / width for a, b, width in sockets + rest]).amin(0)


def _cheeks(at: Grid, points: Tensor) -> Tensor:
    u, _ = _axes(points)
    centres = [points[:, [0, 3]].mean(1) - 4 * u, points[:, [1, 4]].mean(1) + 4 * u]
    return torch.minimum(*(_apart(at, c) for c in centres))


def _whole(at: Grid, points: Tensor) -> Tensor:
    del points
    return torch.maximum((at[0] - (CHIP - 1) / 2).abs(), (at[1] - (CHIP - 1) / 2).abs())


PARTS: dict[str, Callable[[Grid, Tensor], Tensor]] = {
    "glasses": _glasses,
    "frame": _frame,
    "forehead": _forehead,
    "nose": _nose,
    "respirator": _respirator,
    "features": _features,
    "cheeks": _cheeks,
    "whole": _whole,
}
