"""How well scores tell two classes apart, whatever the threshold: AUC, ROC curve, equal error rate.

A score is the higher the more a sample looks to be of the positive class: fake for a forgery detector, live for a
liveness detector, new for a score of novelty. Positive is said from the threshold on (score >= threshold). Frames of
one video and videos of one source go together, so intervals are over clusters, never over frames; of less than two
clusters of either class there is a value and no interval, however many frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from audit.measures.intervals import FEW, Estimate, Resampling, bootstrap_statistic, exact_interval
from audit.measures.rates import Bools, Floats, Ints, numbered, rate
from audit.record import Curve, Series

MOST = 1000
"""With more clusters than this the bootstrap adds nothing to its own limit, and is not drawn."""

_BLOCK = 1 << 20  # numbers in one block of counts: 8 MiB


@dataclass(frozen=True, slots=True)
class EqualError:
    """The equal error rate and the threshold that comes nearest to it; ``None`` of a single class."""

    rate: Estimate
    threshold: float | None


@dataclass(frozen=True, eq=False)
class Concordance:
    """How often positives are above negatives, between clusters.

    Attributes:
        wins: (F, R) pairs of a positive of cluster f and a negative of cluster r in which the positive is higher; equal
            scores are half a pair. positives, negatives: (F,) and (R,) samples. of_positives, of_negatives: (F,) and
            (R,) numbers of those clusters.
    """

    wins: Floats
    positives: Floats
    negatives: Floats
    of_positives: Ints
    of_negatives: Ints

    def auc(self, weights: Floats) -> Floats:
        """(B, C) how often each cluster counts to (B,) AUC: w M wᵀ / w N wᵀ; NaN where a class is missing."""
        up, down = weights[:, self.of_positives], weights[:, self.of_negatives]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = ((up @ self.wins) * down).sum(1) / ((up @ self.positives) * (down @ self.negatives))
        return np.asarray(found, dtype=np.float64)


def concordance(scores: ArrayLike, positive: ArrayLike, cluster: Ints) -> Concordance:
    """The table between clusters, in blocks of some 40 MiB beside the table itself (8 F R bytes).

    Args:
        scores: (N,) finite. positive: (N,) bool. cluster: (N,) numbers from 0.
    """
    score, up = checked(scores, positive, cluster)
    level = np.unique(score, return_inverse=True)[1].reshape(-1)
    levels = int(level.max()) + 1 if len(level) else 0
    order = np.argsort(cluster[up], kind="stable")
    high = level[up][order]
    of_positives, starts, positives = np.unique(cluster[up][order], return_index=True, return_counts=True)
    of_negatives, place, negatives = np.unique(cluster[~up], return_inverse=True, return_counts=True)
    low, place = level[~up], place.reshape(-1)
    wins = np.zeros((len(of_positives), len(of_negatives)))
    step = max(1, _BLOCK // max(levels, 1))
    for at in range(0, len(of_negatives) if len(of_positives) else 0, step):
        width = min(step, len(of_negatives) - at)
        here = (place >= at) & (place < at + width)
        counts = np.bincount(low[here] * width + place[here] - at, minlength=levels * width).reshape(levels, width)
        upto = counts.cumsum(0) - counts / 2  # all that are lower, and half of those that are equal
        wins[:, at : at + width] = np.add.reduceat(upto[high], starts, axis=0)
    up_count, down_count = positives.astype(np.float64), negatives.astype(np.float64)
    return Concordance(wins, up_count, down_count, of_positives, of_negatives)


def auc(scores: ArrayLike, positive: ArrayLike, groups: Sequence[str], resampling: Resampling) -> Estimate:
    """Area under the ROC curve: the probability that a positive scores higher than a negative; equal scores count half.

    The interval is the cluster bootstrap of w M wᵀ / w N wᵀ, M and N from :func:`concordance`. Three cases differ:

    - the AUC is 0 or 1: no resample moves it. At most m pairs of a positive and a negative can be formed of which no
      two share a cluster, m the smaller of the numbers of clusters with positives and with negatives (Kish's effective
      ones, as clusters differ in size). The interval is Clopper-Pearson's for m trials.
    - fewer than ``FEW`` clusters of either class have a pair in the wrong order, or in the right one; or more than
      ``MOST`` clusters: Clopper-Pearson on A (1 − A) / V effective pairs, V the variance between clusters of the
      placements (DeLong 1988; Obuchowski 1997), corrected for few clusters as Korn and Graubard (1998) do for shares.
      The few are never surer than the case above.
    - fewer than two clusters of either class: no interval.

    Args:
        scores: (N,) finite. positive: (N,) bool. groups: N names of what goes together.

    Returns:
        ``n`` counts clusters, ``k`` is ``None``. Of a single class all is ``None``, and ``method`` says of which.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite.
    """
    cluster, clusters = numbered(groups)
    score, up = checked(scores, positive, cluster)
    level, what = resampling.level, resampling.cluster
    missing = lacking(up)
    if missing:
        return Estimate(None, None, clusters, None, None, level, f"no AUC: {missing}")
    over, under = placements(score, up)
    value = float(over.mean())
    few = few_clusters(up, cluster, what)
    if few:
        return Estimate(value, None, clusters, None, None, level, few)
    up_sizes, down_sizes = np.bincount(cluster[up]), np.bincount(cluster[~up])
    most = min(_kish(up_sizes), _kish(down_sizes))
    if value in {0.0, 1.0}:
        low, high = exact_interval(value * most, most, level)
        method = f"Clopper-Pearson on {most:.4g} effective pairs without a common cluster"
        return Estimate(value, None, clusters, low, high, level, method)
    ordered = min(
        len(np.unique(cluster[side][wrong]))
        for side, shares in ((up, over), (~up, under))
        for wrong in (shares < 1, shares > 0)
    )
    if ordered >= FEW and clusters <= MOST:
        table = concordance(score, up, cluster)
        found = bootstrap_statistic(
            table.auc, clusters, level=level, draws=resampling.draws, seed=resampling.seed, cluster=what
        )
        if found.low is not None and found.high is not None:
            low, high = min(max(found.low, 0.0), value), max(min(found.high, 1.0), value)
            return Estimate(value, None, clusters, low, high, level, found.method)
    size = _effective_pairs(value, (over, under), up, cluster, level)
    low, high = exact_interval(value * size, size, level)
    if ordered < FEW:
        low, high = min(low, exact_interval(most, most, level)[0]), max(high, exact_interval(0, most, level)[1])
    method = f"Clopper-Pearson on {size:.4g} effective pairs (placements, {clusters} {what})"
    return Estimate(value, None, clusters, min(low, value), max(high, value), level, method)


def auc_difference(
    first: tuple[ArrayLike, ArrayLike, Sequence[str]],
    second: tuple[ArrayLike, ArrayLike, Sequence[str]],
    resampling: Resampling,
) -> Estimate:
    """The AUC of ``first`` less that of ``second``, each (scores, positive, groups), in [−1, 1].

    A group of both, such as one source at two qualities, is drawn for both at once. Where one of them has no bootstrap
    interval of its own (see :func:`auc`), the interval is from the lowest of the first less the highest of the second
    to the reverse: too wide rather than too narrow.
    """
    one, other = auc(*first, resampling), auc(*second, resampling)
    cluster, clusters = numbered([*first[2], *second[2]])
    level, what = resampling.level, resampling.cluster
    if one.value is None or other.value is None:
        reason = one.method if one.value is None else other.method
        return Estimate(None, None, clusters, None, None, level, reason)
    value = one.value - other.value
    if one.low is None or one.high is None or other.low is None or other.high is None:
        reason = one.method if one.low is None else other.method
        return Estimate(value, None, clusters, None, None, level, reason)
    if one.method.startswith("BCa") and other.method.startswith("BCa") and clusters <= MOST:
        cut = len(first[2])
        tables = concordance(*first[:2], cluster[:cut]), concordance(*second[:2], cluster[cut:])
        found = bootstrap_statistic(
            lambda w: tables[0].auc(w) - tables[1].auc(w),
            clusters, level=level, draws=resampling.draws, seed=resampling.seed, cluster=what,
        )  # fmt: skip
        if found.low is not None and found.high is not None:
            low, high = min(max(found.low, -1.0), value), max(min(found.high, 1.0), value)
            return Estimate(value, None, clusters, low, high, level, found.method)
    return Estimate(value, None, clusters, one.low - other.high, one.high - other.low, level,
                    "ends of both AUCs' intervals against each other")  # fmt: skip


def equal_error(scores: ArrayLike, positive: ArrayLike, groups: Sequence[str], resampling: Resampling) -> EqualError:
    """Equal error rate: where both error rates are one on the straight lines between the points of the ROC curve.

    At a threshold t the false positive rate is the share of negatives with score >= t, the false negative rate that of
    positives with score < t. The threshold returned is the one where they are nearest to each other; of several the
    one with the smaller sum, then the highest. It lies half way between two neighbouring scores, so that rounding
    decides nothing. The interval spans those of both rates there: at any threshold the EER lies between them.
    """
    cluster, clusters = numbered(groups)
    score, up = checked(scores, positive, cluster)
    missing = lacking(up)
    if missing:
        reason = f"no EER: {missing}"
        return EqualError(Estimate(None, None, clusters, None, None, resampling.level, reason), None)
    thresholds, alarm, miss = _points(score, up)
    apart = alarm - miss  # from 1 down to -1
    after = int(np.argmax(apart <= 0))
    before = after - 1
    part = apart[before] / (apart[before] - apart[after])
    value = float(alarm[before] + part * (alarm[after] - alarm[before]))
    gap, both = np.abs(apart).round(12), (alarm + miss).round(12)
    threshold = float(thresholds[np.lexsort((-thresholds, both, gap))[0]])
    few = few_clusters(up, cluster, resampling.cluster)
    if few:
        return EqualError(Estimate(value, None, clusters, None, None, resampling.level, few), threshold)
    said = score >= threshold
    ends = rate(said[~up], cluster[~up], resampling), rate(~said[up], cluster[up], resampling)
    low = min(value, *(e.low for e in ends if e.low is not None))
    high = max(value, *(e.high for e in ends if e.high is not None))
    method = "both error rates' intervals where they are nearest"
    return EqualError(Estimate(value, None, clusters, low, high, resampling.level, method), threshold)


def roc_points(scores: ArrayLike, positive: ArrayLike, most: int = 200) -> tuple[Floats, Floats]:
    """(K,) false and (K,) true positive rates, both rising from 0 to 1, of each threshold that changes a decision.

    At most ``most`` of them, evenly spread along the curve. Both empty of a single class.
    """
    score, up = checked(scores, positive, np.zeros(len(np.asarray(scores)), dtype=np.int64))
    if lacking(up):
        return np.zeros(0), np.zeros(0)
    _, alarm, miss = _points(score, up)
    x, y = alarm[::-1], 1 - miss[::-1]
    if len(x) > most:
        along = x + y  # city-block length from (0, 0): both only rise
        at = np.unique(np.searchsorted(along, np.linspace(0, 2, most)).clip(max=len(along) - 1))
        x, y = x[at], y[at]
    return x, y


def roc_figure(lines: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str, *, x_label: str, y_label: str) -> Curve:
    """The figure: a ROC curve for each of ``lines``, name -> (scores, positive). A single class draws no line."""
    series = []
    for name, (scores, positive) in lines.items():
        x, y = roc_points(scores, positive)
        if len(x):
            series.append(Series(name=name, x=x.round(5).tolist(), y=y.round(5).tolist()))
    return Curve(title=title, x_label=x_label, y_label=y_label, series=series)


def placements(scores: Floats, positive: Bools) -> tuple[Floats, Floats]:
    """Of each positive the share of negatives that are lower, of each negative that of positives that are higher.

    Equal scores count half. The mean of either is the AUC (DeLong, DeLong and Clarke-Pearson 1988).
    """
    high, low = scores[positive], scores[~positive]
    up, down = np.sort(high), np.sort(low)
    below = np.searchsorted(down, high, "left") + np.searchsorted(down, high, "right")
    above = np.searchsorted(up, low, "left") + np.searchsorted(up, low, "right")
    return below / (2 * len(low)), 1 - above / (2 * len(high))


def checked(scores: ArrayLike, positive: ArrayLike, cluster: Ints) -> tuple[Floats, Bools]:
    """Scores and classes as arrays.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite.
    """
    score, up = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if score.ndim != 1 or up.shape != score.shape or cluster.shape != score.shape:
        raise ValueError(f"expected N scores, classes and groups, got {score.shape}, {up.shape}, {cluster.shape}")
    if not np.isfinite(score).all():
        raise ValueError("expected finite scores")
    return score, up


def lacking(positive: Bools) -> str:
    """Why there is no AUC: which class has no sample; empty where both have."""
    if not positive.size:
        return "there is no sample"
    if positive.all() or not positive.any():
        return f"all samples are {'positive' if positive.all() else 'negative'}, and it takes both classes"
    return ""


def few_clusters(positive: Bools, cluster: Ints, noun: str) -> str:
    """Why there is no interval: fewer than two clusters of a class; empty where both have two."""
    counts = {"positive": len(np.unique(cluster[positive])), "negative": len(np.unique(cluster[~positive]))}
    if min(counts.values()) >= 2:
        return ""
    each = " and ".join(f"{n} with {name} samples" for name, n in counts.items())
    return f"no interval: of the {noun} there are {each}, and it takes two of each, however many the samples"


def _points(score: Floats, up: Bools) -> tuple[Floats, Floats, Floats]:
    """Thresholds, rising, with false positive and false negative rate: all that change a decision and both ends."""
    level, place = np.unique(score, return_inverse=True)
    highs = np.bincount(place.reshape(-1)[up], minlength=len(level))
    lows = np.bincount(place.reshape(-1)[~up], minlength=len(level))
    middle = level[:-1] / 2 + level[1:] / 2
    between = np.where(middle > level[:-1], middle, level[1:])
    thresholds = np.concatenate([level[:1], between, np.nextafter(level[-1:], np.inf)])
    missed = np.concatenate([[0], np.cumsum(highs)]) / highs.sum()
    alarms = 1 - np.concatenate([[0], np.cumsum(lows)]) / lows.sum()
    return thresholds, alarms, missed


def _kish(sizes: NDArray[np.int64]) -> float:
    size = sizes.astype(np.float64)
    return float(size.sum() ** 2 / (size**2).sum())


def _effective_pairs(
    value: float, shares: tuple[Floats, Floats], up: Bools, cluster: Ints, level: float
) -> float:  # fmt: skip
    """A (1 − A) / V (z / t)²: independent pairs that would leave the variance V that there is between clusters."""
    width = int(cluster.max()) + 1
    both, fewest = np.zeros(width), len(cluster)
    for side, share in zip((up, ~up), shares, strict=True):
        there = len(np.unique(cluster[side]))
        fewest = min(fewest, there)
        part = np.bincount(cluster[side], share - value, width) / side.sum()
        both += np.sqrt(there / (there - 1)) * part  # a cluster of both classes moves them together
    variance = float((both**2).sum())
    few = float(stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, fewest - 1)) ** 2
    pairs = float(up.sum()) * float((~up).sum())
    return min(value * (1 - value) / variance * few, pairs) if variance > 0 else float(fewest) * few
