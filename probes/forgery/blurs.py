"""Blurs of lens, focus, motion and zoom. All sum in float32 and round once; at the edges pixels repeat or mirror."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from audit.shifts import Frame
from probes.forgery.frame_shift import Draws, FrameShift

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class GaussianBlur(FrameShift):
    """Convolution with a Gaussian; pixels at the edge repeat.

    Attributes:
        sigma: standard deviation in px. size: side of the kernel in px, odd; ``None`` cuts it at four sigma.
    """

    sigma: float
    size: int | None = None
    kind: ClassVar[str] = "Gaussian blur"

    def __post_init__(self) -> None:
        self._within("sigma", 0, 1000)
        if self.size is not None:
            self._odd("size")

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        return rounded(
            blurred(frame, self.sigma, 2 * int(4 * self.sigma + 0.5) + 1 if self.size is None else self.size)
        )


@dataclass(frozen=True)
class DefocusBlur(FrameShift):
    """Convolution with a disk of weight one, smoothed by a small Gaussian against stairs; the edges mirror.

    The disk is summed row by row: rows of one width are added first, then summed along by one running sum.

    Attributes:
        radius: px. smooth: standard deviation of that Gaussian, px; its kernel is 3 px wide up to radius 8, else 5.
    """

    radius: int
    smooth: float
    kind: ClassVar[str] = "defocus blur"

    def __post_init__(self) -> None:
        self._within("radius", 0, 100)
        self._within("smooth", 0, 10)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        r, t = self.radius, 1 if self.radius <= 8 else 2
        reach = r + t
        padded = cv2.copyMakeBorder(frame, reach, reach, reach, reach, cv2.BORDER_REFLECT_101).astype(np.uint16)
        height = frame.shape[0] + 2 * t
        total: Plane | None = None
        for half, rows in _chords(r):
            summed = padded[reach - t + rows[0] :][:height].copy()
            for row in rows[1:]:
                summed += padded[reach - t + row :][:height]
            along = cv2.boxFilter(summed, cv2.CV_32F, (2 * half + 1, 1), normalize=False)
            total = along if total is None else cv2.add(total, along, dst=total)
        kernel = gaussian(self.smooth, 2 * t + 1)
        weight = np.float32(1 / sum((2 * half + 1) * len(rows) for half, rows in _chords(r)))
        smooth = cv2.sepFilter2D(total, cv2.CV_32F, kernel * weight, kernel)
        return rounded(smooth[t:-t, reach:-reach])


@dataclass(frozen=True)
class MotionBlur(FrameShift):
    """Copies of the frame along a line, each a pixel further and with less weight; pixels at the edge repeat.

    The angle is drawn from -45 to 45 degrees for each frame.

    Attributes:
        radius: the line has 2 ``radius`` + 1 px. sigma: px; weights fall as a Gaussian from the first copy on.
    """

    radius: int
    sigma: float
    kind: ClassVar[str] = "motion blur"

    def __post_init__(self) -> None:
        self._within("radius", 0, 500)
        self._within("sigma", 0.1, 1000)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        angle = math.radians(draws.uniform(-45, 45))
        steps = np.arange(2 * self.radius + 1)
        down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (math.sin(angle), math.cos(angle)))
        weights = np.exp(-0.5 * (steps / self.sigma) ** 2)
        weights /= weights.sum()
        above, below = max(-int(down.min()), 0), max(int(down.max()), 0)
        line = cv2.copyMakeBorder(frame, above, below, 0, int(right.max()), cv2.BORDER_REPLICATE).astype(np.float32)
        total = np.zeros(frame.shape, np.float32)
        for dy, dx, weight in zip(down + above, right, weights, strict=True):
            cv2.scaleAdd(line[dy : dy + frame.shape[0], dx : dx + frame.shape[1]], float(weight), total, total)
        return rounded(total)


@dataclass(frozen=True)
class ZoomBlur(FrameShift):
    """Mean of the frame and of its enlargements by 1, 1 + step, 1 + 2 step … below ``stop``.

    Attributes:
        stop, step: factors, as of NumPy's ``arange(1, stop, step)``.
    """

    stop: float
    step: float
    kind: ClassVar[str] = "zoom blur"

    def __post_init__(self) -> None:
        self._within("stop", 1, 10)
        self._within("step", 1e-3, 10)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        height, width = frame.shape[:2]
        pixels = frame.astype(np.float32)
        total = pixels.copy()
        layer = np.empty_like(pixels)
        factors = np.arange(1, self.stop, self.step)
        for factor in factors:
            (top, fall), (left, run) = _spread(height, float(factor)), _spread(width, float(factor))
            there = np.array([[run, 0, left], [0, fall, top]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            cv2.warpAffine(pixels, there, (width, height), layer, flags, cv2.BORDER_REPLICATE)
            cv2.add(total, layer, total)
        return rounded(total, 1 / (len(factors) + 1))


def blurred(frame: NDArray[np.uint8] | Plane, sigma: float, size: int, edge: int = cv2.BORDER_REPLICATE) -> Plane:
    """float32 of the shape given, convolved with a Gaussian of ``size`` x ``size`` px that sums to one."""
    kernel = gaussian(sigma, size)
    return np.asarray(cv2.sepFilter2D(frame, cv2.CV_32F, kernel, kernel, borderType=edge), np.float32)


@lru_cache(maxsize=64)
def gaussian(sigma: float, size: int) -> Plane:
    """(size,) weights exp(-d^2 / 2 sigma^2) that sum to one; all in the middle where sigma is 0."""
    away = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (away / sigma) ** 2) if sigma > 0 else (away == 0).astype(float)
    return np.asarray(weights / weights.sum(), np.float32)


def rounded(pixels: Plane, scale: float = 1.0) -> Frame:
    """Times ``scale``, to the nearest whole number of 0 to 255; ``pixels`` are not negative beyond rounding."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=scale), np.uint8)


@lru_cache(maxsize=16)
def _chords(radius: int) -> list[tuple[int, list[int]]]:
    """Rows of a disk by their width: half-width w and all dy with w = floor(sqrt(radius^2 - dy^2))."""
    rows: dict[int, list[int]] = defaultdict(list)
    for dy in range(-radius, radius + 1):
        rows[math.isqrt(radius**2 - dy**2)].append(dy)
    return list(rows.items())


def _spread(length: int, factor: float) -> tuple[float, float]:
    """(start, step) px: the middle ceil(length / factor) px spread so that ends stay ends."""
    crop = math.ceil(length / factor)
    out = round(crop * factor)
    return float((length - crop) // 2), (crop - 1) / (out - 1) if out > 1 else 0.0
