"""Additive perturbations: one signed step (003 eq. 1), and many of them inside a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from audit.labelled import ImageRules
from probes.forgery.ensemble import Objective
from probes.forgery.image_attack import ImageAttack, Run, require
from probes.forgery.image_rules import PixelBound
from probes.probe import generator

Norm = Literal["linf", "l2"]


def whole_levels(epsilon: float) -> int:
    """Grey levels that an 8-bit image may differ by under an L∞ bound in [0, 1]."""
    return int(epsilon * 255 + 1e-6)


def boxed(levels: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Levels within ε of the clean ones and in [0, 255]; rounding leaves neither."""
    most = whole_levels(epsilon)
    return torch.minimum(torch.maximum(levels, (clean - most).clamp(min=0)), (clean + most).clamp(max=255))


def in_ball(levels: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Levels in [0, 255] with ‖change‖₂ ≤ 255 ε per image, shrunk towards the clean ones where it is more."""
    change = levels.clamp(0, 255) - clean
    norm: Tensor = change.flatten(1).norm(dim=1)
    return clean + change * (255 * epsilon / norm.clamp(min=1e-12)).clamp(max=1)[:, None, None, None]


def rounded_in_ball(levels: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Whole levels with ‖change‖₂ ≤ 255 ε per image: where rounding leaves the ball, the change is shrunk first."""
    change = levels.clamp(0, 255) - clean
    low, high = torch.zeros(len(clean), device=clean.device), torch.ones(len(clean), device=clean.device)

    def fits(scale: Tensor) -> Tensor:
        norm: Tensor = (change * scale[:, None, None, None]).round().double().flatten(1).norm(dim=1)
        return norm <= 255 * epsilon

    if bool(fits(high).all()):
        return clean + change.round()
    low = torch.where(fits(high), high, low)
    for _ in range(12):
        middle = (low + high) / 2
        ok = fits(middle)
        low, high = torch.where(ok, middle, low), torch.where(ok, high, middle)
    return clean + (change * low[:, None, None, None]).round()


def squares(clean: Tensor, best: Tensor, epsilon: float, stream: torch.Generator) -> Tensor:
    """The next images of a random search (after Square Attack): stripes first, then squares of one sign set anew."""
    n, c, h, w = clean.shape
    signs = torch.randint(0, 2, (n, c, 1, w), generator=stream).to(clean) * 2 - 1
    side = max(1, round((0.2 * h * w) ** 0.5))
    rows = torch.randint(0, max(1, h - side + 1), (n,), generator=stream).tolist()
    columns = torch.randint(0, max(1, w - side + 1), (n,), generator=stream).tolist()
    colour = torch.randint(0, 2, (n, c, 1, 1), generator=stream).to(clean) * 2 - 1
    most = whole_levels(epsilon)
    out = best.clone()
    for i, (y, x) in enumerate(zip(rows, columns, strict=True)):
        at = (slice(None), slice(y, y + side), slice(x, x + side))
        out[i][at] = clean[i][at] + most * colour[i]
    fresh = (best == clean).flatten(1).all(1)
    out[fresh] = (clean + most * signs)[fresh]
    return boxed(out, clean, epsilon)


@dataclass(frozen=True)
class FGSM(ImageAttack):
    """The fast gradient sign method: x + ε·sign(∇_x L(x, y)), 003 eq. 1, kept in [0, 1].

    Attributes:
        epsilon: L∞ in [0, 1]. loss: what is climbed, see ``Ensemble``.
    """

    epsilon: float = 8 / 255
    loss: Objective = "cross-entropy"

    refs: ClassVar[tuple[str, ...]] = ("003 §III-A", "NISTAML.022", "AML.T0043.000")

    def __post_init__(self) -> None:
        ok = whole_levels(self.epsilon) >= 1 >= self.epsilon
        require("FGSM", ok=ok, expected="1/255 <= ε <= 1, as images have whole levels", got=self.epsilon)

    @property
    def name(self) -> str:
        return f"FGSM, ε = {255 * self.epsilon:g}/255"

    @property
    def objective(self) -> Objective:
        return self.loss

    def spec(self) -> dict[str, Any]:
        return {"probe": "FGSM", "epsilon": self.epsilon, "loss": self.loss}

    def rules(self) -> ImageRules:
        return PixelBound(self.epsilon)

    def run(self, run: Run, seed: int) -> None:
        del seed
        levels = run.clean.clone().requires_grad_()
        seen = run.look(levels, candidate=False)
        (pull,) = run.pull(seen.loss, levels)
        with torch.no_grad():
            run.look(boxed(run.clean + whole_levels(self.epsilon) * pull.sign(), run.clean, self.epsilon))

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        return squares(clean, best, self.epsilon, stream)

    def steps_of(self, budget: object) -> int:
        del budget
        return 1


@dataclass(frozen=True)
class PGD(ImageAttack):
    """Projected gradient ascent: many steps of ``FGSM``, each followed by a projection.

    L∞: x ← Π(x + α·sign(g)); L2: x ← Π(x + α·g/‖g‖₂). Gradients are taken at the rounded image.

    Attributes:
        epsilon: bound in [0, 1] for L∞; for L2 the norm over all values of an image in [0, 1].
        alpha: step, in the units of ``epsilon``; 2.5 ε / steps if not given. steps: per restart; else the budget's.
        restarts: tries; the best of all counts. random_start: from within the ball, by seed and name; else from the
            clean image. loss: what is climbed, see ``Ensemble``.
    """

    epsilon: float = 8 / 255
    alpha: float | None = None
    steps: int | None = None
    restarts: int = 1
    random_start: bool = True
    norm: Norm = "linf"
    loss: Objective = "cross-entropy"

    refs: ClassVar[tuple[str, ...]] = ("003 §III-A", "NISTAML.022", "AML.T0043.000")

    def __post_init__(self) -> None:
        require("PGD", ok=self.norm in get_args(Norm), expected=" or ".join(get_args(Norm)), got=self.norm)
        # in either norm: less than a level is no change of an image of 8 bits
        ok = whole_levels(self.epsilon) >= 1 and (self.alpha is None or self.alpha > 0) and self.restarts >= 1
        require(
            "PGD", ok=ok, expected="ε >= 1/255, α > 0 and restarts >= 1", got=(self.epsilon, self.alpha, self.restarts)
        )
        require("PGD", ok=self.steps is None or self.steps >= 1, expected="at least one step", got=self.steps)

    def __repr__(self) -> str:
        parts = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in vars(self).items())
        return f"PGD({parts})"

    @property
    def name(self) -> str:
        bound = f"ε = {255 * self.epsilon:g}/255" if self.norm == "linf" else f"ε₂ = {self.epsilon:g}"
        return f"PGD, {bound}"

    @property
    def objective(self) -> Objective:
        return self.loss

    def spec(self) -> dict[str, Any]:
        return {
            "probe": "PGD", "epsilon": self.epsilon, "alpha": self.alpha, "steps": self.steps,
            "restarts": self.restarts, "random start": self.random_start, "norm": self.norm, "loss": self.loss,
        }  # fmt: skip

    def rules(self) -> ImageRules:
        return PixelBound(self.epsilon, self.norm)

    def looks(self, steps: int) -> int:
        return 1 + self.restarts * (steps + 1)

    def run(self, run: Run, seed: int) -> None:
        with torch.no_grad():
            run.look(run.clean)
        alpha = 2.5 * self.epsilon / max(1, run.steps) if self.alpha is None else self.alpha
        for restart in range(self.restarts):
            levels = self._start(run, seed, restart) if self.random_start else run.clean.clone()
            for step in range(run.steps + 1):
                at = self._rounded(levels, run.clean).requires_grad_(step < run.steps)
                seen = run.look(at)
                if step == run.steps:
                    break
                (pull,) = run.pull(seen.loss, at)
                levels = self._projected(levels + 255 * alpha * self._way(pull), run.clean)

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        if self.norm == "linf":
            return squares(clean, best, self.epsilon, stream)
        noise = torch.randn(clean.shape, generator=stream).to(clean)
        moved = best + 255 * self.epsilon * noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
        return rounded_in_ball(in_ball(moved, clean, self.epsilon), clean, self.epsilon)

    def _start(self, run: Run, seed: int, restart: int) -> Tensor:
        shape = run.clean.shape[1:]
        streams = [generator("PGD", seed, restart, id) for id in run.ids]
        if self.norm == "linf":
            noise = torch.stack([torch.rand(shape, generator=s) * 2 - 1 for s in streams]).to(run.clean)
            return self._projected(run.clean + 255 * self.epsilon * noise, run.clean)
        noise = torch.stack([torch.randn(shape, generator=s) for s in streams]).to(run.clean)
        noise = noise / noise.flatten(1).norm(dim=1)[:, None, None, None]
        return self._projected(run.clean + 255 * self.epsilon * noise, run.clean)

    def _way(self, pull: Tensor) -> Tensor:
        if self.norm == "linf":
            return pull.sign()
        # by the largest entry first: the squares of small gradients underflow
        scaled = pull / pull.flatten(1).abs().amax(1).clamp(min=1e-38)[:, None, None, None]
        norm: Tensor = scaled.flatten(1).norm(dim=1)
        return scaled / norm.clamp(min=1e-12)[:, None, None, None]

    def _projected(self, levels: Tensor, clean: Tensor) -> Tensor:
        return boxed(levels, clean, self.epsilon) if self.norm == "linf" else in_ball(levels, clean, self.epsilon)

    def _rounded(self, levels: Tensor, clean: Tensor) -> Tensor:
        return levels.round() if self.norm == "linf" else rounded_in_ball(levels, clean, self.epsilon)
