"""How well a recognizer tells people apart: error rates at a cut, EER, DET curve, the cut at a declared FMR.

Scores are higher the more alike two faces are; a pair is accepted where its score is at least the cut. After ISO/IEC
19795-1: FMR, the false match rate, is the share of pairs of two people that are accepted; FNMR, the false non-match
rate, that of pairs of one person that are not. Without such pairs a rate is ``None``, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from audit.measures.intervals import Estimate, Resampling
from audit.measures.pairwise import attack_success, by_group, people_of, share_of_pairs

__all__ = [
    "Det",
    "OperatingPoint",
    "ScoredPairs",
    "accuracy",
    "attack_success",
    "by_group",
    "cut_at",
    "det",
    "eer",
    "fmr",
    "fnmr",
    "impostor_pairs",
    "people_of",
]

Metric = Literal["cosine", "euclidean"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BLOCK = 1 << 21  # numbers in one block of products: 16 MiB
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

    The interval is a safe one: at any cut the EER lies between FMR and FNMR, so it spans both intervals at the cut
    where they are nearest to each other.
    """
    ends, level = _ends(pairs), resampling.level
    if ends is None:
        return Estimate(None, None, len(pairs), None, None, level, "EER")
    cuts, false_match, false_non_match = ends
    apart = false_match - false_non_match  # from 1 down to -1
    after = int(np.argmax(apart <= 0))
    before = after - 1
    part = apart[before] / (apart[before] - apart[after])
    value = float(false_match[before] + part * (false_match[after] - false_match[before]))
    cut = float(cuts[before] if apart[before] < -apart[after] else cuts[after])
    both = fmr(pairs, cut, resampling), fnmr(pairs, cut, resampling)
    low = min(value, *(e.low for e in both if e.low is not None))
    high = max(value, *(e.high for e in both if e.high is not None))
    return Estimate(value, None, len(pairs), low, high, level, "both error rates' intervals where they are nearest")


def cut_at(pairs: ScoredPairs, declared: float, resampling: Resampling) -> OperatingPoint:
    """The cut at a declared FMR, from the calibration's pairs of two people.

    It lies half way between the last impostor accepted and the first refused, so that rounding decides nothing, and
    right above the highest score where none may be accepted. The interval is Woodruff's (1952): the cuts that would
    give the ends of the FMR's own interval.

    Args:
        declared: FMR in (0, 1).

    Raises:
        ValueError: another FMR.
    """
    if not 0 < declared < 1:
        raise ValueError(f"expected a declared FMR between 0 and 1, got {declared}")
    impostors = pairs[~pairs.same]
    n, level, method = len(impostors), resampling.level, "Woodruff, from the interval of the FMR"
    if n == 0:
        nothing = Estimate(None, None, 0, None, None, level, method)
        note = "no pair of two people: no cut can be told"
        return OperatingPoint(declared, nothing, fmr(impostors, 0.0, resampling), note)
    falling = np.sort(impostors.scores)[::-1]
    cut = _accepting(falling, declared)
    found, few = fmr(impostors, cut, resampling), ""
    low = high = None
    if found.low is not None and found.high is not None and found.low * n >= 1:
        low, high = min(cut, _accepting(falling, found.high)), max(cut, _accepting(falling, found.low))
    else:
        method = "no interval: its upper end lies above every score"
    if declared * n < 1:
        few = f"{n} pairs of two people are too few for an FMR of {declared:g}: at this cut none of them is accepted"
    return OperatingPoint(declared, Estimate(cut, None, n, low, high, level, method), found, few)


def impostor_pairs(
    embeddings: Floats, identities: Sequence[str], metric: Metric, *, most: int = 2_000_000, seed: int = 0
) -> ScoredPairs:
    """Every face with every face of somebody else, once; a random part of them where there are more than ``most``.

    Args:
        embeddings: (N, D), of length one where cosines are compared. identities: N names, none empty. metric: the
            score is the cosine, or less the distance. most: about so many pairs are kept; seed: of that draw.
    """
    who = people_of(identities, identities)[:, 0]
    n, faces = len(who), np.asarray(embeddings, dtype=np.float64)
    if faces.ndim != 2 or len(faces) != n:
        raise ValueError(f"expected (N, D) embeddings and N identities, got {faces.shape} and {n}")
    of_one = np.bincount(who) if n else np.zeros(0)
    there = (n**2 - int((of_one**2).sum())) // 2
    keep, rng = most / there if there > most else 1.0, np.random.default_rng(seed)
    length = (faces**2).sum(1)
    scores, people = [np.zeros(0)], [np.zeros((0, 2), dtype=np.int64)]
    rows = max(1, _BLOCK // max(n, 1))
    for at in range(0, n, rows):
        part = slice(at, min(at + rows, n))
        product = faces[part] @ faces.T
        wanted = (who[part, None] != who[None]) & (np.arange(n)[part, None] < np.arange(n)[None])
        if keep < 1:
            wanted &= rng.random(wanted.shape) < keep
        i, j = np.nonzero(wanted)
        score = product[i, j]
        if metric == "euclidean":
            score = -np.sqrt(np.maximum(length[i + at] + length[j] - 2 * score, 0))
        scores.append(score)
        people.append(np.stack([who[i + at], who[j]], 1))
    found = np.concatenate(scores)
    return ScoredPairs(found, np.zeros(len(found), dtype=bool), np.concatenate(people))


def _accepting(falling: Floats, rate: float) -> float:
    """The cut at which at most the share ``rate`` of the scores, in falling order, is accepted."""
    allowed = int(np.floor(rate * len(falling) + 1e-9))
    if allowed >= len(falling):
        return float(falling[-1])
    refused = falling[allowed]
    above = falling[:allowed][falling[:allowed] > refused]
    just = float(np.nextafter(np.float32(refused), np.float32(np.inf)))  # models answer in float32
    return max(just, float(refused + above[-1]) / 2) if len(above) else just


def _ends(pairs: ScoredPairs) -> tuple[Floats, Floats, Floats] | None:
    """Cuts, ascending, and both error rates at every one that changes a decision, from all accepted to none."""
    genuine, total = int(pairs.same.sum()), len(pairs)
    if genuine in {0, total}:
        return None
    order = np.argsort(pairs.scores, kind="stable")
    score, same = pairs.scores[order], pairs.same[order]
    first = np.flatnonzero(np.diff(score, prepend=-np.inf) > 0)  # of each group of equal scores
    below = np.concatenate([[0], np.cumsum(same)])  # pairs of one person under each place
    at = np.append(first, total)
    refused = below[at]
    cuts = np.append(score[first], np.nextafter(score[-1], np.inf))
    impostors = total - genuine
    return cuts, (impostors - (at - refused)) / impostors, refused / genuine
