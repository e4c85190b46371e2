"""Areas of all frames from those of a few, for a moving camera: polynomials over frame order (D13, paper 000)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import ArrayLike, NDArray

from audit.data.pinhole import corners
from audit.errors import DataError


def fit_polynomial(annotated: Mapping[int, ArrayLike], frames: Sequence[int], degree: int = 2) -> NDArray[np.float64]:
    """x_k w, y_k w and w as polynomials of the frame's number, by least squares; then x_k = (x_k w) / w.

    w is one over the target's size (root mean square distance of its points from their middle). Size is inverse to
    distance, so w is as smooth as the way that was driven, where size itself has a pole: a constant speed is degree 1
    exactly, a constant acceleration or a steady curve degree 2. Errors are weighed relative to the size, as IoU does.

    Args:
        annotated: frame -> box xyxy or points (P, 2) px; at least ``degree + 1`` frames, the same points in each.
        frames: those wanted, best within the annotated ones. degree: 0 or more.

    Returns:
        (F, P, 2) px.

    Raises:
        DataError: too few frames, different points, points that coincide, or a size that passes zero or infinity.
    """
    known = sorted(annotated)
    quads = [corners(annotated[f]) for f in known]
    if degree < 0 or len(known) <= degree:
        raise _unfit(f"{len(known)} for degree {degree}", "at least one annotated frame more than the degree")
    if len({q.shape for q in quads}) > 1 or not np.isfinite(quads).all():
        raise _unfit("others", "the same finite points in every annotated frame")
    data = np.stack(quads)
    size = np.sqrt(((data - data.mean(1, keepdims=True)) ** 2).sum(2).mean(1))
    if (size <= 0).any():
        raise _unfit("all points in one place", "points that span an area")
    w = 1 / size
    rows = np.concatenate([data.reshape(len(known), -1) * w[:, None], w[:, None]], axis=1)
    domain = [known[0], known[-1]] if known[-1] > known[0] else [known[0] - 1, known[0] + 1]
    wanted = np.asarray(frames, dtype=np.float64)
    fits = [Chebyshev.fit(known, column, degree, domain=domain)(wanted) for column in rows.T]
    weight = fits[-1]
    if (weight <= w.min() / 100).any():
        bad = int(wanted[int(np.argmin(weight))])
        raise _unfit(f"none at frame {bad}", "a finite size in every frame wanted", "ask for fewer frames, ")
    values = np.stack(fits[:-1], axis=1) / weight[:, None]
    return np.asarray(values.reshape(len(wanted), -1, 2), dtype=np.float64)


def _unfit(got: str, expected: str, first: str = "") -> DataError:
    return DataError(
        "polynomial fit", expected=expected, got=got, mend=f"{first}annotate more frames or lower the degree"
    )
