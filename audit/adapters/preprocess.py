"""From the audit's images to a network's input and back: resize, pad, channel order, range. Differentiable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.adapters.checks import refuse

Resize = Literal["stretch", "letterbox", "letterbox-corner", "multiple-of-32"]
RESIZES = ("stretch", "letterbox", "letterbox-corner", "multiple-of-32", None)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image lies in the network's input: x_net = x * scale_x + offset_x, the same for y."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0

    def back(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) xyxy from pixels of the network's input to pixels of the image."""
        if self == Geometry():
            return boxes
        offset = boxes.new_tensor((self.offset_x, self.offset_y) * 2)
        scale = boxes.new_tensor((self.scale_x, self.scale_y) * 2)
        return (boxes - offset) / scale


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What is done to images (N, 3, H, W) in [0, 1] RGB before a network sees them.

    Attributes:
        input_size: (height, width) of the network's input; None where it takes any size.
        resize: ``stretch`` to ``input_size``; ``letterbox``: keep the aspect, centre, pad with ``fill``;
            ``letterbox-corner``: the same from the top left corner; ``multiple-of-32``: stretch each side up to the
            next multiple of 32 (of the image, or of ``input_size`` where given); None: leave the size alone.
        channels: order that the network wants, ``rgb`` or ``bgr``.
        scale, mean, std: the network sees ``(image * scale - mean) / std``; ``mean`` and ``std`` are one number, or
            three in the network's channel order. ``scale=255`` for networks that want 0..255.
        fill: grey of the padding, in [0, 1].
        antialias: filter before shrinking, as PIL does; OpenCV's bilinear resize, the common one, does not.
    """

    input_size: tuple[int, int] | None = None
    resize: Resize | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    fill: float = 114 / 255
    antialias: bool = False

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            refuse("resize", "one of " + ", ".join(map(str, RESIZES)), repr(self.resize), "choose one of those")
        if self.channels not in ("rgb", "bgr"):
            refuse("channels", "'rgb' or 'bgr'", repr(self.channels), "choose one of those")
        size = self.input_size
        if size is not None and (len(size) != 2 or any(int(s) != s or s < 1 for s in size)):
            refuse("input_size", "(height, width), two positive whole numbers", repr(size), "give both in pixels")
        if self.resize in ("stretch", "letterbox", "letterbox-corner") and size is None:
            refuse(
                "input_size",
                f"(height, width), since resize is {self.resize!r}",
                "None",
                "give the size that the network was trained for",
            )
        if size is not None and self.resize is None:
            refuse(
                "resize",
                f"how images reach the network's size of {size[0]}x{size[1]}",
                "None",
                "choose 'stretch', 'letterbox', 'letterbox-corner' or 'multiple-of-32', as your own code does it",
            )
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, tuple | list) and len(value) != 3:
                refuse(name, "one number or three", f"{len(value)}", "give one per channel, in the network's order")
        if 0.0 in (self.std if isinstance(self.std, tuple | list) else (self.std,)) or self.scale == 0:
            refuse("scale and std", "numbers other than 0", "0", "a network that sees a constant cannot be audited")

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the network's input for an image of that size."""
        if self.resize is None:
            return height, width
        if self.resize == "multiple-of-32":
            height, width = self.input_size or (height, width)
            return math.ceil(height / 32) * 32, math.ceil(width / 32) * 32
        assert self.input_size is not None
        return self.input_size

    def __call__(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """The network's input, and where the images lie in it."""
        resized, geometry = self._resized(images)
        return self._ranged(resized), geometry

    def _resized(self, images: Tensor) -> tuple[Tensor, Geometry]:
        height, width = images.shape[-2:]
        target_h, target_w = self.size_for(height, width)
        if self.resize not in ("letterbox", "letterbox-corner"):
            return self._scaled(images, target_h, target_w), Geometry(target_w / width, target_h / height)
        ratio = min(target_h / height, target_w / width)
        inner_h, inner_w = max(1, round(height * ratio)), max(1, round(width * ratio))
        spare_h, spare_w = target_h - inner_h, target_w - inner_w
        top, left = (spare_h // 2, spare_w // 2) if self.resize == "letterbox" else (0, 0)
        inner = self._scaled(images, inner_h, inner_w)
        padded = F.pad(inner, (left, spare_w - left, top, spare_h - top), value=self.fill)
        return padded, Geometry(inner_w / width, inner_h / height, float(left), float(top))

    def _scaled(self, images: Tensor, height: int, width: int) -> Tensor:
        if images.shape[-2:] == (height, width):
            return images
        return F.interpolate(
            images, size=(height, width), mode="bilinear", align_corners=False, antialias=self.antialias
        )

    def _ranged(self, images: Tensor) -> Tensor:
        if self.channels == "bgr":
            images = images.flip(1)
        # (x * scale - mean) / std as one multiply-add, so that one copy of the input is made and kept
        if self.mean in (0, 0.0) and isinstance(self.std, int | float):
            factor = self.scale / self.std
            return images if factor == 1.0 else images * factor
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
        mean = torch.tensor(self.mean, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
        return torch.addcmul(-mean / std, images, self.scale / std)
