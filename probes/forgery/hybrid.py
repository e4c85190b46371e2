"""Spatial and frequency steps by turns, in the manner of meta-learning (after 2203.15674)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.labelled import ImageRules
from probes.forgery.additive import boxed, squares, whole_levels
from probes.forgery.frequency import Transform, scaled, top
from probes.forgery.image_attack import ImageAttack, Run, require
from probes.forgery.image_rules import PixelBound


@dataclass(frozen=True)
class HybridAttack(ImageAttack):
    """Each round takes two gradients and one step.

    1. Inner, spatial: x′ = Π(x_t + α·sign(g)), g = ∇_x L(x_t).
    2. Frequency, at the updated point: h = M ∇_x L(x′), M the projection on the ``share`` of frequencies (of 8 × 8
       blocks) with the largest energy of that gradient.
    3. Outer, from where the round began: x_{t+1} = Π(x_t + α·sign(g/‖g‖₁ + β·h/‖h‖₁)).

    Π projects into the L∞ ball and [0, 1]; the second gradient is not carried back through the inner step (it is of
    first order). The spatial part touches every frequency, so only the pixels are bound.

    Attributes:
        epsilon: L∞ in [0, 1]. steps: gradients; the budget's if not given. beta: weight of the frequency part.
        alpha: step; 2.5 ε / rounds if not given.
    """

    epsilon: float = 8 / 255
    steps: int | None = None
    beta: float = 1.0
    share: float = 0.25
    alpha: float | None = None

    refs: ClassVar[tuple[str, ...]] = ("2203.15674", "NISTAML.022", "AML.T0043.000")

    def __post_init__(self) -> None:
        ok = whole_levels(self.epsilon) >= 1 >= self.epsilon and 0 < self.share <= 1
        ok = ok and self.beta >= 0 and (self.alpha is None or self.alpha > 0)
        got = (self.epsilon, self.share, self.beta, self.alpha)
        require("hybrid attack", ok=ok, expected="1/255 <= ε <= 1, 0 < share <= 1, β >= 0 and α > 0", got=got)
        require(
            "hybrid attack", ok=self.steps is None or self.steps >= 2, expected="two gradients or more", got=self.steps
        )

    @property
    def name(self) -> str:
        return f"hybrid of pixels and frequencies, ε = {255 * self.epsilon:g}/255"

    def spec(self) -> dict[str, Any]:
        return {
            "probe": "hybrid attack", "epsilon": self.epsilon, "steps": self.steps, "beta": self.beta,
            "share": self.share, "alpha": self.alpha,
        }  # fmt: skip

    def rules(self) -> ImageRules:
        return PixelBound(self.epsilon)

    def looks(self, steps: int) -> int:
        return 2 * max(1, steps // 2) + 1

    def run(self, run: Run, seed: int) -> None:
        del seed
        rounds = max(1, run.steps // 2)
        alpha = 255 * (min(1.0, 2.5 / rounds) * self.epsilon if self.alpha is None else self.alpha)
        transform = Transform((run.clean.shape[2], run.clean.shape[3]))
        levels = run.clean
        for _ in range(rounds):
            spatial = self._gradient(run, levels)
            inner = boxed(levels + alpha * spatial.sign(), run.clean, self.epsilon)
            coefficients = transform.forward(self._gradient(run, inner))
            mask = top(coefficients.square().sum((1, 2, 3)), self.share)
            frequency = transform.inverse(coefficients * mask[:, None, None, None])
            both = _even(spatial) + self.beta * _even(frequency)
            levels = boxed(levels + alpha * both.sign(), run.clean, self.epsilon)
        with torch.no_grad():
            run.look(levels)

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        return squares(clean, best, self.epsilon, stream)

    def _gradient(self, run: Run, levels: Tensor) -> Tensor:
        at = levels.round().requires_grad_()
        (pull,) = run.pull(run.look(at).loss, at)
        return scaled(pull)


def _even(pull: Tensor) -> Tensor:
    """Divided by its sum of magnitudes."""
    return pull / pull.flatten(1).abs().sum(1).clamp(min=1e-12)[:, None, None, None]
