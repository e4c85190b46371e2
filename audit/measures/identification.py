"""1:N: a face against a gallery of enrolled ones, with its error rates after ISO/IEC 19795-1.

An enrolled person is found where they come first and their score reaches the cut; otherwise they are hidden (a false
negative). Somebody who is not enrolled is accepted where any score reaches it (a false positive).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audit.measures.intervals import Estimate, Resampling
from audit.measures.pairwise import people_of, share_of_pairs

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

NOT_ENROLLED = -1


@dataclass(frozen=True, eq=False)
class Identified:
    """What became of N probes.

    Attributes:
        enrolled: (N,) whether they are in the gallery. best: (N,) the entry with the highest score, -1 with an empty
            gallery. first: (N,) enrolled, and the best entry is their own. accepted: (N,) the best reaches the cut.
    """

    enrolled: Bools
    best: Ints
    first: Bools
    accepted: Bools

    @property
    def found(self) -> Bools:
        """(N,) enrolled, first and accepted."""
        return self.first & self.accepted

    @property
    def hidden(self) -> Bools:
        """(N,) enrolled and not found."""
        return self.enrolled & ~self.found

    @property
    def intruding(self) -> Bools:
        """(N,) not enrolled and accepted as somebody."""
        return ~self.enrolled & self.accepted


def identified(scores: ArrayLike, truth: ArrayLike, cut: float) -> Identified:
    """Who is taken for whom.

    Args:
        scores: (N, G) finite, of N probes against G entries, each a person of their own. truth: (N,) the entry that is
            the probe's person, -1 where that person is not enrolled. cut: the score from which one is accepted.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, an entry that does not exist.

    Of equal scores the probe's own entry comes last: a tie is no identification.
    """
    score, who = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.int64)
    if score.ndim != 2 or who.shape != score.shape[:1]:
        raise ValueError(f"expected (N, G) scores and N entries, got {score.shape} and {who.shape}")
    n, size = score.shape
    if not np.isfinite(score).all() or bool(((who < NOT_ENROLLED) | (who >= size)).any()):
        raise ValueError(f"expected finite scores and entries from -1 to {size - 1}")
    enrolled = who != NOT_ENROLLED
    if size == 0:
        none = np.zeros(n, dtype=bool)
        return Identified(enrolled, np.full(n, -1), none, none)
    own = np.where(enrolled, score[np.arange(n), who], -np.inf)
    others = score.copy()
    others[np.flatnonzero(enrolled), who[enrolled]] = -np.inf
    first = enrolled & (own > others.max(1))
    best = np.where(first, who, others.argmax(1))
    return Identified(enrolled, best, first, score.max(1) >= cut)


def rank_one(seen: Identified, people: Sequence[str], resampling: Resampling) -> Estimate:
    """Share of the enrolled probes that come first, whatever the cut. ``people``: who each probe is, none empty."""
    return _share(seen.first, seen.enrolled, people, resampling)


def fnir(seen: Identified, people: Sequence[str], resampling: Resampling) -> Estimate:
    """False negative identification rate: hidden of enrolled."""
    return _share(seen.hidden, seen.enrolled, people, resampling)


def fpir(seen: Identified, people: Sequence[str], resampling: Resampling) -> Estimate:
    """False positive identification rate: accepted of those who are not enrolled."""
    return _share(seen.intruding, ~seen.enrolled, people, resampling)


def _share(hits: Bools, of: Bools, people: Sequence[str], resampling: Resampling) -> Estimate:
    return share_of_pairs(hits[of], people_of(people, people)[of], resampling)
