"""Was an attack on images sound? Numbers with limits; a raised one turns a pass into inconclusive.

The limits and what they mean are those of ``probes.diagnostics``. What the attack itself saw is counted over all
images; the model is asked again about a few of them, those first that held out. An image on which the attack succeeded
is never held against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Labelled
from audit.record import Diagnostic
from probes import diagnostics
from probes.forgery.ensemble import Ensemble
from probes.probe import generator

IMAGES = 8
QUERIES = 24
STEPS = 24
ZERO = 0.05
STEP = 0.1 / 255
"""Small, for a detector is anything but linear over a whole level of all pixels."""

Guess = Callable[[Tensor, Tensor, torch.Generator], Tensor | None]
"""(clean, best, stream) to the next images of an attack without gradients; pixels are levels in [0, 255]."""


@dataclass(frozen=True, eq=False)
class Course:
    """How an attack went.

    Attributes:
        heights: (S, N) per look and image, the lowest so far of what is left to go (``Seen.height``); the first look
            is at the clean image, or at what the attack starts from. zero, broken: (N,) steps whose gradient was zero,
            or not finite. taken: (N,) steps.
    """

    heights: Tensor
    zero: Tensor
    broken: Tensor
    taken: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Course]) -> Course:
        """Of several batches."""
        return cls(
            torch.cat([p.heights for p in parts], 1),
            *(torch.cat([getattr(p, k) for p in parts]) for k in ("zero", "broken", "taken")),
        )

    def diagnostics(self) -> list[Diagnostic]:
        """Gradient, loss, and whether more steps would have helped."""
        asked, held = self.heights[0] > 0, self.heights[-1] > 0
        dead = asked & held & ((self.zero + self.broken) > ZERO * self.taken)
        gradient = diagnostics.gradient_zero_images(int(dead.sum()), max(1, int(asked.sum())))
        mean = self.heights.double().mean(1).tolist()
        return [
            said(
                gradient,
                f"Of {int(asked.sum())} images rightly judged at first, {int(dead.sum())} held out with a gradient "
                "that was zero or not finite in more than 5 % of the steps; a model that hides its gradients says "
                "nothing by holding out.",
            ),
            said(
                diagnostics.loss_fell(mean[0], mean[-1]),
                "The share of the way to a wrong decision that the attack went, over all images; below the limit it "
                "has not begun to work (a robust model gives way a little too).",
            ),
            diagnostics.still_falling(range(len(mean)), mean),
        ]


@dataclass(frozen=True, eq=False)
class Sample:
    """The few images that the model is asked about again: levels (n, 3, H, W), before and after, and labels."""

    ensemble: Ensemble
    clean: Tensor
    changed: Tensor
    labels: Tensor

    @classmethod
    def of(cls, ensemble: Ensemble, attacked: Labelled, changed: Tensor, course: Course) -> Sample:
        """Whole clips, ``IMAGES`` images or one clip: those that held out first, then those that gave way."""
        unit = ensemble.unit
        first, last = (h.reshape(-1, unit).sum(1) for h in (course.heights[0], course.heights[-1]))
        rank = (last > 0).long() + (first > 0).long()
        best = torch.argsort(rank, descending=True, stable=True)[: max(1, IMAGES // unit)]
        at = (best.sort().values[:, None] * unit + torch.arange(unit)).flatten()
        device = ensemble.execution.device
        clean, after = (t[at].to(device).float() for t in (attacked.images, changed))
        return cls(ensemble, clean, after, attacked.labels[at].to(device))

    def height(self, levels: Tensor) -> Tensor:
        """(n,) what is left to go; that of a clip for each of its images."""
        with torch.no_grad():
            return self.whole(self.ensemble.seen(levels / 255, self.labels).height)

    def whole(self, each: Tensor) -> Tensor:
        """(n,) the mean over the images of a clip, for each of them."""
        unit = self.ensemble.unit
        return each.reshape(-1, unit).mean(1).repeat_interleave(unit)

    def gradient(self) -> Tensor:
        """Of the margins at the clean images, (n, 3, H, W)."""
        value = (self.clean / 255).requires_grad_()
        total = self.ensemble.seen(value, self.labels).margins.sum()
        if not total.requires_grad:
            return torch.zeros_like(value)
        (found,) = torch.autograd.grad(total, value, allow_unused=True)
        return torch.zeros_like(value) if found is None else found


def examine(
    models: Sequence[ImageModel],
    attacked: Labelled,
    changed: Tensor,
    course: Course,
    *,
    execution: Execution,
    seed: int,
    guess: Guess | None = None,
    queries: int = QUERIES,
    excusable: bool = False,
) -> list[Diagnostic]:
    """All diagnostics of an attack with gradients.

    Args:
        models: that were attacked together. changed: (N, 3, H, W) uint8, the result. course: what happened on the way.
        guess: images for an attack without gradients under the same rules; not run if not given, or if it gives none,
            or against several models, where a search on all says nothing of one.
        queries: of that attack, at most.
        excusable: the attack cannot do everything, and did change the images as far as it can: see ``_excused``.
    """
    ensemble = Ensemble.of(models, execution)
    sample = Sample.of(ensemble, attacked, changed, course)
    first, second = sample.gradient(), sample.gradient()
    found = [
        *course.diagnostics(),
        diagnostics.gradients_agree(_cosine(first, second)),
        diagnostics.gradient_predicts(_predicted(sample, first)),
        diagnostics.results_agree(_difference(sample)),
        _unbounded(sample, seed),
    ]
    if guess is not None and queries > 0 and len(models) == 1:
        found += _without_gradients(sample, guess, queries, seed)
    return _excused(found) if excusable else found


def _excused(found: list[Diagnostic]) -> list[Diagnostic]:
    """A fall that is too small is the model's own strength where all else is sound.

    That is, where the gradient foretells what happens and leads to success without the rules, and a search without it,
    under the rules, gets no further: blur changes nothing for a model that looks at what is coarse. Only for attacks
    that some models do not feel at all; one that may change every pixel has no such excuse.
    """
    searched = any(d.name == "attack without gradients beats white-box" for d in found)
    if not searched or [d.name for d in found if d.raised] != ["loss fell"]:
        return found
    words = "; all else being sound, and a search without gradients getting no further, it is the model that holds"
    return [
        d.model_copy(update={"raised": False, "meaning": d.meaning.rstrip(".") + words + "."}) if d.raised else d
        for d in found
    ]


def _cosine(a: Tensor, b: Tensor) -> float:
    """Mean over the images of the cosine of their two gradients; NaN where one is zero or not finite."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    each = ((a / a.norm(dim=1, keepdim=True)) * (b / b.norm(dim=1, keepdim=True))).sum(1)
    return float(each.mean())


