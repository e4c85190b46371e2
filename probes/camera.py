"""What a camera does to the pixels that a patch covers: lens, sharpening, white balance, tone, noise, JPEG.

A frame has far more pixels than a patch covers, so all work happens on the 8×8 blocks of the JPEG grid that hold a
covered pixel, read with a margin as wide as the filters. Filters and the cosine transform are small matrix products; a
tile is laid out as rows, channels, columns, so that both directions of a filter read it without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.jpeg import jpeg_blocks

SHARPEN_SIGMA = 1.0
"""σ in px of the blur that sharpening takes away."""
_FIELD = 64  # noise repeats after so many pixels


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """Settings per image, on the CPU; ``None`` where a part is off. Applied in this order.

    Attributes:
        blur: (N,) σ of the lens in px, at most 3.
        sharpen: (N,) amount a of (1 + a)·x − a·(x blurred by ``SHARPEN_SIGMA``), together with the blur one filter.
        balance: (N, 3) gain of red, green, blue.
        tone: (N,) strength t of the curve (1 − t)·x + t·(3x² − 2x³), in [−1, 1].
        noise: (N,) σ of Gaussian noise. seeds: (N,) int64, one per image, for the noise.
        jpeg: (N,) int64 quality, 1 to 100.
    """

    blur: Tensor | None = None
    sharpen: Tensor | None = None
    balance: Tensor | None = None
    tone: Tensor | None = None
    noise: Tensor | None = None
    seeds: Tensor | None = None
    jpeg: Tensor | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is on."""
        return all(v is None for v in (self.blur, self.sharpen, self.balance, self.tone, self.noise, self.jpeg))


