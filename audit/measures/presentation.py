"""Presentation attacks after ISO/IEC 30107-3: APCER per species and the worst, BPCER, ACER; HTER of unseen domains.

A liveness detector says live where its score is at least the threshold; a video's score is the mean of its frames'.
A species (the standard's presentation attack instrument species) is a kind of attack: a print, a screen, a mask. Rates
of species are never pooled: one that gets through is not made good by others that do not. The half total error rate of
an unseen domain (CATALOGUE L1) is taken at a threshold fixed on the development domains, never on the domain that is
judged. Frames of one video and videos of one person go together in every interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import Bools, extreme, mean_of_rates, numbered, rate
from audit.measures.roc import auc, equal_error
from audit.measures.scored import Scored, Unit
from audit.record import Condition, Grid


@dataclass(frozen=True, slots=True)
class Presentation:
    """Error rates at one threshold; all lower is better.

    Attributes:
        apcer: species -> share of its attacks said to be live. worst: the species with the highest, the first by name
            of equals; ``None`` without attacks. max_apcer: the highest, with an interval for the highest of the true
            ones (:func:`highest`). bpcer: share of live ones said to be attacks. acer: (max APCER + BPCER) / 2.
    """

    apcer: Mapping[str, Estimate]
    worst: str | None
    max_apcer: Estimate
    bpcer: Estimate
    acer: Estimate


@dataclass(frozen=True, slots=True)
class Unseen:
    """A domain judged at a threshold from other domains.

    Attributes:
        threshold: their equal error threshold, a score; ``None`` where they hold one class only. far: share of all
            its attacks accepted. frr: share of its live ones rejected. hter: (far + frr) / 2. auc: of live against
            attack, which needs no threshold. presentation: its rates per species there. videos, groups: how many.
    """

    threshold: float | None
    far: Estimate
    frr: Estimate
    hter: Estimate
    auc: Estimate
    presentation: Presentation | None
    videos: int
    groups: int


def presentation(scored: Scored, threshold: float, resampling: Resampling, unit: Unit = "video") -> Presentation:
    """APCER per species, BPCER and ACER.

    Args:
        scored: label 1 is live; ``method`` is the species of an attack. threshold: a score as the model gives it.
    """
    scored = replace(scored, log_odds=False)
    s, live = scored.per(unit), scored.said(threshold, unit)
    return _rates(s, live, resampling)


def highest(rates: Mapping[str, Estimate], adjusted: Mapping[str, Estimate]) -> Estimate:
    """The highest of S rates, see :func:`audit.measures.rates.extreme`; nothing where no attack was presented."""
    found = extreme(rates, adjusted, highest=True)
    return found if found.n else replace(found, method="no attack was presented")


def leave_one_out(
    scored: Scored, domains: Sequence[str], resampling: Resampling, unit: Unit = "video"
) -> dict[str, Unseen]:
    """Each domain, in order of name, judged at the threshold of all others together.

    The threshold is the one at which FAR and FRR of the others' samples, taken together, are nearest to each other
    (:func:`audit.measures.roc.equal_error` says how ties are settled); FAR(t) = share of attacks with score >= t,
    FRR(t) = share of live ones with score < t, and

        HTER = (FAR(t) + FRR(t)) / 2

    on the domain left out. What the model was trained on is another matter: only the threshold is kept unseen here.

    Args:
        scored: label 1 is live. domains: (N,) names, one for each clip.

    Raises:
        ValueError: not as many domains as samples, a clip in two domains, fewer than two domains.
    """
    names = np.asarray(domains, dtype=str)
    if names.shape != scored.scores.shape or len(set(zip(scored.clips, domains, strict=True))) != len(
        set(scored.clips)
    ):
        raise ValueError("expected a domain for each sample, one for each clip")
    if len(set(domains)) < 2:
        raise ValueError(f"expected at least two domains, got {sorted(set(domains))}")
    return {
        str(d): unseen(scored.where(names != d), scored.where(names == d), resampling, unit) for d in np.unique(names)
    }


def unseen(development: Scored, test: Scored, resampling: Resampling, unit: Unit = "video") -> Unseen:
    """``test`` judged at the equal error threshold of ``development``."""
    dev, s = (replace(x, log_odds=False).per(unit) for x in (development, test))
    threshold = equal_error(dev.scores, dev.positive, dev.groups, resampling).threshold
    cluster, counts = numbered(s.groups)
    separation = auc(s.scores, s.positive, s.groups, resampling)
    if threshold is None:
        reason = "the development domains hold one class only: no threshold"
        nothing = Estimate(None, None, len(s), None, None, resampling.level, reason)
        return Unseen(None, nothing, nothing, nothing, separation, None, len(test.videos), counts)
    live = np.asarray(s.scores >= threshold)
    accepted, rejected = (live[~s.positive], cluster[~s.positive]), (~live[s.positive], cluster[s.positive])
    return Unseen(
        threshold,
        rate(*accepted, resampling),
        rate(*rejected, resampling),
        mean_of_rates(accepted, rejected, resampling),
        separation,
        _rates(s, live, resampling),
        len(test.videos),
        counts,
    )


def conditions(name: str, found: Presentation) -> list[Condition]:
    """Rows beside the judged number: APCER of each species, BPCER, ACER."""
    rows = [e.condition(species, f"APCER, {name}") for species, e in found.apcer.items()]
    beside = (("BPCER", found.bpcer), ("highest APCER", found.max_apcer), ("ACER", found.acer))
    return rows + [e.condition(what, name) for what, e in beside if e.value is not None]


def domain_grid(found: Mapping[str, Unseen]) -> Grid:
    """The table of domains left out × FAR, FRR, HTER, 1 − AUC, all lower is better."""
    columns = ["HTER", "FAR", "FRR", "1 − AUC", "highest APCER"]
    values: list[list[float | None]] = []
    notes = []
    for name, u in found.items():
        worst = None if u.presentation is None else u.presentation.max_apcer.value
        above = None if u.auc.value is None else 1 - u.auc.value
        values.append([u.hter.value, u.far.value, u.frr.value, above, worst])
        if u.hter.value is None:
            notes.append(f"{name}: {u.hter.method}.")
    return Grid(
        title="Each domain at the threshold of the others",
        row_label="domain left out",
        column_label="error",
        rows=list(found),
        columns=columns,
        values=values,
        higher_is_better=False,
        note=" ".join(notes),
    )


def _rates(s: Scored, live: Bools, resampling: Resampling) -> Presentation:
    cluster, attack, species = numbered(s.groups)[0], ~s.positive, np.asarray(s.method, dtype=str)
    rows = {str(k): attack & (species == k) for k in np.unique(species[attack])}
    wide = replace(resampling, level=1 - (1 - resampling.level) / max(len(rows), 1))
    apcer = {k: rate(live[of], cluster[of], resampling) for k, of in rows.items()}
    most = highest(apcer, {k: rate(live[of], cluster[of], wide) for k, of in rows.items()})
    worst = max(apcer, key=lambda k: apcer[k].value or 0.0, default=None)
    bpcer = rate(~live[s.positive], cluster[s.positive], resampling)
    return Presentation(apcer, worst, most, bpcer, _acer(most, bpcer))


def _acer(most: Estimate, bpcer: Estimate) -> Estimate:
    n = most.n + bpcer.n
    if most.value is None or bpcer.value is None:
        reason = "no attack was presented" if most.value is None else "nobody live was presented"
        return Estimate(None, None, n, None, None, most.level, reason)
    ends = [e for pair in ((most.low, bpcer.low), (most.high, bpcer.high)) for e in pair if e is not None]
    value = (most.value + bpcer.value) / 2
    low, high = (ends[0] + ends[1]) / 2, (ends[2] + ends[3]) / 2
    return Estimate(value, None, n, low, high, most.level, "half the sum of both rates' ends")
