"""What searches without gradients try next: a square of a patch in another colour, with a donor's texels, or relit.

After the square attack (Andriushchenko et al. 2020) and Sparse-RS (Croce et al. 2022): constant squares, mostly corners
of the colour cube, at places drawn from the mask, smaller as the queries are spent.
"""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 10
"""Random numbers per proposal."""
SHRINK = ((0.001, 1.0), (0.005, 0.5), (0.02, 0.25), (0.05, 0.125), (0.1, 0.0625), (0.2, 0.03125), (0.4, 0.015625),
          (0.7, 0.0078125))  # fmt: skip
"""After this share of the queries, this factor on the area of a square."""


class Places:
    """Pixels of masks (N, H, W), to draw from."""

    def __init__(self, masks: Tensor) -> None:
        flat = masks.flatten(1)
        self.width = int(masks.shape[2])
        self.area = flat.sum(1)
        """(N,) px."""
        most = max(1, int(self.area.max())) if len(masks) else 1
        # Pixels of a mask come first, in their order; a copy, for a view would keep all of the photograph's.
        self._index = torch.argsort((~flat).to(torch.uint8), dim=1, stable=True)[:, :most].clone()

    def draw(self, rows: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """(y, x), each (n,): the pixel at this share in [0, 1) of each row's mask."""
        at = (share.to(self.area.device) * self.area[rows]).long()
        pixel = self._index[rows, at]
        return pixel // self.width, pixel % self.width


def side(area: Tensor, share: float, done: float) -> Tensor:
    """(N,) px: of squares of this share of the areas, shrunk by ``SHRINK`` for the share of the queries spent."""
    factor = min((f for after, f in SHRINK if done >= after), default=1.0)
    return (area * share * factor).sqrt().round().clamp(min=1).long()


def window(y: Tensor, x: Tensor, length: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W) bool: squares of ``length`` px about these pixels."""
    down, across = (torch.arange(s, device=y.device)[None] for s in size)
    top, left = (y - length // 2)[:, None], (x - length // 2)[:, None]
    rows = (down >= top) & (down < top + length[:, None])
    columns = (across >= left) & (across < left + length[:, None])
    return rows[:, :, None] & columns[:, None]


def propose(patches: Tensor, donors: Tensor | None, square: Tensor, drawn: Tensor) -> Tensor:
    """Patches with one square changed.

    Half of the squares take one colour (four in five of these a corner of the colour cube), a quarter the donor's
    texels with their contrast and brightness changed, a quarter are made lighter or darker per channel; without
    donors the last two share what is left.

    Args:
        patches: uint8 (n, 3, H, W). donors: the same shape. square: bool (n, H, W). drawn: (n, ``DRAWS``) in [0, 1).
    """
    u = drawn.float().to(patches.device)
    kind = u[:, 0, None, None, None]
    colours = u[:, 1:4]
    corners = torch.where(colours < 0.5, 0.0, 255.0)
    flat = torch.where(u[:, 4, None] < 0.8, corners, colours * 255)[..., None, None]
    tone = ((colours - 0.5) * 192)[..., None, None]
    new = torch.where(kind < 0.5, flat, patches + tone)
    if donors is not None:
        contrast = 0.5 + 2 * u[:, 4, None, None, None]
        relit = (donors - 127.5) * contrast + 127.5 + 64 * (u[:, 5, None, None, None] - 0.5)
        new = torch.where((kind >= 0.5) & (kind < 0.75), relit, new)
    return torch.where(square[:, None], new.round().clamp(0, 255).to(torch.uint8), patches)
