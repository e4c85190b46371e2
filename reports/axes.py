"""Linear axes: from numbers to pixels, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from reports.words import number


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, in px, and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear map of [low, high] onto [start, end] px; ``end`` may be the smaller one (y axes grow upwards)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Pixel of ``value``, to a hundredth; values outside are held at the ends."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 2)


def round_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that cuts ``span`` into at most ``count`` steps."""
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power >= raw * (1 - 1e-9))


def axis(values: Iterable[float | None], start: float, end: float, *, steps: int = 4, tight: bool = False) -> Axis:
    """An axis that holds all ``values``.

    Where all lie in [0, 1] it is [0, 1], so that shares are never magnified; ``tight`` drops that rule.
    Otherwise the ends are round numbers around the values.
    """
    known = [float(v) for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if not tight and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        pad = abs(low) / 2 or 0.5
        low, high = low - pad, high + pad
    step = round_step(high - low, steps)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    bare = Axis(low, high, start, end)
    marks = [low + i * step for i in range(round((high - low) / step) + 1)]
    return Axis(low, high, start, end, tuple(Tick(bare.at(m), _tick(m, step)) for m in marks))


def _tick(value: float, step: float) -> str:
    if abs(value) < step * 1e-6:
        return "0"
    if step >= 1e5 or step < 1e-4:
        return number(value)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return f"{value:.{decimals}f}".replace("-", "−")
