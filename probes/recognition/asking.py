"""Pairs under attack, asked about: what a recognizer says of photographs, and how often it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from audit.comparison import Comparison
from audit.errors import ModelError
from audit.examples import Attacked
from audit.record import Diagnostic

CHUNK = 256
"""Pairs attacked side by side; their photographs are held as floats."""
POINTS = 100
"""Of the curve of success against queries."""
LATE = 0.3
STILL = 0.1


class Asking:
    """Recognizers that only answer; every comparison is counted.

    Attributes:
        asked: (N,) int64 comparisons so far, per pair, on the CPU.
    """

    def __init__(self, models: Sequence[Comparison], attacked: Attacked, batch: int) -> None:
        """``batch``: photographs sent at once, at most."""
        self.models, self.batch = tuple(models), max(1, batch)
        self.asked = torch.zeros(len(attacked.sources), dtype=torch.int64)
        self._sign = 1.0 if attacked.goal == "impersonate" else -1.0
        landmarks, size = attacked.sources.landmarks, attacked.sources.size
        self._aligned = [m.align(landmarks.to(m.device), size) for m in self.models]
        self._enrolled = [self._enrol(m, attacked) for m in self.models]

    def margins(self, images: Tensor, rows: Tensor) -> Tensor:
        """(n,) float32 on the CPU: how far uint8 photographs of these pairs are beyond the threshold.

        score − cut where the attack impersonates, cut − score where it dodges, of the model least beyond it.

        Raises:
            ModelError: scores that are not finite, or not one for each photograph.
        """
        out = []
        for i in range(0, len(rows), self.batch):
            part, at = images[i : i + self.batch], rows[i : i + self.batch]
            each = []
            for m, aligned, enrolled in zip(self.models, self._aligned, self._enrolled, strict=True):
                with torch.inference_mode():
                    here = at.to(m.device)
                    faces = aligned[here].faces(part.to(m.device).float() / 255)
                    scores = m.score(faces, enrolled[here])
                each.append((_sound(m, scores, len(part)) - m.cut).float().cpu() * self._sign)
            out.append(torch.stack(each).amin(0))
        self.asked[rows.cpu()] += len(self.models)
        return torch.cat(out) if out else torch.zeros(0)

    def answers(self, images: Tensor, rows: Tensor) -> Tensor:
        """(n,) bool: whether the recognizers say what the attacker wants; of their answers no more is looked at."""
        return self.succeeds(self.margins(images, rows))

    def succeeds(self, margins: Tensor) -> Tensor:
        """(n,) bool: accepted (a score at the cut is), or no longer accepted."""
        return margins >= 0 if self._sign > 0 else margins > 0

    def end(self) -> None:
        """No more is asked; lets go of what the questions needed."""
        self._aligned, self._enrolled = [], []

    def _enrol(self, model: Comparison, attacked: Attacked) -> Tensor:
        targets, out = attacked.targets, []
        for i in range(0, len(targets), self.batch):
            part = slice(i, i + self.batch)
            with torch.inference_mode():
                out.append(model.enrol(model.aligned(targets.images[part], targets.landmarks[part])))
        return torch.cat(out)


def chunks(attacked: Attacked) -> Iterator[Attacked]:
    """At most ``CHUNK`` pairs at a time; one empty part where there are none."""
    for i in range(0, max(1, len(attacked.sources)), CHUNK):
        rows = range(i, min(i + CHUNK, len(attacked.sources)))
        yield replace(attacked, sources=attacked.sources[rows], targets=attacked.targets[rows])


class Curve:
    """What a search reached after so many queries: one row per turn, (queries, pairs won, sum of its gauge)."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []

    def add(self, queries: float, won: Tensor, gauge: Tensor) -> None:
        """After a turn; ``won`` and ``gauge``: (N,)."""
        self.rows.append((float(queries), float(won.sum()), float(gauge.double().sum())))

    @classmethod
    def history(cls, parts: Sequence[Curve], pairs: int, every: int, gauge: str) -> dict[str, list[float]]:
        """Of several groups of pairs: every so many turns and at the last one. A group that is done stays as it is."""
        longest = max((len(p.rows) for p in parts), default=0)
        turns = [t for t in range(longest) if t % every == 0 or t == longest - 1]
        out: dict[str, list[float]] = {"queries": [], "success": [], gauge: []}
        for turn in turns:
            at = [p.rows[min(turn, len(p.rows) - 1)] for p in parts if p.rows]
            out["queries"].append(max(row[0] for row in at))
            out["success"].append(sum(row[1] for row in at) / max(1, pairs))
            out[gauge].append(sum(row[2] for row in at) / max(1, pairs))
        return out


def never_began(failed: Tensor, still: Tensor) -> Diagnostic:
    """Whether the search had anything to go by.

    Args:
        failed, still: (N,) bool, pairs that held out, and pairs on which nothing ever moved.
    """
    count = int(failed.sum())
    share = int((failed & still).sum()) / count if count else 0.0
    return Diagnostic(
        name="search began",
        value=share,
        limit=STILL,
        raised=share > STILL,
        meaning="Of the pairs that held out, the share on which no query ever changed what the model said; above the "
        "limit the search had nothing to go by, and says nothing about the model.",
    )


def still_gaining(asked: Sequence[float], gained: Sequence[float], *, least: float, open_pairs: bool) -> Diagnostic:
    """Whether more queries would have attacked better.

    Args:
        asked: comparisons per pair. gained: what rises while the attack works, after so many of them.
        least: a gain in the last tenth that is smaller is no progress worth the name, whatever its share.
        open_pairs: whether any pair was left to attack.
    """
    share = late = 0.0
    if len(asked) > 1:
        tenth = next(g for q, g in zip(asked, gained, strict=True) if q >= 0.9 * asked[-1])
        whole, late = gained[-1] - gained[0], gained[-1] - tenth
        share = late / whole if whole > 0 else 0.0
    return Diagnostic(
        name="queries spent before the attack settled",
        value=share,
        limit=LATE,
        raised=open_pairs and share > LATE and late > least,
        meaning="The share of all that the search gained which came in the last tenth of the queries; above the limit "
        "more queries would have attacked better.",
    )


def _sound(model: Comparison, scores: Tensor, count: int) -> Tensor:
    """A score that is no number would never be a success, and be counted as one withstood."""
    if tuple(scores.shape) != (count,) or not bool(scores.isfinite().all()):
        bad = f"shape {tuple(scores.shape)}" if tuple(scores.shape) != (count,) else "values that are not finite"
        raise ModelError(
            f"recognizer {model.name}",
            expected=f"{count} finite scores",
            got=bad,
            mend="mend the model or its adapter; nothing was counted",
        )
    return scores
