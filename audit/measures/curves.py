"""Measures over all thresholds: the threshold-F_beta curve, its area AF_beta, and average precision for information.

The threshold axis is the log-odds of the score. For a softmax over two classes that is the difference of the positive
and the negative logit, the axis of Yang et al., ECCV 2020 (section 4.1 and its footnote 4); scores
themselves crowd at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from audit.measures.detection import recall
from audit.measures.intervals import Estimate, Resampling, bootstrap_statistic
from audit.measures.matching import Floats, Matches, group_index
from audit.record import Curve, Series

BETAS = (0.001, 0.01, 0.1, 0.5)
"""The values of beta in the paper. The smaller, the more F_beta is recall."""

AXIS = (-5.0, 15.0)
"""The threshold axis, log-odds: scores from 0.0067, below which detectors hardly report, to 1 - 3e-7, about where the
spacing of float32 near 1 makes log-odds coarse. Fixed, so that AF_beta can be compared between detectors and runs."""

STEPS = 200
THRESHOLDS: Floats = np.linspace(*AXIS, STEPS + 1)
"""The thresholds at which the curve is taken: every 0.1."""

_EDGE = 2.0**-24  # 1 - _EDGE is the greatest float32 below 1; a saturated score of 1 counts as that


def log_odds(scores: ArrayLike) -> Floats:
    """log(s / (1 - s)), with s clipped to [2^-24, 1 - 2^-24], so within +-16.64. Any shape."""
    clipped = np.clip(np.asarray(scores, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=np.float64)


def f_beta(true: ArrayLike, detections: ArrayLike, objects: ArrayLike, beta: float) -> Floats:
    """F_beta = (1 + beta^2) / (beta^2 / P + 1 / R).

    Mind the side on which beta^2 stands: with beta < 1 it is recall that weighs more, so this is what other books call
    F with 1 / beta. With P = true / detections and R = true / objects it is
    (1 + beta^2) true / (beta^2 detections + objects), which is defined wherever there are objects: where nothing true
    is detected, with false alarms or without any detection, F is 0. Without objects it is NaN.

    Args:
        true, detections, objects: counts, of shapes that broadcast; ``detections`` without the ignored ones.
    """
    true, detections, objects = (np.asarray(x, dtype=np.float64) for x in (true, detections, objects))
    above, below = (1 + beta**2) * true, beta**2 * detections + objects
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(objects > 0, above / below, np.nan), dtype=np.float64)


def f_values(matches: Matches, beta: float, thresholds: Floats = THRESHOLDS) -> Floats:
    """F_beta at each threshold (log-odds, ascending): shape of ``thresholds``, NaN without objects."""
    true, detections, objects = _counts(matches, thresholds)
    return f_beta(true.sum(0), detections.sum(0), objects.sum(), beta)


def af_beta(matches: Matches, beta: float, resampling: Resampling) -> Estimate:
    """AF_beta: the area under the threshold-F_beta curve, divided by the length of :data:`AXIS`, so in [0, 1].

    Trapezoids between :data:`THRESHOLDS`. Lower means a better attack. Without objects the value is ``None``. Where it
    is 0, because nothing is found anywhere on the axis, the interval's upper end is that of the recall at the start of
    the axis times 1 + beta^2, which AF_beta cannot exceed.
    """
    true, detections, objects = _counts(matches, THRESHOLDS)
    columns = np.concatenate([true, detections, objects[:, None]], axis=1)
    n = len(THRESHOLDS)

    def statistic(weights: Floats) -> Floats:
        sums = weights @ columns
        return area(f_beta(sums[:, :n], sums[:, n:-1], sums[:, -1:], beta))

    name, seed, draws = resampling.cluster, resampling.seed, resampling.draws
    found = bootstrap_statistic(statistic, len(columns), level=resampling.level, draws=draws, seed=seed, cluster=name)
    if found.value == 0:
        bound = recall(matches, 1 / (1 + np.exp(-AXIS[0])), resampling)
        high = None if bound.high is None else min(1.0, bound.high * (1 + beta**2))
        return Estimate(0.0, None, found.n, 0.0, high, found.level, f"recall bound, {bound.method}")
    if found.low is None or found.high is None:
        return found
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    return Estimate(found.value, None, found.n, low, high, found.level, found.method)


def area(values: Floats) -> Floats:
    """Trapezoidal mean of a curve over :data:`THRESHOLDS`: (..., 201) to (...)."""
    inner = values[..., 1:-1].sum(-1) + (values[..., 0] + values[..., -1]) / 2
    return np.asarray(inner / STEPS, dtype=np.float64)


def f_curve(lines: Mapping[str, Matches], beta: float, *, mark: float | None = None, mark_label: str = "") -> Curve:
    """The figure: F_beta over the threshold, a line for each of ``lines`` (clean, noise, trained patch ...).

    Args:
        mark: a score threshold to mark on the axis, given as a score in [0, 1].
    """
    series = []
    for name, matches in lines.items():
        y = f_values(matches, beta)
        series.append(
            Series(
                name=name,
                x=[round(float(x), 4) for x in THRESHOLDS],
                y=[None if np.isnan(v) else round(float(v), 5) for v in y],
            )
        )
    return Curve(
        title=f"Threshold and F with β = {beta:g}",
        x_label="threshold, log-odds of the score",
        y_label=f"F (β = {beta:g})",
        series=series,
        mark_x=None if mark is None else float(np.clip(log_odds(mark), *AXIS)),
        mark_label=mark_label,
    )


def precision_recall(matches: Matches, label: int | None = None) -> tuple[Floats, Floats, Floats]:
    """(scores, precision, recall), each (S,), at every distinct score from the highest down; ignored ones left out.

    Equal scores come in together: no threshold can part them. Recall is NaN without objects.
    """
    use, objects = ~matches.ignored, ~matches.truth_ignored
    if label is not None:
        use, objects = use & (matches.labels == label), objects & (matches.truth_labels == label)
    order = np.argsort(-matches.scores[use], kind="stable")
    scores, true = matches.scores[use][order], matches.true[use][order]
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    hits = np.cumsum(true)[last].astype(np.float64)
    total = float(objects.sum())
    return scores[last], hits / (last + 1), hits / total if total else np.full(len(last), np.nan)


def average_precision(matches: Matches, *, points: Literal["all", "101"] = "all") -> float | None:
    """Average precision at the matching's IoU, the mean over the classes that have objects, in [0, 1].

    Precision at a recall is the best at that recall or a higher one; ``all`` is the area under it (VOC 2010), ``101``
    its mean at recalls 0, 0.01 ... 1 (COCO). ``None`` without objects.

    For information only, never to judge by: an attack that pushes every score under the threshold but keeps their order
    leaves it as it is (Yang et al. 2020, section 4.1).
    """
    values = []
    for label in np.unique(matches.truth_labels[~matches.truth_ignored]):
        _, precisions, recalls = precision_recall(matches, int(label))
        best = np.maximum.accumulate(precisions[::-1])[::-1]
        if points == "all":
            values.append(float((np.diff(recalls, prepend=0.0) * best).sum()))
        else:
            at = np.searchsorted(recalls, np.linspace(0, 1, 101), side="left")
            values.append(float(np.append(best, 0.0)[at].mean()))
    return float(np.mean(values)) if values else None


def _counts(matches: Matches, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Per group (C, G) true detections and (C, G) detections at each threshold, and (C,) objects; no ignored ones."""
    index, clusters = group_index(matches.groups)
    steps = len(thresholds)

    def over(use: np.ndarray) -> Floats:
        reach = np.searchsorted(thresholds, log_odds(matches.scores[use]), side="right")
        cell = index[matches.image[use]] * (steps + 1) + reach
        table = np.bincount(cell, minlength=clusters * (steps + 1)).reshape(clusters, steps + 1)
        return np.asarray(table[:, ::-1].cumsum(1)[:, ::-1][:, 1:], dtype=np.float64)

    objects = np.bincount(index[matches.truth_image[~matches.truth_ignored]], minlength=clusters)
    return over(matches.true), over(~matches.ignored), objects.astype(np.float64)
