"""Where a patch lies on an object, and how its pixels get into the image.

A patch is a square of P×P texels of one colour each, as it would be printed. On a box of width w and height h it
becomes a square of side s = α√(w·h) (paper 002, §3.2). A pixel of the image sees the mean colour of the part of the
patch that lies inside it; a pixel that the patch covers only in part keeps the rest of its own colour. That is an exact
area integral, computed from a summed-area table: the table of a piecewise constant picture is linear between its
nodes, so reading it at the corners of the pixels gives the integral without error, whatever the scale, at four reads
per pixel. No other filter is needed when the patch shrinks, and the gradient is the exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from audit.contracts import Areas
from audit.errors import AuditError
from probes.constraints import PatchConstraint

Position = Literal["top", "upper", "center", "lower", "bottom"]
Removal = Literal[
    "none",
    "half-top",
    "half-bottom",
    "half-left",
    "half-right",
    "third-top",
    "third-bottom",
    "third-left",
    "third-right",
]
POSITIONS: tuple[Position, ...] = get_args(Position)
REMOVALS: tuple[Removal, ...] = get_args(Removal)

# How far down between "top" (0) and "bottom" (1) the centre of the patch lies.
_DOWN = {"top": 0.0, "upper": 0.25, "center": 0.5, "lower": 0.75, "bottom": 1.0}
_SHARE = {"half": 1 / 2, "third": 1 / 3}
# A pixel of which the patch covers less than this does not count as covered.
_LEAST_COVER = 1e-6


@dataclass(frozen=True, slots=True)
class Placement:
    """Place and size of a patch relative to a box (paper 002, §3.2 and Tables 4 to 6).

    Args:
        position: ``top`` has its centre at (w/2, s/2) from the box's upper left corner, ``center`` at (w/2, h/2),
            ``bottom`` at (w/2, h − s/2); ``upper`` and ``lower`` are the points half-way between.
        alpha: side of the square s = alpha·√(w·h), in (0, 4].
        remove: the part of the patch that is cut away, e.g. ``half-top`` or ``third-left``; the rest stays in place.

    Raises:
        AuditError: an unknown position or part, or alpha out of range.
    """

    position: Position = "top"
    alpha: float = 0.5
    remove: Removal = "none"

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise _wrong("patch position", f"one of {', '.join(POSITIONS)}", self.position)
        if self.remove not in REMOVALS:
            raise _wrong("removed part of the patch", f"one of {', '.join(REMOVALS)}", self.remove)
        if not 0 < self.alpha <= 4:
            raise _wrong("patch size alpha", "a number above 0 and at most 4", self.alpha)

    def __str__(self) -> str:
        rest = "" if self.remove == "none" else f" without {self.remove}"
        return f"{self.position} α={self.alpha:g}{rest}"

    def scaled(self, share: float) -> Placement:
        """The same place with ``share`` of the side, e.g. 0.9 (Table 5)."""
        return replace(self, alpha=self.alpha * share)

    @property
    def part(self) -> tuple[float, float, float, float]:
        """What is left of the patch: (u1, v1, u2, v2) in patch coordinates, 0 to 1 from the upper left corner."""
        if self.remove == "none":
            return (0.0, 0.0, 1.0, 1.0)
        amount, side = self.remove.split("-")
        cut = _SHARE[amount]
        return {
            "top": (0.0, cut, 1.0, 1.0),
            "bottom": (0.0, 0.0, 1.0, 1.0 - cut),
            "left": (cut, 0.0, 1.0, 1.0),
            "right": (0.0, 0.0, 1.0 - cut, 1.0),
        }[side]

    def spec(self) -> list[Any]:
        """All that determines it, as JSON."""
        return [self.position, self.alpha, self.remove]

    def constraint(self, texels: tuple[int, int]) -> PatchConstraint:
        """What a patch of (P, Q) texels worn so may change, checked without this geometry."""
        del texels
        return PatchConstraint(self.position, self.alpha, self.remove)

    def to_json(self) -> dict[str, Any]:
        """Everything to build it again with ``Placement(**...)``."""
        return {"position": self.position, "alpha": self.alpha, "remove": self.remove}

    def shown(self, pixels: Tensor) -> NDArray[np.uint8]:
        """uint8 (h, w, 3) RGB as it would be printed, from pixels uint8 (3, P, Q); a removed part is left out."""
        u1, v1, u2, v2 = self.part
        h, w = pixels.shape[1:]
        kept = pixels[:, round(v1 * h) : round(v2 * h), round(u1 * w) : round(u2 * w)]
        return kept.permute(1, 2, 0).contiguous().numpy()

    def prepare(self, images: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None) -> UVMap:
        """The map that places patches on images (N, 3, H, W) with per image boxes (K_i, 4) xyxy px."""
        del areas  # placed by the boxes
        return uv_map([b.to(images.device) for b in boxes], self, (images.shape[2], images.shape[3]))

    def squares(self, boxes: Tensor) -> Tensor:
        """The whole patch on each box: (K, 4) xyxy px for boxes (K, 4) xyxy px; not clipped to the image."""
        w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        s = self.alpha * (w * h).clamp(min=0).sqrt()
        x = boxes[:, 0] + (w - s) / 2
        y = boxes[:, 1] + (h - s) * _DOWN[self.position]
        return torch.stack([x, y, x + s, y + s], 1)

    def regions(self, boxes: Tensor, areas: Areas | None = None) -> Tensor:
        """The remaining part of the patch on each box: (K, 4) xyxy px, not clipped to the image."""
        del areas
        square = self.squares(boxes)
        side = square[:, 2:3] - square[:, 0:1]
        u1, v1, u2, v2 = self.part
        corner = square[:, :2].repeat(1, 2)
        return corner + side * square.new_tensor([u1, v1, u2, v2])


TOP = Placement()
"""The paper's own: top, α = 0.5."""


