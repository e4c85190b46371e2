"""One texture in the 112 × 112 frame of aligned faces, worn by many faces: read in each photograph, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import CHIP
from audit.data.faces import Portraits
from probes.recognition.masks import Mask
from probes.recognition.placing import chip_coordinates, unit_grid

_CHUNK = 32


class Wearers:
    """Portraits that wear a texture where a mask is.

    Attributes:
        images: uint8 (N, 3, H, W). masks: bool (N, H, W).
    """

    def __init__(self, portraits: Portraits, mask: Mask, device: torch.device) -> None:
        self.images = portraits.images.to(device)
        self.masks = mask.photo_masks(portraits.landmarks, portraits.size).to(device)
        self._pixels: list[Tensor] = []
        self._grids: list[Tensor] = []
        for i in range(0, len(portraits), _CHUNK):
            at = chip_coordinates(portraits.landmarks[i : i + _CHUNK].to(device), portraits.size)
            for coordinates, own in zip(at, self.masks[i : i + _CHUNK], strict=True):
                self._pixels.append(own.flatten().nonzero()[:, 0])
                self._grids.append(unit_grid(coordinates[own], (CHIP, CHIP)))

    def __len__(self) -> int:
        return len(self.images)

    def wearing(self, texture: Tensor, rows: Tensor) -> Tensor:
        """(n, 3, H, W) in [0, 1]: these portraits with the texture (3, 112, 112) in [0, 1] on, read bilinearly."""
        chosen = rows.tolist()
        _, _, h, w = self.images.shape
        clean = (self.images[rows.to(self.images.device)].float() / 255).permute(1, 0, 2, 3).reshape(3, -1)
        pixels = torch.cat([self._pixels[i] + n * h * w for n, i in enumerate(chosen)])
        grid = torch.cat([self._grids[i] for i in chosen])
        seen = F.grid_sample(texture[None], grid[None, None], padding_mode="border", align_corners=True)[0, :, 0]
        return clean.index_copy(1, pixels, seen).reshape(3, len(chosen), h, w).permute(1, 0, 2, 3)


def parts(rows: Tensor, size: int) -> list[Tensor]:
    """Rows in batches of at most ``size``, at least 1."""
    step = max(1, size)
    return [rows[i : i + step] for i in range(0, len(rows), step)]
