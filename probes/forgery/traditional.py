"""The traditional augmentations as shifts: noise, blur, JPEG with numbers drawn for each image, and all three.

The ranges are those that "Deepfake forensics via an adversarial game" (Wang, Guo and Zuo) found best, in its last
appendix: Gaussian noise with probability 0.5, mean 0 and a variance uniform in [0, 30] of pixels of 0 to 255; a
Gaussian of 9 x 9 px with a variance uniform in [0, 30]; JPEG of a quality uniform in [60, 100]. The paper does not say
in which order all three are done; here it is noise, blur, JPEG, as in its list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2

from audit.shifts import Frame
from probes.forgery.blurs import blurred, rounded
from probes.forgery.coding import coded
from probes.forgery.frame_shift import Draws, FrameShift
from probes.forgery.noises import steps_of, with_noise


@dataclass(frozen=True)
class TraditionalNoise(FrameShift):
    """x + n with ``probability``, n normal with mean 0.

    Attributes:
        variance: the largest, in squared levels of 0 to 255; each frame's is drawn from [0, variance].
    """

    probability: float = 0.5
    variance: float = 30.0
    kind: ClassVar[str] = "traditional noise"

    def __post_init__(self) -> None:
        self._within("probability", 0, 1)
        self._within("variance", 0, 255**2)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        chance, variance = draws.uniform(0, 1), draws.uniform(0, self.variance)
        return with_noise(frame, steps_of(math.sqrt(variance)), draws) if chance < self.probability else frame.copy()


@dataclass(frozen=True)
class TraditionalBlur(FrameShift):
    """Convolution with a Gaussian that sums to one; pixels at the edge repeat.

    Attributes:
        size: side of the kernel, px. variance: the largest, px^2; each frame's is drawn from [0, variance].
    """

    size: int = 9
    variance: float = 30.0
    kind: ClassVar[str] = "traditional blur"

    def __post_init__(self) -> None:
        self._odd("size")
        self._within("variance", 0, 1e6)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        return rounded(blurred(frame, math.sqrt(draws.uniform(0, self.variance)), self.size))


@dataclass(frozen=True)
class TraditionalJPEG(FrameShift):
    """Written as JPEG and read back; each frame's quality is drawn from ``lowest`` to ``highest``, both included."""

    lowest: int = 60
    highest: int = 100
    kind: ClassVar[str] = "traditional JPEG"

    def __post_init__(self) -> None:
        self._within("highest", 1, 100)
        self._within("lowest", 1, self.highest)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        quality = int(draws.uniform(self.lowest, self.highest + 1))
        return coded(frame, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


@dataclass(frozen=True)
class TraditionalCombined(FrameShift):
    """Noise, then blur, then JPEG, with the ranges of the three."""

    noise: TraditionalNoise = TraditionalNoise()
    blur: TraditionalBlur = TraditionalBlur()
    jpeg: TraditionalJPEG = TraditionalJPEG()
    kind: ClassVar[str] = "traditional, combined"

    @property
    def name(self) -> str:
        """Without the numbers of the three."""
        return self.kind

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        for part in (self.noise, self.blur, self.jpeg):
            frame = part.changed(frame, draws)
        return frame


def traditional() -> tuple[FrameShift, ...]:
    """The paper's four."""
    return TraditionalNoise(), TraditionalBlur(), TraditionalJPEG(), TraditionalCombined()
