"""How well a recognizer tells people apart: error rates at a cut, EER, DET curve, the cut at a declared FMR.

Scores are higher the more alike two faces are; a pair is accepted where its score is at least the cut. After ISO/IEC
19795-1: FMR, the false match rate, is the share of pairs of two people that are accepted; FNMR, the false non-match
rate, that of pairs of one person that are not. Without such pairs a rate is ``None``, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from audit.measures.intervals import Estimate, Resampling, bootstrap_statistic
from audit.measures.pairwise import share_of_pairs

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BLOCK = 1 << 21  # numbers in one block of weights: 16 MiB
_PROBIT = 1e-6  # rates of 0 and 1 have no normal deviate


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """P comparisons.

    Attributes:
        scores: (P,) finite. same: (P,) bool, whether both faces are one person's. people: (P, 2) int64, who they are
            (see ``audit.measures.pairwise.people_of``).

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, pairs of one person with two numbers.
    """

    scores: Floats
    same: Bools
    people: Ints

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.scores.shape != (n,) or self.same.shape != (n,) or self.people.shape != (n, 2):
            raise ValueError(f"expected P scores, P of same and (P, 2) people, got {self.scores.shape}, "
                             f"{self.same.shape}, {self.people.shape}")  # fmt: skip
        if self.same.dtype != np.bool_ or not np.isfinite(self.scores).all():
            raise ValueError("expected finite scores and bool `same`")
        if bool(((self.people[:, 0] == self.people[:, 1]) != self.same).any()):
            raise ValueError("expected pairs of one person, and no others, to have one number twice")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Bools | Ints) -> ScoredPairs:
        return ScoredPairs(self.scores[index], self.same[index], self.people[index])


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The cut at a declared FMR.

    Attributes:
        cut: the lowest one at which the calibration's FMR is at most ``declared``; without an interval where the
            scores do not reach far enough. fmr: what the calibration shows there, with its interval.
        note: a sentence where the calibration is too small for the declared rate, else empty.
    """

    declared: float
    cut: Estimate
    fmr: Estimate
    note: str = ""


@dataclass(frozen=True, eq=False)
class Det:
    """The DET curve: (K,) each, cuts ascending, FMR falling, FNMR rising. Empty without pairs of both kinds."""

    cuts: Floats
    fmr: Floats
    fnmr: Floats


def fmr(pairs: ScoredPairs, cut: float, resampling: Resampling) -> Estimate:
    """FMR at ``cut``: k accepted of n pairs of two people."""
    of = ~pairs.same
    return share_of_pairs(pairs.scores[of] >= cut, pairs.people[of], resampling)


def fnmr(pairs: ScoredPairs, cut: float, resampling: Resampling) -> Estimate:
    """FNMR at ``cut``: k refused of n pairs of one person."""
    return share_of_pairs(pairs.scores[pairs.same] < cut, pairs.people[pairs.same], resampling)


def accuracy(pairs: ScoredPairs, cut: float, resampling: Resampling) -> Estimate:
    """Share of all pairs that are judged rightly at ``cut``."""
    return share_of_pairs((pairs.scores >= cut) == pairs.same, pairs.people, resampling)


def det(pairs: ScoredPairs, most: int = 200) -> Det:
    """The DET curve, thinned to at most ``most`` points evenly spread along it on its usual axes, normal deviates.

    Every cut that changes a decision is a point before thinning: just those of scikit-learn's ``det_curve``, and the
    two ends where all, or none, are accepted.
    """
    ends = _ends(pairs)
    if ends is None:
        return Det(*(np.zeros(0) for _ in range(3)))
    cuts, false_match, false_non_match = ends
    if len(cuts) > most:
        x, y = (stats.norm.ppf(np.clip(r, _PROBIT, 1 - _PROBIT)) for r in (false_match, false_non_match))
        along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
        at = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most)).clip(max=len(along) - 1))
        cuts, false_match, false_non_match = cuts[at], false_match[at], false_non_match[at]
    return Det(cuts, false_match, false_non_match)


def eer(pairs: ScoredPairs, resampling: Resampling) -> Estimate:
    """Equal error rate: where FMR = FNMR on the straight lines between the points of the DET curve.

    The interval resamples people (vertex bootstrap, Snijders and Borgatti 1999): a pair of two people counts as often
    as the product of their counts, a pair of one person as often as that person.
    """
    raise NotImplementedError


def cut_at(pairs: ScoredPairs, declared: float, resampling: Resampling) -> OperatingPoint:
    """The cut at a declared FMR, from the calibration's pairs of two people."""
    raise NotImplementedError
