"""A patch on a flat area that the camera sees at an angle: the four corners in the image say where it lies.

As in ``probes.geometry``, a pixel sees the mean colour of the part of the patch that lies inside it, and keeps the
rest of its own colour where the patch covers it only in part. Both are exact areas (``probes.homography``), taken in
the image, so that what the camera sees larger also weighs more. Which share of which texel every pixel sees depends on
no colour; it is worked out once per size of texture, and placing is then a sparse matrix product. Its gradient is the
product with the transposed matrix, which is kept too: sums are gathered, never scattered, and the same on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.errors import DataError
from probes.geometry import _LEAST_COVER, _owned, _rank, _real
from probes.homography import from_square, homography, inverse, is_convex, overlaps, seen_through

__all__ = ["QuadMap", "Shares", "homography", "is_convex", "quad_map"]


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """What each pixel sees of a texture of P×Q texels: a sparse matrix (M, P·Q) whose rows add up to 1.

    Attributes:
        texels: (P, Q). texel, share, first: by pixel, the texels it sees (L,), their shares (L,) and where in these the
            pixel begins (M,). pixel, weight, start: the same by texel, for the gradient; start (P·Q,).
    """

    texels: tuple[int, int]
    texel: Tensor
    share: Tensor
    first: Tensor
    pixel: Tensor
    weight: Tensor
    start: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class QuadMap:
    """Which pixels of a batch are seen through the quads, and how; implements ``probes.wear.Worn``.

    Attributes:
        shape: (N, H, W) of the batch.
        pixel: (M,) int64 n·H·W + y·W + x of the covered pixels, ascending, each once.
        owner: (M,) int64 index of the quad, in the flat list of all quads of the batch.
        uv: (M, 2) patch coordinates, 0 to 1 from the upper left corner, at the centre of what each pixel sees.
        coverage: (M,) share of the pixel that the patch covers and that nothing hides, in (0, 1].
        within: (M,) share of the pixel that lies within the quad, hidden or not, in (0, 1].
        forward: (K, 3, 3) maps of the unit square to the quads, from ``origin``. origin: (K, 2) px.
    """

    shape: tuple[int, int, int]
    pixel: Tensor
    owner: Tensor
    uv: Tensor
    coverage: Tensor
    within: Tensor
    forward: Tensor
    origin: Tensor
    _shares: dict[tuple[int, int], Shares] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.pixel)

    def for_texels(self, rows: int, columns: int) -> Shares:
        """What the pixels see of a texture of so many texels; worked out at the first call and kept."""
        if (rows, columns) not in self._shares:
            # Kept beyond the call that asks first, which may be a measuring one whose tensors autograd refuses.
            with torch.inference_mode(False), torch.no_grad():
                self._shares[rows, columns] = self._seen(rows, columns)
        return self._shares[rows, columns]

    def read(self, texture: Tensor) -> Tensor:
        """(M, C) float64 mean of each channel of texture (C, P, Q) over what each pixel sees; differentiable."""
        read: Tensor = _Read.apply(texture, self.for_texels(texture.shape[1], texture.shape[2]))
        return read

    def write(self, images: Tensor, seen: Tensor, opacity: Tensor | None = None) -> Tensor:
        """Images with other colours at the covered pixels; differentiable in all three, past the clamp to [0, 1] too.

        Args:
            images: (N, C, H, W) in [0, 1], as ``shape`` says. seen: (M, C) colours. opacity: (M,) in [0, 1], or 1.

        Returns:
            (N, C, H, W); pixel p is (1 − c)·own + c·seen[p] with c = coverage·opacity; every other is the very same.
        """
        fits = (images.shape[0], *images.shape[2:]) == self.shape and seen.shape == (len(self), images.shape[1])
        if not fits or (opacity is not None and opacity.shape != self.coverage.shape):
            raise ValueError(f"images {tuple(images.shape)} and colours {tuple(seen.shape)} do not fit {self.shape}")
        written: Tensor = _Write.apply(images.contiguous(), seen, opacity, self)
        return written

    def place(self, images: Tensor, patch: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] with the patch (C, P, Q) in every quad; differentiable in both."""
        return self.write(images, self.read(patch))

    def only(self, wanted: Tensor) -> QuadMap:
        """The same map with no pixels but those of ``wanted`` (M,) bool; the others keep their own colour."""
        parts = {n: getattr(self, n)[wanted] for n in ("pixel", "owner", "uv", "coverage", "within")}
        return replace(self, **parts)

    def _seen(self, rows: int, columns: int) -> Shares:
        _, height, width = self.shape
        at = self.origin[self.owner]
        x, y = self.pixel % width - at[:, 0], self.pixel // width % height - at[:, 1]
        pixel, texel, value = overlaps(self.forward, self.owner, x, y, (rows, columns))
        share = value[0] / self.within[pixel]
        kind = torch.int32 if rows * columns < 1 << 31 else torch.int64
        order = torch.sort(texel.to(torch.int16 if rows * columns < 1 << 15 else kind), stable=True)[1]
        return Shares(
            texels=(rows, columns),
            texel=texel.to(kind),
            share=share,
            first=_starts(pixel, len(self)).to(kind),
            pixel=pixel[order].to(kind),
            weight=share[order],
            start=_starts(texel, rows * columns).to(kind),
        )


