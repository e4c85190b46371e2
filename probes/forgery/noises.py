"""Noise of cameras and channels: Gaussian, shot, impulse and speckle.

What is added is drawn from tables: 16 random bits choose one of 65536 equally likely values, the quantiles at
(i + 1/2) / 65536. A normal number is cut at 4.3 standard deviations by that and is otherwise as good as eight bits per
channel can show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from audit.shifts import Frame
from probes.forgery.frame_shift import Draws, FrameShift

_WORDS = 1 << 16


@dataclass(frozen=True)
class GaussianNoise(FrameShift):
    """x + n, n normal with mean 0, independent for each pixel and channel.

    Attributes:
        sigma: standard deviation as a share of the full scale (0.08 is 20.4 of 255).
    """

    sigma: float
    kind: ClassVar[str] = "Gaussian noise"

    def __post_init__(self) -> None:
        self._within("sigma", 0, 10)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        return with_noise(frame, _steps(self.sigma), draws)


@dataclass(frozen=True)
class SpeckleNoise(FrameShift):
    """x (1 + n), n normal with mean 0, independent for each pixel and channel.

    Attributes:
        sigma: standard deviation of n.
    """

    sigma: float
    kind: ClassVar[str] = "speckle noise"

    def __post_init__(self) -> None:
        self._within("sigma", 0, 10)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        gain = np.take(_gains(self.sigma), draws.words(*frame.shape), mode="clip")
        return np.asarray(cv2.multiply(frame, gain, dtype=cv2.CV_8U), np.uint8)


@dataclass(frozen=True)
class ShotNoise(FrameShift):
    """Poisson(c x) / c for x in [0, 1], independent for each pixel and channel.

    Each value has a table of its own after Walker (1977): one draw chooses a column, another one of its two outcomes.

    Attributes:
        photons: c, how many a white pixel has on average, more than 0.
    """

    photons: float
    kind: ClassVar[str] = "shot noise"

    def __post_init__(self) -> None:
        self._within("photons", 1e-3, 255)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        cut, other, levels = _walker(self.photons)
        column, chance = draws.words(2, *frame.shape)
        column = column & (len(levels) - 1)
        at = frame.astype(np.uint16) * np.uint16(len(levels)) + column
        own = np.take(levels, column, mode="clip")
        chosen = np.where(chance < np.take(cut, at, mode="clip"), own, np.take(other, at, mode="clip"))
        return np.asarray(chosen, np.uint8)


@dataclass(frozen=True)
class ImpulseNoise(FrameShift):
    """Salt and pepper: each pixel and channel is with probability ``amount`` / 2 set to 0, with as much to 255."""

    amount: float
    kind: ClassVar[str] = "impulse noise"

    def __post_init__(self) -> None:
        self._within("amount", 0, 1)

    def changed(self, frame: Frame, draws: Draws) -> Frame:
        words = draws.words(*frame.shape)
        hit = round(self.amount * _WORDS)
        if hit == _WORDS:
            return np.where(words < _WORDS // 2, np.uint8(0), np.uint8(255))
        kept = words >= np.uint16(hit // 2)
        salt = kept & (words < np.uint16(hit))
        return np.asarray(frame * kept | salt * np.uint8(255), np.uint8)


def with_noise(frame: Frame, steps: NDArray[np.int16], draws: Draws) -> Frame:
    """The frame plus one of 65536 equally likely ``steps`` for each pixel and channel, within 0 to 255."""
    return np.asarray(cv2.add(frame, np.take(steps, draws.words(*frame.shape), mode="clip"), dtype=cv2.CV_8U), np.uint8)


def steps_of(levels: float) -> NDArray[np.int16]:
    """(65536,) equally likely normal numbers of a standard deviation in grey levels, rounded as the sum would be."""
    return np.asarray(np.rint(_normal() * np.float32(levels)), np.int16)


@lru_cache(maxsize=8)
def _steps(sigma: float) -> NDArray[np.int16]:
    return steps_of(255 * sigma)


@lru_cache(maxsize=8)
def _gains(sigma: float) -> NDArray[np.float32]:
    return (1 + _normal() * np.float32(sigma)).astype(np.float32)


@lru_cache(maxsize=1)
def _normal() -> NDArray[np.float32]:
    return np.asarray(special.ndtri((np.arange(_WORDS) + 0.5) / _WORDS), np.float32)


@lru_cache(maxsize=8)
def _walker(photons: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Tables of K columns, K a power of two, for the 256 values.

    Returns:
        (256 K,) uint16: under which of 65536 the outcome is the column's own; (256 K,) uint8: the level of the other
        outcome; (K,) uint8: the level of the column's own.
    """
    most = math.ceil(photons)  # so many or more photons are white
    columns = 1 << most.bit_length()
    mean = np.arange(256)[:, None] / 255 * photons
    share = np.zeros((256, columns))
    share[:, :most] = stats.poisson.pmf(np.arange(most), mean)
    share[:, most] = stats.poisson.sf(most - 1, mean)[:, 0]
    share *= columns
    levels = np.rint(np.minimum(np.arange(columns) / photons, 1) * 255).astype(np.uint8)
    rows, other = np.arange(256), np.tile(levels, (256, 1))
    cut = np.ones_like(share)
    done = np.zeros(share.shape, bool)
    for _ in range(columns - 1):  # the poorest column is filled up by the richest, and is done
        poor, rich = np.where(done, np.inf, share).argmin(1), np.where(done, -np.inf, share).argmax(1)
        cut[rows, poor], other[rows, poor] = share[rows, poor], levels[rich]
        share[rows, rich] -= 1 - share[rows, poor]
        done[rows, poor] = True
    bits = np.rint(np.clip(cut, 0, 1) * _WORDS).clip(0, _WORDS - 1).astype(np.uint16)
    return bits.ravel(), other.ravel(), levels
