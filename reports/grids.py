"""Grids laid out: the text of each cell and how dark it is, for the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from audit.record import Grid
from reports.words import number, short, small_share

LEVELS = 6
"""Steps of the background, from ``t0`` (smallest) to ``t5`` (largest)."""
MARK = "◆"
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as it is shown.

    Attributes:
        text: the number, or :data:`NOTHING`. level: 0 to ``LEVELS`` − 1; ``None`` where there is no number or scale.
        marked: it is one of the grid's marks.
    """

    text: str
    level: int | None
    marked: bool


@dataclass(frozen=True, slots=True)
class GridTable:
    """A grid ready to be laid out.

    Attributes:
        rows: (name, cells) in order. scale: from where to where each level goes; empty where all values are the same.
        marked, missing: there is a cell of that kind.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    scale: tuple[str, ...]
    marked: bool
    missing: bool


def grid_table(grid: Grid) -> GridTable:
    """The cells of a grid. Shares are shaded over [0, 1], other units over the range of the values.

    A value that is missing from a row stands as nothing measured; marks outside of the grid are left aside.
    """
    columns = max([len(grid.columns), *(len(v) for v in grid.values)], default=0)
    names = [*grid.columns, *(f"{i + 1}" for i in range(len(grid.columns), columns))]
    titles = [*grid.rows, *(f"{i + 1}" for i in range(len(grid.rows), len(grid.values)))]
    values = [
        [*row, *[None] * (columns - len(row))] for row in [*grid.values, *[[]] * (len(titles) - len(grid.values))]
    ]
    known = [v for row in values for v in row if v is not None]
    share = grid.unit == "share" and all(0 <= v <= 1 for v in known)
    low, high = (0.0, 1.0) if share else (min(known, default=0.0), max(known, default=0.0))
    marks = {(i, j) for i, j in grid.marks if 0 <= i < len(titles) and 0 <= j < columns}
    places = 3 if share else decimals(known, high - low)

    def cell(i: int, j: int, v: float | None) -> Cell:
        text = NOTHING if v is None else small_share(v) if share else plain(v, places)
        return Cell(text, level(v, low, high), (i, j) in marks)

    # As many digits as tell the steps apart: 1000.1 and 1000.4 are two colours, not one.
    digits = 3 if high <= low else max(3, 2 + math.ceil(math.log10(max(abs(low), abs(high)) / (high - low))))
    edges = [short(float(f"{low + (high - low) * i / LEVELS:.{digits}g}")) for i in range(LEVELS + 1)]
    return GridTable(
        columns=tuple(names),
        rows=tuple(
            (title, tuple(cell(i, j, v) for j, v in enumerate(row)))
            for i, (title, row) in enumerate(zip(titles, values, strict=True))
        ),
        scale=tuple(f"{a} to {b}" for a, b in pairwise(edges)) if known and high > low else (),
        marked=bool(marks),
        missing=len(known) < len(titles) * columns,
    )


def decimals(values: list[float], spread: float = 0.0) -> int:
    """Decimals that suit all values of a grid: none for whole numbers, else four digits of the largest, at most 3.

    ``spread``: largest less smallest value; decimals are enough to show two digits of it, at most 6.
    """
    if all(v == int(v) for v in values):
        return 0
    told = min(6, 1 - math.floor(math.log10(spread))) if spread > 0 else 0
    return max(min(3, max(0, 3 - math.floor(math.log10(max(abs(v) for v in values))))), told)


def plain(value: float, places: int) -> str:
    """A number with so many decimals; one that they cannot show as it is written by ``words.number``."""
    if (value and abs(value) < 0.5 * 10.0**-places) or abs(value) >= 1e6:
        return number(float(value))
    return f"{value:.{places}f}".replace("-", "−")


def level(value: float | None, low: float, high: float) -> int | None:
    """The step of the background for a value in [low, high]; ``None`` without a value or a range."""
    if value is None or not high > low:
        return None
    return min(LEVELS - 1, max(0, math.floor((value - low) / (high - low) * LEVELS)))
