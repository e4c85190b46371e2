"""Shifts that change each frame for itself: what they share, and the random numbers of a frame."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from audit.errors import DataError
from audit.shifts import Frame


class Draws:
    """The random numbers of one frame: a stream of its own from (seed, index), begun when something is drawn.

    Only the bits of SFC64 are taken from NumPy, which never changes them.

    Args:
        seed, index: not negative.
    """

    def __init__(self, seed: int, index: int) -> None:
        self._of = (seed, index)

    @cached_property
    def _bits(self) -> np.random.SFC64:
        return np.random.SFC64(np.random.SeedSequence(self._of))

    def words(self, *shape: int) -> NDArray[np.uint16]:
        """Whole numbers, each of 0 to 65535 as likely as another."""
        count = math.prod(shape)
        raw = np.asarray(self._bits.random_raw((count + 3) // 4), dtype="<u8")
        return raw.view("<u2")[:count].reshape(shape)

    def uniform(self, low: float, high: float) -> float:
        """One number of [low, high)."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) / 2**53


class FrameShift(ABC):
    """A ``Shift`` of level ``image``. Subclasses are frozen dataclasses whose fields are all that determines them.

    Attributes:
        kind: what it does, in the words of the field.
    """

    level: ClassVar[Literal["image"]] = "image"
    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """A few words for tables."""
        values = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self._fields().values())
        return f"{self.kind} {values}" if values else self.kind

    def spec(self) -> dict[str, Any]:
        """What it does and with which numbers, as JSON."""
        return {"shift": self.kind, **self._fields()}

    def apply(self, frames: Sequence[Frame], *, fps: float = 0.0, seed: int) -> list[Frame]:
        """Frames of the sizes given, each changed by random numbers of its own.

        Args:
            frames: uint8 (H, W, 3) RGB, at least one pixel each; they stay as they are. seed: not negative.

        Raises:
            ValueError: a frame of another kind, or a negative seed.
        """
        del fps
        return [self.changed(_sound(f), Draws(seed, i)) for i, f in enumerate(frames)]

    @abstractmethod
    def changed(self, frame: Frame, draws: Draws) -> Frame:
        """The frame changed, in memory of its own."""

    def _fields(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}  # type: ignore[call-overload]

    def _within(self, what: str, low: float, high: float) -> None:
        """Raises DataError where the field ``what`` is not within [low, high]."""
        value = getattr(self, what)
        if not low <= value <= high:
            self._refuse(f"{what} from {low:g} to {high:g}", value)

    def _odd(self, what: str) -> None:
        """Raises DataError where the field ``what`` is no odd number up to 999."""
        value = getattr(self, what)
        if value not in range(1, 1000, 2):
            self._refuse(f"{what} to be an odd number of 1 to 999", value)

    def _refuse(self, expected: str, got: object) -> NoReturn:
        raise DataError(
            f"shift {self.kind}", expected=expected, got=repr(got), mend="choose a number within these bounds"
        )


def _sound(frame: Frame) -> Frame:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(f"expected uint8 frames (H, W, 3), got {frame.dtype} {frame.shape}")
    return np.ascontiguousarray(frame)