def quad_map(
    quads: Sequence[Tensor],
    size: tuple[int, int],
    *,
    hidden: Sequence[Tensor | None] | None = None,
    device: torch.device | str | None = None,
) -> QuadMap:
    """The map of a batch of areas.

    Args:
        quads: per image (K_i, 4, 2) px, the image of the patch's upper left, upper right, lower right and lower left
            corner; K_i may be 0; quads may leave the image; a quad with NaN in it carries no patch. One that turns the
            other way round shows the patch mirrored.
        size: (height, width) of the images in pixels.
        hidden: per image (H, W) share in [0, 1] of each pixel that something hides, or ``None``.
        device: where the map is to be used; the first quads' by default.

    Where quads overlap, the pixel belongs to the larger, and of two equal ones to the later.

    Raises:
        DataError: a quad is neither strictly convex nor NaN.
    """
    height, width = size
    device = torch.device(device) if device is not None else quads[0].device if len(quads) else torch.device("cpu")
    real = _real(device)
    flat = torch.cat([torch.zeros(0, 4, 2, dtype=real, device=device), *(q.to(device, real) for q in quads)])
    counts = torch.tensor([len(q) for q in quads], dtype=torch.long, device=device)
    image = torch.arange(len(quads), device=device).repeat_interleave(counts)
    there = ~flat.isnan().any(2).any(1)
    wrong = (there & ~is_convex(flat)).nonzero()[:, 0].tolist()
    if wrong:
        corners = ", ".join(f"({x:.6g}, {y:.6g})" for x, y in flat[wrong[0]].tolist())
        raise DataError(
            f"area {wrong[0] - int((image < image[wrong[0]]).sum())} of image {int(image[wrong[0]])} of the batch",
            expected="the corners of a convex quad in turn: upper left, upper right, lower right, lower left",
            got=corners,
            mend="correct the corners in the data, or set them to NaN where there is no area",
        )
    # One that is none is put outside, where it covers nothing.
    flat = torch.where(there[:, None, None], flat, flat.new_tensor([[-9, -9], [-8, -9], [-8, -8], [-9, -8]]))
    origin = flat.mean(1).floor()
    forward = from_square(flat - origin[:, None])

    owner, x, y, whole = _touched(flat, size)
    dx, dy = x - origin[owner, 0], y - origin[owner, 1]
    moments = torch.full((3, len(x)), 0.5, dtype=real, device=device)
    moments[0] = whole.to(real)
    part = (~whole).nonzero()[:, 0]
    entry, _, value = overlaps(forward, owner[part], dx[part], dy[part], (1, 1), moments=True)
    moments[:, part[entry]] = value
    within, middle = moments[0].clamp(0, 1), moments[1:] / moments[0].clamp(min=1e-12)

    pixel = (image[owner] * height + y.long()) * width + x.long()
    if bool((pixel[1:] > pixel[:-1]).all()):
        chosen = (within > _LEAST_COVER).nonzero()[:, 0]
    else:
        chosen = _owned(pixel, _rank(_area(flat))[owner], within > _LEAST_COVER, len(flat))
    coverage = within[chosen]
    if hidden is not None and any(h is not None for h in hidden):
        blank = torch.zeros(size, dtype=real, device=device)
        cover = torch.stack([blank if h is None else h.to(device, real) for h, _ in zip(hidden, quads, strict=True)])
        coverage = coverage * (1 - cover.reshape(-1)[pixel[chosen]]).clamp(0, 1)
        seen = (coverage > _LEAST_COVER).nonzero()[:, 0]
        chosen, coverage = chosen[seen], coverage[seen]

    owner = owner[chosen]
    at = seen_through(inverse(forward), owner, dx[chosen] + middle[0, chosen], dy[chosen] + middle[1, chosen])
    return QuadMap(
        shape=(len(quads), height, width),
        pixel=pixel[chosen],
        owner=owner,
        uv=(at[:2] / at[2]).clamp(0, 1).T.contiguous(),
        coverage=coverage,
        within=within[chosen],
        forward=forward,
        origin=origin,
    )


