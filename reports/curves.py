"""Geometry of curves, and the numbers beside them. Coordinates as in ``reports.figures``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.record import Curve, Series
from reports.axes import Axis, axis
from reports.words import number

DASHES = ("", "8 4", "2 3", "10 4 2 4", "5 3 1 3", "14 4")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
STYLES = 6
"""Colour classes ``s0`` … ``s5`` of the style sheet; dash and shape go with them and shift by one each round."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series: path data, style number, marker places and the end label's two heights (line end, label)."""

    name: str
    style: int
    dash: str
    shape: str
    path: str
    marks: tuple[tuple[float, float], ...]
    end: tuple[float, float] | None
    label_y: float


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of lines."""

    width: int
    height: int
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    mark: float | None
    mark_anchor: str
    label_x: float
    title: str


def plot(curve: Curve, *, width: int = 900, height: int = 320) -> Plot:
    """The lines of a curve with end labels that do not touch one another."""
    left, right, top, bottom = 58, 230, 38, 46
    xs = [v for s in curve.series for v in s.x]
    ax = axis([*xs, curve.mark_x], left, width - right, steps=6, tight=True)
    ay = axis([v for s in curve.series for v in s.y], height - bottom, top, steps=4)
    lines = [_line(s, i, ax, ay) for i, s in enumerate(curve.series)]
    heights = _spread([ln.end[1] if ln.end else ay.start for ln in lines], 17.0, top, height - bottom)
    mark = None if curve.mark_x is None else ax.at(curve.mark_x)
    return Plot(
        width=width,
        height=height,
        x=ax,
        y=ay,
        lines=tuple(
            Line(ln.name, ln.style, ln.dash, ln.shape, ln.path, ln.marks, ln.end, h)
            for ln, h in zip(lines, heights, strict=True)
        ),
        mark=mark,
        mark_anchor="end" if mark is not None and mark > (ax.start + ax.end) / 2 else "start",
        label_x=width - right + 26,
        title=f"{curve.title}. " + " ".join(f"{_series_text(s, curve)}." for s in curve.series),
    )


def _line(series: Series, index: int, ax: Axis, ay: Axis) -> Line:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y, strict=False):
        if y is None:
            runs.append([])
        else:
            runs[-1].append((ax.at(x), ay.at(y)))
    points = [p for run in runs for p in run]
    path = "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in run) for run in runs if run)
    # A few markers, staggered from series to series, so that shapes stay apart where lines run together.
    stride = max(1, len(points) // 6)
    marks = tuple(points[(index * stride // STYLES) % stride :: stride])
    turn = index // STYLES
    return Line(
        series.name,
        index % STYLES,
        DASHES[(index + turn) % STYLES],
        SHAPES[(index + turn) % STYLES],
        path,
        marks,
        points[-1] if points else None,
        0.0,
    )


def _spread(wanted: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Heights as near to ``wanted`` as may be, at least ``gap`` apart, in the same order."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    placed: list[float] = []
    for i in order:
        placed.append(max(wanted[i], placed[-1] + gap) if placed else max(wanted[i], top))
    if placed and placed[-1] > bottom:
        placed[-1] = bottom
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    out = [0.0] * len(wanted)
    for i, y in zip(order, placed, strict=True):
        out[i] = round(y, 2)
    return out


def _series_text(series: Series, curve: Curve) -> str:
    pairs = [(x, y) for x, y in zip(series.x, series.y, strict=False) if y is not None]
    if not pairs:
        return f"{series.name}: no values"
    ys = [y for _, y in pairs]
    text = f"{series.name}: {number(ys[0])} at {number(pairs[0][0])}, {number(ys[-1])} at {number(pairs[-1][0])}"
    text += f", lowest {number(min(ys))}, highest {number(max(ys))}"
    if curve.mark_x is not None:
        x, y = min(pairs, key=lambda p: abs(p[0] - (curve.mark_x or 0.0)))
        text += f", {number(y)} at {number(x)} nearest the mark"
    return text


@dataclass(frozen=True, slots=True)
class CurveTable:
    """The numbers beside a curve: some rows out of ``points``; ``shares`` where every y lies in [0, 1]."""

    heads: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]
    points: int
    x_columns: tuple[int, ...]
    shares: bool


def curve_table(curve: Curve, limit: int = 11) -> CurveTable:
    """Rows at evenly spaced recorded points, first and last among them, and the one nearest the mark.

    Series over the same x share its column; otherwise each series brings its own.
    """
    longest = max((len(s.x) for s in curve.series), default=0)
    if longest == 0:
        return CurveTable((), (), 0, (), shares=False)
    picks = {round(i * (longest - 1) / max(min(limit, longest) - 1, 1)) for i in range(min(limit, longest))}
    first = curve.series[0].x
    shared = all(s.x == first for s in curve.series)
    if shared:
        if curve.mark_x is not None:
            picks.add(min(range(longest), key=lambda i: abs(first[i] - (curve.mark_x or 0.0))))
        heads = (curve.x_label, *(s.name for s in curve.series))
        body = tuple((first[i], *(_get(s.y, i) for s in curve.series)) for i in sorted(picks))
    else:
        heads = tuple(h for s in curve.series for h in (curve.x_label, s.name))
        body = tuple(tuple(v for s in curve.series for v in (_get(s.x, i), _get(s.y, i))) for i in sorted(picks))
    columns = (0,) if shared else tuple(range(0, len(heads), 2))
    shares = all(y is None or 0 <= y <= 1 for s in curve.series for y in s.y)
    return CurveTable(heads, body, longest, columns, shares)


def _get(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None