@dataclass(frozen=True, slots=True)
class Blocks:
    """The 8×8 blocks of a batch that hold a covered pixel: B of them.

    Attributes:
        shape: (N, H, W). image, top, left: (B,) which image, and the block's upper left pixel.
        covered: (B, 8, 8) bool, the covered pixels.
    """

    shape: tuple[int, int, int]
    image: Tensor
    top: Tensor
    left: Tensor
    covered: Tensor

    @classmethod
    def of(cls, pixel: Tensor, shape: tuple[int, int, int]) -> Blocks:
        """For covered pixels (M,) n·H·W + y·W + x."""
        n, height, width = shape
        down, across = -(-height // 8), -(-width // 8)
        row = pixel // width
        image = row // height
        x, y = pixel - row * width, row - image * height
        block = (image * down + (y >> 3)) * across + (x >> 3)
        held = torch.zeros(n * down * across, dtype=torch.bool, device=pixel.device)
        held[block] = True
        found = held.nonzero()[:, 0]
        slot = held.cumsum(0)[block] - 1
        covered = torch.zeros(len(found) * 64, dtype=torch.bool, device=pixel.device)
        covered[slot * 64 + (y & 7) * 8 + (x & 7)] = True
        in_image = found % (down * across)
        return cls(
            shape, found // (down * across), in_image // across * 8, in_image % across * 8, covered.view(-1, 8, 8)
        )

    def addresses(self, margin: int) -> Tensor:
        """(B, S, 3, S), S = 8 + 2·margin, into a flat (N, 3, H, W); beyond the image its edge is repeated."""
        _, height, width = self.shape
        reach = torch.arange(-margin, 8 + margin, device=self.top.device)
        rows = (self.top[:, None] + reach).clamp(0, height - 1) * width + self.image[:, None] * (3 * height * width)
        columns = (self.left[:, None] + reach).clamp(0, width - 1)
        channels = torch.arange(3, device=reach.device) * (height * width)
        return (rows[:, :, None] + channels)[..., None] + columns[:, None, None]

    def inside(self) -> Tensor:
        """(B, 8, 8) bool: the pixels of the blocks that lie in the image."""
        _, height, width = self.shape
        reach = torch.arange(8, device=self.top.device)
        rows, columns = self.top[:, None] + reach < height, self.left[:, None] + reach < width
        return rows[:, :, None] & columns[:, None]

    def edged(self, values: Tensor) -> Tensor:
        """Values (B, 8, 3, 8) with the image's last row and column repeated beyond it."""
        _, height, width = self.shape
        reach = torch.arange(8, device=self.top.device)
        if height % 8:
            rows = torch.minimum(reach, height - 1 - self.top[:, None])
            values = values.gather(1, rows[:, :, None, None].expand_as(values))
        if width % 8:
            columns = torch.minimum(reach, width - 1 - self.left[:, None])
            values = values.gather(3, columns[:, None, None, :].expand_as(values))
        return values


def photograph(images: Tensor, pixel: Tensor, camera: Camera) -> Tensor:
    """Images as the camera sees what is new in them.

    Args:
        images: (N, 3, H, W) in [0, 1]. pixel: (M,) int64 n·H·W + y·W + x of the covered pixels, each once.
        camera: settings for N images.

    Returns:
        (N, 3, H, W) in [0, 1], differentiable in the images. Only covered pixels differ and, with JPEG, the blocks of
        8×8 px that hold one; every other pixel is the very same, as are all of them where nothing is on.
    """
    if camera.idle or not len(pixel) or not images.numel():
        return images
    blocks = Blocks.of(pixel, (images.shape[0], images.shape[2], images.shape[3]))
    margin, filters = _filters(camera, blocks, images)
    settings = {
        name: None if value is None else value.to(images)[blocks.image].view(len(blocks.image), 1, -1, 1)
        for name, value in (("balance", camera.balance), ("tone", camera.tone))
    }
    noise = _noise(camera, blocks, images)
    quality = None if camera.jpeg is None else camera.jpeg.to(images.device)

    def develop(tiles: Tensor) -> Tensor:
        own = tiles[:, margin : margin + 8, :, margin : margin + 8]
        seen = own if filters is None else _filtered(tiles, *filters)
        if settings["balance"] is not None:
            seen = seen * settings["balance"]
        seen = seen.clamp(0, 1)
        if settings["tone"] is not None:
            seen = seen + settings["tone"] * (seen * (seen * (3 - 2 * seen) - 1))
        if noise is not None:
            seen = (seen + noise).clamp(0, 1)
        seen = torch.where(blocks.covered[:, :, None], seen, own)
        if quality is None:
            return seen
        return jpeg_blocks(blocks.edged(seen).transpose(1, 2), quality, blocks.image).transpose(1, 2)

    written: Tensor = _Develop.apply(images.contiguous(), blocks, margin, develop, quality is not None)
    return written


class _Develop(torch.autograd.Function):
    """Tiles out of the images, through ``develop``, and back in: one copy of the images each way."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, blocks: Blocks, margin: int, develop: Callable[[Tensor], Tensor], whole: bool
    ) -> Tensor:
        read = blocks.addresses(margin)
        tiles = images.view(-1).index_select(0, read.view(-1)).view(read.shape)
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            tiles.requires_grad_(ctx.needs_input_grad[0])
            made = develop(tiles)
        change = blocks.inside() if whole else blocks.covered
        at = change[:, :, None].expand(-1, 8, 3, 8).reshape(-1).nonzero()[:, 0]
        write = read[:, margin : margin + 8, :, margin : margin + 8].reshape(-1).index_select(0, at)
        out = images.clone()
        out.view(-1).scatter_(0, write, made.detach().reshape(-1).index_select(0, at))
        if ctx.needs_input_grad[0]:
            ctx.tiles, ctx.made = tiles, made
            ctx.save_for_backward(read, write, at)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (read, write, at) = grads, ctx.saved_tensors
        to_images = grad.clone(memory_format=torch.contiguous_format)
        flat = to_images.view(-1)
        to_made = grad.new_zeros(ctx.made.numel()).scatter_(0, at, flat.index_select(0, write))
        flat.scatter_(0, write, 0)
        (to_tiles,) = torch.autograd.grad(ctx.made, ctx.tiles, to_made.view_as(ctx.made), retain_graph=True)
        read, to_tiles = read.view(-1), to_tiles.reshape(-1)
        if flat.is_cuda:  # the one way to add that is the same on every run there
            flat.index_put_((read,), to_tiles, accumulate=True)
        else:  # ten times faster, and serial
            flat.scatter_add_(0, read, to_tiles)
        return to_images, None, None, None, None


def _filters(camera: Camera, blocks: Blocks, images: Tensor) -> tuple[int, tuple[Tensor, Tensor] | None]:
    """Margin in px, and per block the vertical (K·8, S) and the horizontal (K·S, 8) matrices of K added filters."""
    if camera.blur is None and camera.sharpen is None:
        return 0, None
    lens = torch.zeros(len(images)) if camera.blur is None else camera.blur.float()
    sigmas, weights = [lens], [torch.ones(len(images))]
    if camera.sharpen is not None:
        # Two Gaussians in a row are one: sharpening after the lens needs no second pass.
        sigmas.append((lens.square() + SHARPEN_SIGMA**2).sqrt())
        weights = [1 + camera.sharpen.float(), -camera.sharpen.float()]
    margin = max(1, math.ceil(2.5 * float(sigmas[-1].max())))
    apart = torch.arange(8 + 2 * margin) - (torch.arange(8)[:, None] + margin)
    across, down = [], []
    for sigma, weight in zip(sigmas, weights, strict=True):
        s = sigma.double().clamp(min=1e-3)[:, None, None]
        gauss = torch.exp(-0.5 * (apart / s).square()) * (apart.abs() <= margin)
        gauss = gauss / gauss.sum(-1, keepdim=True)
        across.append(gauss.mT)
        down.append(gauss * weight[:, None, None])
    pair = (torch.cat(down, 1).to(images), torch.cat(across, 1).to(images))
    return margin, (pair[0][blocks.image], pair[1][blocks.image])


def _filtered(tiles: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(B, 8, 3, 8) of tiles (B, S, 3, S) by the matrices of ``_filters``."""
    count, side = tiles.shape[:2]
    rows = torch.bmm(down, tiles.view(count, side, 3 * side)).view(count, -1, 24, side)
    parts = [rows[:, k] @ across[:, k * side : (k + 1) * side] for k in range(rows.shape[1])]
    return sum(parts[1:], parts[0]).view(count, 8, 3, 8)


def _noise(camera: Camera, blocks: Blocks, images: Tensor) -> Tensor | None:
    """(B, 8, 3, 8) by the seed of the image and the pixel's place in it alone; drawn on the CPU."""
    if camera.noise is None or camera.seeds is None:
        return None
    fields = torch.stack(
        [
            sigma * torch.randn(3, _FIELD, _FIELD, generator=torch.Generator().manual_seed(seed))
            for sigma, seed in zip(camera.noise.tolist(), camera.seeds.tolist(), strict=True)
        ]
    )
    grid = _FIELD // 8
    tiles = fields.view(-1, 3, grid, 8, grid, 8).permute(0, 2, 4, 3, 1, 5).to(images)
    return tiles[blocks.image, blocks.top // 8 % grid, blocks.left // 8 % grid]