def _predicted(sample: Sample, gradient: Tensor) -> float:
    """Change of the margins over one small step both ways along the gradient's sign, over the change foretold."""
    way = gradient.sign() * STEP
    with torch.no_grad():
        up, down = (
            sample.ensemble.seen(sample.clean / 255 + s * way, sample.labels).margins.double().sum() for s in (1, -1)
        )
    foretold = 2 * STEP * float(gradient.double().abs().sum())
    return float(up - down) / foretold if foretold > 0 else math.nan


def _difference(sample: Sample) -> float:
    """Largest difference of the logistic of a margin between two runs on the same images."""
    with torch.no_grad():
        one, two = (sample.ensemble.seen(sample.clean / 255, sample.labels).margins.sigmoid() for _ in range(2))
    worst = float((one - two).abs().max())
    return worst if math.isfinite(worst) else 1.0


def _unbounded(sample: Sample, seed: int) -> Diagnostic:
    """Share of the images that no change of any size brought down: signed steps from the image, and from noise."""
    lowest = sample.height(sample.changed)
    noise = torch.rand(sample.clean.shape, generator=generator("unbounded", seed)).to(sample.clean) * 255
    for start in (sample.clean, noise):
        levels = start
        for step in range(STEPS):
            if not bool((lowest > 0).any()):
                break
            at = levels.round().requires_grad_()
            seen = sample.ensemble.seen(at / 255, sample.labels)
            lowest = torch.minimum(lowest, sample.whole(seen.height))
            aim = seen.margins.sum()
            if not aim.requires_grad:
                break
            (pull,) = torch.autograd.grad(aim, at, allow_unused=True)
            if pull is None:
                break
            size = 255 * (0.1 - 0.09 * step / STEPS)
            levels = (levels - size * pull.nan_to_num(0, 0, 0).sign()).clamp(0, 255)
    held = float((lowest > 0).float().mean())
    return said(
        diagnostics.unbounded_succeeds(held),
        f"The share of {len(lowest)} images still rightly judged where every pixel may take any value; above the limit "
        "the attack is broken, or the model does not look at the image.",
        "unbounded attack succeeds",
    )


def _without_gradients(sample: Sample, guess: Guess, queries: int, seed: int) -> list[Diagnostic]:
    """The attack's result against a short random search inside the same rules, by what is left to go."""
    stream = generator("image search", seed)
    best, lowest = sample.clean.clone(), sample.height(sample.clean)
    start, first = float(lowest.mean()), None
    for _ in range(queries):
        tried = guess(sample.clean, best, stream)
        if tried is None:
            return []
        height = sample.height(tried)
        first = float(height.mean()) if first is None else first
        better = height <= lowest
        best[better], lowest[better] = tried[better], height[better]
    others = {"the first guess": cast("float", first), "random search": float(lowest.mean()), "the clean image": start}
    found = diagnostics.query_wins(float(sample.height(sample.changed).mean()), others)
    return [
        said(
            found,
            f"By what share of the way {queries} guesses without gradients, under the same rules, led further than the "
            "attack; above the limit the gradients were of no use.",
        )
    ]


def said(diagnostic: Diagnostic, meaning: str, name: str | None = None) -> Diagnostic:
    """The same number under the same limit, in the words of images."""
    return diagnostic.model_copy(update={"meaning": meaning, "name": name or diagnostic.name})
