"""Spatially transformed images (Xiao et al. 2018; SAT in 003): pixels move a little, and no value is made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.labelled import ImageRules
from probes.forgery.ensemble import Objective, Seen
from probes.forgery.image_attack import ImageAttack, Run, require
from probes.forgery.image_rules import FlowRules

SMOOTH = 1e-6
"""Under the root of the flow loss, px²: its gradient stays finite where neighbours move alike."""
MOVED = 0.05
"""Px of flow on the mean: less is no attack that a model could withstand."""
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """x'(i, j) = x(i + Δu, j + Δv), bilinearly; beyond the edge an image goes on as the edge is.

    Args:
        images: (N, C, H, W). flow: (N, 2, H, W) px: Δu along the rows' index, downwards, and Δv to the right.

    Returns:
        (N, C, H, W), differentiable in both.
    """
    h, w = images.shape[2:]
    rows = torch.arange(h, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 0]
    columns = torch.arange(w, device=flow.device, dtype=flow.dtype) + flow[:, 1]
    at = torch.stack([columns * (2 / max(w - 1, 1)) - 1, rows * (2 / max(h - 1, 1)) - 1], 3)
    return F.grid_sample(images, at, mode="bilinear", padding_mode="border", align_corners=True)


def flow_loss(flow: Tensor, smooth: float = SMOOTH) -> Tensor:
    """(N,) L_flow / (H W), L_flow = Σ over p, Σ over its 4 neighbours q of sqrt(‖f(p) − f(q)‖² + c), each pair from
    both ends; divided by the pixels, so that τ means the same at any size.
    """
    down, right = flow[:, :, 1:] - flow[:, :, :-1], flow[:, :, :, 1:] - flow[:, :, :, :-1]
    total = sum(((d.square().sum(1) + smooth).sqrt()).flatten(1).sum(1) for d in (down, right))
    assert isinstance(total, Tensor)
    return 2 * total / (flow.shape[2] * flow.shape[3])


def limited(flow: Tensor, limit: float) -> Tensor:
    """Each pixel's vector shortened to ``limit`` px where it is longer."""
    length: Tensor = flow.norm(dim=1, keepdim=True)
    return flow * (limit / length.clamp(min=1e-12)).clamp(max=1)


@dataclass(frozen=True)
class SpatialFlow(ImageAttack):
    """Maximises L_adv − τ·L_flow over a flow field f (H, W, 2) by Adam.

    L_adv is the hinge of the paper, in units of the clean margin m₀ so that it fits any model: −max(m/|m₀|, −κ). From
    m = −κ|m₀| on only the flow is made smoother. Of the steps that fool equally many models the one with the highest
    objective is kept.

    Attributes:
        tau: τ. limit: px that a pixel may move, at most. steps: the budget's if not given. rate: Adam's, px; falls to a
            tenth. kappa: κ ≥ 0.
    """

    tau: float = 0.05
    limit: float = 2.0
    steps: int | None = None
    rate: float = 0.1
    kappa: float = 0.2

    refs: ClassVar[tuple[str, ...]] = ("003 §III-A", "NISTAML.022", "AML.T0043.000")
    excusable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ok = self.tau >= 0 and self.limit > 0 and self.rate > 0 and self.kappa >= 0
        got = (self.tau, self.limit, self.rate, self.kappa)
        require("spatial flow", ok=ok, expected="τ >= 0, limit > 0, rate > 0 and κ >= 0", got=got)
        require("spatial flow", ok=self.steps is None or self.steps >= 1, expected="at least one step", got=self.steps)

    @property
    def name(self) -> str:
        return f"spatial flow, at most {self.limit:g} px"

    @property
    def objective(self) -> Objective:
        return "margin"

    def spec(self) -> dict[str, Any]:
        return {
            "probe": "spatial flow", "tau": self.tau, "limit": self.limit, "steps": self.steps, "rate": self.rate,
            "kappa": self.kappa,
        }  # fmt: skip

    def rules(self) -> ImageRules:
        return FlowRules(self.limit)

    def run(self, run: Run, seed: int) -> None:
        del seed
        n, _, h, w = run.clean.shape
        # gradients at no flow at all are those of one side only: bilinear sampling has a kink at whole pixels
        flow = run.clean.new_full((n, 2, h, w), 1e-3)
        first = second = torch.zeros_like(flow)
        units = self._units(run)
        for step in range(run.steps + 1):
            at = flow.detach().requires_grad_(step < run.steps)
            levels = warp(run.clean, at)
            seen = run.ask(levels)
            value = self._gain(seen, units) - self.tau * flow_loss(at)
            run.keep(levels, seen, value, {"flow": at})
            if step == run.steps:
                break
            (pull,) = run.pull(value, at)
            first, second = _BETA1 * first + (1 - _BETA1) * pull, _BETA2 * second + (1 - _BETA2) * pull.square()
            size = self.rate * (0.1 + 0.9 * (1 + math.cos(math.pi * step / run.steps)) / 2)
            way = (first / (1 - _BETA1 ** (step + 1))) / ((second / (1 - _BETA2 ** (step + 1))).sqrt() + _EPS)
            flow = limited(flow + size * way, self.limit)

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        del best
        return warp(clean, random_flow(clean.shape, self.limit, 8.0, stream).to(clean)).round().clamp(0, 255)

    def details(self, maps: Mapping[str, Tensor]) -> dict[str, Any]:
        length = maps["flow"].norm(dim=1)
        return {"mean flow, px": float(length.mean()), "largest flow, px": float(length.max())}

    def moved(self, maps: Mapping[str, Tensor]) -> bool:
        return float(maps["flow"].norm(dim=1).mean()) > MOVED

    def _units(self, run: Run) -> Tensor:
        """(K, n) |m₀| of the clean images."""
        with torch.no_grad():
            seen = run.look(run.clean, {"flow": torch.zeros_like(run.clean[:, :2])}, candidate=False)
        return seen.margins.abs().clamp(min=1e-6)

    def _gain(self, seen: Seen, units: Tensor) -> Tensor:
        return -(seen.margins / units).clamp(min=-self.kappa).mean(0)


def random_flow(shape: torch.Size, limit: float, smooth: float, stream: torch.Generator) -> Tensor:
    """(N, 2, H, W) px: noise drawn every ``smooth`` px and interpolated; the longest vector of each is ``limit``."""
    n, _, h, w = shape
    coarse = torch.randn(n, 2, math.ceil(h / smooth) + 1, math.ceil(w / smooth) + 1, generator=stream)
    flow = F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=True)
    longest: Tensor = flow.norm(dim=1).flatten(1).amax(1)
    return flow * (limit / longest.clamp(min=1e-12))[:, None, None, None]
