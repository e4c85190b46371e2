"""Shares of samples that go together in clusters, and the mean of two such shares (balanced accuracy, ACER, HTER)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audit.measures.intervals import FEW, Estimate, Resampling, bootstrap_statistic, cluster_bootstrap

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def numbered(names: Sequence[str]) -> tuple[Ints, int]:
    """(N,) number of each name in the order of the alphabet, and how many names there are."""
    if not len(names):
        return np.zeros(0, dtype=np.int64), 0
    found, index = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    return index.reshape(-1).astype(np.int64), len(found)


def rate(hits: ArrayLike, cluster: Ints, resampling: Resampling) -> Estimate:
    """The share of N samples that are hits, with the interval of ``intervals.cluster_bootstrap``.

    Args:
        hits: (N,) bool. cluster: (N,) numbers from 0.
    """
    k, n = _counts(np.asarray(hits, dtype=bool), cluster, int(cluster.max()) + 1 if len(cluster) else 0)
    there = n > 0
    r = resampling
    return cluster_bootstrap(k[there], n[there], level=r.level, draws=r.draws, seed=r.seed, cluster=r.cluster)


def mean_of_rates(
    first: tuple[ArrayLike, Ints], second: tuple[ArrayLike, Ints], resampling: Resampling
) -> Estimate:  # fmt: skip
    """Half the sum of two shares, each of (hits, cluster) as in :func:`rate`, over one numbering of the clusters.

    A cluster in both is drawn for both at once. Where fewer than ``FEW`` clusters carry hits, or misses, of either
    share, a bootstrap of it is blind, and the interval is from half the sum of the two lower ends to half the sum of
    the two upper ones: too wide rather than too narrow.

    Returns:
        ``n`` counts clusters, ``k`` is ``None``; all ``None`` where either share has no sample.
    """
    width = max((int(c.max()) + 1 for _, c in (first, second) if len(c)), default=0)
    tables = [_counts(np.asarray(hits, dtype=bool), cluster, width) for hits, cluster in (first, second)]
    parts = [rate(hits, cluster, resampling) for hits, cluster in (first, second)]
    columns = np.stack([column for table in tables for column in table], axis=1)
    columns = columns[columns[:, 1] + columns[:, 3] > 0]
    clusters, level = len(columns), resampling.level
    one, other = parts
    if one.value is None or other.value is None:
        reason = "one of the two shares has no sample"
        return Estimate(None, None, clusters, None, None, level, reason)
    value = (one.value + other.value) / 2

    def half_sum(weights: Floats) -> Floats:
        sums = weights @ columns
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((sums[:, 0] / sums[:, 1] + sums[:, 2] / sums[:, 3]) / 2, dtype=np.float64)

    if min(min(int((k > 0).sum()), int((k < n).sum())) for k, n in tables) >= FEW:
        r = resampling
        found = bootstrap_statistic(half_sum, clusters, level=level, draws=r.draws, seed=r.seed, cluster=r.cluster)
        if found.low is not None and found.high is not None:
            low, high = min(max(found.low, 0.0), value), max(min(found.high, 1.0), value)
            return Estimate(value, None, clusters, low, high, level, found.method)
    lows, highs = [e.low for e in parts if e.low is not None], [e.high for e in parts if e.high is not None]
    method = f"half the sum of both shares' ends ({one.method}; {other.method})"
    return Estimate(value, None, clusters, sum(lows) / 2, sum(highs) / 2, level, method)


def _counts(hits: Bools, cluster: Ints, width: int) -> tuple[Floats, Floats]:
    if hits.shape != cluster.shape:
        raise ValueError(f"expected (N,) hits and clusters, got {hits.shape} and {cluster.shape}")
    k, n = np.bincount(cluster[hits], minlength=width), np.bincount(cluster, minlength=width)
    return k.astype(np.float64), n.astype(np.float64)
