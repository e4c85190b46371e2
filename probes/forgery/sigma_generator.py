"""A generator that makes the map of an adversarial blur from the image alone (paper 003, §III-C, eq. 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audit.budget import Budget
from audit.errors import AuditError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from probes.forgery.adversarial_blur import MOVED, bounded, cells, normalisation
from probes.forgery.blur_field import RingSums, taps
from probes.forgery.blur_rules import BlurRules
from probes.forgery.ensemble import Ensemble
from probes.forgery.image_attack import ImageAttack, Run, eight_bits
from probes.probe import Access, Progress, generator

_BETAS = (0.5, 0.999)


class Generator(nn.Module):
    """Images (N, 3, H, W) in [0, 1] to maps (N, H, W) in [−1, 1], after CycleGAN's: down twice, residual blocks, up.

    Instance normalisation: what it says of an image does not depend on the others. It starts near 0 everywhere, and
    grows by resizing and convolution, as transposed convolutions leave a chequerboard in the map.
    """

    def __init__(self, width: int, blocks: int, stream: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):  # the weights are drawn below, from a stream of our own
            self.first = nn.Conv2d(3, width, 7)
            self.down = nn.ModuleList([nn.Conv2d(width * m, width * 2 * m, 3, 2, 1) for m in (1, 2)])
            wide = 4 * width
            self.ones = nn.ModuleList([nn.Conv2d(wide, wide, 3) for _ in range(blocks)])
            self.twos = nn.ModuleList([nn.Conv2d(wide, wide, 3) for _ in range(blocks)])
            self.up = nn.ModuleList([nn.Conv2d(width * 2 * m, width * m, 3, 1, 1) for m in (2, 1)])
            self.last = nn.Conv2d(width, 1, 7)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for name, weight in self.named_parameters():
                fresh = torch.randn(weight.shape, generator=stream) * (0.005 if name.startswith("last") else 0.1)
                weight.copy_(fresh if weight.ndim > 1 else torch.zeros_like(weight))

    def forward(self, images: Tensor) -> Tensor:
        sizes, x = [], _normal(self.first(_edged(images - 0.5, 3)))
        for layer in self.down:
            sizes.append(x.shape[2:])
            x = _normal(layer(x))
        for one, two in zip(self.ones, self.twos, strict=True):
            x = x + F.instance_norm(two(_edged(_normal(one(_edged(x, 1))), 1)))
        for layer, size in zip(self.up, reversed(sizes), strict=True):
            x = _normal(layer(F.interpolate(x, size=size, mode="nearest")))
        found: Tensor = self.last(_edged(x, 3))
        return found[:, 0].tanh()


def _edged(x: Tensor, by: int) -> Tensor:
    return F.pad(x, (by,) * 4, mode="replicate")


def _normal(x: Tensor) -> Tensor:
    return F.instance_norm(x).relu()


@dataclass(frozen=True)
class SigmaGenerator:
    """Gen-BAT and Two-Gen-BAT's generators as an attack: max over θ_G of Σ L(G(x), y), the detector being given.

    The generator makes 1/σ from the image in one pass: 1/σ = exp(t·log r) / start, t in [−1, 1] its output, so that σ
    lies between start/r and start·r. It is trained on images of its own, and used on others.

    Attributes:
        two: one generator for each label instead of one for all. kernel, literal: see ``blur_field``.
        start: σ px from which it begins. ratio: r. mean: largest mean σ of an image, px; a map above it is scaled down.
        width, blocks: of the generator. rate: of Adam, as in the paper. steps: the budget's if not given.
        train: images that it is trained on; those that are attacked if not given.
    """

    two: bool = False
    kernel: int = 9
    start: float = 1.0
    ratio: float = 8.0
    mean: float | None = None
    width: int = 8
    blocks: int = 3
    rate: float = 2e-3
    steps: int | None = None
    literal: bool = False
    train: Labelled | None = field(default=None, compare=False, repr=False)

    goal: ClassVar[str] = "have a fake taken for real by a blur that a trained generator chooses, or a real for fake"
    threat: ClassVar[str] = "Trains a generator on the model, or others like it; then blurs without asking it again."
    refs: ClassVar[tuple[str, ...]] = ("003 §III-C", "003 eq. 7", "NISTAML.022", "AML.T0043.000")
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        taps(self.kernel)
        if not (self.start > 0 and self.ratio > 1 and self.width > 0 and self.blocks >= 0 and self.rate > 0):
            raise AuditError(
                "generator of σ maps", expected="start > 0, ratio > 1, width > 0, blocks >= 0, rate > 0",
                got=f"{self.start}, {self.ratio}, {self.width}, {self.blocks}, {self.rate}", mend="correct them",
            )  # fmt: skip

    @property
    def name(self) -> str:
        return f"blur by {'two generators' if self.two else 'a generator'}, {self.kernel} × {self.kernel}"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside model, data, budget and seed, as JSON."""
        return {
            "probe": "sigma generator", "two": self.two, "kernel": self.kernel, "start": self.start,
            "ratio": self.ratio, "mean": self.mean, "width": self.width, "blocks": self.blocks, "rate": self.rate,
            "steps": self.steps, "train": None if self.train is None else self.train.digest,
            **normalisation(literal=self.literal),
        }  # fmt: skip

    def rules(self) -> BlurRules:
        return BlurRules(self.kernel, (0.0, self.start * self.ratio), self.mean, literal=self.literal)

    def fit(
        self,
        models: Sequence[ImageModel],
        train: Labelled,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Generated:
        """Trained on images with their labels: the probe that uses what was learnt.

        Each step takes ``budget.batch`` images, in an order drawn anew for each pass.

        Raises:
            ModelError: a model without gradients. DataError: images that are no whole clips.
        """
        ensemble = Ensemble.of(models, execution)
        ensemble.require_whole(len(train))
        unit, device = ensemble.unit, execution.device
        steps = budget.steps if self.steps is None else self.steps
        sides = (0, 1) if self.two else (0,)
        nets = {s: Generator(self.width, self.blocks, generator("sigma generator", seed, s)).to(device) for s in sides}
        adam = torch.optim.Adam([p for n in nets.values() for p in n.parameters()], lr=self.rate, betas=_BETAS)
        trained, losses = Generated(self, nets), []
        stream, clips = generator("sigma generator", seed, "order"), len(train) // unit
        many, order = max(1, budget.batch // unit), torch.zeros(0, dtype=torch.int64)
        for step in range(steps if clips else 0):
            if len(order) == 0:
                order = torch.randperm(clips, generator=stream)
            chosen, order = order[:many], order[many:]
            at = (chosen[:, None] * unit + torch.arange(unit)).flatten()
            levels, labels = train.images[at].to(device).float(), train.labels[at].to(device)
            made = RingSums.of(levels, self.kernel).blurred(
                trained.field(levels, labels), "inverse", literal=self.literal
            )
            loss = ensemble.seen(eight_bits(made) / 255, labels).loss.mean()
            losses.append(float(loss.detach()))
            adam.zero_grad()
            if loss.requires_grad and bool(loss.isfinite()):
                (-loss).backward()  # type: ignore[no-untyped-call]
                for net in nets.values():
                    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                adam.step()
            if progress is not None:
                progress((step + 1) / steps, self.name)
        for net in nets.values():
            net.requires_grad_(False)
        return replace(trained, losses=tuple(losses))

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
        """Trained on ``train``, or on the attacked images themselves, and used on those."""
        train = attacked if self.train is None else self.train
        about = {"execution": execution, "budget": budget, "seed": seed}
        trained = self.fit(models, train, **about, progress=progress)  # type: ignore[arg-type]
        made = trained.craft(models, attacked, **about)  # type: ignore[arg-type]
        made.history["loss of the generator"] = list(trained.losses)
        made.details |= {"trained on": len(train), "training steps": len(trained.losses)}
        return made


@dataclass(frozen=True, eq=False)
class Generated(ImageAttack):
    """Trained generators at work: one pass each, no gradient.

    Attributes:
        plan: how they were trained. nets: by label; the one of label 0 serves all where there is no other.
        losses: mean loss per training step.
    """

    plan: SigmaGenerator
    nets: Mapping[int, Generator]
    losses: tuple[float, ...] = ()

    excusable: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return self.plan.name

    def spec(self) -> dict[str, Any]:
        return self.plan.spec()

    def rules(self) -> ImageRules:
        return self.plan.rules()

    def steps_of(self, budget: Budget) -> int:
        del budget
        return 1

    def field(self, levels: Tensor, labels: Tensor) -> Tensor:
        """1/σ (N, H, W) for images in [0, 255] with their labels; differentiable in the generators' weights."""
        p, x = self.plan, levels / 255
        if len(self.nets) > 1:
            wanted = [self.nets[min(int(y), 1)] for y in labels.tolist()]
            t = torch.cat([net(x[i : i + 1]) for i, net in enumerate(wanted)])
        else:
            t = self.nets[0](x)
        inverse = torch.exp(t * math.log(p.ratio)) / p.start
        if p.mean is None:
            return inverse
        over: Tensor = (1 / inverse).mean((1, 2), keepdim=True) / p.mean
        return inverse * over.clamp(min=1)

    def run(self, run: Run, seed: int) -> None:
        del seed
        with torch.no_grad():
            run.look(run.clean, candidate=False)
            inverse = self.field(run.clean, run.labels)
            made = RingSums.of(run.clean, self.plan.kernel).blurred(inverse, "inverse", literal=self.plan.literal)
            run.look(made, {"sigma": 1 / inverse})

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        """As that of ``AdversarialBlur``, inside the generator's bounds."""
        del best
        p = self.plan
        sigma = bounded(cells(clean, 8 * max(p.start, 1.0), stream), p.mean, (0.0, p.start * p.ratio))
        return RingSums.of(clean, p.kernel).blurred(sigma, literal=p.literal).clamp(0, 255).round()

    def moved(self, maps: Mapping[str, Tensor]) -> bool:
        return float((maps["sigma"] - self.plan.start).abs().mean()) > MOVED * self.plan.start

    def details(self, maps: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"mean sigma": [round(float(s), 4) for s in maps["sigma"].double().mean((1, 2))]}
