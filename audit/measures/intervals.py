"""Intervals: how far a counted share or a statistic may be from the truth, by the method that fits how it was sampled.

Independent trials: :func:`wilson` or :func:`clopper_pearson`. Trials that come in clusters (faces of one image, frames
of one video): :func:`cluster_bootstrap`. Statistics that are no share (AF_beta): :func:`bootstrap_statistic`. Nothing
sampled gives the value ``None``, never 0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from audit.record import Condition, Measure

FEW = 10
"""With fewer clusters than this that carry a hit (or a miss), resamples are too alike for a bootstrap."""

_CHUNK = 1 << 21  # numbers in one block of resampling weights: 16 MiB

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval.

    Attributes:
        value: the point estimate; ``None`` where nothing was sampled. k, n: hits of trials where it is a share
            (``k`` is ``None`` for another statistic; ``n`` then counts clusters).
        low, high: the two-sided interval at ``level`` by ``method``; ``None`` where it cannot be given.
    """

    value: float | None
    k: int | None
    n: int
    low: float | None
    high: float | None
    level: float
    method: str

    def measure(self, name: str, *, unit: str = "share", higher_is_better: bool = True) -> Measure:
        """As it stands in the record."""
        return Measure(
            name=name, unit=unit, k=self.k, n=self.n, value=self.value, low=self.low, high=self.high,
            level=self.level, method=self.method, higher_is_better=higher_is_better,
        )  # fmt: skip

    def condition(self, name: str, group: str = "") -> Condition:
        """As a row beside the judged number."""
        return Condition(name=name, group=group, k=self.k, n=self.n, value=self.value, low=self.low, high=self.high)


@dataclass(frozen=True, slots=True)
class Resampling:
    """How the bootstrap of a measure is done: handed through to :func:`cluster_bootstrap`.

    ``cluster`` is the plural noun for what is resampled together, for the report.
    """

    seed: int
    draws: int = 2000
    level: float = 0.95
    cluster: str = "images"


def wilson(k: int, n: int, level: float = 0.95) -> Estimate:
    """Wilson's score interval for ``k`` hits in ``n`` independent trials (Wilson 1927).

    The ends are the shares p with |k/n - p| = z sqrt(p (1 - p) / n). With n = 0 everything is ``None``.

    Raises:
        ValueError: not 0 <= k <= n, or not 0 < level < 1.
    """
    _check(k, n, level)
    if n == 0:
        return _nothing(level, "Wilson")
    z = float(stats.norm.ppf((1 + level) / 2))
    p, z2n = k / n, z * z / n
    centre, half = (p + z2n / 2) / (1 + z2n), z * np.sqrt(p * (1 - p) / n + z2n / n / 4) / (1 + z2n)
    low = 0.0 if k == 0 else float(centre - half)  # exact in theory, not in floating point
    high = 1.0 if k == n else float(centre + half)
    return Estimate(p, k, n, low, high, level, "Wilson")


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Estimate:
    """The exact interval for ``k`` hits in ``n`` independent trials (Clopper and Pearson 1934).

    The ends are the shares p at which k or more (k or fewer) hits have probability (1 - level) / 2. With n = 0
    everything is ``None``.

    Raises:
        ValueError: not 0 <= k <= n, or not 0 < level < 1.
    """
    _check(k, n, level)
    if n == 0:
        return _nothing(level, "Clopper-Pearson")
    low, high = exact_interval(k, n, level)
    return Estimate(k / n, k, n, low, high, level, "Clopper-Pearson")


def cluster_bootstrap(
    k_per_cluster: ArrayLike,
    n_per_cluster: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int,
    cluster: str = "images",
) -> Estimate:
    """The share sum(k) / sum(n) with an interval that knows that trials of one cluster go together.

    Whole clusters are drawn with replacement; see :func:`bootstrap_statistic` for how the interval is read off. Two
    cases get an exact interval in its place, because a bootstrap is blind there:

    - no hit at all, no miss at all, or fewer than two clusters with trials: Clopper-Pearson with Kish's effective
      number of clusters, (sum n)^2 / sum n^2, as number of trials: each cluster counts as no more than one trial.
    - hits, or misses, in fewer than ``FEW`` clusters: Clopper-Pearson with the effective number of trials that the
      between-cluster variance leaves (Korn and Graubard 1998), and never surer than the case above would be: a variance
      seen in so few clusters must not make one hit say more than none.

    Args:
        k_per_cluster, n_per_cluster: (C,) whole numbers, hits and trials, 0 <= k <= n; clusters without trials may be
            among them. draws: resamples. seed: of the resampling alone. cluster: what a cluster is, for ``method``.

    Raises:
        ValueError: shapes differ, a count is impossible, or not 0 < level < 1.
    """
    k, n = np.asarray(k_per_cluster, dtype=np.float64), np.asarray(n_per_cluster, dtype=np.float64)
    if k.ndim != 1 or k.shape != n.shape or bool(((k < 0) | (k > n)).any()):
        raise ValueError(f"expected 0 <= k <= n for each of C clusters, got shapes {k.shape} and {n.shape}")
    hits, trials = int(k.sum()), int(n.sum())
    _check(hits, trials, level)
    if trials == 0:
        return _nothing(level, f"cluster bootstrap over {cluster}")
    share, with_data = hits / trials, int((n > 0).sum())
    if hits in (0, trials) or with_data < 2:
        size = float(n.sum() ** 2 / (n**2).sum())
        low, high = exact_interval(share * size, size, level)
        method = f"Clopper-Pearson on {size:.4g} effective {cluster}"
    elif min(int((k > 0).sum()), int((k < n).sum())) < FEW:
        size, most = _effective(k, n, with_data, level), float(n.sum() ** 2 / (n**2).sum())
        low, high = exact_interval(share * size, size, level)
        low, high = min(low, exact_interval(most, most, level)[0]), max(high, exact_interval(0, most, level)[1])
        method = f"Clopper-Pearson on {size:.4g} effective trials (Korn-Graubard, {with_data} {cluster})"
    else:
        both = np.stack([k, n], axis=1)

        def ratio(weights: Floats) -> Floats:
            sums = weights @ both
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray(sums[:, 0] / sums[:, 1], dtype=np.float64)

        inner = bootstrap_statistic(ratio, len(k), level=level, draws=draws, seed=seed, cluster=cluster)
        if inner.low is None or inner.high is None:  # all clusters have one share: resampling shows no spread
            size = _effective(k, n, with_data, level)
            low, high = exact_interval(share * size, size, level)
            method = f"Clopper-Pearson on {size:.4g} effective trials (equal shares in {with_data} {cluster})"
        else:
            low, high, method = max(inner.low, 0.0), min(inner.high, 1.0), inner.method
    return Estimate(share, hits, trials, min(low, share), max(high, share), level, method)


