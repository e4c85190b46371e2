"""Brightness, contrast and colour."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from audit.shifts import Frame
from probes.forgery.blurs import rounded
from probes.forgery.frame_shift import Draws, FrameShift

_LEVELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True)
class Brightness(FrameShift):
    """V + ``more`` in HSV, V = max(R, G, B) in [0, 1], cut to [0, 1]; hue and saturation stay, black becomes grey."""

    more: float
    kind: ClassVar[str] = "brightness"

    def __post_init__(self) -> None:
        self._within("more", -1, 1)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        value = np.clip(_LEVELS + np.float32(255 * self.more), 0, 255)
        most = _greatest(frame)
        gain = cv2.LUT(most, value / np.maximum(_LEVELS, 1))
        out = np.asarray(cv2.multiply(frame, cv2.merge([gain] * 3), dtype=cv2.CV_8U), np.uint8)
        black = most == 0
        if value[0] and black.any():
            out[black] = np.rint(value[0])
        return out


@dataclass(frozen=True)
class Contrast(FrameShift):
    """(x - m) ``keep`` + m, m the mean of each channel over the frame."""

    keep: float
    kind: ClassVar[str] = "contrast"

    def __post_init__(self) -> None:
        self._within("keep", 0, 10)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        mean = np.array(cv2.mean(frame)[:3])
        return _looked_up(frame, (_LEVELS[:, None] - mean) * self.keep + mean)


@dataclass(frozen=True)
class Saturate(FrameShift):
    """S ``times`` + ``more`` in HSV, cut to [0, 1]. Grey has hue 0: where ``more`` > 0 it turns red, as published."""

    times: float
    more: float = 0.0
    kind: ClassVar[str] = "saturation"

    def __post_init__(self) -> None:
        self._within("times", 0, 1000)
        self._within("more", -1, 1)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        most = _greatest(frame)
        least = _least(frame)
        gain = np.take(_saturations(self.times, self.more), most.astype(np.uint16) << 8 | least, mode="clip")
        base = cv2.multiply(most, 1 - gain, dtype=cv2.CV_32F)
        out = rounded(cv2.add(cv2.multiply(frame, cv2.merge([gain] * 3), dtype=cv2.CV_32F), cv2.merge([base] * 3)))
        grey = most == least
        if self.more > 0 and grey.any():
            out[grey, 1:] = np.rint(most[grey, None] * (1 - self.more))
        return out


@dataclass(frozen=True)
class Hue(FrameShift):
    """The hue turned by ``turn`` of the circle in HSV: 1/3 makes red green."""

    turn: float
    kind: ClassVar[str] = "hue"

    def __post_init__(self) -> None:
        self._within("turn", -1, 1)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        hsv = cv2.cvtColor(frame.astype(np.float32), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * self.turn) % 360
        return rounded(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


@dataclass(frozen=True)
class Gamma(FrameShift):
    """x to the power of ``exponent``, x in [0, 1]; below 1 it brightens."""

    exponent: float
    kind: ClassVar[str] = "gamma"

    def __post_init__(self) -> None:
        self._within("exponent", 0.01, 100)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        return _looked_up(frame, np.repeat(255 * (_LEVELS[:, None] / 255.0) ** self.exponent, 3, 1))


@dataclass(frozen=True)
class WhiteBalance(FrameShift):
    """R (1 + ``warmth``), B (1 - ``warmth``): a camera that takes the light for colder than it is, or for warmer."""

    warmth: float
    kind: ClassVar[str] = "white balance"

    def __post_init__(self) -> None:
        self._within("warmth", -1, 1)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        del draws
        return _looked_up(frame, _LEVELS[:, None] * np.array([1 + self.warmth, 1, 1 - self.warmth]))


def _looked_up(frame: Frame, values: NDArray[np.floating]) -> Frame:
    """``values`` (256, 3): what each channel's values become, rounded and cut to 0 to 255."""
    table = np.rint(values).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(frame, table[None]), np.uint8)


def _greatest(frame: Frame) -> NDArray[np.uint8]:
    r, g, b = cv2.split(frame)
    return np.asarray(cv2.max(cv2.max(r, g), b), np.uint8)


def _least(frame: Frame) -> NDArray[np.uint8]:
    r, g, b = cv2.split(frame)
    return np.asarray(cv2.min(cv2.min(r, g), b), np.uint8)


@lru_cache(maxsize=8)
def _saturations(times: float, more: float) -> NDArray[np.float32]:
    """(65536,): new over old saturation by 256 max + min; 0 where there is none."""
    most = np.arange(256.0)[:, None]
    old = np.where(most > 0, 1 - np.arange(256.0) / np.maximum(most, 1), 0).clip(0, 1)
    new = np.clip(old * times + more, 0, 1)
    return np.asarray(np.divide(new, old, out=np.zeros_like(old), where=old > 0), np.float32).ravel()