COVER = Placement("center", 1.5)
"""A patch over the whole of any box of up to 2.25 times its width in height, or the other way round."""


@dataclass(frozen=True, slots=True)
class UVMap:
    """Which pixels of a batch the patches cover, and with which piece of the patch. Depends on no patch.

    L counts the corners of the covered pixels, box by box and row by row; M counts the covered pixels, each once.

    Attributes:
        shape: (N, H, W) of the batch.
        corners: (L, 2) patch coordinates (u, v) in [0, 1] of the corners.
        up: (L,) index of the corner above in the same box; L where there is none.
        here: (M,) index of each pixel's upper left corner. below: (M,) index of its lower left corner.
        pixel: (M,) n·H·W + y·W + x, ascending.
        coverage: (M,) share of the pixel that the patch covers, in (0, 1].
        extent: (M,) area of the patch, as a share of it, that the pixel sees.
    """

    shape: tuple[int, int, int]
    corners: Tensor
    up: Tensor
    here: Tensor
    below: Tensor
    pixel: Tensor
    coverage: Tensor
    extent: Tensor

    def __len__(self) -> int:
        return len(self.pixel)

    def place(self, images: Tensor, patch: Tensor) -> Tensor:
        """Images with the patch on every box, see :func:`place`."""
        return place(images, patch, self)

    @property
    def uv(self) -> Tensor:
        """(M, 2) patch coordinates of the middle of what each pixel sees."""
        return (self.corners[self.here] + self.corners[self.below + 1]) / 2

    def level_of_detail(self, size: int) -> Tensor:
        """(M,) log2 of the texels of a size×size patch that go into a whole pixel, per direction; 0 is one to one."""
        return (self.extent / self.coverage).sqrt().mul(size).log2()


def uv_map(boxes: Sequence[Tensor], placement: Placement, size: tuple[int, int]) -> UVMap:
    """The UV map of a batch.

    Args:
        boxes: per image (K_i, 4) xyxy px; K_i may be 0; boxes may leave the image.
        placement: where the patch lies on each box.
        size: (height, width) of the images in pixels.

    Where patches overlap, the pixel belongs to the larger one, and of two equal ones to the later.
    """
    height, width = size
    device = boxes[0].device if boxes else torch.device("cpu")
    real = _real(device)
    counts = torch.tensor([len(b) for b in boxes], device=device)
    image = torch.arange(len(boxes), device=device).repeat_interleave(counts)
    flat = torch.cat([b.to(real) for b in boxes]) if boxes else torch.zeros(0, 4, dtype=real)
    square, part = placement.squares(flat), placement.regions(flat)
    side = (square[:, 2] - square[:, 0]).clamp(min=1e-12)

    limit = part.new_tensor([width, height])
    first = torch.minimum(part[:, :2].floor().clamp(min=0), limit).long()
    last = torch.minimum(part[:, 2:].ceil().clamp(min=0), limit).long()
    cells = (last - first).clamp(min=0) * (part[:, 2:] > part[:, :2])
    cells = cells * (cells.amin(1, keepdim=True) > 0)
    columns, rows = cells.unbind(1)
    corners = (columns + 1) * (rows + 1) * (columns > 0)

    # One entry per corner: its box, then its row and column in that box.
    box = torch.arange(len(flat), device=device).repeat_interleave(corners)
    start = corners.cumsum(0) - corners
    local = torch.arange(len(box), device=device) - start[box]
    stride = columns[box] + 1
    row, column = local // stride, local % stride
    x = torch.minimum(torch.maximum((first[box, 0] + column).to(real), part[box, 0]), part[box, 2])
    y = torch.minimum(torch.maximum((first[box, 1] + row).to(real), part[box, 1]), part[box, 3])
    uv = torch.stack([(x - square[box, 0]) / side[box], (y - square[box, 1]) / side[box]], 1).clamp(0, 1)
    up = torch.where(row > 0, torch.arange(len(box), device=device) - stride, len(box))

    here = ((column < columns[box]) & (row < rows[box])).nonzero()[:, 0]
    below = here + stride[here]
    coverage = (x[here + 1] - x[here]) * (y[below] - y[here])
    extent = (uv[here + 1, 0] - uv[here, 0]) * (uv[below, 1] - uv[here, 1])
    owner = box[here]
    pixel = (image[owner] * height + first[owner, 1] + row[here]) * width + first[owner, 0] + column[here]

    order = _owned(pixel, _rank(side)[owner], coverage > _LEAST_COVER, len(flat))
    return UVMap(
        shape=(len(boxes), height, width),
        corners=uv,
        up=up,
        here=here[order],
        below=below[order],
        pixel=pixel[order],
        coverage=coverage[order],
        extent=extent[order],
    )


