"""A small network that makes a face up so that it passes for another (R5: Adv-Makeup; TianQuan and LianYi).

The network sees source and target, both aligned, and paints a part of the face that landmarks mark out. The paint is
blended in with a soft edge, x_adv = x + α ⊙ (G(x, t) − x) with α = 0 outside the mask, and trained with

    14·L_attack + L_gradient + L_colour

L_attack = −(score − cut) where somebody is impersonated, its opposite where somebody dodges; L_gradient, as in Poisson
blending, is how far the blended face's gradients are from the source's; L_colour how far its mean colours are. Yin et
al. 2021 (Adv-Makeup) also train a discriminator and compare textures by a network of their own; neither is built here.

Meta-training over recognizers: at every step one model is drawn to train on and a group of the others to test on. The
network takes a trial step on the first, the group judges what it has become, and the sum of both gradients is what it
learns from (of first order: the trial step itself is not differentiated). One model alone leaves plain training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import CHIP, Alignment
from audit.budget import Budget
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError
from audit.examples import Attacked, Examples
from audit.execution import Execution
from probes.probe import Access, Progress, generator
from probes.recognition.canvas import Ascent, Canvas, Kept, examples
from probes.recognition.eigenfaces import aligned
from probes.recognition.ensemble import Aimed, require_white_box
from probes.recognition.masks import FaceMask, Mask
from probes.recognition.transforms import Pipeline

ATTACK = 14.0
"""Weight of the attack; that of the other losses is 1 (paper 000 §4.3.1)."""
CHECKS = 8
"""Times that all pairs are looked at while the network learns; the best look of each is kept."""
_EDGE = 3
"""Photograph px over which the paint fades out at the edge of its mask."""
_CHUNK = 64

Weights = dict[str, Tensor]
_LAYERS = {"down1": (16, 6), "down2": (32, 16), "middle": (32, 32), "up1": (16, 48), "up2": (4, 22)}


@dataclass(frozen=True)
class MakeupPatch:
    """Learned make-up, for all pairs by one network: R5.

    It learns on the attacked pairs, whose photographs the attacker has, and on the background's faces made up for the
    same targets, half of each step's batch each.

    Args:
        mask: what may be painted. extra: portraits of the background that are learned from, at most.
        group: models that test a step, at most. attack: weight of the attack loss. rate: first step of the weights,
            as Adam has it; trial: of the trial step, against a gradient of length one.
        batch: pairs per step. steps: ``None`` for the budget's. With 0 the network knows nothing yet: the control.
        judged: how many of the models handed in, the first ones, say which look of a pair is best and whether the
            search did well; the others only teach. ``None`` for all.

    Raises:
        AuditError: a number out of range.
    """

    mask: Mask = field(default_factory=FaceMask)
    _: KW_ONLY
    extra: int = 32
    group: int = 4
    attack: float = ATTACK
    rate: float = 0.01
    trial: float = 0.05
    batch: int = 16
    judged: int | None = None
    steps: int | None = None

    goal: ClassVar[str] = "somebody is taken for another, or no longer for themselves, by what looks like make-up"
    threat: ClassVar[str] = "Somebody who has the recognizer and others, and trains a network that paints faces."
    refs: ClassVar[tuple[str, ...]] = ("000 §4.3.1",)
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        whole = self.extra >= 0 and self.group >= 1 and self.batch >= 2 and (self.steps is None or self.steps >= 0)
        whole = whole and (self.judged is None or self.judged >= 1)
        if not whole or min(self.attack, self.rate, self.trial) <= 0:
            raise AuditError(
                "make-up patch",
                expected="extra >= 0, group >= 1, batch >= 2, judged >= 1, steps >= 0, attack, rate and trial above 0",
                got=f"extra {self.extra}, group {self.group}, batch {self.batch}, judged {self.judged}, "
                f"steps {self.steps}, attack {self.attack}, rate {self.rate}, trial {self.trial}",
                mend="correct them",
            )

    def __repr__(self) -> str:
        return f"{self.mask!r} make-up"

    @property
    def name(self) -> str:
        return f"learned make-up ({self!r})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        of = ("extra", "group", "attack", "rate", "trial", "batch", "judged", "steps")
        return {"probe": "make-up patch", **self.mask.spec(), **{name: getattr(self, name) for name in of}}

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
        """Made-up faces of all pairs.

        Raises:
            ModelError: a model without gradients.
        """
        require_white_box(models)
        steps = budget.steps if self.steps is None else self.steps
        lesson = _Lesson.of(self, models, attacked, execution, seed)
        n, stream = len(attacked.sources), generator("make-up", seed)
        network = {k: v.to(execution.device) for k, v in _drawn(stream).items()}
        moves = {k: Ascent(self.rate, steps) for k in network}
        parts = torch.split(torch.arange(n), max(1, budget.batch))
        kept = [Kept.nothing(lesson.canvas(rows)) for rows in parts]
        looks = {round(i * steps / CHECKS) for i in range(CHECKS + 1)}
        for step in range(steps + 1):
            if step in looks:
                for k, rows in zip(kept, parts, strict=True):
                    lesson.look(network, k, rows, step / max(1, steps))
            if step < steps:
                rows = self._rows(n, len(lesson.pairs.sources), stream)
                first, others = draw_models(len(models), self.group, stream)
                slope = lesson.slope(network, rows, (first,))
                for k, part in zip(kept, parts, strict=True):
                    _count(k, part, rows, lesson.alive)
                if others:
                    length = torch.stack([g.square().sum() for g in slope.values()]).sum().sqrt().clamp(min=1e-12)
                    tried = {name: w + self.trial * slope[name] / length for name, w in network.items()}
                    judged = lesson.slope(tried, rows, others)
                    slope = {name: g + judged[name] for name, g in slope.items()}
                network = {name: w + moves[name].step(slope[name]) for name, w in network.items()}
            if progress is not None:
                progress((step + 1) / (steps + 1), f"make-up, step {min(step + 1, steps)} of {steps}")
        how = f"one of {len(models)} trains, up to {self.group} others test" if len(models) > 1 else "plain: one model"
        details = {"steps": steps, "training": how, "portraits learned from": n + lesson.extra,
                   "weights of attack, gradient, colour": [self.attack, 1.0, 1.0], "discriminator": "none"}  # fmt: skip
        return examples([(k, lesson.masks[rows]) for k, rows in zip(kept, parts, strict=True)], details)

    def _rows(self, n: int, total: int, stream: torch.Generator) -> Tensor:
        """Rows of one step: half of the attacked pairs, half of the background's, as far as there are any."""
        own = min(n, self.batch // 2 if total > n else self.batch)
        rest = min(total - n, self.batch - own)
        return torch.cat(
            [torch.randperm(n, generator=stream)[:own], n + torch.randperm(total - n, generator=stream)[:rest]]
        )


def draw_models(models: int, group: int, stream: torch.Generator) -> tuple[int, tuple[int, ...]]:
    """The model to train on, and up to ``group`` of the others to test on; none where there is only one."""
    order = torch.randperm(models, generator=stream).tolist()
    return order[0], tuple(order[1 : 1 + group])


def paint(network: Weights, source: Tensor, target: Tensor) -> Tensor:
    """Paint (N, 3, 112, 112) for aligned faces: the source's, more or less of the target's, and colour on top.

    An encoder and decoder of five convolutions with two short cuts; how much of the target shows is its own doing too.
    """
    x = torch.cat([source, target], 1) * 2 - 1

    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, network[name], network[f"{name} bias"], stride, 1)

    one = F.leaky_relu(layer("down1", x, 2), 0.2)
    two = F.leaky_relu(layer("down2", one, 2), 0.2)
    two = two + F.leaky_relu(layer("middle", two), 0.2)
    up = F.leaky_relu(layer("up1", torch.cat([F.interpolate(two, scale_factor=2.0), one], 1)), 0.2)
    out = layer("up2", torch.cat([F.interpolate(up, scale_factor=2.0), x], 1))
    return source + out[:, 3:].sigmoid() * (target - source) + out[:, :3].tanh()


