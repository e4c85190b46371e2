"""How the report writes numbers, verdicts and text of strangers: shared by page and terminal."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from audit.record import ORDER, Control, Limit, Measure, Verdict


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict as people see it: a word, a symbol and a plain symbol for terminals without Unicode."""

    word: str
    symbol: str
    plain: str
    plural: str


BADGES: dict[Verdict, Badge] = {
    "fail": Badge("FAIL", "✖", "x", "failed"),
    "error": Badge("ERROR", "▲", "!", "in error"),
    "inconclusive": Badge("INCONCLUSIVE", "◌", "?", "inconclusive"),
    "not_run": Badge("NOT RUN", "○", "o", "not run"),
    "waived": Badge("WAIVED", "◇", "w", "waived"),
    "pass": Badge("PASS", "✔", "+", "passed"),
    "not_applicable": Badge("NOT APPLICABLE", "–", "-", "not applicable"),
}

UNKNOWN = "—"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Characters that change how their neighbours are read: bidirectional marks, zero width, separators, tags.
_DECEPTIVE = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080)}
_DECEPTIVE |= {0x061C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF}


def visible(text: str) -> str:
    """``text`` with control, bidirectional and zero-width characters written as escapes; new lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{ord(c):04x}"
        if ord(c) in _DECEPTIVE or (unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t")
        else c
        for c in text
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: shares with ``digits`` decimals, large ones with fewer, very small ones as a power of ten.

    ``None`` is a dash. The minus is U+2212, so that a number never breaks after it.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value).replace("-", "−")
    size = abs(value)
    if size and (size < 10.0**-digits or size >= 1e6):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    elif size >= 2 and value == int(value):
        text = str(int(value))
    else:
        text = f"{value:.{digits if size < 10 else max(digits - 1, 1) if size < 100 else 1}f}"
    return text.replace("-", "−")


def short(value: float | None) -> str:
    """A place on an axis, with no more digits than it has, at most six significant ones."""
    return UNKNOWN if value is None else f"{value:.6g}".replace("-", "−")


def small_share(value: float | None) -> str:
    """A share in a column of shares: three decimals throughout; what would read as nothing is ``< 0.001``."""
    if value is None:
        return UNKNOWN
    return "< 0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """A duration: ``3.4 s``, ``6 min 53 s``, ``1 h 12 min``."""
    if value is None:
        return UNKNOWN
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def beside(value: float | None, limit: float | None) -> str:
    """``value`` with as many decimals (at most six) as it takes to tell it from ``limit``."""
    if value is None or limit is None or value == limit:
        return number(value)
    return next((t for d in (3, 4, 5, 6) if (t := number(value, d)) != number(limit, d)), number(value, 6))


def interval(low: float | None, high: float | None, limit: float | None = None) -> str:
    """``[low, high]``, or nothing where neither end is known."""
    if low is None and high is None:
        return ""
    return f"[{beside(low, limit)}, {beside(high, limit)}]"


def required(limit: Limit | None) -> str:
    """``≥ 0.500`` or ``≤ 0.010``."""
    return UNKNOWN if limit is None else f"{'≥' if limit.op == 'min' else '≤'} {number(limit.value)}"


def count(k: int | None, n: int | None) -> str:
    """``41 of 192``; ``192`` where only n is known."""
    if k is None:
        return number(n)
    return f"{k} of {n}" if n is not None else f"{k} of an unknown number"


def spoken(measure: Measure, limit: Limit | None) -> str:
    """The measured number in one line of prose, for plot titles and screen readers."""
    edge = limit.value if limit else None
    parts = [f"{measure.name}: {beside(measure.value, edge) if measure.value is not None else 'no value'}"]
    if measure.unit and measure.unit != "share":
        parts[0] += f" {measure.unit}"
    if measure.low is not None or measure.high is not None:
        low, high = beside(measure.low, edge), beside(measure.high, edge)
        parts.append(f"{number(100 * measure.level, 0).rstrip('.')} % interval {low} to {high}")
    if measure.n is not None:
        parts.append(count(measure.k, measure.n))
    if limit is not None:
        parts.append(f"required: at {'least' if limit.op == 'min' else 'most'} {number(limit.value)}")
    return "; ".join(parts)


def margin(control: Control) -> float:
    """How far the measured value is on the good side of its limit; negative on the bad side, infinite if unknown."""
    if control.measure is None or control.measure.value is None or control.limit is None:
        return float("inf")
    gap = control.measure.value - control.limit.value
    return gap if control.limit.op == "min" else -gap


def worst_first(controls: list[Control]) -> list[Control]:
    """By verdict, then by margin to the limit, then by id."""
    return sorted(controls, key=lambda c: (ORDER.index(c.verdict), margin(c), c.id))


_UNDECIDED: dict[Verdict, str] = {
    "error": "The control raised an error, so nothing is known about this.",
    "inconclusive": "Not decided.",
    "not_run": "This control did not run, so nothing is known about this.",
    "not_applicable": "This control does not apply to this model.",
}


def statement(control: Control) -> str:
    """What is known now: the claim where it passed, the failure where it failed, else that it is not known."""
    if control.verdict == "pass":
        return control.title
    return _UNDECIDED.get(control.verdict) or control.failure


def title_case(key: str) -> str:
    """``labelled_by`` as ``Labelled by``."""
    words = key.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
