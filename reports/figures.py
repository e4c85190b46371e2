"""Geometry of intervals against limits. The templates draw what stands here; nothing here knows of markup.

All coordinates are px of a figure's own view box, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.record import Condition, Limit, Measure
from reports.axes import Axis, axis
from reports.words import beside, count, interval, number, spoken

_LETTER = 8.2  # px per character of the value label, an upper estimate for 14 px bold


@dataclass(frozen=True, slots=True)
class Label:
    """Where a text stands: ``x`` is its start, middle or end, as ``anchor`` says; above the interval, or beside it."""

    x: float
    anchor: str
    above: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """An interval, a point and a limit on one axis; ``None`` where a number is not known.

    ``good`` is the (x, width) of the side that the limit asks for. ``anchor`` is the side of the limit's label.
    """

    width: int
    height: int
    axis: Axis
    value: float | None
    low: float | None
    high: float | None
    limit: float | None
    good: tuple[float, float] | None
    anchor: str
    label: Label | None
    value_text: str
    limit_text: str
    title: str


def strip(measure: Measure | None, limit: Limit | None, *, width: int = 900, height: int = 92) -> Strip:
    """The strip plot of a control; the axis gives way on the right where its label finds no other place."""
    m = measure or Measure(name="Nothing measured")
    edge = limit.value if limit else None
    text = f"{beside(m.value, edge)} {interval(m.low, m.high, edge)}".strip() if m.value is not None else "no value"
    for end in (width - 24, width - 50 - _LETTER * len(text)):
        ax = axis([m.value, m.low, m.high, edge], 24, end, steps=5)
        drawn = _strip(m, limit, ax, width, height, text)
        if drawn.label is not None:
            break
    return drawn


def mini(measure: Measure, limit: Limit | None, *, width: int = 150, height: int = 24) -> Strip:
    """The same without words, for a table's cell."""
    ax = axis([measure.value, measure.low, measure.high, limit.value if limit else None], 6, width - 6, steps=2)
    return _strip(measure, limit, ax, width, height, "")


def _strip(m: Measure, limit: Limit | None, ax: Axis, width: int, height: int, text: str) -> Strip:
    edge = _at(ax, limit.value if limit else None)
    good = None
    if limit is not None and edge is not None:
        good = (edge, round(ax.end - edge, 2)) if limit.op == "min" else (ax.start, round(edge - ax.start, 2))
    known = [ax.at(v) for v in (m.value, m.low, m.high) if v is not None]
    value = _at(ax, m.value)
    return Strip(
        width=width,
        height=height,
        axis=ax,
        value=value,
        low=_at(ax, m.low),
        high=_at(ax, m.high),
        limit=edge,
        good=good,
        anchor="end" if edge is not None and edge > ax.end * 0.8 else "start",
        label=_label(
            value, min(known, default=ax.start), max(known, default=ax.start), edge, _LETTER * len(text), width
        ),
        value_text=text,
        limit_text=f"required at {'least' if limit.op == 'min' else 'most'} {number(limit.value)}" if limit else "",
        title=spoken(m, limit),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One condition: its strip on the table's shared axis."""

    condition: Condition
    strip: Strip


@dataclass(frozen=True, slots=True)
class Rows:
    """The conditions of one group over a shared axis."""

    group: str
    axis: Axis
    rows: tuple[Row, ...]
    width: int


def _label(
    value: float | None, left: float, right: float, limit: float | None, length: float, width: int
) -> Label | None:
    """Above the point, behind the interval, before it, or behind the limit: where it fits and crosses no line."""

    def free(start: float) -> bool:
        inside = start >= 0 and start + length <= width
        return inside and (limit is None or not start - 6 < limit < start + length + 6)

    if value is not None and free(value - length / 2):
        return Label(value, "middle", above=True)
    if free(right + 12):
        return Label(round(right + 12, 2), "start", above=False)
    if free(left - 12 - length):
        return Label(round(left - 12, 2), "end", above=False)
    if limit is not None and limit > right and free(limit + 10):
        return Label(round(limit + 10, 2), "start", above=False)
    return None


def rows(conditions: Sequence[Condition], *, width: int = 300, height: int = 22, pad: int = 14) -> list[Rows]:
    """The conditions by group, in the order in which groups first appear."""
    groups: dict[str, list[Condition]] = {}
    for c in conditions:
        groups.setdefault(c.group, []).append(c)
    out = []
    for name, members in groups.items():
        ax = axis([v for c in members for v in (c.value, c.low, c.high)], pad, width - pad, steps=4)
        out.append(Rows(name, ax, tuple(_row(c, ax, width, height) for c in members), width))
    return out


def _row(c: Condition, ax: Axis, width: int, height: int) -> Row:
    text = f"{c.name}: {number(c.value) if c.value is not None else 'no value'}"
    if c.low is not None or c.high is not None:
        text += f", interval {number(c.low)} to {number(c.high)}"
    if c.n is not None:
        text += f", {count(c.k, c.n)}"
    marks = Strip(
        width, height, ax, _at(ax, c.value), _at(ax, c.low), _at(ax, c.high), None, None, "start", None, "", "", text
    )
    return Row(c, marks)


def _at(ax: Axis, value: float | None) -> float | None:
    return None if value is None else ax.at(value)
