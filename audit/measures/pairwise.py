"""Shares of comparisons, where pairs of faces share people: their intervals.

Two comparisons that share a person go together, so n pairs say less than n independent trials. Resampling connected
components would say too little (a few popular people join nearly everybody). Here the variance of a share is the
dyadic cluster-robust one, which adds the products of all residuals of pairs that share a person (Fafchamps and Gubert
2007; Aronow, Samii and Assenova 2015), and the interval is the exact one for as many independent trials as would have
that variance (Korn and Graubard 1998), as Fogliato, Patil and Perona (2024) advise for 1:1 matching, where
bootstraps fail near rates of 0. Coverage is simulated in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from audit.measures.intervals import FEW, Estimate, Resampling, exact_interval, wilson

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def people_of(first: Sequence[str], second: Sequence[str]) -> Ints:
    """(P, 2) numbers of the people in P pairs, by name.

    Raises:
        ValueError: not as many on both sides, or a name that is empty: who is nobody cannot be told from anybody.
    """
    if len(first) != len(second) or not all(first) or not all(second):
        raise ValueError(f"expected two names per pair, none empty, got {len(first)} and {len(second)}")
    index = np.unique(np.asarray([*first, *second], dtype=str), return_inverse=True)[1]
    return index.reshape(2, -1).T.astype(np.int64)


def share_of_pairs(hits: ArrayLike, people: ArrayLike, resampling: Resampling) -> Estimate:
    """The share of pairs that are hits, with an interval that knows which of them share people.

    Where no two pairs share a person it is Wilson's. Else Clopper-Pearson on n_eff = p (1 − p) / V trials,

        V = 1/n² Σ_{pairs a, b that share a person} e_a e_b,   e = hit − p,

    never below the variance of independent pairs, and corrected for few people as Korn and Graubard do. Where V says
    nothing (all hit, or none), n_eff = n² / #{(a, b) that share a person}: as if such pairs always went together. Hits,
    or misses, of fewer than ``FEW`` people never make it surer than that would.

    Args:
        hits: (P,) bool. people: (P, 2) whole numbers; a pair of one person has the same one twice. resampling: its
            level alone counts: nothing is drawn.

    Returns:
        ``k`` and ``n`` count pairs; without pairs all is ``None``.

    Raises:
        ValueError: shapes that do not fit.
    """
    level = resampling.level
    hit, who = np.asarray(hits, dtype=bool), np.asarray(people, dtype=np.int64).reshape(-1, 2)
    if hit.ndim != 1 or len(hit) != len(who):
        raise ValueError(f"expected (P,) hits and (P, 2) people, got {hit.shape} and {who.shape}")
    n, k = len(hit), int(hit.sum())
    if n == 0:
        return wilson(0, 0, level)
    share = k / n
    most = n**2 / _together(np.ones(n), who)
    if most >= n:
        return wilson(k, n, level)
    people_there = len(np.unique(who))
    if k in {0, n}:
        size = most
    else:
        residual = hit - share
        variance = max(_together(residual, who), float((residual**2).sum())) / n**2
        degrees = max(people_there - 1, 1)
        few = float(stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, degrees)) ** 2
        size = min(share * (1 - share) / variance * few, float(n))
    low, high = exact_interval(share * size, size, level)
    if min(len(np.unique(who[hit])), len(np.unique(who[~hit]))) < FEW:
        low, high = min(low, exact_interval(most, most, level)[0]), max(high, exact_interval(0, most, level)[1])
    method = f"Clopper-Pearson on {size:.4g} effective pairs ({people_there} people, dyadic variance)"
    return Estimate(share, k, n, min(low, share), max(high, share), level, method)


def attack_success(
    success: ArrayLike,
    eligible: ArrayLike,
    first: Sequence[str],
    second: Sequence[str],
    resampling: Resampling,
) -> Estimate:
    """Attack success rate: of the pairs judged rightly before the attack (``eligible``), those that no longer are.

    Args:
        success, eligible: (P,) bool. first, second: who is in each pair; names that are not empty.
    """
    good = np.asarray(eligible, dtype=bool)
    hit = np.asarray(success, dtype=bool)
    if hit.shape != good.shape:
        raise ValueError(f"expected two masks of one shape, got {hit.shape} and {good.shape}")
    return share_of_pairs(hit[good], people_of(first, second)[good], resampling)


@dataclass(frozen=True, slots=True)
class GroupRates:
    """One rate per group, and the worst of them.

    Attributes:
        rates: group -> rate, in order of name. worst: the group with the worst rate; ``None`` where none has any.
    """

    rates: Mapping[str, Estimate]
    worst: str | None


def by_group(groups: Sequence[str], rate: Callable[[Bools], Estimate], *, higher_is_better: bool = False) -> GroupRates:
    """A rate per group.

    Args:
        groups: per pair (or probe) its group; empty where it has none. rate: maps a mask (P,) of what belongs to a
            group to its rate.
    """
    labels = np.asarray(groups, dtype=str)
    rates = {str(g): rate(labels == g) for g in np.unique(labels) if g}
    known = {g: r.value for g, r in rates.items() if r.value is not None}
    pick = min if higher_is_better else max
    return GroupRates(rates, pick(known, key=lambda g: known[g]) if known else None)


def _together(values: Floats, people: Ints) -> float:
    """Σ v_a v_b over all ordered pairs (a, b) of comparisons, a = b among them, that share a person.

    Summed over people, comparisons of the same two people come in twice, hence the second term.
    """
    low, high = people.min(1), people.max(1)
    two = low != high
    width = int(people.max()) + 1
    sums = np.bincount(low, values, width) + np.bincount(high[two], values[two], width)
    doubles = np.unique(low[two] * width + high[two], return_inverse=True)[1]
    twice = np.bincount(doubles.reshape(-1), values[two])
    return float((sums**2).sum() - (twice**2).sum())
