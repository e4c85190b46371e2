"""Baseline JPEG without subsampling (4:4:4) as a function of 8×8 blocks, differentiable straight through.

Tables and transform are those of ITU-T T.81 (annexes A and K); the scaling by quality is the usual one of 1 to 100.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def quantisation(quality: int) -> Tensor:
    """(3, 8, 8) integer steps of Y, Cb, Cr at a quality from 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE])
    return ((tables * scale + 50) // 100).clamp(1, 255)


def jpeg_blocks(blocks: Tensor, quality: Tensor, image: Tensor) -> Tensor:
    """RGB blocks written as JPEG and read back.

    Args:
        blocks: (B, 3, 8, 8) in [0, 1]. quality: (N,) int64 of 1 to 100 per image. image: (B,) which image each is of.

    Returns:
        (B, 3, 8, 8) multiples of 1/255 in [0, 1]. Without its roundings, the way there and back is the identity: that
        is the gradient.
    """
    coded: Tensor = _StraightThrough.apply(blocks, quality, image)
    return coded


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: Tensor, quality: Tensor, image: Tensor) -> Tensor:
        del ctx
        cosines = _cosines().to(blocks)
        steps = torch.stack([quantisation(int(q)) for q in quality.tolist()]).to(blocks).view(-1, 3, 64)[image]
        bytes_ = (blocks.reshape(-1, 3, 64) * 255).round_()
        ycc = _mix(_TO_YCC, bytes_).round_()
        ycc[:, 0] -= 128
        # Encoders keep eighths of a coefficient, and round halves of a step away from zero: ties are common.
        eighths = (ycc.view(-1, 64) @ cosines.T).mul_(8).round_().view(-1, 3, 64)
        levels = eighths.abs().add_(4 * steps).div_(8 * steps).floor_().copysign_(eighths)
        ycc = (levels.mul_(steps).view(-1, 64) @ cosines).round_().view(-1, 3, 64)
        ycc[:, 0] += 128
        ycc[:, 0].clamp_(0, 255)
        ycc[:, 1:].clamp_(-128, 127)
        return _mix(_TO_RGB, ycc).round_().clamp_(0, 255).div_(255).view_as(blocks)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        del ctx
        return grads[0], None, None


def _cosines() -> Tensor:
    """(64, 64): the two-dimensional cosine transform of a flat block; orthonormal."""
    k, x = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    row = torch.cos((2 * x + 1) * k * math.pi / 16) / 2
    row[0] /= math.sqrt(2)
    return torch.kron(row, row)


def _mix(matrix: tuple[tuple[float, ...], ...], colours: Tensor) -> Tensor:
    return torch.matmul(colours.new_tensor(matrix), colours)
