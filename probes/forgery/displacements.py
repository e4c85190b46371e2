"""Pixels that leave their place: glass and rubber."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from audit.shifts import Frame
from probes.forgery.blurs import blurred, rounded
from probes.forgery.frame_shift import Draws, FrameShift


@dataclass(frozen=True)
class GlassBlur(FrameShift):
    """Blur, pixels that take over what others near them show, blur.

    As in the code that was published for the benchmark, and not as in its text: from the last pixel to the first, each
    takes over the colour of one drawn near it, and does not give its own in return. The frame's rim stays.

    Attributes:
        sigma: of both blurs, px. reach: pixels look from -reach to reach - 1 px beside them. rounds: how often.
    """

    sigma: float
    reach: int
    rounds: int
    kind: ClassVar[str] = "glass blur"

    def __post_init__(self) -> None:
        self._within("sigma", 0, 100)
        self._within("reach", 1, 100)
        self._within("rounds", 0, 100)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        size = 2 * int(4 * self.sigma + 0.5) + 1
        pixels = rounded(blurred(frame, self.sigma, size))
        colours = pixels.reshape(-1, 3)
        for _ in range(self.rounds):
            colours = colours[_taken(frame.shape[0], frame.shape[1], self.reach, draws)]
        return rounded(blurred(colours.reshape(frame.shape), self.sigma, size))


@dataclass(frozen=True)
class Elastic(FrameShift):
    """Each pixel is fetched from beside its place, by a field that changes smoothly over the frame.

    The field is noise, uniform within 0.5 % of the height, blurred by a Gaussian of 1 % of height and width, times
    ``gain``. Between pixels values are linear; the edges mirror.
    """

    gain: float
    kind: ClassVar[str] = "elastic"

    def __post_init__(self) -> None:
        self._within("gain", 0, 1000)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        height, width = frame.shape[:2]
        step = 0.01 * height / 65536 * self.gain
        noise = (draws.words(2, height, width).astype(np.float32) - 32767.5) * np.float32(step)
        down, across = (_kernel(0.01 * side) for side in (height, width))
        dx, dy = (cv2.sepFilter2D(n, cv2.CV_32F, across, down, borderType=cv2.BORDER_REFLECT) for n in noise)
        dx += np.arange(width, dtype=np.float32)
        dy += np.arange(height, dtype=np.float32)[:, None]
        return rounded(cv2.remap(frame.astype(np.float32), dx, dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _kernel(sigma: float) -> NDArray[np.float32]:
    reach = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)


def _taken(height: int, width: int, reach: int, draws: Draws) -> NDArray[np.intp]:
    """(H W,) from which pixel each has its colour in the end.

    A pixel that looks at one which was changed before it gets what that one had got: such chains are followed by
    doubling, all pixels at once.
    """
    here = np.arange(height * width, dtype=np.intp)
    rows, columns = slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1)
    inner = here.reshape(height, width)[rows, columns]
    if not inner.size:
        return here
    dy, dx = (draws.words(2, *inner.shape).astype(np.int64) * (2 * reach) >> 16) - reach
    source = here.copy()
    source.reshape(height, width)[rows, columns] = inner + dy * width + dx
    moved = np.zeros((height, width), bool)
    moved[rows, columns] = True
    later = (source > here) & moved.ravel()[source]
    ends = np.where(later, source, here)
    while True:
        further = ends[ends]
        if np.array_equal(further, ends):
            return source[ends]
        ends = further
