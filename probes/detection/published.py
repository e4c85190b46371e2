"""Does a patch from the literature work here? Pictures that others have published, worn as they are (D8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from audit.budget import Budget
from audit.contracts import Detector
from audit.data.scenes import Scenes
from audit.errors import DataError
from audit.execution import Execution
from probes.areas import AreaPlacement
from probes.detection.controls import PicturePatch
from probes.detection.patch import Patch
from probes.probe import Access, Progress, digest
from probes.wear import Wear

LONGEST = 256
"""Texels of the longer side; larger pictures are made smaller by areas."""
OPAQUE = 128
"""Alpha from which a texel counts as printed."""


@dataclass(frozen=True, repr=False)
class PublishedPatch(PicturePatch):
    """A published patch: in its own aspect on an area, stretched to a square on a box; transparent parts are cut out.

    Raises:
        DataError: at crafting, the picture cannot be read or shows nothing.
    """

    goal: ClassVar[str] = "Hide the object with a picture that anybody can download"
    threat: ClassVar[str] = "Somebody who knows nothing of the model and prints a patch from the literature"
    refs: ClassVar[tuple[str, ...]] = ("002 §3.3", "NISTAML.025")
    access: ClassVar[Access] = "transfer"
    kind: ClassVar[str] = "published"

    def spec(self) -> dict[str, Any]:
        pixels, printed = self._both()
        return super().spec() | {"printed": digest(printed.to(torch.uint8)), "texels": list(pixels.shape[1:])}

    def __repr__(self) -> str:
        what = Path(self.picture).name if isinstance(self.picture, str | Path) else "array"
        return f"PublishedPatch({what}, {self.placement})"

    def craft(
        self,
        detector: Detector,
        scenes: Scenes,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Patch:
        """The picture on its placement; model and budget are not used."""
        patch = super().craft(detector, scenes, execution=execution, budget=budget, seed=seed, progress=progress)
        return replace(patch, placement=self._placed())

    def _placed(self) -> Wear:
        if not isinstance(self.placement, AreaPlacement):
            return self.placement
        pixels, printed = self._both()
        placed = replace(self.placement, aspect=min(20.0, max(0.05, pixels.shape[2] / pixels.shape[1])))
        return placed if bool(printed.all()) else placed.with_mask(printed)

    def _read(self) -> Tensor:
        pixels, _ = self._both()
        return pixels

    def _both(self) -> tuple[Tensor, Tensor]:
        """uint8 (3, P, Q) and bool (P, Q), which texels are printed."""
        try:
            if isinstance(self.picture, np.ndarray):
                array = np.dstack([self.picture, np.full(self.picture.shape[:2], 255, np.uint8)])
            else:
                with Image.open(self.picture) as opened:
                    array = np.array(opened.convert("RGBA"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"published patch {self.picture}", expected="an image file", got=str(error), mend="give a PNG or JPEG"
            ) from error
        height, width = array.shape[:2]
        if isinstance(self.placement, AreaPlacement):
            shrink = min(1.0, LONGEST / max(height, width))
            size = (max(2, round(height * shrink)), max(2, round(width * shrink)))
        else:
            size = (self.size, self.size)
        how = cv2.INTER_AREA if size[0] <= height and size[1] <= width else cv2.INTER_CUBIC
        # Colours are weighed by alpha, else what is hidden behind a transparent edge would colour it.
        alpha = array[..., 3:].astype(np.float32) / 255
        solid = cv2.resize(array[..., :3].astype(np.float32) * alpha, size[::-1], interpolation=how)
        weight = cv2.resize(np.ascontiguousarray(alpha), size[::-1], interpolation=how)[..., None]
        rgb = np.clip(np.round(solid / np.maximum(weight, 1e-3)), 0, 255).astype(np.uint8)
        printed = torch.from_numpy(weight[..., 0] * 255 >= OPAQUE)
        if not bool(printed.any()):
            raise DataError(
                f"published patch {self.picture}",
                expected="a picture with something on it",
                got="one that is transparent throughout",
                mend="give another picture",
            )
        return torch.from_numpy(rgb).permute(2, 0, 1).contiguous(), printed
