"""Steps for a patch: few, bounded to [0, 1], the same on every run.

A patch is a picture of few texels whose gradients differ by orders of magnitude between models and while an attack
succeeds, so the size of a step must not depend on the size of the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from audit.errors import AuditError

Rule = Literal["sign", "adam"]


@dataclass(frozen=True, slots=True)
class Steps:
    """How a patch moves.

    Args:
        rule: ``sign`` is the sign of the averaged gradient (each gradient divided by its mean magnitude first),
            ``adam`` is Adam.
        rate: first step, as a share of the value range. The step falls along half a cosine to ``last``·rate.
        momentum: weight of the gradients before.
    """

    rule: Rule = "sign"
    rate: float = 0.06
    last: float = 0.05
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.rule not in ("sign", "adam") or not 0 < self.rate <= 1 or not 0 <= self.momentum < 1:
            raise AuditError(
                "steps of the patch optimiser",
                expected="rule sign or adam, rate in (0, 1], momentum in [0, 1)",
                got=f"rule {self.rule!r}, rate {self.rate!r}, momentum {self.momentum!r}",
                mend="correct them",
            )

    def size(self, done: float) -> float:
        """The step after the share ``done`` of all steps; it is smallest from nine tenths on.

        Otherwise the loss would fall in the last tenth because steps get smaller, and look as if more were needed.
        """
        return self.rate * (self.last + (1 - self.last) * (1 + math.cos(math.pi * min(1.0, done / 0.9))) / 2)


STEPS = Steps()


@dataclass(slots=True)
class Descent:
    """A patch on its way down.

    Attributes:
        value: (3, P, P) in [0, 1]; the start, then each point on the way.
        total: number of steps that will be taken. taken: number taken.
    """

    value: Tensor
    total: int
    steps: Steps = STEPS
    taken: int = 0
    _mean: Tensor = field(init=False)
    _square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._mean, self._square = torch.zeros_like(self.value), torch.zeros_like(self.value)

    def step(self, gradient: Tensor) -> None:
        """One step against a gradient of the value's shape; a zero gradient moves nothing by itself."""
        s, rule = self.steps.size(self.taken / max(1, self.total)), self.steps
        self.taken += 1
        if rule.rule == "sign":
            self._mean = rule.momentum * self._mean + gradient / gradient.abs().mean().clamp(min=1e-30)
            way = self._mean.sign()
        else:
            keep = 0.999
            self._mean = rule.momentum * self._mean + (1 - rule.momentum) * gradient
            self._square = keep * self._square + (1 - keep) * gradient.square()
            mean = self._mean / (1 - rule.momentum**self.taken)
            way = mean / (self._square / (1 - keep**self.taken)).sqrt().clamp(min=1e-30)
        self.value = (self.value - s * way).clamp(0, 1)
