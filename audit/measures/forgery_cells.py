"""A forgery detector in one cell of a matrix: one trained model on one method at one quality, and the worst of cells.

The same numbers per frame and per video. A video's score is the mean of the probabilities of its frames, as benchmarks
of forgery detection have it: mean(sigmoid(logit)), against sigmoid(threshold). Frames of one video and videos of one
source go together in every interval. Accuracy is withheld where one class is rare (paper 003, Tables I and VI, on DFD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import Bools, mean_of_rates, numbered, rate
from audit.measures.roc import EqualError, auc, auc_difference, equal_error, lacking
from audit.measures.scored import UNITS, Scored, Unit
from audit.record import Condition, Diagnostic, Grid

__all__ = [
    "Cell",
    "Level",
    "Scored",
    "Unit",
    "Worst",
    "accuracy",
    "balanced_accuracy",
    "cell",
    "conditions",
    "confusion",
    "drop",
    "false_alarms",
    "few_sources",
    "grid",
    "misses",
    "sources_diagnostic",
    "worst",
]

RARE = 0.2
"""Accuracy is withheld where the smaller class has less than this share: to say the other one always is then right in
more than four of five, and looks like skill."""


@dataclass(frozen=True, slots=True)
class Level:
    """A cell per frame or per video.

    Attributes:
        auc, eer, accuracy, balanced: of fakes against reals; accuracy and balanced accuracy (mean of both classes'
            shares right) at the owner's threshold. fakes, reals: how many.
    """

    auc: Estimate
    eer: EqualError
    accuracy: Estimate
    balanced: Estimate
    fakes: int
    reals: int


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of a matrix.

    Attributes:
        frame, video: the same numbers on both levels. groups: how many sources. few_sources: why the cell decides
            nothing, as a sentence; empty where there are two sources and videos of each class at least.
        scored, resampling: what it was counted from, for the worst cell and for drops.
    """

    frame: Level
    video: Level
    groups: int
    few_sources: str
    scored: Scored
    resampling: Resampling

    def at(self, unit: Unit) -> Level:
        """Per frame or per video."""
        return self.frame if unit == "frame" else self.video


def cell(scored: Scored, threshold: float, resampling: Resampling) -> Cell:
    """All numbers of one cell. ``threshold``: the logit from which the owner says fake."""
    frame, video = (_level(scored.per(u), scored.said(threshold, u), resampling) for u in UNITS)
    return Cell(frame, video, len(set(scored.groups)), few_sources(scored), scored, resampling)


def accuracy(said: Bools, s: Scored, resampling: Resampling) -> Estimate:
    """Share judged rightly; withheld, with the reason as ``method``, where a class has less than ``RARE`` of all."""
    rarer = min(float(s.positive.mean()), float((~s.positive).mean())) if len(s) else 0.0
    if len(s) and rarer < RARE:
        which = "fake" if s.positive.mean() < 0.5 else "real"
        reason = (
            f"withheld: only {rarer:.1%} are {which}, and to say the other always would be right in {1 - rarer:.1%}"
        )
        return Estimate(None, None, len(s), None, None, resampling.level, reason)
    return rate(said == s.positive, numbered(s.groups)[0], resampling)


def balanced_accuracy(said: Bools, s: Scored, resampling: Resampling) -> Estimate:
    """(share of fakes found + share of reals passed) / 2; of a single class ``None``."""
    cluster = numbered(s.groups)[0]
    return mean_of_rates(
        (said[s.positive], cluster[s.positive]), (~said[~s.positive], cluster[~s.positive]), resampling
    )


def few_sources(scored: Scored) -> str:
    """Why a cell decides nothing, however many its frames; empty where it may.

    It takes both classes, and two videos and two sources of each.
    """
    if lacking(scored.positive):
        return "one class only: no AUC" if len(scored) else "nothing was scored"
    v = scored.videos
    fakes, reals = int(v.positive.sum()), int((~v.positive).sum())
    of_fakes, of_reals = (len({v.groups[i] for i in np.flatnonzero(side)}) for side in (v.positive, ~v.positive))
    if min(fakes, reals, of_fakes, of_reals) >= 2:
        return ""
    return (f"{fakes} fake and {reals} real videos, of {of_fakes} and {of_reals} sources: "
            "it takes two of each, however many frames")  # fmt: skip


