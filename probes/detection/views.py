"""The craft images as somebody else might have taken them, so that a patch does not learn the few it is trained on.

Without this, a patch trained on some twenty images takes nearly everything there and little on others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

VIEWS = 8
"""Different views of each image; the first is the image itself. Each epoch shows the next."""
ZOOM, SHIFT = 0.15, 0.05
"""Zoom by e^±ZOOM, and a shift by up to ±SHIFT of width and height."""
CONTRAST, BRIGHTNESS = 0.2, 0.1
"""Values are multiplied by 1 ± CONTRAST, then moved by up to ±BRIGHTNESS."""
SLIP = 0.05
"""The patch sits up to ±SLIP of the object's width and height beside its place, and is as much larger or smaller."""


def view(images: Tensor, boxes: Sequence[Tensor], stream: torch.Generator) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Mirrored, zoomed, shifted and relit images; pixels and boxes move together.

    Args:
        images: (N, 3, H, W) in [0, 1]. boxes: per image (K_i, 4) xyxy px. stream: decides all, on the CPU.

    Returns:
        images (N, 3, H, W) in [0, 1]; the boxes moved along, none left out; the boxes that a patch is placed by, which
        slip a little beside those.
    """
    n, _, height, width = images.shape
    device = images.device
    size = torch.tensor([width, height], dtype=torch.float32)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=stream) * 2 - 1

    mirror = torch.where(draw(n) < 0, -1.0, 1.0)
    zoom, shift = (ZOOM * draw(n)).exp(), SHIFT * draw(n, 2)
    # Where a pixel of the new image lies in the old one, both measured from -1 to 1: x = mirror·(x' − 2·shift)/zoom.
    back = torch.zeros(n, 2, 3)
    back[:, 0, 0], back[:, 1, 1] = mirror / zoom, 1 / zoom
    back[:, 0, 2], back[:, 1, 2] = -2 * shift[:, 0] * mirror / zoom, -2 * shift[:, 1] / zoom
    grid = F.affine_grid(back.to(device), [n, 3, height, width], align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    contrast, brightness = 1 + CONTRAST * draw(n), BRIGHTNESS * draw(n)
    lit = moved * contrast.to(device)[:, None, None, None] + brightness.to(device)[:, None, None, None]

    true, slipped = [], []
    for i, box in enumerate(boxes):
        middle, extent = _split(box.cpu().float())
        centre = (middle - size / 2) * torch.stack([mirror[i], torch.ones(())]) * zoom[i] + size / 2 + shift[i] * size
        extent = extent * zoom[i]
        true.append(_joined(centre, extent).to(device))
        aside = SLIP * draw(len(box), 2) * extent
        slipped.append(_joined(centre + aside, extent * (1 + SLIP * draw(len(box), 2))).to(device))
    return lit.clamp(0, 1), true, slipped


def _split(box: Tensor) -> tuple[Tensor, Tensor]:
    return (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]


def _joined(centre: Tensor, extent: Tensor) -> Tensor:
    return torch.cat([centre - extent / 2, centre + extent / 2], 1)
