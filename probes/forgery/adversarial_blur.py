"""Adversarial blur (paper 003, §III-B): a Gaussian of its own at every pixel, stepped along the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from audit.errors import AuditError
from audit.labelled import ImageRules
from probes.forgery.blur_field import Of, RingSums, taps
from probes.forgery.blur_rules import BlurRules
from probes.forgery.image_attack import ImageAttack, Run

Step = Literal["literal", "normalised"]
LIMITS = (0.0, 100.0)
"""Smallest and largest σ in px: at 100 the kernels of the paper are flat."""
MOVED = 0.05
"""Share of the start by which σ has to differ from it on the mean: less is no attack that a model could withstand."""

_INVERTIBLE = (0.01, 100.0)
_CLIP = 4.0
_MOMENTUM = 0.9
_LAST = 0.05
_HALVINGS = 24


def bounded(sigma: Tensor, mean: float | None, limits: tuple[float, float] = LIMITS) -> Tensor:
    """The nearest maps σ (N, H, W) within the limits whose mean per image is at most ``mean`` px, if one is given."""
    low, high = limits
    inside = sigma.clamp(low, high)
    if mean is None:
        return inside
    # max(σ − λ, low) falls with λ: halved until its mean fits, from the side that does
    least = torch.zeros_like(sigma[:, :1, :1])
    most = (sigma.amax((1, 2), keepdim=True) - low).clamp(min=0)
    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        over = (sigma - middle).clamp(low, high).mean((1, 2), keepdim=True) > mean
        least, most = torch.where(over, middle, least), torch.where(over, most, middle)
    fits = inside.mean((1, 2), keepdim=True) <= mean
    return torch.where(fits, inside, (sigma - most).clamp(low, high))


@dataclass(frozen=True)
class AdversarialBlur(ImageAttack):
    """Blur that is stronger here and weaker there: σ_adv = σ + ε·∇_σ L(x_adv, y), eq. 4 to 6, without a sign.

    L is the cross-entropy of each image, summed, so that a step does not depend on the batch. One step is eq. 6; with
    more, it is repeated. ``normalised`` is ours, for detectors so sure that the gradient itself moves nothing: each
    image's gradient is divided by its mean magnitude, cut at ± 4, averaged over the steps, and scaled so that ε is the
    largest first step in px (or 1/px); steps fall along half a cosine.

    Attributes:
        kernel: k px, odd. start: σ px, everywhere. epsilon: ε, as above. steps: the budget's if not given.
        of: whether σ or 1/σ is stepped; the paper takes 1/σ in practice. step: eq. 6, or ours.
        mean: largest mean σ of an image, px; free if not given. limits: of σ, px.
        literal: eq. 4 with its own constant, which darkens or brightens; else kernels sum to one.
    """

    kernel: int = 9
    start: float = 1.0
    epsilon: float = 0.1
    steps: int | None = None
    of: Of = "sigma"
    step: Step = "literal"
    mean: float | None = None
    limits: tuple[float, float] = LIMITS
    literal: bool = False

    goal: ClassVar[str] = "have a fake taken for real by blurring out what gives it away, or a real for fake"
    threat: ClassVar[str] = "Knows the model, or others like it, and blurs each pixel of each image as it likes."
    refs: ClassVar[tuple[str, ...]] = ("003 §III-B", "003 eq. 4-6", "NISTAML.022", "AML.T0043.000")
    excusable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        taps(self.kernel)
        low, high = self.limits
        if (
            not 0 <= low <= self.start <= high < math.inf
            or self.epsilon < 0
            or (self.mean is not None and self.mean < low)
        ):
            raise AuditError(
                "adversarial blur", expected="0 <= lowest σ <= start <= highest σ, mean >= lowest σ, ε >= 0",
                got=f"limits {self.limits}, start {self.start}, mean {self.mean}, ε {self.epsilon}",
                mend="correct them",
            )  # fmt: skip

    @property
    def name(self) -> str:
        steps = "" if self.steps is None else f", {self.steps} step{'s' if self.steps != 1 else ''}"
        mean = "" if self.mean is None else f", mean σ ≤ {self.mean:g} px"
        return f"adversarial blur {self.kernel} × {self.kernel}, from σ = {self.start:g} px{steps}{mean}"

    def spec(self) -> dict[str, Any]:
        return {
            "probe": "adversarial blur", "kernel": self.kernel, "start": self.start, "epsilon": self.epsilon,
            "steps": self.steps, "of": self.of, "step": self.step, "mean": self.mean, "limits": list(self.limits),
            **normalisation(literal=self.literal),
        }  # fmt: skip

    def rules(self) -> ImageRules:
        return BlurRules(self.kernel, self.limits, self.mean, literal=self.literal)

    def run(self, run: Run, seed: int) -> None:
        del seed
        rings = RingSums.of(run.clean, self.kernel)
        sigma = self._held(torch.full_like(run.clean[:, 0], self.start))
        memory = torch.zeros_like(sigma)
        for step in range(run.steps + 1):
            field = self._stepped(sigma).requires_grad_(step < run.steps)
            levels = rings.blurred(field, self.of, literal=self.literal)
            # eq. 6 takes its gradient at the start, which is not what it hands out
            seen = run.look(levels, {"sigma": sigma}, candidate=step > 0 or run.steps == 0)
            if step == run.steps:
                break
            (pull,) = run.pull(seen.loss, field)
            with torch.no_grad():
                if self.step == "normalised":
                    size = pull.abs().mean((1, 2), keepdim=True)
                    memory = _MOMENTUM * memory + (pull / size.clamp(min=1e-38)).clamp(-_CLIP, _CLIP)
                    largest = memory.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
                    pull = memory / largest * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * step / run.steps)) / 2)
                sigma = self._held(self._stepped(field.detach() + self.epsilon * pull))

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        """Cells of 2 to 32 px at random are blurred strongly, the others not; held inside the same bounds."""
        del best
        sigma = self._held(cells(clean, 8 * max(self.start, 1.0), stream))
        return RingSums.of(clean, self.kernel).blurred(sigma, literal=self.literal).clamp(0, 255).round()

    def moved(self, maps: Mapping[str, Tensor]) -> bool:
        return float((maps["sigma"] - self.start).abs().mean()) > MOVED * self.start

    def details(self, maps: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"mean sigma": [round(float(s), 4) for s in maps["sigma"].double().mean((1, 2))]}

    def _held(self, sigma: Tensor) -> Tensor:
        return bounded(sigma, self.mean, self.limits)

    def _stepped(self, sigma: Tensor) -> Tensor:
        """σ to what is stepped, or back: 1/σ is its own inverse."""
        if self.of == "sigma":
            return sigma.clone()
        # not by the limits of σ: they hold for σ alone, and after the step
        return 1 / sigma.clamp(*_INVERTIBLE)


def cells(clean: Tensor, strong: float, stream: torch.Generator) -> Tensor:
    """(N, H, W) px: in squares of 2, 4, … or 32 px, each either ``strong`` or 0 at random."""
    n, _, h, w = clean.shape
    side = 2 ** int(torch.randint(1, 6, (1,), generator=stream))
    on = (torch.rand(n, math.ceil(h / side), math.ceil(w / side), generator=stream) < 0.5).to(clean)
    return strong * on.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :h, :w]


def normalisation(*, literal: bool) -> dict[str, Any]:
    """What the record says of the kernels."""
    return {"kernel sums to": "its own sum under 1/(2πσ²), eq. 4" if literal else "one", "border": "replicated"}
