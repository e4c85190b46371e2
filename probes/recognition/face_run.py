"""One batch of pairs on its way under ``FacePatch``: steps, 8-bit looks, and the best photograph of each pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.examples import Attacked
from audit.execution import Execution
from probes.probe import generator
from probes.recognition.ensemble import Aimed, Weights
from probes.recognition.masks import wear
from probes.recognition.soundness import Course
from probes.recognition.transforms import Pipeline

if TYPE_CHECKING:
    from probes.recognition.face_patch import FacePatch

Start = Literal["source", "noise", "grey"]
CHECK = 5
"""At most so many steps between two looks at the photograph itself, where transforms do not show it anyway."""

_LOOKS, _SHAKE = 4, 0.1


@dataclass(eq=False)
class Run:
    """One batch of N pairs on its way; ``active`` are those still at work.

    Attributes:
        box: the part of the photographs that holds all masks; only there anything is computed beside the models.
        content: (N, 3, h, w) of the box, in [0, 1]: the patches' start. best_images: of the box, uint8.
        best, first, late: (N,) margins, as ``Course`` has them. zero, broken, taken: (N,) steps.
    """

    plan: FacePatch
    aimed: Aimed
    clean: Tensor
    masks: Tensor
    box: tuple[slice, slice]
    content: Tensor
    seed: int
    best_images: Tensor
    best: Tensor
    first: Tensor
    late: Tensor
    zero: Tensor
    broken: Tensor
    taken: Tensor
    curve: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        plan: FacePatch,
        models: Sequence[Comparison],
        attacked: Attacked,
        execution: Execution,
        seed: int,
        start: Tensor | None,
    ) -> Run:
        device, sources = execution.device, attacked.sources
        aimed = Aimed.at(models, attacked, execution)
        clean = sources.images.to(device)
        x = clean.float() / 255
        heat = _heat(aimed, x, seed, plan.weights) if plan.mask.searches else None
        masks = plan.mask.photo_masks(sources.landmarks, sources.size, heat).to(device)
        aimed = plan.aim(aimed, attacked, masks, seed)
        content = _start(plan.start, x, attacked, seed) if start is None else start.to(x)
        box = _box(masks)
        none = x.new_full((len(x),), -math.inf)
        count = torch.zeros(len(x), dtype=torch.int64, device=device)
        return cls(
            plan, aimed, clean, masks, box, content[:, :, *box].clone(), seed, clean[:, :, *box].clone(),
            none, none.clone(), none.clone(), count, count.clone(), count.clone(),
        )  # fmt: skip

    def go(self, steps: int, report: Callable[[float], None] | None) -> None:
        """All steps, and a look at where the last one led."""
        plan, pipeline = self.plan, self.plan.pipeline
        active = torch.arange(len(self.clean), device=self.clean.device)
        aimed, content, x = self.aimed, self.content, self.clean.float() / 255
        clean, masks = self.clean[:, :, *self.box], self.masks[:, *self.box]
        memory, looked = torch.zeros_like(content), -CHECK
        for step in range(steps + 1):
            seen = wear(clean, content, masks)
            x[:, :, *self.box] = seen.float() / 255
            stream = generator("face patch", self.seed, step)
            now = pipeline.ordered(stream)
            margins = None
            if step < steps:
                pull, margins = aimed.gradient(x, now, stream, plan.weights)
                pull = self._usable(pull[:, :, *self.box] * masks[:, None], active)
                way, memory = now.direction(pull, memory)
                rate = plan.rate * (plan.last + (1 - plan.last) * (1 + math.cos(math.pi * step / steps)) / 2)
                content = (content + rate * way.sign()).clamp_(0, 1)
            if margins is None and (step - looked >= CHECK or step == steps):
                margins = aimed.margins(x)
            if margins is not None:
                looked = step
                self._keep(active, seen, margins.amin(0), step, steps)
                if plan.enough is not None:
                    going = torch.nonzero(self.best[active] < plan.enough)[:, 0]
                    if len(going) < len(active):
                        active, aimed = active[going], aimed[going]
                        x, clean, masks, content, memory = (t[going] for t in (x, clean, masks, content, memory))
            known = self.best[self.best.isfinite()]
            mean = known.mean() if len(known) else self.best.new_zeros(())
            self.curve.append(torch.stack([mean, (self.best > 0).float().mean()]).cpu())
            if report is not None:
                report((step + 1) / (steps + 1))
            if not len(active):
                break
        self.curve += self.curve[-1:] * (steps + 1 - len(self.curve))

    def images(self) -> Tensor:
        """(N, 3, H, W) uint8: the best photograph of each pair."""
        out = self.clean.clone()
        out[:, :, *self.box] = self.best_images
        return out

    def course(self) -> Course:
        """What the diagnostics ask for."""
        late = torch.where(self.late.isinf(), self.best, self.late)
        parts = (self.first, late, self.best, self.zero, self.broken, self.taken)
        return Course(*(p.cpu() for p in parts))

    def _keep(self, active: Tensor, seen: Tensor, margins: Tensor, step: int, steps: int) -> None:
        if step == 0:
            self.first[active] = margins
        better = margins > self.best[active]
        at = active[better]
        self.best[at], self.best_images[at] = margins[better], seen[better]
        if step <= 0.9 * steps:
            self.late[active] = self.best[active]

    def _usable(self, pull: Tensor, active: Tensor) -> Tensor:
        """The gradient with what is not finite as zero; both are counted."""
        size = pull.abs().flatten(1).sum(1)
        finite = size.isfinite()
        self.broken[active] += (~finite).long()
        self.zero[active] += (size == 0).long()
        self.taken[active] += 1
        return pull if bool(finite.all()) else torch.where(finite[:, None, None, None], pull, 0.0)


def _box(masks: Tensor) -> tuple[slice, slice]:
    """The rows and columns that hold all masks (N, H, W)."""
    out = []
    for axis in (2, 1):
        at = torch.nonzero(masks.any(axis).any(0))[:, 0]
        out.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 1))
    return out[0], out[1]


def _start(start: Start, x: Tensor, attacked: Attacked, seed: int) -> Tensor:
    if start == "source":
        return x.clone()
    if start == "grey":
        return torch.full_like(x, 0.5)
    return noise(attacked.sources, attacked.targets, seed).to(x)


def noise(sources: Portraits, targets: Portraits, seed: int) -> Tensor:
    """(N, 3, H, W) even in [0, 1], each pair's by its own names and the seed."""
    out = []
    for a, b in zip(sources.ids, targets.ids, strict=True):
        out.append(torch.rand(3, *sources.size, generator=generator("noise", seed, a, b)))
    return torch.stack(out) if out else torch.zeros(0, 3, *sources.size)


def _heat(aimed: Aimed, x: Tensor, seed: int, weights: Weights) -> Tensor:
    """(N, H, W): magnitude of the margin's gradient, averaged over the photograph and a few noisy copies of it."""
    total = torch.zeros_like(x[:, 0])
    for i in range(_LOOKS):
        stream = generator("heat", seed, i)
        shaken = x if i == 0 else (x + _SHAKE * torch.randn(x.shape[1:], generator=stream).to(x)).clamp(0, 1)
        pull, _ = aimed.gradient(shaken, Pipeline(()), stream, weights)
        total += pull.nan_to_num(0, 0, 0).abs().sum(1)
    return total
