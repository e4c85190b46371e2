"""Boxes of all frames from those of a few: the pinhole model of a constant speed (D10; BJTU-ADaM, paper 000 §3.3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from audit.data.areas import Points
from audit.errors import DataError


@dataclass(frozen=True, slots=True)
class PinholeFit:
    """A drive straight ahead at a constant speed.

    Attributes:
        vanishing_frame: N, the frame at which the distance would be 0. centre: (x, y) px, from which things grow.
        frame, points: the points (P, 2) px at one frame, from which all others follow.
        rms: root mean square distance, px, between the fit and what it was fitted to.
    """

    vanishing_frame: float
    centre: tuple[float, float]
    frame: float
    points: Points
    rms: float

    def at(self, frames: Sequence[int]) -> NDArray[np.float64]:
        """(F, P, 2) px, see ``pinhole``."""
        return pinhole(self.points, self.frame, self.vanishing_frame, frames, self.centre)


def pinhole(
    points: ArrayLike, frame: float, vanishing_frame: float, frames: Sequence[int], centre: ArrayLike
) -> NDArray[np.float64]:
    """p_i = c + (p_f − c) · (N − f) / (N − i): size is inverse to distance, h_i / h_j = d_j / d_i, and d_i ∝ N − i.

    Args:
        points: at frame ``frame`` (f): a box xyxy, or the corners of an area (4, 2), or any points (P, 2), px.
        vanishing_frame: N; after the last frame where the target comes nearer, before the first where it goes away.
        frames: those wanted. centre: c, (x, y) px, the point from which things grow; the middle of the image where the
            camera looks the way it drives.

    Returns:
        (F, 4, 2) px, for a box its corners from the upper left clockwise; NaN at and beyond N.

    Raises:
        DataError: numbers that are not finite, or ``frame`` is N.
    """
    quad = corners(points)
    c = np.asarray(centre, dtype=np.float64).reshape(-1)
    if not np.isfinite([*quad.flat, *c, frame, vanishing_frame]).all() or c.shape != (2,) or frame == vanishing_frame:
        raise DataError(
            "pinhole model",
            expected="finite points, a centre (x, y) and a vanishing frame other than the annotated one",
            got=f"frame {frame:g}, vanishing frame {vanishing_frame:g}, centre {c.tolist()}",
            mend="correct the annotation",
        )
    left = vanishing_frame - np.asarray(frames, dtype=np.float64)
    same_side = left * (vanishing_frame - frame) > 0
    zoom = np.where(same_side, (vanishing_frame - frame) / np.where(same_side, left, 1.0), np.nan)
    return c + (quad - c) * zoom[:, None, None]


def fit_pinhole(annotated: Mapping[int, ArrayLike], centre: tuple[float, float] | None = None) -> PinholeFit:
    """N and the centre by least squares of px over all points of all annotated frames.

    For a given N the model is linear in the points and the centre; N itself is found by a search over 1 / (N − m), m
    the middle of the annotated frames.

    Args:
        annotated: frame -> box xyxy or points (P, 2) px; at least two frames, the same points in each.
        centre: (x, y) px where it is known.

    Raises:
        DataError: fewer than two frames, different points, or a target that neither grows nor shrinks.
    """
    frames = np.array(sorted(annotated), dtype=np.float64)
    quads = [corners(annotated[int(f)]) for f in frames]
    if len(quads) < 2 or len({q.shape for q in quads}) > 1 or not np.isfinite(quads).all():
        raise _unfit(f"{len(quads)} frame(s)")
    data = np.stack(quads)
    middle = (frames[0] + frames[-1]) / 2
    t = frames - middle
    limit = 0.999 / float(np.abs(t).max())

    def miss(u: float) -> float:
        return _solve(u, t, data, centre)[2]

    grid = np.linspace(-limit, limit, 201)
    best = int(np.argmin([miss(u) for u in grid]))
    span = (grid[max(0, best - 1)], grid[min(200, best + 1)])
    u = float(minimize_scalar(miss, bounds=span, method="bounded", options={"xatol": limit * 1e-9}).x)
    if abs(u) < limit * 1e-4:
        raise _unfit("a target of the same size in all of them")
    points, c, squares = _solve(u, t, data, centre)
    return PinholeFit(
        vanishing_frame=float(middle + 1 / u),
        centre=(float(c[0]), float(c[1])),
        frame=float(middle),
        points=points,
        rms=float(np.sqrt(2 * squares / data.size)),
    )


def corners(points: ArrayLike) -> Points:
    """(P, 2) of points, or the four corners of a box xyxy from the upper left clockwise."""
    p = np.asarray(points, dtype=np.float64)
    if p.shape == (4,):
        a, b, c, d = p
        return np.array([(a, b), (c, b), (c, d), (a, d)])
    return p.reshape(-1, 2)


def _solve(
    u: float, t: NDArray[np.float64], data: NDArray[np.float64], centre: tuple[float, float] | None
) -> tuple[Points, NDArray[np.float64], float]:
    """Points at the middle frame, centre and sum of squares, for one u = 1 / (N − m).

    With s = 1 / (1 − u t) a point moves as q s + v t s with v = −u c: linear in q and v, also where u is 0.
    """
    s = 1 / (1 - u * t)
    if centre is not None:
        c = np.array(centre, dtype=np.float64)
        q = c + np.einsum("f,fpk->pk", s, data - c) / (s * s).sum()
        v = -u * c
    else:
        F, P, _ = data.shape
        left = np.kron(s[:, None], np.eye(P))
        matrix = np.hstack([left, np.repeat(t * s, P)[:, None]])
        solved = np.linalg.lstsq(matrix, data.reshape(F * P, 2), rcond=None)[0]
        q, v = np.asarray(solved[:P], dtype=np.float64), np.asarray(solved[P], dtype=np.float64)
        c = np.asarray(-v / u if u else np.zeros(2), dtype=np.float64)
    rest = q * s[:, None, None] + v * (t * s)[:, None, None] - data
    return q, c, float((rest**2).sum())


def _unfit(got: str) -> DataError:
    return DataError(
        "pinhole model",
        expected="the same points in at least two annotated frames, between which the target grows or shrinks",
        got=got,
        mend="annotate frames that lie further apart, or use the polynomial model",
    )
