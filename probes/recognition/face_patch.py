"""A patch per pair by gradients, in the photograph, within a mask: R3's attack and R8's two goals.

x_adv = x ⊙ (1 − M) + p ⊙ M with p in [0, 1] free where M is. The margin of model k is score_k − cut_k; impersonating
raises Σ w_k margin_k, dodging lowers it. Each step goes by the sign of the (transformed) gradient; its size falls
along half a cosine. What a step is judged by is the 8-bit photograph, and each pair keeps the best one seen: the one
whose worst model is furthest beyond its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.comparison import Comparison
from audit.errors import AuditError
from audit.examples import Attacked, Examples
from audit.execution import Execution
from audit.record import Diagnostic
from probes.probe import Access, Progress
from probes.recognition.ensemble import Aimed, Weights, require_white_box
from probes.recognition.face_run import CHECK, Run, Start
from probes.recognition.masks import WHOLE, FaceMask, Mask
from probes.recognition.soundness import Course, unbounded_succeeds
from probes.recognition.transforms import Order, Pipeline, Transform

__all__ = ["CHECK", "FacePatch"]

UNBOUNDED_PAIRS, UNBOUNDED_STEPS = 8, 40


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
    refs: ClassVar[tuple[str, ...]] = ("000 §4.3.2", "000 §4.1")
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
            run = Run.of(self, models, _only(attacked, part), execution, seed, None if start is None else start[part])

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
        mean = (torch.stack(curves).sum(0) / len(sources)).T.tolist() if curves else [[], []]
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
        run = Run.of(whole, models, _only(attacked, rows), execution, seed, None)
        run.go(max(steps, UNBOUNDED_STEPS), None)
        return unbounded_succeeds(int(run.course().failed.sum()), len(rows))


def _only(attacked: Attacked, rows: Tensor) -> Attacked:
    return replace(attacked, sources=attacked.sources[rows], targets=attacked.targets[rows])
