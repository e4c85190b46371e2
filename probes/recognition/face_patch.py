"""A patch per pair by gradients, in the photograph, within a mask: R3's attack and R8's two goals.

x_adv = x ⊙ (1 − M) + p ⊙ M with p in [0, 1] free where M is. The margin of model k is score_k − cut_k; impersonating
raises Σ w_k margin_k, dodging lowers it. Each step goes by the sign of the (transformed) gradient; its size falls
along half a cosine. What a step is judged by is the 8-bit photograph, and each pair keeps the best one seen: the one
whose worst model is furthest beyond its threshold.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from audit.budget import Budget
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError
from audit.execution import Execution
from audit.record import Diagnostic
from probes.probe import Access, Progress
from probes.recognition.ensemble import Aimed, Weights, require_white_box
from probes.recognition.examples import Attacked, Examples
from probes.recognition.masks import WHOLE, FaceMask, Mask, wear
from probes.recognition.soundness import Course, unbounded_succeeds
from probes.recognition.transforms import Order, Pipeline, Transform

Start = Literal["source", "noise", "grey"]
CHECK = 5
"""Steps between two looks at the photograph itself, where transforms do not show it anyway."""

UNBOUNDED_PAIRS, UNBOUNDED_STEPS = 8, 40
_LOOKS, _SHAKE = 4, 0.1


@dataclass(frozen=True, kw_only=True)
class FacePatch:
    """Pair-specific patch (R3, R8): white-box on the models it is given; on others, by transfer.

    Args:
        mask: where it may be. transforms: names or ``probes.recognition.transforms``, in the order in which they act.
        order: ``fixed``, or ``random``: drawn anew at each step (R3). weights: of the models, ``fixed`` (equal),
            ``dynamic`` (1 − cos, R3) or a share each. start: what the patch is at first; ``craft`` takes any other.
        rate: first step, as a share of the value range; last: the last one, as a share of the first.
        steps: ``None`` for the budget's. enough: a pair is done once its worst margin reaches it; ``None`` for never,
            as a patch that is to carry over to other models wants.

    Raises:
        AuditError: an option that does not exist or a number out of range.
    """

    mask: Mask = field(default_factory=FaceMask)
    transforms: tuple[str | Transform, ...] = ("mi",)
    order: Order = "fixed"
    weights: Weights = "fixed"
    start: Start = "source"
    rate: float = 0.1
    last: float = 0.05
    steps: int | None = None
    enough: float | None = None

    goal: ClassVar[str] = "somebody is taken for another, or no longer for themselves"
    threat: ClassVar[str] = (
        "Somebody who has the recognizer, or others like it, and wears a patch made for one target and one photograph."
    )
    refs: ClassVar[tuple[str, ...]] = ("R3", "R8")
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        self.pipeline  # noqa: B018 raises here rather than at the first step
        sound = self.start in ("source", "noise", "grey") and 0 < self.rate <= 1 and 0 < self.last <= 1
        if not sound or (self.steps is not None and self.steps < 1):
            raise AuditError("face patch", expected="start source, noise or grey, rate and last in (0, 1], steps >= 1",
                             got=f"start {self.start!r}, rate {self.rate}, last {self.last}, steps {self.steps}",
                             mend="correct them")  # fmt: skip

    def __repr__(self) -> str:
        how = "+".join(t.name for t in self.pipeline.transforms) or "plain"
        return f"{self.mask!r} {how}{' at random' * (self.order == 'random')}{' dynamic' * (self.weights == 'dynamic')}"

    @property
    def name(self) -> str:
        return f"patch per pair ({self!r})"

    @property
    def pipeline(self) -> Pipeline:
        """The transforms."""
        return Pipeline.of(self.transforms, self.order)

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        weights = list(self.weights) if isinstance(self.weights, tuple) else self.weights
        rest = {"weights": weights, "start": self.start, "rate": self.rate, "last": self.last}
        return {
            "probe": "face patch",
            **self.mask.spec(),
            **self.pipeline.spec(),
            **rest,
            "steps": self.steps,
            "enough": self.enough,
        }

    def craft(
        self,
        models: Sequence[Comparison],
        attacked: Attacked,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
        start: Tensor | None = None,
    ) -> Examples:
        """Patches on all pairs.

        Args:
            start: (N, 3, H, W) in [0, 1], what the patches are at first, instead of the option's.

        Raises:
            ModelError: a model without gradients. AuditError: weights or a start that do not fit.
        """
        require_white_box(models, self.weights)
        sources, steps = attacked.sources, self.steps or budget.steps
        if start is not None and start.shape != sources.images.shape:
            raise AuditError("start of a face patch", expected=f"shape {tuple(sources.images.shape)}",
                             got=f"{tuple(start.shape)}", mend="give one picture per pair")  # fmt: skip
        images, masks = sources.images.clone(), torch.zeros(len(sources), *sources.size, dtype=torch.bool)
        courses, curves = [], []
        parts = torch.split(torch.arange(len(sources)), max(1, budget.batch))
        for i, part in enumerate(parts):
            run = _Run.of(self, models, _only(attacked, part), execution, seed, None if start is None else start[part])

            def report(done: float, i: int = i) -> None:
                if progress is not None:
                    progress((i + done) / len(parts), f"patches {i * budget.batch + 1} to {len(sources)}")

            run.go(steps, report)
            images[part], masks[part] = run.images().cpu(), run.masks.cpu()
            courses.append(run.course())
            curves.append(torch.stack(run.curve) * len(part))
        course = Course.joined(courses) if courses else None
        diagnostics = course.diagnostics() if course is not None else []
        if course is not None and bool(course.failed.any()) and self.mask != WHOLE:
            diagnostics.append(self._unbounded(models, attacked, course, execution, steps, seed))
        mean = (torch.stack(curves).sum(0) / len(sources)).tolist() if curves else [[], []]
        return Examples(
            images,
            masks,
            diagnostics,
            {"margin of the worst model, best so far": mean[0], "share beyond the threshold": mean[1]},
            details={"steps": steps, "model calls per step": self.pipeline.copies * len(models)},
        )

    def aim(self, aimed: Aimed, attacked: Attacked, masks: Tensor, seed: int) -> Aimed:
        """What a batch of pairs is attacked through; attacks that ask for more than these models wrap it."""
        del attacked, masks, seed
        return aimed

    def _unbounded(
        self,
        models: Sequence[Comparison],
        attacked: Attacked,
        course: Course,
        execution: Execution,
        steps: int,
        seed: int,
    ) -> Diagnostic:
        """A few of the pairs that held out, with a patch over the whole face."""
        rows = torch.nonzero(course.failed)[:UNBOUNDED_PAIRS, 0]
        whole = replace(self, mask=WHOLE, transforms=("mi",), order="fixed", enough=0.0)
        run = _Run.of(whole, models, _only(attacked, rows), execution, seed, None)
        run.go(max(steps, UNBOUNDED_STEPS), None)
        return unbounded_succeeds(int(run.course().failed.sum()), len(rows))


@dataclass(eq=False)
class _Run:
    """One batch of N pairs on its way; ``active`` are those still at work.

    Attributes:
        box: the part of the photographs that holds all masks; only there anything is computed beside the models.
        content: (N, 3, h, w) of the box, in [0, 1]: the patches' start. best_images: of the box, uint8.
        best, first, late: (N,) margins, as ``Course`` has them. zero, broken, taken: (N,) steps.
    """

    probe: FacePatch
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
        probe: FacePatch,
        models: Sequence[Comparison],
        attacked: Attacked,
        execution: Execution,
        seed: int,
        start: Tensor | None,
    ) -> _Run:
        device, sources = execution.device, attacked.sources
        aimed = Aimed.at(models, attacked, execution)
        clean = sources.images.to(device)
        x = clean.float() / 255
        heat = _heat(aimed, x, seed, probe.weights) if probe.mask.searches else None
        masks = probe.mask.photo_masks(sources.landmarks, sources.size, heat).to(device)
        aimed = probe.aim(aimed, attacked, masks, seed)
        content = _start(probe.start, x, attacked, seed) if start is None else start.to(x)
        box = _box(masks)
        none = x.new_full((len(x),), -math.inf)
        count = torch.zeros(len(x), dtype=torch.int64, device=device)
        return cls(
            probe, aimed, clean, masks, box, content[:, :, *box].clone(), seed, clean[:, :, *box].clone(),
            none, none.clone(), none.clone(), count, count.clone(), count.clone(),
        )  # fmt: skip

    def go(self, steps: int, report: Callable[[float], None] | None) -> None:
        """All steps, and a look at where the last one led."""
        probe, pipeline = self.probe, self.probe.pipeline
        active = torch.arange(len(self.clean), device=self.clean.device)
        aimed, content, x = self.aimed, self.content, self.clean.float() / 255
        clean, masks = self.clean[:, :, *self.box], self.masks[:, *self.box]
        memory = torch.zeros_like(content)
        for step in range(steps + 1):
            seen = wear(clean, content, masks)
            x[:, :, *self.box] = seen.float() / 255
            stream = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            now = pipeline.ordered(stream)
            margins = None
            if step < steps:
                pull, margins = aimed.gradient(x, now, stream, probe.weights)
                pull = self._usable(pull[:, :, *self.box] * masks[:, None], active)
                way, memory = now.direction(pull, memory)
                rate = probe.rate * (probe.last + (1 - probe.last) * (1 + math.cos(math.pi * step / steps)) / 2)
                content = (content + rate * way.sign()).clamp_(0, 1)
            if margins is None and (step % CHECK == 0 or step == steps):
                margins = aimed.margins(x)
            if margins is not None:
                self._keep(active, seen, margins.amin(0), step, steps)
                if probe.enough is not None:
                    going = torch.nonzero(self.best[active] < probe.enough)[:, 0]
                    if len(going) < len(active):
                        active, aimed = active[going], aimed[going]
                        x, clean, masks, content, memory = (t[going] for t in (x, clean, masks, content, memory))
            self.curve.append(torch.stack([self.best.mean(), (self.best > 0).float().mean()]).cpu())
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


def _only(attacked: Attacked, rows: Tensor) -> Attacked:
    return replace(attacked, sources=attacked.sources[rows], targets=attacked.targets[rows])


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
        own = int.from_bytes(hashlib.sha256(f"{seed}\0{a}\0{b}".encode()).digest()[:7], "big")
        out.append(torch.rand(3, *sources.size, generator=torch.Generator().manual_seed(own)))
    return torch.stack(out) if out else torch.zeros(0, 3, *sources.size)


def _heat(aimed: Aimed, x: Tensor, seed: int, weights: Weights) -> Tensor:
    """(N, H, W): magnitude of the margin's gradient, averaged over the photograph and a few noisy copies of it."""
    total = torch.zeros_like(x[:, 0])
    for i in range(_LOOKS):
        stream = torch.Generator().manual_seed(seed * 1_000_003 + i)
        shaken = x if i == 0 else (x + _SHAKE * torch.randn(x.shape[1:], generator=stream).to(x)).clamp(0, 1)
        pull, _ = aimed.gradient(shaken, Pipeline(()), stream, weights)
        total += pull.nan_to_num(0, 0, 0).abs().sum(1)
    return total
