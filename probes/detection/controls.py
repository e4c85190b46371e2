"""Patches that nobody optimised: what they cost is occlusion, what a trained one costs beyond is attack (D6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from audit.budget import Budget
from audit.contracts import Detector
from audit.data.scenes import Scenes
from audit.errors import DataError
from audit.execution import Execution
from probes.detection.patch import Patch
from probes.geometry import TOP
from probes.probe import Access, Progress, digest, generator, with_objects
from probes.wear import Wear

Picture = str | Path | NDArray[np.uint8]
"""A picture file, or uint8 (height, width, 3) RGB."""


@dataclass(frozen=True)
class _Unoptimised(ABC):
    """Base: a picture of ``size``×``size`` texels, placed as the trained patch is."""

    placement: Wear = TOP
    size: int = 48

    goal: ClassVar[str] = "Hide the object by covering a part of it"
    threat: ClassVar[str] = "Somebody who knows nothing of the model and wears any picture"
    refs: ClassVar[tuple[str, ...]] = ("002 Table 1",)
    access: ClassVar[Access] = "none"
    kind: ClassVar[str] = ""
    load = staticmethod(Patch.load)

    @property
    def name(self) -> str:
        """A few words for the report."""
        return f"{self.kind} patch, not optimised, {self.placement}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.placement})"

    def spec(self) -> dict[str, Any]:
        """All that determines the picture beside data and seed."""
        return {
            "probe": type(self).__name__,
            "placement": self.placement.spec(),
            "size": self.size,
        }

    @abstractmethod
    def pixels(self, scenes: Scenes, seed: int) -> Tensor:
        """uint8 (3, size, size)."""

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
        """The patch; model and budget are not used."""
        del detector, execution, budget
        patch = Patch(self.pixels(scenes, seed), self.placement, self.name, self.spec() | {"seed": seed})
        if progress:
            progress(1.0, self.name)
        return patch


@dataclass(frozen=True, repr=False)
class NoisePatch(_Unoptimised):
    """Uniform noise, each texel and channel on its own; drawn from the seed."""

    kind: ClassVar[str] = "noise"

    def pixels(self, scenes: Scenes, seed: int) -> Tensor:
        del scenes
        shape, stream = (3, self.size, self.size), generator("noise patch", seed)
        return torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8)


@dataclass(frozen=True, repr=False)
class GreyPatch(_Unoptimised):
    """Middle grey, 128 of 255."""

    kind: ClassVar[str] = "grey"

    def pixels(self, scenes: Scenes, seed: int) -> Tensor:
        del scenes, seed
        return torch.full((3, self.size, self.size), 128, dtype=torch.uint8)


@dataclass(frozen=True, repr=False)
class BlackPatch(_Unoptimised):
    """Black: what the fourth team fills its masks with to see how much they hide (paper 000 §3.3.4)."""

    kind: ClassVar[str] = "black"

    def pixels(self, scenes: Scenes, seed: int) -> Tensor:
        del scenes, seed
        return torch.zeros((3, self.size, self.size), dtype=torch.uint8)


@dataclass(frozen=True, repr=False)
class FacePatch(_Unoptimised):
    """A real object of the attacked kind (a face, for a face detector), made small.

    From the craft split: of the largest quarter of its objects one, by the seed, cut out as a square. A face worn on a
    face may be found as one, but hides little (paper 002, Table 1).
    """

    kind: ClassVar[str] = "real object"

    def pixels(self, scenes: Scenes, seed: int) -> Tensor:
        found = [(scene, box) for scene in with_objects(scenes) for box in scene.boxes[~scene.ignore].tolist()]
        found.sort(key=lambda f: (-(f[1][2] - f[1][0]) * (f[1][3] - f[1][1]), f[0].id, f[1]))
        largest = found[: max(1, len(found) // 4)]
        scene, box = largest[int(torch.randint(len(largest), (1,), generator=generator("face patch", seed)))]
        return resized(_cut(scene.load(), box), self.size)


@dataclass(frozen=True, repr=False)
class PicturePatch(_Unoptimised):
    """Any picture handed in: a file, or uint8 (height, width, 3) RGB.

    Raises:
        DataError: at crafting, the picture cannot be read.
    """

    picture: Picture = ""

    kind: ClassVar[str] = "picture"

    def __repr__(self) -> str:
        what = Path(self.picture).name if isinstance(self.picture, str | Path) else digest(self._read())[:8]
        return f"PicturePatch({what}, {self.placement})"

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"sha256_pixels": digest(self._read())}

    def pixels(self, scenes: Scenes, seed: int) -> Tensor:
        del scenes, seed
        return self._read()

    def _read(self) -> Tensor:
        return resized(read_picture(self.picture), self.size)


CONTROLS: tuple[Callable[..., _Unoptimised], ...] = (NoisePatch, GreyPatch, FacePatch)
"""The controls that stand beside every trained patch."""


def read_picture(picture: Picture) -> Tensor:
    """uint8 (3, height, width) RGB from a file or an array.

    Raises:
        DataError: it cannot be read or is no RGB picture.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(
                "picture for a patch",
                expected="uint8 (height, width, 3) RGB",
                got=f"{picture.dtype} {picture.shape}",
                mend="convert it first",
            )
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous()
    try:
        with Image.open(picture) as opened:
            array = np.array(opened.convert("RGB"))
    except OSError as error:
        raise DataError(
            f"picture {picture}", expected="an image file", got=str(error), mend="give the path of a PNG or JPEG"
        ) from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def resized(picture: Tensor, size: int | tuple[int, int]) -> Tensor:
    """uint8 (3, size, size), or (3, *size), by areas where it shrinks."""
    height, width = (size, size) if isinstance(size, int) else size
    array = picture.permute(1, 2, 0).contiguous().numpy()
    how = cv2.INTER_AREA if array.shape[0] >= height and array.shape[1] >= width else cv2.INTER_CUBIC
    return torch.from_numpy(cv2.resize(array, (width, height), interpolation=how)).permute(2, 0, 1).contiguous()


def _cut(image: Tensor, box: list[float]) -> Tensor:
    """The square around a box, as far as the image goes, and a little inside it at the image's edge."""
    height, width = image.shape[1:]
    side = max(1, min(height, width, round(max(box[2] - box[0], box[3] - box[1]))))
    x = min(max(0, round((box[0] + box[2] - side) / 2)), width - side)
    y = min(max(0, round((box[1] + box[3] - side) / 2)), height - side)
    return image[:, y : y + side, x : x + side]
