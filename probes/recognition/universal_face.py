"""One printed texture for everybody: whoever wears it is taken for the target, or no longer for themselves."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from audit.alignment import CHIP
from audit.budget import Budget
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError, DataError
from audit.examples import Attacked, Examples, Goal
from audit.execution import Execution
from audit.record import Diagnostic
from probes import diagnostics
from probes.optimisers import Descent, Steps
from probes.probe import Access, Progress, generator
from probes.recognition.masks import Mask, wear
from probes.recognition.placing import chips, to_bytes
from probes.recognition.texture import Wearers, parts

Start = Literal["face", "noise", "grey"]
CHECKS, CHECKED = 6, 24
"""How often a texture is held against how many of the wearers that it is trained on; the best is kept."""


@dataclass(frozen=True, repr=False)
class UniversalFace:
    """A texture in the frame of aligned faces, trained on portraits of the background, worn by the sources.

    Minimised: the mean over wearers and models of max(0, ``beyond`` − margin), with the margin score − cut where the
    attack impersonates and cut − score where it dodges. To dodge, each wearer is compared with another photograph of
    the same person, or with the wearer's own where there is none. To impersonate, there is one texture for each person
    among the targets, trained in turn: the cost grows with their number.

    Args:
        mask: where it is worn. steps: ``None`` takes the budget's. wearers: portraits per step, drawn.
        start: ``face`` is the target's own face where the attack impersonates, somebody's of the background where it
            dodges. rate: first step, as a share of the value range. beyond: margin from which a wearer counts no more.
    """

    mask: Mask
    steps: int | None = None
    wearers: int = 16
    start: Start = "face"
    rate: float = 0.06
    beyond: float = 0.15

    goal: ClassVar[str] = "One printed patch with which whoever wears it is taken for somebody else, or not recognised"
    threat: ClassVar[str] = "Somebody who knows the model, prints one patch and hands it to people never seen before"
    refs: ClassVar[tuple[str, ...]] = ("000 §4.1", "NISTAML.022", "AML.T0043.000")
    access: ClassVar[Access] = "white-box"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if (
            (self.steps is not None and self.steps < 1)
            or self.wearers < 1
            or self.start not in get_args(Start)
            or not 0 < self.rate <= 1
            or not self.beyond > 0
        ):
            raise AuditError(
                "options of UniversalFace",
                expected="steps and wearers of at least 1, start face, noise or grey, rate in (0, 1], beyond above 0",
                got=f"steps {self.steps}, wearers {self.wearers}, start {self.start!r}, rate {self.rate:g}, "
                f"beyond {self.beyond:g}",
                mend="correct them in the probe",
            )

    @property
    def name(self) -> str:
        """A few words for the report."""
        return f"universal patch, {self.mask}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mask})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, pairs, budget and seed, as JSON."""
        return {
            "probe": type(self).__name__,
            "version": self.version,
            "mask": self.mask.spec(),
            "steps": self.steps,
            "wearers": self.wearers,
            "start": self.start,
            "rate": self.rate,
            "beyond": self.beyond,
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
        """The sources with the 8-bit texture on; :func:`textures` reads it from the examples.

        History, of the first texture: ``step``, ``loss`` and ``fooled`` (share) on the wearers that it is checked on.

        Raises:
            DataError: a background without portraits, or with somebody who is attacked.
        """
        worn = _wearers_of(attacked)
        train = Wearers(worn, self.mask, execution.device)
        groups = _groups(attacked)
        made: list[Tensor] = []
        history: dict[str, list[float]] = {}
        found: list[list[Diagnostic]] = []
        for turn, (name, rows) in enumerate(groups):

            def tell(share: float, turn: int = turn) -> None:
                if progress:
                    progress((turn + share) / len(groups), self.name)

            enrolled = [_references(m, attacked, worn, rows) for m in models]
            stream = generator("universal face", seed, name)
            begin = self._begin(attacked, worn, rows, stream).to(execution.device)
            training = _Training(self, models, attacked.goal, train, worn, enrolled, budget)
            made.append(training.run(begin, self.steps or budget.steps, stream, tell))
            history = history or training.history
            found.append(training.health())
        on = Wearers(attacked.sources, self.mask, execution.device)
        images = on.images.clone()
        for texture, (_, rows) in zip(made, groups, strict=True):
            for part in parts(torch.tensor(rows), budget.batch):
                at = part.to(images.device)
                images[at] = wear(on.images[at], on.wearing(texture.float() / 255, part), on.masks[at])
        return Examples(
            images.cpu(),
            on.masks.cpu(),
            _worst(found),
            history,
            0,
            {
                "textures": [_png(t) for t in made],
                "of": [name for name, _ in groups],
                "texture": [next(i for i, (_, rows) in enumerate(groups) if n in rows) for n in range(len(images))],
                "spec": self.spec(),
            },
        )

    def _begin(self, attacked: Attacked, worn: Portraits, rows: list[int], stream: torch.Generator) -> Tensor:
        if self.start == "grey":
            return torch.full((3, CHIP, CHIP), 0.5)
        if self.start == "noise":
            return torch.rand(3, CHIP, CHIP, generator=stream)
        whose = attacked.targets[rows[:1]]
        if attacked.goal == "dodge":
            whose = worn[torch.randint(len(worn), (1,), generator=stream)]
        return chips(whose.images.float() / 255, whose.landmarks)[0]


def textures(examples: Examples) -> NDArray[np.uint8]:
    """(T, 112, 112, 3) RGB: the textures of examples that :class:`UniversalFace` made, grey where none is worn."""
    pictures = [Image.open(io.BytesIO(base64.b64decode(t))) for t in examples.details["textures"]]
    return np.stack([np.asarray(p) for p in pictures])


class _Training:
    """One texture on its way."""

    def __init__(
        self,
        options: UniversalFace,
        models: Sequence[Comparison],
        goal: Goal,
        train: Wearers,
        worn: Portraits,
        enrolled: Sequence[Tensor],
        budget: Budget,
    ) -> None:
        self.options, self.models, self.train, self.enrolled = options, models, train, enrolled
        self.sign, self.batch = 1.0 if goal == "impersonate" else -1.0, max(1, budget.batch)
        device = train.images.device
        self.aligned = [m.align(worn.landmarks.to(device), worn.size) for m in models]
        self.history: dict[str, list[float]] = {"step": [], "loss": [], "fooled": []}
        self.zero = self.broken = self.taken = 0

    def run(self, begin: Tensor, steps: int, stream: torch.Generator, tell: Any) -> Tensor:
        """uint8 (3, 112, 112): the best of the textures checked, grey where no wearer shows it."""
        descent = Descent(begin, steps, Steps(rate=self.options.rate))
        checked = torch.randperm(len(self.train), generator=stream)[:CHECKED]
        best, lowest = to_bytes(begin), (float("inf"), float("inf"))
        touched = torch.zeros_like(begin, dtype=torch.bool)
        order = torch.empty(0, dtype=torch.int64)
        # where the last tenth begins: what falls after it tells that more steps would have attacked better
        late = math.ceil(0.9 * steps)
        for step in range(steps + 1):
            if step % math.ceil(steps / CHECKS) == 0 or step in (late, steps):
                texture = to_bytes(descent.value)
                missed, loss = self._check(texture, checked)
                self._note(step, loss, 1 - missed)
                if (missed, loss) < lowest:
                    best, lowest = texture, (missed, loss)
            if step == steps or lowest == (0.0, 0.0):
                break
            while len(order) < self.options.wearers:
                order = torch.cat([order, torch.randperm(len(self.train), generator=stream)])
            rows, order = order[: self.options.wearers], order[self.options.wearers :]
            gradient = self._gradient(descent.value, rows)
            touched |= gradient != 0
            descent.step(gradient)
            tell((step + 1) / steps)
        seen = touched.any(0, keepdim=True)
        return torch.where(seen, best, 128).to(torch.uint8) if bool(seen.any()) else best

    def health(self) -> list[Diagnostic]:
        """Gradients, and whether the loss fell and had settled; the latter two hold no more once all are fooled."""
        out = [diagnostics.gradient_zero_steps(self.zero, self.broken, self.taken, settled=self._won)]
        if self._won:
            return out
        steps, loss = [int(s) for s in self.history["step"]], self.history["loss"]
        return [*out, diagnostics.loss_fell(loss[0], min(loss)), diagnostics.still_falling(steps, loss)]

    @property
    def _won(self) -> bool:
        return max(self.history["fooled"]) >= 1.0

    def _gradient(self, texture: Tensor, rows: Tensor) -> Tensor:
        total = torch.zeros_like(texture)
        for part in parts(rows, self.batch):
            value = texture.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self._losses(value, part).sum() / len(rows), value)
            total += gradient
        self.taken += 1
        if not bool(total.isfinite().all()):
            self.broken += 1
            return torch.zeros_like(total)
        self.zero += not bool(total.any())
        return total

    def _losses(self, texture: Tensor, rows: Tensor) -> Tensor:
        """(n,) mean over the models."""
        return (self.options.beyond - self._margins(texture, rows)).relu().mean(0)

    def _margins(self, texture: Tensor, rows: Tensor) -> Tensor:
        """(models, n)."""
        photographs = self.train.wearing(texture, rows)
        out = []
        for model, aligned, enrolled in zip(self.models, self.aligned, self.enrolled, strict=True):
            at = rows.to(photographs.device)
            score = model.score(aligned[at].faces(photographs), enrolled[at])
            out.append(self.sign * (score - model.cut))
        return torch.stack(out)

    def _check(self, texture: Tensor, rows: Tensor) -> tuple[float, float]:
        """(share not fooled, mean loss) on wearers, as 8 bits."""
        missed = lost = 0.0
        for part in parts(rows, self.batch):
            with torch.no_grad():
                margins = self._margins(texture.float() / 255, part)
                missed += float((margins.amin(0) < 0).sum())
                lost += float((self.options.beyond - margins).relu().mean(0).sum())
        return missed / len(rows), lost / len(rows)

    def _note(self, step: int, loss: float, fooled: float) -> None:
        for key, value in (("step", float(step)), ("loss", loss), ("fooled", fooled)):
            self.history[key].append(value)


