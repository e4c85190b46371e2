"""A patch drawn by a face generator: what is optimised is the face's code, not its pixels (R4, GenAP).

x_adv = x ⊙ (1 − M) + S(w) ⊙ M (paper 000, eq. 17), where S draws an aligned face and M is the mask in the photograph.
Patches that are parts of faces fit their surrogates less and other recognizers more (Xiao et al., CVPR 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from audit import state
from audit.budget import Budget
from audit.comparison import Comparison
from audit.contracts import FaceGenerator
from audit.errors import AuditError
from audit.examples import Attacked, Examples
from audit.execution import Execution
from probes.probe import Access, Progress, generator
from probes.recognition.canvas import Ascent, Canvas, Kept, examples, only
from probes.recognition.eigenfaces import Eigenfaces, aligned, built_in, drawer, first_codes, identity
from probes.recognition.ensemble import Aimed, Weights, require_white_box
from probes.recognition.face_patch import CHECK, FacePatch
from probes.recognition.masks import FaceMask, Mask
from probes.recognition.transforms import Order, Pipeline, Transform

RADIUS = 2.0
"""Longest code as a share of √L, the length of a usual code of L normal numbers: past it, what is drawn is no face."""

Origin = Literal["source", "target", "mean", "random"]


def bounded(codes: Tensor, radius: float) -> Tensor:
    """Codes (N, L) drawn back to length radius·√L where they are longer."""
    longest = radius * math.sqrt(codes.shape[1])
    shorter: Tensor = (longest / codes.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    return codes * shorter


@dataclass(frozen=True)
class LatentPatch:
    """A part of a drawn face per pair, its code found by gradients: R4.

    Adam on codes, up the weighted mean of the models' margins; the best 8-bit image seen is kept.

    Args:
        mask: where the patch is. generator: draws faces from codes; ``None`` for eigenfaces of the background.
        transforms, order, weights: as ``FacePatch`` has them, of what is shown to the models; GenAP-DI is ``("di",)``.
        start: code at first: the ``source``'s or the ``target``'s face, projected where the generator can project (and
            the mean where not), ``mean`` for zeros, ``random`` for a normal draw per pair.
        rate: first step, in standard deviations of a code. radius: codes are kept to length radius·√L.
        steps: gradients per pair; ``None`` for the budget's. With 0 the start is the patch: nothing is optimised.

    Raises:
        AuditError: an option that does not exist or a number out of range.
    """

    mask: Mask = field(default_factory=FaceMask)
    _: KW_ONLY
    generator: FaceGenerator | None = None
    transforms: tuple[str | Transform, ...] = ()
    order: Order = "fixed"
    weights: Weights = "fixed"
    start: Origin = "source"
    rate: float = 0.2
    radius: float = RADIUS
    steps: int | None = None

    goal: ClassVar[str] = "somebody is taken for another, or no longer for themselves"
    threat: ClassVar[str] = (
        "Somebody who has the recognizer, or others like it, and a face generator, and wears a part of a drawn face."
    )
    refs: ClassVar[tuple[str, ...]] = ("000 §4.3.2",)
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        self.pipeline  # noqa: B018 raises here rather than at the first step
        sound = self.start in ("source", "target", "mean", "random") and self.rate > 0 and self.radius > 0
        if not sound or (self.steps is not None and self.steps < 0):
            raise AuditError("latent patch", expected="start source, target, mean or random, rate and radius above 0, "
                             "steps >= 0", got=f"start {self.start!r}, rate {self.rate}, radius {self.radius}, "
                             f"steps {self.steps}", mend="correct them")  # fmt: skip

    def __repr__(self) -> str:
        how = "+".join(t.name for t in self.pipeline.transforms) or "plain"
        return f"{self.mask!r} latent {how} from {self.start}"

    @property
    def name(self) -> str:
        return f"drawn patch per pair ({self!r})"

    @property
    def pipeline(self) -> Pipeline:
        """The transforms."""
        return Pipeline.of(self.transforms, self.order)

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        weights = list(self.weights) if isinstance(self.weights, tuple) else self.weights
        rest = {"weights": weights, "start": self.start, "rate": self.rate, "radius": self.radius, "steps": self.steps}
        return {
            "probe": "latent patch",
            **self.mask.spec(),
            **identity(self.generator),
            **self.pipeline.spec(),
            **rest,
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
    ) -> Examples:
        """Patches on all pairs.

        Raises:
            ModelError: a model without gradients, or a generator that breaks its contract.
            DataError: no generator, and no background to fit one on.
        """
        require_white_box(models, self.weights)
        steps = budget.steps if self.steps is None else self.steps
        made = built_in(attacked.background, execution.device) if self.generator is None else self.generator
        parts, lengths = [], []
        with state.frozen(state.modules_of(made)):
            draw = drawer(made, execution.device)
            batches = torch.split(torch.arange(len(attacked.sources)), max(1, budget.batch))
            for i, rows in enumerate(batches):
                some = only(attacked, rows)
                masks = self.mask.photo_masks(some.sources.landmarks, some.sources.size)
                canvas = Canvas.of(some.sources, masks, execution.device)

                def report(done: float, i: int = i) -> None:
                    if progress is not None:
                        progress((i + done) / len(batches), f"drawn patches, batch {i + 1} of {len(batches)}")

                aimed = Aimed.at(models, some, execution)
                kept, codes = self._search(
                    draw, self._start(made, some, seed, execution), canvas, aimed, steps, seed, report
                )
                parts.append((kept, masks))
                lengths.append(codes.norm(dim=1).cpu() / math.sqrt(codes.shape[1]))
        length = torch.cat(lengths)
        details = {
            "steps": steps,
            "model calls per step": self.pipeline.copies * len(models),
            "generator": drawn_by(made),
            "length of the codes, mean and most, in √L": [float(length.mean()), float(length.max())],
            "longest code allowed, in √L": self.radius,
        }
        return examples(parts, details)

    def _start(self, made: FaceGenerator, attacked: Attacked, seed: int, execution: Execution) -> Tensor:
        """(N, L)."""
        pairs = zip(attacked.sources.ids, attacked.targets.ids, strict=True)
        if self.start == "random":
            codes = torch.stack([torch.randn(made.latent, generator=generator("code", seed, *ids)) for ids in pairs])
        elif self.start == "mean":
            codes = torch.zeros(len(attacked.sources), made.latent)
        else:
            of = attacked.sources if self.start == "source" else attacked.targets
            codes = first_codes(made, aligned(of).to(execution.device))
        return bounded(codes.to(execution.device), self.radius)

    def _search(
        self,
        draw: Callable[[Tensor], Tensor],
        codes: Tensor,
        canvas: Canvas,
        aimed: Aimed,
        steps: int,
        seed: int,
        report: Callable[[float], None],
    ) -> tuple[Kept, Tensor]:
        """The best images and the codes (N, L) that drew them; ``steps`` gradients, and a look at where they led."""
        kept, ascent, found = Kept.nothing(canvas), Ascent(self.rate, steps), codes
        for step in range(steps + 1):
            w = codes.detach().requires_grad_()
            with torch.enable_grad():
                images = canvas.paint(canvas.read(draw(w)))
            stream = generator("latent", seed, step)
            margins = None
            if step < steps:
                now = self.pipeline.ordered(stream)
                pull, margins = aimed.gradient(images, now, stream, self.weights)
                (slope,) = torch.autograd.grad(images, w, pull)
                codes = bounded(codes + ascent.step(kept.usable(slope)), self.radius)
            if margins is None and (step % CHECK == 0 or step == steps):
                margins = aimed.margins(images.detach())
            if margins is not None:
                better = kept.see(images, margins, step / max(1, steps))
                found = torch.where(better[:, None], w.detach(), found)
            kept.note()
            report((step + 1) / (steps + 1))
        return kept, found


@dataclass(frozen=True)
class LatentStart:
    """R4, then R3: a latent patch is where the pixels of a ``FacePatch`` begin, on one budget of steps.

    Args:
        mask, generator: as ``LatentPatch`` has them. transforms, order, weights: of both parts, so that every step
            costs the same model calls. share: of the steps, those spent on codes. rate: of the pixels' first step.
        origin: where the codes begin. steps: of both parts together; ``None`` for the budget's.

    Raises:
        AuditError: an option that does not exist or a number out of range.
    """

    mask: Mask = field(default_factory=FaceMask)
    _: KW_ONLY
    generator: FaceGenerator | None = None
    transforms: tuple[str | Transform, ...] = ("mi",)
    order: Order = "random"
    weights: Weights = "fixed"
    share: float = 0.5
    rate: float = 0.1
    origin: Origin = "source"
    steps: int | None = None

    goal: ClassVar[str] = LatentPatch.goal
    threat: ClassVar[str] = LatentPatch.threat
    refs: ClassVar[tuple[str, ...]] = ("000 §4.3.2",)
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or (self.steps is not None and self.steps < 2):
            raise AuditError("latent start", expected="share in (0, 1) and steps >= 2",
                             got=f"share {self.share}, steps {self.steps}", mend="correct them")  # fmt: skip
        _ = self.latent, self.pixels

    def __repr__(self) -> str:
        return f"{self.pixels!r} from {self.latent.start}'s code"

    @property
    def name(self) -> str:
        return f"patch per pair from the latent space ({self!r})"

    @property
    def latent(self) -> LatentPatch:
        """The first part."""
        return LatentPatch(
            self.mask, generator=self.generator, transforms=self.transforms, order=self.order, weights=self.weights,
            start=self.origin,
        )  # fmt: skip

    @property
    def pixels(self) -> FacePatch:
        """The second part."""
        return FacePatch(
            mask=self.mask, transforms=self.transforms, order=self.order, weights=self.weights, rate=self.rate
        )

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        rest = {"probe": "latent start", "share": self.share, "steps": self.steps}
        return {"latent": self.latent.spec(), "pixels": self.pixels.spec(), **rest}

    def craft(
        self,
        models: Sequence[Comparison],
        attacked: Attacked,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Examples:
        """Patches on all pairs; raises as ``LatentPatch`` and ``FacePatch`` do."""
        total = self.steps or budget.steps
        first = min(max(1, round(self.share * total)), max(1, total - 1))
        told = None if progress is None else _part(progress, 0.0, first / total)
        latent = replace(self.latent, steps=first).craft(
            models, attacked, execution=execution, budget=budget, seed=seed, progress=told
        )
        told = None if progress is None else _part(progress, first / total, 1.0)
        out = replace(self.pixels, steps=max(1, total - first)).craft(
            models, attacked, execution=execution, budget=budget, seed=seed, progress=told,
            start=latent.images.float() / 255,
        )  # fmt: skip
        curves = {name: latent.history.get(name, []) + values for name, values in out.history.items()}
        details = {**latent.details, **out.details, "steps": total, "steps on codes": first}
        return replace(out, history=curves, details=details)


def drawn_by(made: FaceGenerator) -> str:
    """The generator in words."""
    if isinstance(made, Eigenfaces):
        return f"eigenfaces: {made.latent} components of {made.fitted} portraits, no network"
    return f"{type(made).__qualname__} with codes of {made.latent} numbers"


def _part(progress: Progress, start: float, end: float) -> Progress:
    def told(done: float, text: str) -> None:
        progress(start + (end - start) * done, text)

    return told