def place(images: Tensor, patch: Tensor, where: UVMap) -> Tensor:
    """Images with the patch on every box of the map; differentiable in both.

    Args:
        images: (N, 3, H, W) in [0, 1], as the map's shape says. patch: (3, P, Q) in [0, 1].

    Returns:
        (N, 3, H, W); a covered pixel is (1 − c)·own + c·(mean of the patch over what it sees), c = coverage; every
        other pixel is the very same.
    """
    if (images.shape[0], *images.shape[2:]) != where.shape or images.shape[1] != patch.shape[0]:
        raise ValueError(f"images {tuple(images.shape)} and patch {tuple(patch.shape)} do not fit a map {where.shape}")
    real = _real(images.device)
    # Half is taken off before summing and added again after it: sums near zero keep more digits.
    table = F.pad((patch.to(real) - 0.5).cumsum(1).cumsum(2), (1, 0, 1, 0))
    if len(where):
        grid = (where.corners * 2 - 1)[None, None]
        read = F.grid_sample(table[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0, :, 0]
    else:
        read = table.flatten(1)[:, :0]
    written: Tensor = _Write.apply(images.contiguous(), read, where, patch.shape[1] * patch.shape[2])
    return written


class _Write(torch.autograd.Function):
    """From the summed-area table's values at the corners to the finished images.

    Forwards each pixel needs four corners. Backwards each corner gathers from its four pixels: no scattering, hence
    fast on a CPU and the same on every run on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, read: Tensor, where: UVMap, texels: int) -> Tensor:
        channels, (_, height, width) = images.shape[1], where.shape
        plane = height * width
        n, yx = where.pixel // plane, where.pixel % plane
        address = (n * channels * plane + yx) + torch.arange(channels, device=yx.device)[:, None] * plane
        here, below = where.here, where.below
        seen = read[:, below + 1] - read[:, below] - read[:, here + 1] + read[:, here]
        seen = seen / (where.extent * texels) + 0.5
        out = images.clone()
        old = out.view(-1)[address]
        new = (old + where.coverage * (seen - old)).clamp(0, 1)
        out.view(-1)[address] = new.to(out.dtype)
        ctx.where, ctx.texels, ctx.corners, ctx.dtype = where, texels, read.shape[1], read.dtype
        ctx.save_for_backward(address)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (address,) = grads, ctx.saved_tensors
        where: UVMap = ctx.where
        at = grad.reshape(-1)[address].to(ctx.dtype)
        to_read = to_images = None
        if ctx.needs_input_grad[1]:
            pixels = at.new_zeros(len(at), ctx.corners + 1)
            pixels[:, where.here] = at * (where.coverage / (where.extent * ctx.texels))
            pixels[:, 1:] -= pixels[:, :-1].clone()
            to_read = pixels[:, :-1] - pixels[:, where.up]
        if ctx.needs_input_grad[0]:
            to_images = grad.clone(memory_format=torch.contiguous_format)
            to_images.view(-1)[address] = (at * (1 - where.coverage)).to(grad.dtype)
        return to_images, to_read, None, None


def _rank(side: Tensor) -> Tensor:
    """Each box's place in the order of sizes, equal ones in the order given."""
    rank = torch.empty_like(side, dtype=torch.long)
    rank[torch.argsort(side, stable=True)] = torch.arange(len(side), device=side.device)
    return rank


def _owned(pixel: Tensor, rank: Tensor, keep: Tensor, boxes: int) -> Tensor:
    """Indices into ``pixel``, ascending by pixel, of the entry with the highest rank at each pixel."""
    kept = keep.nonzero()[:, 0]
    key, order = torch.sort(pixel[kept] * max(boxes, 1) + rank[kept])
    kept, key = kept[order], key // max(boxes, 1)
    last = torch.ones_like(key, dtype=torch.bool)
    last[:-1] = key[1:] != key[:-1]
    return kept[last]


def _real(device: torch.device) -> torch.dtype:
    """Double precision wherever there is any: differences of large sums are taken."""
    return torch.float32 if device.type == "mps" else torch.float64


def _wrong(subject: str, expected: str, got: object) -> AuditError:
    return AuditError(subject, expected=expected, got=repr(got), mend="correct the probe's placement")