def _wearers_of(attacked: Attacked) -> Portraits:
    """The portraits to train on: those of the background."""
    people = {*attacked.sources.identities, *attacked.targets.identities} - {""}
    known = sorted(people & set(attacked.background.identities))
    if known or not len(attacked.background):
        raise DataError(
            "background of a universal patch",
            expected="portraits of people of whom none is attacked",
            got=f"{known[0]}, who is attacked" if known else "no portrait",
            mend="hand in other people's portraits",
        )
    return attacked.background


def _groups(attacked: Attacked) -> list[tuple[str, list[int]]]:
    """(name, pairs) for each texture: one per person among the targets, or one for all who dodge."""
    if attacked.goal == "dodge":
        return [("everybody", list(range(len(attacked.sources))))]
    of: dict[str, list[int]] = {}
    for i, (identity, id) in enumerate(zip(attacked.targets.identities, attacked.targets.ids, strict=True)):
        of.setdefault(identity or id, []).append(i)
    return list(of.items())


def _references(model: Comparison, attacked: Attacked, worn: Portraits, rows: list[int]) -> Tensor:
    """What each wearer is compared with: the target's photographs in turn, or another one of the wearer's own."""
    if attacked.goal == "impersonate":
        ids = attacked.targets.ids
        first = {ids[i]: i for i in reversed(rows)}
        shown, turn = attacked.targets[sorted(first.values())], torch.arange(len(worn))
        at = turn % len(shown)
    else:
        shown, people = worn, worn.identities
        at = torch.tensor([_next(people, i) for i in range(len(worn))])
    with torch.no_grad():
        batches = parts(torch.arange(len(shown)), 32)
        return torch.cat([model.enrol(model.aligned(shown.images[b], shown.landmarks[b])) for b in batches])[at]


def _next(people: Sequence[str], i: int) -> int:
    """Another portrait of the same person, the next in order; the same one where there is none or nobody knows."""
    others = [(i + k) % len(people) for k in range(1, len(people)) if people[i]]
    return next((j for j in others if people[j] == people[i]), i)


def _worst(found: list[list[Diagnostic]]) -> list[Diagnostic]:
    """Of several textures' diagnostics those that are raised, one of each name; else the first."""
    names = {d.name: d for one in reversed(found) for d in one}
    for one in found:
        names.update({d.name: d for d in one if d.raised})
    return list(names.values())


def _png(texture: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(texture.permute(1, 2, 0).cpu().numpy()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
