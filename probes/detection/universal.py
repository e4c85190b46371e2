"""One patch for all: trained on the craft split through the detector's candidates (papers 002 and 004, D1 to D5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.contracts import Detector, WhiteBoxDetector
from audit.data.scenes import Scenes
from audit.execution import Execution
from probes.detection.controls import Picture, read_picture, resized
from probes.detection.craftset import CraftSet, Placed, height_under
from probes.detection.ensemble import Ensemble, require_white_box
from probes.detection.objectives import PATCH_IOU, Objective
from probes.detection.patch import Patch
from probes.detection.soundness import examine
from probes.geometry import TOP
from probes.optimisers import STEPS, Descent, Steps
from probes.probe import Access, Progress, digest, frozen, generator
from probes.wear import Wear

CHECK_IMAGES = 32
"""The height that decides which patch is best is taken on this many craft images."""
CHECKS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
"""Shares of the steps after which it is taken."""


@dataclass(slots=True)
class Course:
    """What happened on the way.

    Attributes:
        loss: per step, mean loss of the attacked candidates. attacked: per step, their number.
        zero: steps whose gradient was all zero though candidates were attacked; broken: steps whose was not finite.
        checked: steps after which the height was taken; height: the height then, of the 8-bit patch.
    """

    loss: list[float] = field(default_factory=list)
    attacked: list[int] = field(default_factory=list)
    zero: int = 0
    broken: int = 0
    checked: list[int] = field(default_factory=list)
    height: list[float] = field(default_factory=list)

    def history(self) -> dict[str, list[float]]:
        """As named curves of plain numbers; what is not finite is left out."""
        steps = [(float(i + 1), v) for i, v in enumerate(self.loss) if math.isfinite(v)]
        checks = [(float(i), v) for i, v in zip(self.checked, self.height, strict=True) if math.isfinite(v)]
        return {
            "step": [i for i, _ in steps],
            "loss": [v for _, v in steps],
            "checked": [i for i, _ in checks],
            "height": [v for _, v in checks],
        }


@dataclass(frozen=True, repr=False)
class UniversalPatch:
    """A patch optimised by gradients to hide every object it is worn on.

    Args:
        objective: which candidates are brought down, and by which loss.
        placement: where it is trained to be worn.
        size: texels per side. The paper prints 128; fewer learn faster, as an object shows few of them.
        init: ``noise``, ``grey``, a picture file, or uint8 (height, width, 3) RGB.
        steps: how the patch moves; how often is the budget's part.
        ensemble: other detectors to train on, together with the audited one or in its place.
    """

    objective: Objective = PATCH_IOU
    placement: Wear = TOP
    size: int = 48
    init: Picture = "noise"
    steps: Steps = STEPS
    ensemble: Ensemble | None = None

    goal: ClassVar[str] = "Hide the object from the detector with one printed patch that works on every object"
    threat: ClassVar[str] = "Somebody who holds the model file and wears a print made with it"
    refs: ClassVar[tuple[str, ...]] = ("002 §3.2", "002 §4.2", "NISTAML.022", "AML.T0043.000")
    load = staticmethod(Patch.load)

    @property
    def name(self) -> str:
        """A few words for the report."""
        on = "" if self.ensemble is None else f" on {self.ensemble}"
        return f"trained patch, {self.objective!r}, {self.placement}{on}"

    @property
    def access(self) -> Access:
        """``transfer`` where the audited detector is left out of the training."""
        return "transfer" if self.ensemble is not None and not self.ensemble.with_subject else "white-box"

    def __repr__(self) -> str:
        start = "" if isinstance(self.init, str) and self.init == "noise" else f", from {self._origin()}"
        on = "" if self.ensemble is None else f", on {self.ensemble}"
        return f"{type(self).__name__}({self.objective!r}, {self.placement}{start}{on})"

    def spec(self) -> dict[str, Any]:
        """All that determines the patch beside model, data, budget and seed."""
        steps = self.steps
        return {
            "probe": type(self).__name__,
            "version": 1,
            "objective": self.objective.spec(),
            "placement": self.placement.spec(),
            "size": self.size,
            "init": self._origin(),
            "steps": [steps.rule, steps.rate, steps.last, steps.momentum],
        } | ({} if self.ensemble is None else {"ensemble": self.ensemble.spec()})

    def craft(
        self,
        detector: Detector,
        scenes: Scenes,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Patch:
        """Trains for ``budget.steps`` steps of ``budget.batch`` images and returns the best 8-bit patch met.

        Raises:
            ModelError: a detector to train on has no ``candidates``. DataError: no object to put a patch on.
        """
        detectors = require_white_box([detector] if self.ensemble is None else self.ensemble.detectors(detector))
        craft = self.craft_set(scenes, execution, batch=budget.batch, seed=seed)
        start, course = self._start(seed), Course()
        descent = Descent(start.to(execution.device).float() / 255, budget.steps, self.steps)
        with frozen(*detectors):
            best = self._descend(detectors, craft, descent, course, budget.steps, seed, progress)
            origin = self.spec() | {"seed": seed, "budget": [budget.steps, budget.batch]}
            patch = Patch(best, self.placement, self.name, origin, history=course.history())
            queries = min(budget.queries, budget.steps // 4)
            alone = len(detectors) == 1
            sound = examine(
                detectors[0], self.objective, craft, patch, start, course, queries=queries, seed=seed, alone=alone
            )
        return replace(patch, diagnostics=sound)

    @property
    def texels(self) -> tuple[int, int]:
        """(P, Q) of the patch."""
        return self.size, self.size

    def craft_set(self, scenes: Scenes, execution: Execution, *, batch: int, seed: int) -> CraftSet:
        """The craft images in groups, with the patch's places worked out."""
        return CraftSet(scenes, self.placement, execution, batch=batch, seed=seed)

    def gradient(
        self, detector: WhiteBoxDetector, group: tuple[Placed, ...], value: Tensor, execution: Execution
    ) -> tuple[Tensor, float, int]:
        """Gradient (3, P, P) of the mean loss of the attacked candidates of a group; the loss; their number."""
        value = value.detach().requires_grad_()
        total, loss, attacked = torch.zeros_like(value), 0.0, 0
        for part in group:
            with execution.autocast():
                candidates = detector.candidates(part.where.place(part.images, value))
            each = self.objective.each(candidates, part.targets, detector.score_threshold)
            if len(each):
                (gradient,) = torch.autograd.grad(each.sum(), value, allow_unused=True)
                total = total if gradient is None else total + gradient
                loss, attacked = loss + float(each.detach().sum()), attacked + len(each)
        return total / max(1, attacked), loss / max(1, attacked), attacked

    def joint(
        self, detectors: Sequence[WhiteBoxDetector], group: tuple[Placed, ...], value: Tensor, execution: Execution
    ) -> tuple[Tensor, float, int]:
        """As ``gradient``, over several detectors: Σ λ_k L_k with the ensemble's weights (paper 000, eq. 10)."""
        each = [self.gradient(d, group, value, execution) for d in detectors]
        if self.ensemble is None:
            return each[0]
        weights = self.ensemble.joint.weights([loss for _, loss, _ in each])
        gradient = torch.stack([g * w for (g, _, _), w in zip(each, weights, strict=True)]).sum(0)
        loss = sum(loss * w for (_, loss, _), w in zip(each, weights, strict=True))
        return gradient, loss, sum(count for _, _, count in each)

    def look(self, value: Tensor) -> Tensor:
        """Gradient (3, P, P) of what the patch should look like, whatever it hides; here nothing is asked of it."""
        return torch.zeros_like(value)

    def shown(self, group: tuple[Placed, ...], step: int, seed: int) -> tuple[Placed, ...]:
        """The group as that step sees it."""
        del step, seed
        return group

    def height(self, detector: WhiteBoxDetector, craft: CraftSet, pixels: Tensor) -> float:
        """What is left to bring down under an 8-bit patch, per object of the check images."""
        return height_under(detector, craft.sample(CHECK_IMAGES), pixels, self.objective, craft.execution)

    def _descend(
        self,
        detectors: Sequence[WhiteBoxDetector],
        craft: CraftSet,
        descent: Descent,
        course: Course,
        steps: int,
        seed: int,
        progress: Progress | None,
    ) -> Tensor:
        """The best 8-bit patch at the checks."""
        checks = {round(share * steps) for share in CHECKS}
        best, lowest = Patch.rounded(descent.value), math.inf
        groups = craft.steps(steps)
        for step in range(steps + 1):
            if step in checks:
                pixels = Patch.rounded(descent.value)
                height = sum(self.height(d, craft, pixels) for d in detectors) / len(detectors)
                course.checked.append(step)
                course.height.append(height if math.isfinite(height) else math.inf)
                if height < lowest:
                    best, lowest = pixels, height
            if progress:
                progress(step / max(1, steps), f"{self.name}: height {course.height[-1]:.3g}")
            if step == steps:
                break
            group = self.shown(next(groups), step, seed)
            gradient, loss, attacked = self.joint(detectors, group, descent.value, craft.execution)
            course.loss.append(loss)
            course.attacked.append(attacked)
            if not bool(gradient.isfinite().all()):
                course.broken += 1
                gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            elif attacked and not bool(gradient.any()):
                course.zero += 1
            descent.step(gradient + self.look(descent.value))
        return best

    def _origin(self) -> str:
        """What the patch starts from: ``noise``, ``grey``, or the first digits of the picture's digest."""
        if isinstance(self.init, str) and self.init in ("noise", "grey"):
            return self.init
        return digest(self._start(0))[:16]

    def _start(self, seed: int) -> Tensor:
        """uint8 (3, size, size)."""
        if isinstance(self.init, str) and self.init == "grey":
            return torch.full((3, *self.texels), 128, dtype=torch.uint8)
        if isinstance(self.init, str) and self.init == "noise":
            shape, stream = (3, *self.texels), generator("universal patch", seed)
            return torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8)
        return resized(read_picture(self.init), self.texels)
