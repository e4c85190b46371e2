"""From a number, its limit and the attack's health to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from audit.record import Diagnostic, Limit, Measure, Verdict


def decide(
    measure: Measure | None,
    limit: Limit | None,
    diagnostics: Sequence[Diagnostic] = (),
    rule: Literal["interval", "point"] = "interval",
) -> tuple[Verdict, str]:
    """The verdict on one control, with the reason as a sentence.

    ``interval``: pass where the whole interval is on the good side of the limit, fail where all of it is on the bad
    side, inconclusive otherwise. ``point``: the value alone decides. A raised diagnostic turns a pass into
    inconclusive, never a failure into anything better. Nothing measured is inconclusive.
    """
    if measure is None or measure.value is None or measure.n == 0:
        return "inconclusive", "Nothing was measured: no object was left to count."
    if limit is None:
        return "inconclusive", "No limit was written down for this control."
    sign = 1.0 if limit.op == "min" else -1.0
    low, high = measure.low, measure.high
    if rule == "point":
        low = high = measure.value
    if low is None or high is None:
        return "inconclusive", f"{measure.name} {_number(measure.value)}, but no interval could be given."
    worst, best = (low, high) if limit.op == "min" else (high, low)
    words = f"{measure.name} {_number(measure.value)}"
    if rule == "interval":
        words += f" [{_number(measure.low)}, {_number(measure.high)}]"
    bound = f"{'at least' if limit.op == 'min' else 'at most'} {_number(limit.value)}"
    if sign * (worst - limit.value) >= 0:
        raised = [d for d in diagnostics if d.raised]
        if raised:
            return (
                "inconclusive",
                f"{words} is within the limit ({bound}), but no pass stands on it: "
                + "; ".join(d.meaning.rstrip(".") for d in raised)
                + ".",
            )
        return "pass", f"{words}; required {bound}."
    if sign * (best - limit.value) < 0:
        return "fail", f"{words}; required {bound}."
    return "inconclusive", f"{words} lies on both sides of the limit ({bound}); more images would narrow the interval."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
