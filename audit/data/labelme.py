"""Areas drawn with labelme, one JSON file per frame."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audit.data.areas import Marks, Points, Target, around, checked, upright
from audit.data.assemble import Box, printable
from audit.errors import DataError

_PEEK = 1 << 16
_KINDS = ("polygon", "rectangle", "circle", "oriented_rectangle", "rotation")
_RIM = 64
"""Points of a circle's rim; a multiple of 4, so that its bounding box is exact."""
_NUMBER = re.compile(r"([0-9]+)\D*$")


def read_labelme(folder: Path, *, names: Sequence[str] = (), default_class: str = "car") -> Marks:
    """Marks of the labelme files in a folder.

    A shape's label says what it is: ``area`` or ``area:truck`` is the area for the patch (a polygon of four points, or
    a rectangle), ``hidden`` a polygon of what stands in front, any other label the class of an object whose box is the
    shape's bounding box. Polygons, rectangles and circles are read. An area belongs to the object with its
    ``group_id``, else to the smallest box that holds its middle; an area alone is an object by itself. A ``group_id``
    also tells an object from others through the frames; without one its place in the frame does. Corners are taken in
    the order in which they lie in the image, from the upper left clockwise, since people start drawing anywhere; areas
    that are turned by more belong into a CSV file.

    Args:
        names: file names of the frames: a JSON file belongs to the image with its stem. Without names the last number
            in the file's name is the frame's number, from 0.
        default_class: what an area by itself is where its label says nothing; the notes say so.

    Raises:
        DataError: no JSON file, one that is not labelme's, one without a frame, or a shape of another kind.
    """
    folder = Path(folder)
    stems = {Path(n).stem: i for i, n in enumerate(names)}
    out = Marks(source=f"labelme files in {printable(str(folder))}")
    files = labelme_files(folder)
    if not files:
        raise _broken(folder, "labelme JSON files", "none")
    guessed = 0
    for file in files:
        number = _NUMBER.search(file.stem)
        frame = stems.get(file.stem, -1) if names else int(number[1]) if number else -1
        if frame < 0 or frame in out.frames:
            raise _broken(file, "one file per frame, named as the frame is", "a name of no or of another file's frame")
        table = _table(file)
        shapes = [_shape(file, s) for s in table["shapes"]]
        out.frames[frame], alone = _targets(file, shapes, default_class)
        guessed += alone
        polygons = [points for label, _, points in shapes if label == "hidden"]
        if polygons:
            out.hidden[frame] = polygons
        size = table.get("imageHeight"), table.get("imageWidth")
        if isinstance(size[0], int) and isinstance(size[1], int):
            out.sizes[frame] = size[0], size[1]
    if guessed:
        out.notes.append(f"{guessed} area(s) without a class are taken for {default_class!r}")
    return out


def labelme_files(folder: Path) -> list[Path]:
    """The files of a folder that look like labelme's, sorted; hidden ones are left aside."""
    return [f for f in sorted(folder.glob("[!.]*.json")) if is_labelme(f)]


def is_labelme(file: Path) -> bool:
    """By the word "shapes" near the beginning or the end; other JSON may be too large to be read for a look."""
    if not file.is_file():
        return False
    with file.open("rb") as f:
        head = f.read(_PEEK)
        f.seek(max(0, file.stat().st_size - _PEEK))
        return b'"shapes"' in head or b'"shapes"' in f.read()


_Shape = tuple[str, Any, Points]


def _targets(file: Path, shapes: list[_Shape], default_class: str) -> tuple[list[Target], int]:
    boxes = [(label, key, around(p)) for label, key, p in shapes if label != "hidden" and not _is_area(label)]
    areas: dict[int, Points] = {}
    keys: dict[int, Any] = {}
    alone: list[Target] = []
    guessed = 0
    for label, key, points in shapes:
        if not _is_area(label):
            continue
        corners = _corners(points)
        if corners is None:
            raise _broken(file, "areas of four points", f"an area of {len(points)}")
        quad = checked(upright(corners), f"labelme file {file.name}", "an area")
        kind = label.partition(":")[2].strip()
        owner = _owner(quad, kind, key, boxes, set(areas))
        if owner is None:
            guessed += not kind
            alone.append(Target(quad, None, kind or default_class, _name(key, None)))
        else:
            areas[owner] = quad
            keys[owner] = key
    objects = [Target(areas.get(i), b, label, _name(key, keys.get(i))) for i, (label, key, b) in enumerate(boxes)]
    places = itertools.count()
    return [t if t.name else replace(t, name=f"#{next(places)}") for t in objects + alone], guessed


def _name(key: Any, of_area: Any) -> str:
    """From the object's ``group_id``, or else that of its area; empty without."""
    key = of_area if key is None else key
    return "" if key is None else f"group {key}"


def _owner(quad: Points, kind: str, key: Any, boxes: list[tuple[str, Any, Box]], taken: set[int]) -> int | None:
    x, y = quad.mean(0)
    free = [(i, *b) for i, b in enumerate(boxes) if i not in taken and kind in ("", b[0])]
    if key is not None and any(k == key for _, _, k, _ in free):
        return next(i for i, _, k, _ in free if k == key)
    holding = [(i, b) for i, _, _, b in free if b[0] <= x <= b[2] and b[1] <= y <= b[3]]
    return min(holding, key=lambda t: (t[1][2] - t[1][0]) * (t[1][3] - t[1][1]))[0] if holding else None


def _corners(points: Points) -> Points | None:
    if len(points) == 2:
        (a, b), (c, d) = points.min(0), points.max(0)
        return np.array([(a, b), (c, b), (c, d), (a, d)])
    return points if len(points) == 4 else None


def _is_area(label: str) -> bool:
    return label == "area" or label.startswith("area:")


def _table(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as e:
        raise _broken(file, "labelme's JSON", f"something else ({str(e)[:80]})") from e
    if not isinstance(table, dict) or not isinstance(table.get("shapes"), list):
        raise _broken(file, "labelme's JSON with a list 'shapes'", "another kind of JSON")
    return table


def _shape(file: Path, shape: Any) -> _Shape:
    try:
        points = np.array(shape["points"], dtype=np.float64)
        label = str(shape["label"]).strip()
        key = shape.get("group_id")
        kind = str(shape.get("shape_type") or "polygon")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise _broken(file, "shapes with a label and points", f"one without ({e})") from e
    if kind not in _KINDS:
        raise _broken(file, f"shapes of the kinds {', '.join(_KINDS)}", f"{label} drawn as a {kind}"[:120])
    if points.ndim != 2 or points.shape[1:] != (2,) or len(points) < 2 or not np.isfinite(points).all():
        raise _broken(file, "shapes of at least two finite points", f"{printable(label)} with {points.tolist()}"[:120])
    if kind == "circle":
        points = _rim(file, label, points)
    return label, key, points


def _rim(file: Path, label: str, points: Points) -> Points:
    """A circle's rim from its middle and a point on it, which is all that labelme writes."""
    if len(points) != 2 or (points[0] == points[1]).all():
        raise _broken(file, "circles as their middle and a point on the rim", f"{label} with {points.tolist()}"[:120])
    turn = np.arange(_RIM) * (2 * np.pi / _RIM)
    return np.asarray(points[0] + np.stack([np.cos(turn), np.sin(turn)], 1) * np.hypot(*(points[1] - points[0])))


def _broken(
    file: Path, expected: str, got: str, mend: str = "correct the file or take it out of the data"
) -> DataError:
    return DataError(printable(f"labelme {file.name}"), expected=expected, got=printable(got), mend=mend)
