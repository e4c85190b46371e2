"""Was an attack on recognizers sound? Numbers with limits; a raised one turns a pass into inconclusive.

Every number is a share of all pairs, and a pair on which the attack succeeded is never held against it: a model that
gave way was attacked well enough. The limits were set once and are part of no profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.record import Diagnostic

SHARE = 0.1
ZERO = 0.05
RISE = 0.01
LATE = 0.05


@dataclass(frozen=True, eq=False)
class Course:
    """How an attack went, per pair (N,); margins are those of the worst model, above 0 beyond the threshold.

    Attributes:
        start, late, best: the margin of the start, the best after nine tenths of the steps, and the best of all.
        zero, broken: steps whose gradient was zero, or not finite. steps: taken.
    """

    start: Tensor
    late: Tensor
    best: Tensor
    zero: Tensor
    broken: Tensor
    steps: Tensor

    @property
    def failed(self) -> Tensor:
        """(N,) bool."""
        return ~(self.best > 0)

    @classmethod
    def joined(cls, parts: list[Course]) -> Course:
        """Of several batches."""
        names = ("start", "late", "best", "zero", "broken", "steps")
        return cls(*(torch.cat([getattr(p, n) for p in parts]) for n in names))

    def diagnostics(self) -> list[Diagnostic]:
        """Gradient, loss, and whether more steps would have helped."""
        failed, rise = self.failed, self.best - self.start
        dead = failed & ((self.zero + self.broken) > ZERO * self.steps)
        # of the way from the start to the threshold
        still = failed & ~(rise > RISE * self.start.abs())
        late = failed & (rise > 0) & (self.best - self.late > LATE * rise)
        return [_gradient(_mean(dead)), _rose(_mean(still)), _last(_mean(late))]


def unbounded_succeeds(failed: int, tried: int) -> Diagnostic:
    """Of the pairs on which the patch failed, the share on which one over the whole face fails as well."""
    share = failed / tried if tried else 0.0
    return Diagnostic(
        name="unbounded patch succeeds",
        value=share,
        limit=SHARE,
        raised=share > SHARE,
        meaning=f"A patch over the whole face was tried on {tried} of the pairs that held out against the patch, and "
        f"failed on {failed}; above the limit the attack is broken, for a whole face can be anybody's.",
    )


def _gradient(share: float) -> Diagnostic:
    return Diagnostic(
        name="gradient zero or not finite",
        value=share,
        limit=SHARE,
        raised=share > SHARE,
        meaning="The share of pairs that held out and whose gradient was zero or not finite in more than 5 % of the "
        "steps; such a model hides its gradients, and a gradient attack says nothing about it.",
    )


def _rose(share: float) -> Diagnostic:
    return Diagnostic(
        name="loss fell",
        value=share,
        limit=SHARE,
        raised=share > SHARE,
        meaning="The share of pairs that held out and whose score did not come 1 % nearer to the threshold; above the "
        "limit the attack has not begun to work (a robust model gives way a little too).",
    )


def _last(share: float) -> Diagnostic:
    return Diagnostic(
        name="best step is the last",
        value=share,
        limit=SHARE,
        raised=share > SHARE,
        meaning="The share of pairs that held out while more than 5 % of the whole gain came in the last tenth of the "
        "steps; above the limit more steps would have attacked better.",
    )


def _mean(flags: Tensor) -> float:
    value = float(flags.double().mean()) if len(flags) else 0.0
    return value if math.isfinite(value) else 1.0
