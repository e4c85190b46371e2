"""When a remote model is asked again, and how fast: exponential back-off with seeded jitter, and a token bucket."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from audit.adapters.checks import refuse

Again = Literal["always", "once", "never"]


@dataclass(frozen=True)
class Trouble:
    """Why there is no answer.

    Attributes:
        expected, got, mend: for the one sentence. again: whether asking again may help; ``once`` for an answer that
            makes no sense: a second such one is no accident. wait: seconds that the server asked for.
    """

    expected: str
    got: str
    mend: str
    again: Again = "always"
    wait: float | None = None


@dataclass(frozen=True)
class Retry:
    """How often and when to ask again.

    The k-th wait (k from 0) is ``min(longest, first * 2^k) * u`` seconds, u uniform in [0.5, 1]; where the server says
    ``Retry-After``, at least that.

    Attributes:
        retries: at most so many, per request. first, longest: seconds.
    """

    retries: int = 4
    first: float = 0.5
    longest: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or not 0 <= self.retries <= 100:
            refuse("retries", "a whole number from 0 to 100", repr(self.retries), "4 is a usual one")
        seconds("backoff", self.first)
        seconds("longest_wait", self.longest)

    def allows(self, trouble: Trouble, earlier: list[Trouble]) -> bool:
        """Whether to ask again after this trouble, given those before it in the same request."""
        if trouble.again == "never" or len(earlier) >= self.retries:
            return False
        if trouble.wait is not None and trouble.wait > self.longest:
            return False
        return trouble.again == "always" or not any(t.again == "once" for t in earlier)

    def wait(self, trouble: Trouble, earlier: list[Trouble], stream: random.Random) -> float:
        """Seconds until the next try."""
        usual = min(self.longest, self.first * 2.0 ** len(earlier)) * stream.uniform(0.5, 1)
        return max(usual, trouble.wait or 0.0)


class Pace:
    """A token bucket: at most ``rate`` requests per second in the long run, at most ``burst`` at once.

    Args:
        rate: tokens per second; None for no limit. burst: tokens that the bucket holds, full at first.
    """

    def __init__(self, rate: float | None, burst: int = 1) -> None:
        if rate is not None:
            seconds("rate_limit", rate)
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._then = time.monotonic()

    def __call__(self) -> None:
        """Wait for a token and take it."""
        if self._rate is None:
            return
        self._fill()
        if self._tokens < 1:
            time.sleep((1 - self._tokens) / self._rate)
            self._fill()
        self._tokens -= 1

    def _fill(self) -> None:
        now = time.monotonic()
        assert self._rate is not None
        self._tokens = min(float(self._burst), self._tokens + (now - self._then) * self._rate)
        self._then = now


def retry_after(value: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, a number or an HTTP date; None where it says neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return min(float(value), 1e9)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def seconds(name: str, value: float) -> float:
    """A finite number over 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        refuse(name, "a number over 0", repr(value), "give it in seconds, or requests per second")
    return float(value)