def _touched(quads: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Owner, x, y of the pixels that quads (K, 4, 2) touch, quad by quad and row by row, and whether they lie inside.

    In a row of pixels a convex quad touches one run and covers another wholly; both end where the sides of the quad
    meet the two lines that bound the row.
    """
    height, width = size
    top = quads[:, :, 1].amin(1).floor().clamp(0, height).long()
    rows = (quads[:, :, 1].amax(1).ceil().clamp(0, height).long() - top).clamp(min=0)
    quad = torch.arange(len(quads), device=quads.device).repeat_interleave(rows)
    line = top[quad] + torch.arange(len(quad), device=quads.device) - (rows.cumsum(0) - rows)[quad]

    here, there = quads[quad], quads.roll(-1, 1)[quad]
    x, y = here.unbind(2)
    dx, dy = (there - here).unbind(2)
    low, high = torch.minimum(y, y + dy), torch.maximum(y, y + dy)
    slanted, bounds = dy != 0, torch.stack([line, line + 1]).to(y)[:, :, None]
    crossing = x + ((bounds - y) / torch.where(slanted, dy, 1)).clamp(0, 1) * dx
    meets = slanted & (low <= bounds[1]) & (high >= bounds[0])
    left = crossing.amin(0).masked_fill(~meets, torch.inf).amin(1).floor().clamp(0, width).long()
    right = crossing.amax(0).masked_fill(~meets, -torch.inf).amax(1).ceil().clamp(0, width).long()
    cut = slanted & (low <= bounds) & (high >= bounds)
    inner_left = crossing.masked_fill(~cut, torch.inf).amin(2).amax(0)
    inner_right = crossing.masked_fill(~cut, -torch.inf).amax(2).amin(0)

    run = (right - left).clamp(min=0)
    row = torch.arange(len(line), device=quads.device).repeat_interleave(run)
    column = (left[row] + torch.arange(len(row), device=quads.device) - (run.cumsum(0) - run)[row]).to(quads.dtype)
    whole = (column >= inner_left[row]) & (column + 1 <= inner_right[row])
    return quad[row], column, line[row].to(quads.dtype), whole


def _area(quads: Tensor) -> Tensor:
    """(K,) areas of quads (K, 4, 2)."""
    a, b = quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]
    return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs() / 2


def _starts(index: Tensor, count: int) -> Tensor:
    """(count,) where each value begins in a list of values 0..count−1 once it is sorted."""
    sizes = torch.bincount(index, minlength=count)
    return sizes.cumsum(0) - sizes


def _product(values: Tensor, index: Tensor, weight: Tensor, first: Tensor) -> Tensor:
    """(R, C) sums over the rows index of values (V, C), times weight, run by run."""
    if not len(index):
        return values.new_zeros(len(first), values.shape[1])
    return F.embedding_bag(index, values, first, mode="sum", per_sample_weights=weight)


class _Read(torch.autograd.Function):
    """The means that the pixels see, and back."""

    @staticmethod
    def forward(ctx: Any, texture: Tensor, shares: Shares) -> Tensor:
        ctx.shares, ctx.like = shares, texture.dtype
        table = texture.to(shares.share).flatten(1).T.contiguous()
        return _product(table, shares.texel, shares.share, shares.first)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        shares: Shares = ctx.shares
        table = _product(grads[0].contiguous(), shares.pixel, shares.weight, shares.start)
        return table.T.reshape(-1, *shares.texels).to(ctx.like), None


class _Write(torch.autograd.Function):
    """The finished images. Each covered pixel is read and written once, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, seen: Tensor, opacity: Tensor | None, where: QuadMap) -> Tensor:
        channels, (_, height, width) = images.shape[1], where.shape
        plane = height * width
        start = where.pixel + where.pixel // plane * (plane * (channels - 1))
        address = start + torch.arange(channels, device=start.device)[:, None] * plane
        out = images.clone()
        old = out.view(-1)[address]
        change = seen.T - old
        share = where.coverage if opacity is None else where.coverage * opacity
        out.view(-1)[address] = (old + share * change).clamp(0, 1).to(out.dtype)
        ctx.where, ctx.likes = where, (images.dtype, seen.dtype, share.dtype if opacity is None else opacity.dtype)
        ctx.save_for_backward(address, share, change if ctx.needs_input_grad[2] else None)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (address, share, change) = grads, ctx.saved_tensors
        at = grad.reshape(-1)[address].to(share.dtype)
        to_images = to_seen = to_opacity = None
        if ctx.needs_input_grad[0]:
            to_images = grad.clone(memory_format=torch.contiguous_format).to(ctx.likes[0])
            to_images.view(-1)[address] = (at * (1 - share)).to(ctx.likes[0])
        if ctx.needs_input_grad[1]:
            to_seen = (at * share).T.to(ctx.likes[1])
        if ctx.needs_input_grad[2]:
            to_opacity = ((at * change).sum(0) * ctx.where.coverage).to(ctx.likes[2])
        return to_images, to_seen, to_opacity, None
