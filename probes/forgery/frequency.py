"""Attacks on the frequencies of an image (after 2203.15674): only some coefficients of the cosine transform change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from audit.labelled import ImageRules
from probes.forgery.additive import boxed, whole_levels
from probes.forgery.image_attack import ImageAttack, Run, require
from probes.forgery.image_rules import FrequencyRules, Mask

_ROUNDS = 4
"""Of projecting on the mask's frequencies and into the box by turns; what is left over is scaled away."""


@cache
def _dct_matrix(n: int) -> Tensor:
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    m = (math.pi * (2 * i + 1) * k / (2 * n)).cos() * math.sqrt(2 / n)
    m[0] /= math.sqrt(2)
    return m.float()


@dataclass(frozen=True)
class Transform:
    """The orthonormal cosine transform (DCT-II) of blocks, by matrix products: X = C x Cᵀ.

    What is beyond the last whole block has no coefficients, and is left as it is.

    Attributes:
        size: (H, W) px of the image. block: px of a block's side; ``None`` for one block, the whole image.
    """

    size: tuple[int, int]
    block: int | None = 8

    @property
    def shape(self) -> tuple[int, int]:
        """(bh, bw) of one block."""
        return self.size if self.block is None else (self.block, self.block)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to coefficients (N, C, H // bh, W // bw, bh, bw)."""
        (h, w), (bh, bw) = self.size, self.shape
        rows, columns = h // bh, w // bw
        x = images[:, :, : rows * bh, : columns * bw].reshape(*images.shape[:2], rows, bh, columns, bw)
        left, right = _dct_matrix(bh).to(images), _dct_matrix(bw).to(images)
        return left @ x.transpose(3, 4) @ right.T

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Back to (N, C, H, W); 0 beyond the last whole block."""
        (h, w), (bh, bw) = self.size, self.shape
        left, right = _dct_matrix(bh).to(coefficients), _dct_matrix(bw).to(coefficients)
        x = (left.T @ coefficients @ right).transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return torch.nn.functional.pad(x, (0, w - x.shape[3], 0, h - x.shape[2]))

    def masked(self, images: Tensor, mask: Tensor) -> Tensor:
        """The part of images (N, C, H, W) in the frequencies of a mask (N, bh, bw)."""
        return self.inverse(self.forward(images) * mask[:, None, None, None])

    def order(self) -> Tensor:
        """(bh, bw) int64, the rank of each frequency from low to high: by (u/bh)² + (v/bw)², ties by row."""
        bh, bw = self.shape
        u, v = torch.arange(bh) * bw, torch.arange(bw) * bh  # whole numbers, so that ties are ties
        return (u[:, None].square() + v.square()).flatten().argsort(stable=True).argsort().view(bh, bw)


def top(weights: Tensor, share: float) -> Tensor:
    """(N, bh, bw) of 0 and 1: the ``share`` of frequencies with the highest weights, at least one."""
    flat = weights.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    at = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(flat).scatter(1, at, 1.0).view_as(weights)


@dataclass(frozen=True)
class FrequencyAttack(ImageAttack):
    """Projected gradient ascent on the coefficients of a mask, with an L∞ bound on the pixels.

    With M the projection on the mask's frequencies (transform, multiply, transform back), a step is
    v ← v + α·sign(M ∇_x L), the change of the image is M v, brought into the box by turns of projecting into it and
    applying M; what then still breaks it is scaled down block by block, so that no other frequency changes until pixels
    are rounded.

    The masks, one per image: ``salient``: the frequencies with the largest energy Σ g² of the gradient's coefficients
    over blocks and channels at the clean image. ``learned``: one weight per frequency, raised at each step by its part
    in the gradient through the mask, Σ G ⊙ V (G the gradient's coefficients, V those of v), divided by its largest;
    the highest count in the next step (straight through). ``low``, ``high``: the lowest or highest. ``all``: every one.

    Attributes:
        epsilon: L∞ in [0, 1]. share: of the frequencies in the mask, in (0, 1]. alpha: step, in the units of
            ``epsilon``; 2.5 ε / steps, at least ε / 8, if not given. block: see ``Transform``.
    """

    epsilon: float = 8 / 255
    mask: Mask = "learned"
    steps: int | None = None
    share: float = 0.25
    alpha: float | None = None
    block: int | None = 8

    refs: ClassVar[tuple[str, ...]] = ("2203.15674", "NISTAML.022", "AML.T0043.000")

    def __post_init__(self) -> None:
        where = "frequency attack"
        require(where, ok=self.mask in get_args(Mask), expected=" or ".join(get_args(Mask)), got=self.mask)
        ok = (
            whole_levels(self.epsilon) >= 1 >= self.epsilon
            and 0 < self.share <= 1
            and (self.alpha is None or self.alpha > 0)
        )
        got = (self.epsilon, self.share, self.alpha)
        require(where, ok=ok, expected="1/255 <= ε <= 1, 0 < share <= 1 and α > 0", got=got)
        require(where, ok=self.steps is None or self.steps >= 1, expected="at least one step", got=self.steps)

    @property
    def name(self) -> str:
        return f"{self.mask} frequencies, ε = {255 * self.epsilon:g}/255"

    def spec(self) -> dict[str, Any]:
        return {
            "probe": "frequency attack", "epsilon": self.epsilon, "mask": self.mask, "steps": self.steps,
            "share": self.share, "alpha": self.alpha, "block": self.block,
        }  # fmt: skip

    def rules(self) -> ImageRules:
        return FrequencyRules(self.epsilon, self.block, self.share, self.mask)

    def run(self, run: Run, seed: int) -> None:
        del seed
        transform = self._transform(run.clean)
        alpha = 255 * (max(2.5 / max(1, run.steps), 1 / 8) * self.epsilon if self.alpha is None else self.alpha)
        most = whole_levels(self.epsilon)
        change = proposal = torch.zeros_like(run.clean)
        weights = run.clean.new_zeros(len(run.clean), *transform.shape)
        mask = self._fixed(transform).to(run.clean).expand_as(weights)
        for step in range(run.steps + 1):
            rounded = boxed((run.clean + change).round(), run.clean, self.epsilon)
            at = rounded.requires_grad_(step < run.steps)
            # the first look is at the clean image: where it stays the best, nothing was changed
            seen = run.look(at, {"mask": mask if step else torch.zeros_like(mask)})
            if step == run.steps:
                break
            (pull,) = run.pull(seen.loss, at)
            seen_in = transform.forward(scaled(pull))
            if self.mask == "salient" and step == 0:
                mask = top(seen_in.square().sum((1, 2, 3)), self.share)
            if self.mask == "learned":
                way = scaled(pull).sign() if step == 0 else proposal
                gain = (seen_in * transform.forward(way)).sum((1, 2, 3))
                weights = weights + gain / gain.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None]
                mask = top(weights, self.share)
                # what is not in the mask keeps a say, for it may come in: less and less, so that the mask settles
                soft = mask + (1 - mask) * 0.5 * (1 - step / run.steps)
                upward = transform.inverse(seen_in * soft[:, None, None, None])
            else:
                upward = transform.inverse(seen_in * mask[:, None, None, None])
            proposal = (proposal + alpha * upward.sign()).clamp(-most, most)
            change = fitted(transform, transform.masked(proposal, mask), run.clean, mask, most)

    def guess(self, clean: Tensor, best: Tensor, stream: torch.Generator) -> Tensor:
        del best
        transform, most = self._transform(clean), whole_levels(self.epsilon)
        if self.mask in {"learned", "salient"}:
            mask = top(torch.rand(len(clean), *transform.shape, generator=stream), self.share).to(clean)
        else:
            mask = self._fixed(transform).to(clean).expand(len(clean), *transform.shape)
        signs = torch.randint(0, 2, clean.shape, generator=stream).to(clean) * 2 - 1
        # 4: a masked sign pattern has grown small
        change = fitted(transform, transform.masked(4 * most * signs, mask), clean, mask, most)
        return boxed((clean + change).round(), clean, self.epsilon)

    def details(self, maps: Mapping[str, Tensor]) -> dict[str, Any]:
        mean = maps["mask"].mean(0)
        order = Transform(_size(mean), None).order()
        low, all = (mean * (order < order.numel() / 2).to(mean)).sum(), mean.sum()
        return {"share of the mask in the lower half of the frequencies": float(low / all) if all > 0 else None}

    def _transform(self, clean: Tensor) -> Transform:
        return Transform(_size(clean), self.block)

    def _fixed(self, transform: Transform) -> Tensor:
        """(bh, bw) the mask that depends on nothing; all where it depends on the gradient."""
        order = transform.order()
        count = max(1, round(self.share * order.numel()))
        if self.mask == "low":
            return (order < count).float()
        if self.mask == "high":
            return (order >= order.numel() - count).float()
        return torch.ones(transform.shape)


def fitted(transform: Transform, change: Tensor, clean: Tensor, mask: Tensor, most: int) -> Tensor:
    """The change of levels, in the mask's frequencies alone, within ``most`` and [0, 255] up to half a level.

    Half a level is what rounding forgives.
    """
    low, high = -torch.minimum(clean, clean.new_tensor(most)), torch.minimum(255 - clean, clean.new_tensor(most))
    for _ in range(_ROUNDS):
        change = transform.masked(torch.minimum(torch.maximum(change, low), high), mask)
    # the share of the change that each value allows, the least of each block for the whole of it
    room = torch.where(change > 0, high + 0.49, 0.49 - low) / change.abs().clamp(min=1e-12)
    (h, w), (bh, bw) = transform.size, transform.shape
    inner = room[:, :, : h // bh * bh, : w // bw * bw]
    least = -torch.nn.functional.max_pool2d(-inner, (bh, bw)).clamp(min=-1.0)
    scale = least.repeat_interleave(bh, 2).repeat_interleave(bw, 3)
    return change * torch.nn.functional.pad(scale, (0, w - scale.shape[3], 0, h - scale.shape[2]), value=1.0)


def scaled(pull: Tensor) -> Tensor:
    """Each image's gradient divided by its largest entry; squares of small gradients underflow."""
    return pull / pull.flatten(1).abs().amax(1).clamp(min=1e-38)[:, None, None, None]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