def sources_diagnostic(cells: Mapping[str, Cell]) -> Diagnostic:
    """Raised where a cell has too few sources to decide anything: a pass by the point estimate is none then."""
    short = {name: c.few_sources for name, c in cells.items() if c.few_sources}
    told = "; ".join(f"{name}: {reason}" for name, reason in short.items())
    if len(short) > 1 and len(set(short.values())) == 1:
        told = f"each: {next(iter(short.values()))}"
    return Diagnostic(
        name="cells with too few sources",
        value=float(len(short)) if cells else None,
        limit=0.0,
        raised=bool(short) or not cells,
        meaning=f"{len(short)} of {len(cells)} cells have less than two videos or sources of a class, and frames of "
        "one video say nothing of the next" + (f" ({told})" if told else ""),
    )


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst of several cells: its name (``None`` where no cell has an AUC) and its AUC."""

    name: str | None
    auc: Estimate


def worst(cells: Mapping[str, Cell], unit: Unit = "video") -> Worst:
    """The lowest AUC of S cells, with an interval for the lowest of the true ones.

    Its lower end is the lowest of the cells' lower ends. That it is as bad as its upper end is a claim on the best of S
    tries: the upper end is the lowest of the cells' upper ends at level 1 − (1 − level) / S (Bonferroni). A cell that
    has an AUC and no interval counts as [0, 1]; without any interval there is none. Cells of a single class have no
    AUC and are not among the S. Of equal cells the first by name.
    """
    known = {n: e for n in sorted(cells) if (e := cells[n].at(unit).auc).value is not None}
    if not known:
        level = next((c.resampling.level for c in cells.values()), 0.95)
        return Worst(None, Estimate(None, None, 0, None, None, level, "no cell has an AUC"))
    name = min(known, key=lambda n: _value(known[n]))
    found = known[name]
    if all(e.low is None for e in known.values()):
        return Worst(name, found)
    highs = []
    for n, e in known.items():
        if e.high is None:
            continue
        s, r = cells[n].scored.per(unit), cells[n].resampling
        wide = replace(r, level=1 - (1 - r.level) / len(known))
        again = e if len(known) == 1 else auc(s.scores, s.positive, s.groups, wide)
        highs.append(e.high if again.high is None else max(again.high, e.high))
    low = min(0.0 if e.low is None else e.low for e in known.values())
    method = found.method if len(known) == 1 else f"worst of {len(known)} cells, Bonferroni; {found.method}"
    value = _value(found)
    return Worst(name, Estimate(value, None, found.n, min(low, value), max(min(highs), value), found.level, method))


def drop(in_domain: Cell, other: Cell, unit: Unit = "video") -> Estimate:
    """AUC in the cell that the model was trained for, less that in another; a source in both is drawn for both."""
    first, second = (
        (s.scores, s.positive, s.groups) for s in (in_domain.scored.per(unit), other.scored.per(unit))
    )  # fmt: skip
    return auc_difference(first, second, other.resampling)


def false_alarms(scored: Scored, threshold: float, resampling: Resampling, unit: Unit = "video") -> Estimate:
    """Share of the real ones said to be fake at ``threshold`` (a logit); lower is better."""
    s, said = scored.per(unit), scored.said(threshold, unit)
    return rate(said[~s.positive], numbered(s.groups)[0][~s.positive], resampling)


def misses(scored: Scored, threshold: float, resampling: Resampling, unit: Unit = "video") -> dict[str, Estimate]:
    """Per method, in order of name, the share of its fakes said to be real at ``threshold``; lower is better."""
    s, said = scored.per(unit), scored.said(threshold, unit)
    cluster, method = numbered(s.groups)[0], np.asarray(s.method, dtype=str)
    rows = {str(m): (method == m) & s.positive for m in np.unique(method[s.positive])}
    return {m: rate(~said[of], cluster[of], resampling) for m, of in rows.items()}


def confusion(scored: Scored, threshold: float, unit: Unit = "video", genuine: str = "real") -> Grid:
    """The table of what each method's fakes, and the real ones, are said to be. ``genuine``: the name of the latter."""
    s, said = scored.per(unit), scored.said(threshold, unit)
    method = np.asarray(s.method, dtype=str)
    rows = {genuine: ~s.positive} | {str(m): (method == m) & s.positive for m in np.unique(method[s.positive])}
    values: list[list[float | None]] = [
        [float((~said[of]).mean()), float(said[of].mean())] if of.any() else [None, None] for of in rows.values()
    ]
    return Grid(
        title=f"Said to be, per {unit}",
        row_label="is",
        column_label="said to be",
        rows=[f"{name} ({int(of.sum())})" for name, of in rows.items()],
        columns=[genuine, "fake"],
        values=values,
        higher_is_better=None,
        marks=[(0, 0), *((i, 1) for i in range(1, len(rows)))],
        mark_label="right",
        note=f"At the owner's threshold; in brackets how many {unit}s.",
    )


