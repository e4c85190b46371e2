"""Where on the objects of a frame a patch is stuck: what a sidecar says, checked; and the table of corners (CSV)."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.assemble import Box, as_box, printable
from audit.errors import DataError

Points = NDArray[np.float64]
"""(P, 2) of (x, y) px."""

CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
BOX = ("box_x1", "box_y1", "box_x2", "box_y2")


@dataclass(frozen=True, slots=True)
class Target:
    """One object of one frame.

    Attributes:
        area: (4, 2) px, upper left, upper right, lower right, lower left of the area itself; None: nothing is stuck on.
        box: xyxy px of the object; None where the sidecar names none: the area's bounding box stands in.
        label: name of its class. name: tells one object of a frame from another, through the frames; one that nobody
            gave begins with ``#`` and is the object's place in its frame.
    """

    area: Points | None = None
    box: Box | None = None
    label: str = ""
    name: str = ""


@dataclass
class Marks:
    """What a sidecar says of a video.

    Attributes:
        frames: frame number -> its objects; an empty list is a frame without objects, a missing one is not annotated.
        hidden: frame number -> polygons of what stands in front of the areas.
        sizes: frame number -> (height, width) px that the marks were drawn on, where the sidecar says so.
    """

    source: str
    frames: dict[int, list[Target]] = field(default_factory=dict)
    hidden: dict[int, list[Points]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_areas_csv(path: Path, *, names: Sequence[str] = (), default_class: str = "car") -> Marks:
    """Marks of a CSV file ``frame,x1,y1,x2,y2,x3,y3,x4,y4[,class][,box_x1,box_y1,box_x2,box_y2][,object]``.

    One row per object and frame. Corners in px: upper left, upper right, lower right, lower left of the area itself,
    so clockwise as one looks at it. All eight empty: an object without area; those and the box empty: a frame
    without objects. Further columns are left aside.

    Args:
        names: file names of the frames, where they are files; ``frame`` may then be a name. A whole number always is
            the frame's place in the order, from 0.
        default_class: what the objects are where there is no column ``class``; the notes say so.

    Raises:
        DataError: unreadable, another header, a cell that is no number, corners that are not convex and clockwise, a
            box whose corners are not upper left and lower right, an object twice in a frame.
    """
    path = Path(path)
    subject = f"areas {printable(path.name)}"
    header, rows = _rows(path, subject)
    need = ("frame", *CORNERS)
    if not set(need) <= set(header):
        raise _broken(subject, f"the header {','.join(header)[:80] or '(empty)'}", f"the columns {','.join(need)}")
    out = Marks(source=f"CSV {printable(str(path))}")
    places = {n: i for i, n in enumerate(names)}
    for number, cells in rows:
        row = dict(zip(header, cells, strict=True))
        where = f"row {number}"
        text = row["frame"].strip()
        frame = int(text) if text.isdecimal() else places.get(text, -1)
        if frame < 0:
            raise _broken(subject, f"frame {text!r} in {where}", "frames by number from 0, or by the file's name")
        targets = out.frames.setdefault(frame, [])
        area = _numbers(subject, row, CORNERS, where)
        box = _numbers(subject, row, BOX, where) if set(BOX) <= set(header) else None
        if area is None and box is None:
            continue
        quad = None if area is None else checked(np.array(area).reshape(4, 2), subject, where)
        label = row["class"].strip() if "class" in header else default_class
        name = row.get("object", "").strip() or f"#{len(targets)}"
        if any(t.name == name for t in targets):
            raise _broken(subject, f"object {name!r} twice in frame {text}, {where}", "an object once in a frame")
        targets.append(Target(quad, None if box is None else ordered(as_box(box), subject, where), label, name))
    if "class" not in header:
        out.notes.append(f"{printable(path.name)} has no column 'class'; its objects are taken for {default_class!r}")
    return out


def checked(quad: Points, subject: str, where: str) -> Points:
    """The corners themselves.

    Raises:
        DataError: not four finite points that go round a convex area clockwise (y points down).
    """
    quad = np.asarray(quad, dtype=np.float64)
    if quad.shape != (4, 2) or not np.isfinite(quad).all() or not is_convex(quad):
        raise DataError(
            printable(subject),
            expected="four corners in the order upper left, upper right, lower right, lower left of a convex area",
            got=f"{np.round(quad, 1).tolist()} in {printable(where)}",
            mend="correct the order or the numbers",
        )
    return quad


def ordered(box: Box, subject: str, where: str) -> Box:
    """The box itself.

    Raises:
        DataError: x1 is not less than x2, or y1 than y2.
    """
    if not (box[0] < box[2] and box[1] < box[3]):
        raise DataError(
            printable(subject),
            expected="a box from its upper left to its lower right corner, x1 < x2 and y1 < y2",
            got=f"{[round(v, 1) for v in box]} in {printable(where)}",
            mend="correct the order or the numbers",
        )
    return box


def is_convex(quad: Points) -> bool:
    """Whether the corners go clockwise (y down) round a strictly convex area."""
    edges = np.roll(quad, -1, 0) - quad
    nexts = np.roll(edges, -1, 0)
    return bool((edges[:, 0] * nexts[:, 1] - edges[:, 1] * nexts[:, 0] > 0).all())


def upright(quad: Points) -> Points:
    """The same corners, clockwise, begun with that which best fits the upper left of the bounding box."""
    quad = np.asarray(quad, dtype=np.float64)
    after = np.roll(quad, -1, 0)
    if (quad[:, 0] * after[:, 1] - quad[:, 1] * after[:, 0]).sum() < 0:
        quad = quad[::-1]
    (a, b), (c, d) = quad.min(0), quad.max(0)
    frame = np.array([(a, b), (c, b), (c, d), (a, d)])
    turns = [np.roll(quad, k, 0) for k in range(4)]
    return min(turns, key=lambda q: float(((q - frame) ** 2).sum()))


def around(area: Points) -> Box:
    """The bounding box, xyxy."""
    (a, b), (c, d) = area.min(0).tolist(), area.max(0).tolist()
    return a, b, c, d


def _numbers(subject: str, row: dict[str, str], columns: Sequence[str], where: str) -> list[float] | None:
    cells = [row[c].strip() for c in columns]
    if not any(cells):
        return None
    try:
        values = [float(c) for c in cells]
    except ValueError as e:
        raise _broken(subject, f"{','.join(cells)[:80]!r} in {where}", "numbers of px in every corner") from e
    if not all(math.isfinite(v) for v in values):
        raise _broken(subject, f"{','.join(cells)[:80]!r} in {where}", "finite numbers of px in every corner")
    return values


def _rows(path: Path, subject: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            lines = list(csv.reader(f, strict=True))
    except (OSError, ValueError, csv.Error) as e:
        raise _broken(subject, f"something else ({str(e)[:80]})", "UTF-8 text with comma-separated columns") from e
    header = [c.strip() for c in lines[0]] if lines else []
    rows = [(n, cells) for n, cells in enumerate(lines[1:], start=2) if cells]
    for number, cells in rows:
        if len(cells) != len(header):
            raise _broken(subject, f"{len(cells)} cells in row {number}", f"{len(header)} cells as in the header")
    return header, rows


def _broken(subject: str, got: str, expected: str) -> DataError:
    return DataError(
        printable(subject), expected=expected, got=printable(got), mend="correct the file or take it out of the data"
    )
