"""The tiny batch on which a model is checked before anything long: a photograph, noise, a gradient, plain grey."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

LYING = (192, 256)
"""(height, width) of the batch that lies; one that stands is checked as well, so that a swapped axis shows."""
STANDING = (256, 160)
FACE = (112, 112)
"""Where a model does not say its ``face_size``."""


def tiny_images(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Four different pictures, the first a photograph of a person's head and shoulders.

    Args:
        size: (height, width) in pixels.

    Returns:
        (4, 3, height, width) float32 in [0, 1]: photograph, seeded noise, gradient, plain grey. The same every time.
    """
    height, width = size
    photo = interpolate(_photograph()[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
    noise = torch.rand((3, height, width), generator=torch.Generator().manual_seed(20))
    down = torch.linspace(0, 1, height)[:, None].expand(height, width)
    along = torch.linspace(0, 1, width)[None].expand(height, width)
    gradient = torch.stack([down, along, 1 - down])
    return torch.stack([photo, noise, gradient, torch.full_like(noise, 0.5)]).to(device)


@lru_cache(maxsize=1)
def _photograph() -> Tensor:
    from skimage.data import astronaut

    picture = astronaut()  # type: ignore[no-untyped-call]
    return torch.from_numpy(picture[0:320, 40:440].copy()).permute(2, 0, 1).float() / 255
