"""What is lost when a picture is stored or sent: JPEG, WebP, smaller sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from audit.errors import DataError
from audit.shifts import Frame
from probes.forgery.frame_shift import Draws, FrameShift

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "area": cv2.INTER_AREA,
}


@dataclass(frozen=True)
class JPEG(FrameShift):
    """Written as baseline JPEG (4:2:0, libjpeg's tables of ``quality`` 1 to 100) and read back."""

    quality: int
    kind: ClassVar[str] = "JPEG"

    def __post_init__(self) -> None:
        self._within("quality", 1, 100)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        return coded(frame, ".jpg", cv2.IMWRITE_JPEG_QUALITY, self.quality)


@dataclass(frozen=True)
class WebP(FrameShift):
    """Written as lossy WebP of ``quality`` 1 to 100 and read back."""

    quality: int
    kind: ClassVar[str] = "WebP"

    def __post_init__(self) -> None:
        self._within("quality", 1, 100)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        return coded(frame, ".webp", cv2.IMWRITE_WEBP_QUALITY, self.quality)


@dataclass(frozen=True)
class Resize(FrameShift):
    """Made smaller and enlarged again to the size that it had.

    Attributes:
        scale: of height and width on the way, at most 1; at least one pixel is left.
        down, up: the interpolations, of ``INTERPOLATIONS``. Only ``area`` takes the mean of what it leaves out.
    """

    scale: float
    down: str = "area"
    up: str = "bicubic"
    kind: ClassVar[str] = "resize"

    def __post_init__(self) -> None:
        self._within("scale", 0, 1)
        for name in (self.down, self.up):
            if name not in INTERPOLATIONS:
                raise DataError(f"shift {self.kind}", expected=f"one of {', '.join(INTERPOLATIONS)}", got=repr(name),
                                mend="choose an interpolation of these")  # fmt: skip

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        height, width = frame.shape[:2]
        less = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        small = cv2.resize(frame, less, interpolation=INTERPOLATIONS[self.down])
        return np.asarray(cv2.resize(small, (width, height), interpolation=INTERPOLATIONS[self.up]), np.uint8)


@dataclass(frozen=True)
class Pixelate(FrameShift):
    """Blocks of one colour each, the mean of their pixels, about 1 / ``scale`` px wide; as Pillow's BOX and NEAREST.

    Rows are handled before and after a transposition: whole rows are copied far faster than columns.
    """

    scale: float
    kind: ClassVar[str] = "pixelate"

    def __post_init__(self) -> None:
        self._within("scale", 0, 1)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        height, width = frame.shape[:2]
        few, narrow = max(1, int(height * self.scale)), max(1, int(width * self.scale))
        small = _row_means(cv2.transpose(_row_means(cv2.transpose(frame), narrow)), few)
        wide = cv2.transpose(np.take(small, _nearest(height, few), axis=0))
        return np.asarray(cv2.transpose(np.take(wide, _nearest(width, narrow), axis=0)), np.uint8)


def coded(frame: Frame, kind: str, option: int, quality: int) -> Frame:
    """The frame after a file of that kind, such as ``.jpg``, was written and read in memory."""
    done, file = cv2.imencode(kind, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [option, quality])
    if not done:
        raise RuntimeError(f"this OpenCV writes no {kind} of {frame.shape[1]}x{frame.shape[0]} px")
    return np.asarray(cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def _row_means(rows: Frame, count: int) -> Frame:
    """``count`` rows, each the mean of those that fall to it, rounded half up."""
    out = np.empty((count, *rows.shape[1:]), np.uint8)
    for at, falling in _shares(len(rows), count):
        total = np.zeros((len(at), *rows.shape[1:]), np.float32)
        for one in falling:
            cv2.accumulate(np.take(rows, one, axis=0), total)
        out[at] = cv2.convertScaleAbs(total, alpha=1 / len(falling), beta=1e-3)  # halves go up
    return out


@lru_cache(maxsize=64)
def _shares(length: int, count: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Which of ``length`` rows fall to each of ``count``: those whose middles it spans.

    Where a middle lies between two of them, rounding decides; it is Pillow's, operation by operation.

    Returns:
        For each number n of rows that fall to one: which have so many, (m,), and their rows, (n, m).
    """
    scale = length / count
    middles, reach = (np.arange(count) + 0.5) * scale, 0.5 * scale
    first = (middles - reach + 0.5).astype(np.intp).clip(0)
    last = (middles + reach + 0.5).astype(np.intp).clip(None, length) - 1
    first += (first - middles + 0.5) * (1 / scale) <= -0.5
    last -= (last - middles + 0.5) * (1 / scale) > 0.5
    lengths = last - first + 1
    groups = [(np.flatnonzero(lengths == n), np.arange(n)) for n in np.unique(lengths)]
    return [(at, first[at] + further[:, None]) for at, further in groups]


@lru_cache(maxsize=64)
def _nearest(length: int, count: int) -> NDArray[np.intp]:
    """(length,) of which of ``count`` blocks the middle of each pixel is part, summed up step by step as in Pillow."""
    steps = np.full(length, count / length)
    steps[0] /= 2
    return np.asarray(steps.cumsum().astype(np.intp).clip(0, count - 1), np.intp)
