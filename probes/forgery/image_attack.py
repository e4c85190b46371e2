"""What attacks on images share: batches of whole clips, 8-bit looks, and the best step of each image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.errors import AuditError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from probes.forgery import soundness
from probes.forgery.ensemble import Ensemble, Objective, Seen
from probes.forgery.soundness import Course
from probes.probe import Access, Progress


def eight_bits(levels: Tensor) -> Tensor:
    """Rounded to whole levels in [0, 255]; the gradient goes straight through."""
    return levels + (levels.round().clamp(0, 255) - levels).detach()


def require(attack: str, *, ok: bool, expected: str, got: object) -> None:
    """An option of an attack is what it has to be.

    Raises:
        AuditError: it is not.
    """
    if not ok:
        raise AuditError(attack, expected=expected, got=repr(got), mend="correct the option")


class Run:
    """One batch of n images on its way.

    Pixels are levels in [0, 255]. All looks are at 8-bit images, as they are judged: what is kept is what was seen.

    Attributes:
        clean: (n, 3, H, W) float32 levels. labels: (n,). ids: n names. steps: that the attack may take.
        images: (n, 3, H, W) uint8, the best so far. maps: name -> (n, …) float32 of the best.
        losses: mean loss per look.
    """

    def __init__(
        self, ensemble: Ensemble, part: Labelled, steps: int, report: Callable[[int], None] | None = None
    ) -> None:
        """``report``: called with the number of looks so far."""
        device = ensemble.execution.device
        self.ensemble, self.steps, self.ids = ensemble, steps, part.ids
        self.images = part.images.to(device).clone()
        self.clean = self.images.float()
        self.labels = part.labels.to(device)
        self.maps: dict[str, Tensor] = {}
        self.losses: list[Tensor] = []
        n = len(part)
        self._report, self._value = report, self.clean.new_full((n,), -math.inf)
        self._wrong = torch.full((n,), -1, dtype=torch.int64, device=device)
        self._heights: list[Tensor] = []
        self._zero, self._broken, self._taken = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(3))

    def look(
        self,
        levels: Tensor,
        maps: Mapping[str, Tensor] | None = None,
        *,
        candidate: bool = True,
    ) -> Seen:
        """What the models say of the images, rounded; the best of each image is kept, with its maps.

        Args:
            levels: (n, 3, H, W) in [0, 255]; the gradient goes straight through the rounding.
            candidate: whether these images may be the result.
        """
        seen = self.ask(levels)
        self.keep(levels, seen, seen.loss, maps, candidate=candidate)
        return seen

    def ask(self, levels: Tensor) -> Seen:
        """What the models say of the images, rounded; nothing is kept."""
        return self.ensemble.seen(eight_bits(levels) / 255, self.labels)

    def keep(
        self, levels: Tensor, seen: Seen, value: Tensor, maps: Mapping[str, Tensor] | None = None,
        *, candidate: bool = True,
    ) -> None:  # fmt: skip
        """Takes images as the best where more models decide wrongly, or as many and ``value`` (n,) is higher.

        The images of one clip are taken together.
        """
        value, wrong = self._together(value.detach()), self._together(seen.wrong.float()).round().long()
        height = self._together(seen.height)
        self.losses.append(seen.loss.detach().sum().double().cpu())
        if candidate:
            better = (wrong > self._wrong) | ((wrong == self._wrong) & (value > self._value))
            self.images[better] = levels.detach()[better].round().clamp(0, 255).to(torch.uint8)
            self._value[better], self._wrong[better] = value[better], wrong[better]
            for name, of in (maps or {}).items():
                kept = self.maps.setdefault(name, torch.zeros_like(of, dtype=torch.float32))
                kept[better] = of.detach()[better].float()
        lowest = torch.minimum(self._heights[-1], height) if self._heights else height
        self._heights.append(lowest)
        if self._report is not None:
            self._report(len(self.losses))

    def pull(self, value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Gradients of Σ ``value`` (n,) by inputs (n, …), finite: what is not is zero for the whole image, and counted.

        Each image's gradient is its own, whatever else is in the batch.
        """
        found: Sequence[Tensor | None] = (None,) * len(inputs)
        if value.requires_grad:
            found = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
        gradients = [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]
        # by the largest entry: a sum of squares underflows where the gradient does not
        size = torch.stack([g.abs().flatten(1).amax(1) for g in gradients]).sum(0)
        finite = size.isfinite()
        self._broken += (~finite).long()
        self._zero += (size == 0).long()
        self._taken += 1
        if bool(finite.all()):
            return tuple(gradients)
        return tuple(torch.where(finite.view(-1, *[1] * (g.ndim - 1)), g, 0.0) for g in gradients)

    def course(self) -> Course:
        """What the diagnostics ask for."""
        return Course(torch.stack(self._heights).cpu(), self._zero.cpu(), self._broken.cpu(), self._taken.cpu())

    def _together(self, each: Tensor) -> Tensor:
        """Σ over the images of one clip, for each of them: a clip has one best step."""
        unit = self.ensemble.unit
        return each if unit == 1 else each.reshape(-1, unit).sum(1).repeat_interleave(unit)