def _drawn(stream: torch.Generator) -> Weights:
    """Weights before training (He et al. 2015); the last layer's are small: half of the target shows at first."""
    out = {}
    for name, (wide, into) in _LAYERS.items():
        scale = (2 / (into * 9)) ** 0.5 * (0.1 if name == "up2" else 1.0)
        out[name] = torch.randn(wide, into, 3, 3, generator=stream) * scale
        out[f"{name} bias"] = torch.zeros(wide)
    return out


def _count(kept: Kept, part: Tensor, rows: Tensor, alive: tuple[Tensor, Tensor]) -> None:
    """Counts steps without a usable gradient for the attacked pairs among ``rows`` that belong to this part."""
    zero, broken = alive
    mine = (rows >= int(part[0])) & (rows <= int(part[-1]))
    at = (rows[mine] - int(part[0])).to(kept.zero.device)
    kept.taken[at] += 1
    kept.zero[at] += zero[mine].to(kept.zero)
    kept.broken[at] += broken[mine].to(kept.broken)


@dataclass(eq=False)
class _Lesson:
    """All pairs that are learned from, the attacked ones first.

    Attributes:
        pairs: sources and targets. masks: (P, H, W). own, wanted: (P, 3, 112, 112) aligned sources and targets.
        extra: pairs of the background. alive: of the last slope, (n,) bool each: gradients of zero, and not finite.
    """

    probe: MakeupPatch
    pairs: Attacked
    aimed: Aimed
    masks: Tensor
    own: Tensor
    wanted: Tensor
    extra: int
    alive: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, probe: MakeupPatch, models: Sequence[Comparison], attacked: Attacked, execution: Execution, seed: int
    ) -> _Lesson:
        stream, n = generator("make-up lesson", seed), len(attacked.sources)
        more = torch.randperm(len(attacked.background), generator=stream)[: probe.extra]
        others = attacked.background[more]
        wanted = attacked.targets[torch.randint(0, n, (len(more),), generator=stream)]
        # who dodges is to be unlike the photograph itself
        theirs = wanted if attacked.goal == "impersonate" else others
        pairs = replace(attacked, sources=_both(attacked.sources, others), targets=_both(attacked.targets, theirs))
        masks = probe.mask.photo_masks(pairs.sources.landmarks, pairs.sources.size)
        own, theirs_aligned = (_aligned(p).to(execution.device) for p in (pairs.sources, pairs.targets))
        none = torch.zeros(0, dtype=torch.bool)
        return cls(
            probe, pairs, Aimed.at(models, pairs, execution), masks, own, theirs_aligned, len(more), (none, none)
        )

    @property
    def judges(self) -> Aimed:
        """At all pairs, with the models alone that say which look is best."""
        return _through(self.aimed, range(len(self.aimed.models))[: self.probe.judged])

    def canvas(self, rows: Tensor) -> Canvas:
        return Canvas.of(self.pairs.sources[rows], self.masks[rows], self.aimed.execution.device)

    def blend(self, network: Weights, rows: Tensor, canvas: Canvas) -> Tensor:
        """(n, 3, H, W) made-up photographs, as 8 bits."""
        at = rows.to(self.own.device)
        colours = canvas.read(paint(network, self.own[at], self.wanted[at]).clamp(0, 1))
        soft = F.avg_pool2d(canvas.masks[:, None].float(), 2 * _EDGE + 1, 1, _EDGE, count_include_pad=False)[:, 0]
        alpha = (2 * soft[canvas.masks] - 1).clamp(0.1, 1)[:, None]
        return canvas.paint(canvas.own + alpha * (colours - canvas.own))

    def look(self, network: Weights, kept: Kept, rows: Tensor, share: float) -> None:
        """At the attacked pairs ``rows`` through the models that judge."""
        with torch.no_grad():
            images = self.blend(network, rows, self.canvas(rows))
        kept.see(images, self.judges[rows.to(images.device)].margins(images), share)
        kept.note()

    def slope(self, network: Weights, rows: Tensor, models: Sequence[int]) -> Weights:
        """Of −(attack·L_attack + L_gradient + L_colour), means over the pairs ``rows`` and these models."""
        leaves = {name: w.detach().requires_grad_() for name, w in network.items()}
        canvas, device = self.canvas(rows), self.aimed.execution.device
        at = rows.to(device)
        aimed = _through(self.aimed[at], models)
        with torch.enable_grad():
            images = self.blend(leaves, rows, canvas)
            pull, _ = aimed.gradient(images, Pipeline(()), torch.Generator(), "fixed")
            finite = pull.isfinite().flatten(1).all(1)
            self.alive = (finite & ~(pull != 0).flatten(1).any(1)).cpu(), (~finite).cpu()
            pull = torch.where(finite[:, None, None, None], pull, torch.zeros_like(pull))
            seen = Alignment.by_landmarks(self.pairs.sources.landmarks[rows].to(device), canvas.size, (CHIP, CHIP))
            change = seen.faces(images) - self.own[at]
            rough = (change.diff(dim=2).abs().mean() + change.diff(dim=3).abs().mean()) / self.probe.mask.area
            colour = change.mean((2, 3)).abs().mean() / self.probe.mask.area
            gain = self.probe.attack * (images * pull).sum() / len(rows) - rough - colour
        return dict(zip(leaves, torch.autograd.grad(gain, list(leaves.values())), strict=True))


def _through(aimed: Aimed, models: Sequence[int]) -> Aimed:
    """With these of its models only."""
    named, sides, enrolled = aimed.models, aimed.alignments, aimed.enrolled
    return replace(
        aimed,
        models=tuple(named[k] for k in models),
        alignments=tuple(sides[k] for k in models),
        enrolled=tuple(enrolled[k] for k in models),
    )


def _aligned(portraits: Portraits) -> Tensor:
    """(N, 3, 112, 112) in [0, 1], some photographs at a time: as numbers they take far more room than the faces do."""
    return torch.cat([aligned(portraits[rows]) for rows in torch.split(torch.arange(len(portraits)), _CHUNK)])


def _both(a: Portraits, b: Portraits) -> Portraits:
    return Portraits(
        torch.cat([a.images, b.images]),
        torch.cat([a.landmarks, b.landmarks]),
        a.ids + b.ids,
        a.identities + b.identities,
    )
