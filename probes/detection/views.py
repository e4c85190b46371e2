"""The craft images as somebody else might have taken them, so that a patch does not learn the few it is trained on.

Without this, a patch trained on some twenty images takes nearly everything there and little on others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.contracts import Areas

VIEWS = 8
"""Different views of each image; the first is the image itself. Each epoch shows the next."""
ZOOM, SHIFT = 0.15, 0.05
"""Zoom by e^±ZOOM, and a shift by up to ±SHIFT of width and height."""
CONTRAST, BRIGHTNESS = 0.2, 0.1
"""Values are multiplied by 1 ± CONTRAST, then moved by up to ±BRIGHTNESS."""
BORDER = 114 / 255
"""Grey of the border that letterboxing detectors add."""
SLIP = 0.05
"""The patch sits up to ±SLIP of the object's width and height beside its place, and is as much larger or smaller."""


def view(
    images: Tensor, boxes: Sequence[Tensor], stream: torch.Generator, areas: Sequence[Areas] | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Areas] | None]:
    """Mirrored, zoomed, shifted and relit images; pixels, boxes and areas move together.

    Args:
        images: (N, 3, H, W) in [0, 1]. boxes: per image (K_i, 4) xyxy px. stream: decides all, on the CPU.
        areas: per image, where the scenes name areas.

    Returns:
        images (N, 3, H, W) in [0, 1]; the boxes moved along, none left out; the boxes that a patch is placed by, which
        slip a little beside those; the areas moved along, in a mirrored image their content is not mirrored.
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
    moved_areas = None if areas is None else [_area(a, back[i], mirror[i], size) for i, a in enumerate(areas)]
    return lit.clamp(0, 1), true, slipped, moved_areas


def _area(area: Areas, back: Tensor, mirror: Tensor, size: Tensor) -> Areas:
    """An area seen in the new image; a print is stuck on after the mirroring and so reads as before."""
    device = area.quads.device
    old = area.quads.cpu().float() / size * 2 - 1
    quads = ((old - back[:, 2]) / back.diagonal() + 1) / 2 * size
    if mirror < 0:
        quads = quads[:, [1, 0, 3, 2]]
    hidden = area.hidden
    if hidden is not None:
        shape = [1, 1, hidden.shape[0], hidden.shape[1]]
        grid = F.affine_grid(back[None].to(device), shape, align_corners=False)
        hidden = F.grid_sample(hidden[None, None], grid, padding_mode="reflection", align_corners=False)[0, 0]
    return Areas(quads.to(device), hidden)


def squared(
    images: Tensor, boxes: list[Tensor], worn: list[Tensor], areas: list[Areas] | None, *, stretch: bool
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Areas] | None]:
    """Images as squares of the longer side: stretched, or with a grey border (D13: the two usual pre-processings).

    A detector that stretches its input itself then sees a border, and one that adds a border sees a stretched image.
    """
    n, channels, height, width = images.shape
    side = max(height, width)
    if stretch:
        scale, shift = (side / width, side / height), (0.0, 0.0)
        out = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    else:
        x, y = (side - width) // 2, (side - height) // 2
        scale, shift = (1.0, 1.0), (float(x), float(y))
        out = images.new_full((n, channels, side, side), BORDER)
        out[:, :, y : y + height, x : x + width] = images

    def moved(points: Tensor) -> Tensor:
        repeat = points.shape[-1] // 2
        return points * points.new_tensor(scale * repeat) + points.new_tensor(shift * repeat)

    new_areas = None
    if areas is not None:
        new_areas = [Areas(moved(a.quads), None if a.hidden is None else _square(a.hidden, stretch)) for a in areas]
    return out.clamp(0, 1), [moved(b.float()) for b in boxes], [moved(b.float()) for b in worn], new_areas


def _square(hidden: Tensor, stretch: bool) -> Tensor:
    height, width = hidden.shape
    side = max(height, width)
    if stretch:
        return F.interpolate(hidden[None, None], size=(side, side), mode="bilinear", align_corners=False)[0, 0]
    x, y = (side - width) // 2, (side - height) // 2
    return F.pad(hidden, (x, side - width - x, y, side - height - y))


def _split(box: Tensor) -> tuple[Tensor, Tensor]:
    return (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]


def _joined(centre: Tensor, extent: Tensor) -> Tensor:
    return torch.cat([centre - extent / 2, centre + extent / 2], 1)