class ImageAttack(ABC):
    """An attack with gradients: says how one batch is attacked; all else is here.

    Subclasses are frozen dataclasses.
    """

    goal: ClassVar[str] = "have a fake taken for real, a real for fake, or an image for something else"
    threat: ClassVar[str] = "Knows the model, or others like it, and changes each image before it is judged."
    refs: ClassVar[tuple[str, ...]] = ()
    access: ClassVar[Access] = "white-box"
    excusable: ClassVar[bool] = False
    """Whether some models rightly do not feel it at all: see ``soundness``. Never where every pixel may change."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A few words for the report."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """All that determines the result beside model, data, budget and seed, as JSON."""

    @abstractmethod
    def rules(self) -> ImageRules | None:
        """What it may change, checked by other code; ``None`` if nothing is to be held."""

    @abstractmethod
    def run(self, run: Run, seed: int) -> None:
        """Attacks one batch: looks at images until its steps are spent."""

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor | None:
        """Images for an attack without gradients, inside the same rules; ``None`` if there is no such attack.

        Args:
            clean, best: (n, 3, H, W) levels, where the search has got to. stream: for its draws.
        """
        del clean, best, stream
        return None

    def details(self, maps: Mapping[str, Tensor]) -> dict[str, Any]:
        """Facts about the result for the record, as JSON."""
        del maps
        return {}

    def moved(self, maps: Mapping[str, Tensor]) -> bool:
        """Whether the attack went anywhere from where it starts, without which it has no excuse either."""
        del maps
        return True

    @property
    def objective(self) -> Objective:
        """What is climbed."""
        return "cross-entropy"

    def steps_of(self, budget: Budget) -> int:
        """Steps that are taken."""
        own: int | None = getattr(self, "steps", None)
        return budget.steps if own is None else own

    def looks(self, steps: int) -> int:
        """At images of one batch, in all: what progress is counted by."""
        return steps + 1

    def craft(
        self,
        models: Sequence[ImageModel],
        attacked: Labelled,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Adversarial:
        """Changed images, the best step of each: most models wrong, and then the highest loss.

        Several models are an ensemble. The result depends on the seed and the images' names, not on the batch.

        Raises:
            ModelError: a model without gradients. DataError: images that are no whole clips.
        """
        ensemble = Ensemble.of(models, execution, self.objective)
        ensemble.require_whole(len(attacked))
        unit, n, steps = ensemble.unit, len(attacked), self.steps_of(budget)
        if not n:
            return Adversarial(attacked.images.clone())
        size = max(1, budget.batch // unit) * unit
        out, losses, maps, courses = [], [], [], []
        for at in torch.split(torch.arange(n), size):
            run = Run(
                ensemble, attacked[at], steps, _reporter(progress, int(at[0]), len(at), n, self.looks(steps), self.name)
            )
            self.run(run, seed)
            out.append(run.images.cpu())
            maps.append({k: m.cpu() for k, m in run.maps.items()})
            losses.append(torch.stack(run.losses))
            courses.append(run.course())
        joined = {k: torch.cat([m[k] for m in maps]) for k in maps[0]}
        images = torch.cat(out)
        found = soundness.examine(
            models, attacked, images, Course.joined(courses),
            execution=execution, seed=seed, guess=self.guess, queries=min(budget.queries, soundness.QUERIES),
            excusable=self.excusable and self.moved(joined),
        )  # fmt: skip
        mean = (torch.stack(losses).sum(0) / n).tolist()
        return Adversarial(images, joined, found, {"loss": mean}, {"steps": steps, **self.details(joined)})


def _reporter(
    progress: Progress | None, first: int, images: int, total: int, looks: int, name: str
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda looked: progress((first + min(1.0, looked / looks) * images) / total, name)
