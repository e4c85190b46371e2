"""Changes of images that nobody optimised: what an attack has to beat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from probes.forgery.additive import boxed, whole_levels
from probes.forgery.flow import random_flow, warp
from probes.forgery.image_rules import FlowRules, PixelBound
from probes.probe import Access, Progress, generator


class PlainChange(ABC):
    """What the unoptimised changes share. No model is asked; each image has draws of its own, by seed and name."""

    goal: ClassVar[str] = "none: what a change does that nobody optimised"
    threat: ClassVar[str] = "Nobody: a change of the same size without any knowledge of the model."
    refs: ClassVar[tuple[str, ...]] = ("003 §III-A",)
    access: ClassVar[Access] = "none"

    @property
    @abstractmethod
    def name(self) -> str:
        """A few words for the report."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """All that determines the result beside data and seed, as JSON."""

    @abstractmethod
    def rules(self) -> ImageRules:
        """What it may change."""

    @abstractmethod
    def change(self, clean: Tensor, stream: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Levels (1, 3, H, W) of one image and its maps."""

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
        """All images, changed; the models are not asked."""
        del models, execution, budget
        out, maps = [], []
        for i, name in enumerate(attacked.ids):
            levels, own = self.change(attacked.images[i : i + 1].float(), generator("plain change", seed, name))
            out.append(levels.round().clamp(0, 255).to(torch.uint8))
            maps.append(own)
            if progress is not None:
                progress((i + 1) / len(attacked), self.name)
        if not out:
            return Adversarial(attacked.images.clone())
        return Adversarial(torch.cat(out), {k: torch.cat([m[k] for m in maps]) for k in maps[0]})


@dataclass(frozen=True)
class UniformNoise(PlainChange):
    """Even noise in [−ε, ε], or with ``sign`` ±ε at random, as large as an L∞ attack ever gets; cut off at [0, 1]."""

    epsilon: float = 8 / 255
    sign: bool = False

    @property
    def name(self) -> str:
        return f"{'sign' if self.sign else 'even'} noise, ε = {255 * self.epsilon:g}/255"

    def spec(self) -> dict[str, Any]:
        return {"probe": "plain noise", "epsilon": self.epsilon, "sign": self.sign}

    def rules(self) -> ImageRules:
        return PixelBound(self.epsilon)

    def change(self, clean: Tensor, stream: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        most = whole_levels(self.epsilon)
        if self.sign:
            noise = most * (torch.randint(0, 2, clean.shape, generator=stream) * 2.0 - 1)
        else:
            noise = torch.randint(-most, most + 1, clean.shape, generator=stream).float()
        return boxed(clean + noise, clean, self.epsilon), {}


@dataclass(frozen=True)
class RandomFlow(PlainChange):
    """A smooth random flow whose longest vector is ``limit`` px, or whose mean length is ``mean`` px if that is given.

    Attributes:
        smooth: px between the points at which it is drawn.
    """

    limit: float = 2.0
    mean: float | None = None
    smooth: float = 8.0

    @property
    def name(self) -> str:
        size = f"at most {self.limit:g} px" if self.mean is None else f"{self.mean:g} px on average"
        return f"random flow, {size}"

    def spec(self) -> dict[str, Any]:
        return {"probe": "random flow", "limit": self.limit, "mean": self.mean, "smooth": self.smooth}

    def rules(self) -> ImageRules:
        return FlowRules(self.limit)

    def change(self, clean: Tensor, stream: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        flow = random_flow(clean.shape, self.limit, self.smooth, stream)
        if self.mean is not None:
            length = flow.norm(dim=1, keepdim=True)
            # the limit holds all the same
            flow = flow * (self.mean / length.mean().clamp(min=1e-12))
            flow = flow * (self.limit / flow.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        return warp(clean, flow), {"flow": flow}