def bootstrap_statistic(
    statistic: Callable[[Floats], Floats],
    clusters: int,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int,
    cluster: str = "images",
) -> Estimate:
    """Any statistic of weighted clusters, with a bias-corrected, accelerated bootstrap interval over the clusters.

    BCa after Efron (1987), the acceleration from the jackknife; the normal quantiles are widened to Student's with
    C - 1 degrees of freedom times sqrt(C / (C - 1)), since a bootstrap of C clusters is too narrow by that much
    (Hesterberg 2015, "expanded percentiles"). Coverage is simulated in the tests.

    Args:
        statistic: maps weights (B, C), each row how often each cluster counts (all ones: the sample itself), to (B,)
            values; NaN where undefined. Must be vectorised over rows. clusters: C.

    Returns:
        ``k`` is ``None`` and ``n`` is C. With C = 0 or an undefined value all is ``None``. With one cluster, or where
        no resample moves the value, there is a value but no interval, and ``method`` says so.

    Raises:
        ValueError: not 0 < level < 1, or fewer than 100 draws.
    """
    _check(0, clusters, level)
    if draws < 100:
        raise ValueError(f"expected at least 100 draws, got {draws}")
    name = f"BCa cluster bootstrap over {clusters} {cluster}, {draws} draws"
    if clusters == 0:
        return _nothing(level, name)
    value = float(statistic(np.ones((1, clusters)))[0])
    if np.isnan(value):
        return Estimate(None, None, clusters, None, None, level, name)
    if clusters < 2:
        return Estimate(value, None, clusters, None, None, level, f"one of {cluster}: no interval")
    rng = np.random.default_rng(seed)
    even = np.full(clusters, 1 / clusters)
    block = max(1, _CHUNK // clusters)
    resampled = np.concatenate(
        [
            statistic(rng.multinomial(clusters, even, size=min(block, draws - at)).astype(np.float64))
            for at in range(0, draws, block)
        ]
    )
    resampled = resampled[~np.isnan(resampled)]
    if not resampled.size or np.ptp(resampled) == 0:
        return Estimate(value, None, clusters, None, None, level, f"{name}: no resample moved the value, no interval")
    left_out = np.concatenate([statistic(rows) for rows in _leave_one_out(clusters, block)])
    below = float((resampled < value).mean() + (resampled == value).mean() / 2)
    shift = float(stats.norm.ppf(np.clip(below, 1 / draws, 1 - 1 / draws)))
    moves = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    spread = float((moves**2).sum())
    acceleration = float((moves**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    student = stats.t.ppf([(1 - level) / 2, (1 + level) / 2], clusters - 1) * np.sqrt(clusters / (clusters - 1))
    # past 1 / acceleration the correction turns round: such a quantile means the outermost resample
    room = np.maximum(1 - acceleration * (shift + student), 1e-3)
    low, high = np.quantile(resampled, stats.norm.cdf(shift + (shift + student) / room))
    return Estimate(value, None, clusters, float(low), float(high), level, name)


def _leave_one_out(clusters: int, block: int) -> Iterator[Floats]:
    for at in range(0, clusters, block):
        part = np.ones((min(block, clusters - at), clusters))
        part[np.arange(len(part)), at + np.arange(len(part))] = 0
        yield part


def _effective(k: Floats, n: Floats, clusters: int, level: float) -> float:
    """Trials that a simple random sample would need for the same variance, never more than there were."""
    share, total = k.sum() / n.sum(), n.sum()
    variance = clusters / (clusters - 1) * float(((k - share * n) ** 2).sum()) / total**2
    if variance == 0:  # every cluster has the same share: they say nothing of the spread between them
        return float(total**2 / (n**2).sum())
    few = float(stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, clusters - 1)) ** 2
    return float(min(share * (1 - share) / variance * few, total))


def exact_interval(k: float, n: float, level: float) -> tuple[float, float]:
    """The ends of Clopper and Pearson's interval through the beta distribution, which allows fractional k and n."""
    tail = (1 - level) / 2
    low = 0.0 if k <= 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k >= n else float(stats.beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def _check(k: int, n: int, level: float) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"expected 0 <= k <= n, got k={k}, n={n}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")


def _nothing(level: float, method: str) -> Estimate:
    return Estimate(None, 0, 0, None, None, level, method)
