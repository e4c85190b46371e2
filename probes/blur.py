"""Gaussian blur of a small picture, differentiable and cheap on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(picture: Tensor, sigma: float) -> Tensor:
    """A picture (C, P, Q) blurred by a Gaussian, σ in its own texels, cut at 3σ, edges repeated; σ = 0: the same."""
    if sigma <= 0:
        return picture
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(math.ceil(3 * sigma) + 1)]
    whole = 2 * sum(weights) - weights[0]
    kernel = [w / whole for w in [*weights[:0:-1], *weights]]
    for side in (1, 2):
        picture = _Blurred.apply(picture, kernel, side)
    return picture


class _Blurred(torch.autograd.Function):
    """A picture blurred along one side by shifted sums: a convolution of a single channel is far slower on a CPU."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, kernel: list[float], side: int) -> Tensor:
        ctx.kernel, ctx.side = kernel, side
        reach, last = len(kernel) // 2, picture.shape[side] - 1
        place = torch.arange(-reach, last + 1 + reach, device=picture.device).clamp(0, last)
        return _shifted_sum(picture.index_select(side, place), kernel, side, last + 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), kernel, side = grads, ctx.kernel, ctx.side
        reach, length = len(kernel) // 2, grad.shape[side]
        around = [0, 0, 2 * reach, 2 * reach] if side == 1 else [2 * reach, 2 * reach]
        spread = _shifted_sum(F.pad(grad, around), kernel, side, length + 2 * reach)
        out = spread.narrow(side, reach, length)
        out.select(side, 0).add_(spread.narrow(side, 0, reach).sum(side))
        out.select(side, -1).add_(spread.narrow(side, reach + length, reach).sum(side))
        return out, None, None


def _shifted_sum(wide: Tensor, kernel: list[float], side: int, length: int) -> Tensor:
    out = wide.narrow(side, 0, length) * kernel[0]
    for i, weight in enumerate(kernel[1:], 1):
        out.add_(wide.narrow(side, i, length), alpha=weight)
    return out