def conditions(name: str, found: Cell) -> list[Condition]:
    """A cell as rows beside the judged number, a table for each measure and level."""
    rows = []
    for unit in reversed(UNITS):
        at = found.at(unit)
        for what, e in (("AUC", at.auc), ("EER", at.eer.rate), ("Accuracy", at.accuracy), ("Balanced", at.balanced)):
            if e.value is not None:
                rows.append(e.condition(name, f"{what} per {unit}"))
    return rows


def grid(
    cells: Mapping[tuple[str, str], Cell],
    title: str,
    *,
    row_label: str,
    column_label: str,
    unit: Unit = "video",
    what: Literal["auc", "eer", "accuracy", "balanced"] = "auc",
    in_domain: Sequence[tuple[str, str]] = (),
) -> Grid:
    """A matrix of (row, column) -> cell, both in the order they come in; cells of ``in_domain`` are marked.

    A cell without a number is empty, and the note says why, as it does of a cell that decides nothing.
    """
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    found = {key: _pick(c.at(unit), what) for key, c in cells.items()}
    reasons = {
        key: c.few_sources or (found[key].method if found[key].value is None else "") for key, c in cells.items()
    }
    values = [[found[r, c].value if (r, c) in found else None for c in columns] for r in rows]
    return Grid(
        title=title,
        row_label=row_label,
        column_label=column_label,
        rows=rows,
        columns=columns,
        values=values,
        higher_is_better=what != "eer",
        marks=[(rows.index(r), columns.index(c)) for r, c in in_domain if r in rows and c in columns],
        mark_label="in domain" if in_domain else "",
        note=_note(reasons, rows, columns),
    )


def _note(reasons: Mapping[tuple[str, str], str], rows: Sequence[str], columns: Sequence[str]) -> str:
    """Why cells are empty or decide nothing; what holds of a whole table or column is said once."""
    if len(set(reasons.values())) == 1 and len(reasons) > 1:
        reason = next(iter(reasons.values()))
        return f"Every cell: {reason}." if reason else ""
    said = []
    for column in columns:
        own = {r: reasons[r, column] for r in rows if (r, column) in reasons}
        if len(set(own.values())) == 1 and len(own) == len(rows) > 1:
            said += [f"{column}: {reason}." for reason in set(own.values()) if reason]
        else:
            said += [f"{row} × {column}: {reason}." for row, reason in own.items() if reason]
    return " ".join(said)


def _level(s: Scored, said: Bools, resampling: Resampling) -> Level:
    fakes = int(s.positive.sum())
    return Level(
        auc(s.scores, s.positive, s.groups, resampling),
        equal_error(s.scores, s.positive, s.groups, resampling),
        accuracy(said, s, resampling),
        balanced_accuracy(said, s, resampling),
        fakes,
        len(s) - fakes,
    )


def _pick(level: Level, what: str) -> Estimate:
    return {"auc": level.auc, "eer": level.eer.rate, "accuracy": level.accuracy, "balanced": level.balanced}[what]


def _value(e: Estimate) -> float:
    assert e.value is not None
    return e.value
