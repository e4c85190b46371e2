"""Shares of samples that go together in clusters, and the mean of two such shares (balanced accuracy, ACER, HTER)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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


def extreme(rates: Mapping[str, Estimate], adjusted: Mapping[str, Estimate], *, highest: bool) -> Estimate:
    """The highest (or lowest) of S rates, with an interval for the highest (lowest) of the true ones.

    The highest true one is at most the highest of the upper ends wherever its own interval holds. That it is at least
    something is a claim on the best of S tries: the lower end is the highest of the lower ends in ``adjusted``, the
    same rates at level 1 − (1 − level) / S (Bonferroni). For the lowest, the other way round. A rate without an
    interval may be anything: the end on its side is then 1 (or 0).
    """
    known = {n: e for n in sorted(rates) if (e := rates[n]).value is not None}
    if not known:
        level = next((e.level for e in rates.values()), 0.95)
        return Estimate(None, None, 0, None, None, level, "nothing was counted")
    best = max if highest else min
    name = best(known, key=lambda n: _value(known[n]))
    found, value = known[name], _value(known[name])
    claims = [e for n in known if (e := adjusted[n]).low is not None and e.high is not None]
    if not claims:
        return found
    kind = "highest" if highest else "lowest"
    method = found.method if len(known) == 1 else f"{kind} of {len(known)}, Bonferroni; {found.method}"
    if highest:
        low = max(e.low for e in claims if e.low is not None)
        high = max(1.0 if e.high is None else e.high for e in known.values())
    else:
        low = min(0.0 if e.low is None else e.low for e in known.values())
        high = min(e.high for e in claims if e.high is not None)
    return Estimate(value, found.k, found.n, min(low, value), max(high, value), found.level, method)


def stricter(resampling: Resampling, tries: int) -> Resampling:
    """The same resampling at level 1 − (1 − level) / tries."""
    return replace(resampling, level=1 - (1 - resampling.level) / max(tries, 1))


def _value(e: Estimate) -> float:
    assert e.value is not None
    return e.value
