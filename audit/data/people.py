"""What is known of the people in photographs: ``faces.csv`` with identity, groups and landmarks per photograph."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from audit.data.assemble import printable
from audit.errors import DataError

NAME = "faces.csv"
LANDMARKS = tuple(f"{axis}{i}" for i in range(1, 6) for axis in "xy")


@dataclass(frozen=True, slots=True)
class Person:
    """What ``faces.csv`` says of one photograph. Landmarks (5, 2) px of the upright photograph, if given."""

    identity: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    landmarks: Tensor | None = None


def people_beside(*folders: Path) -> dict[str, Person]:
    """The first ``faces.csv`` in these folders, by the photograph's name; empty where there is none."""
    return next((read_people(f / NAME) for f in folders if (f / NAME).is_file()), {})


def read_people(path: Path) -> dict[str, Person]:
    """A CSV file with the column ``image``; the others are optional.

    ``identity``; ``x1,y1`` to ``x5,y5``, landmarks in px: left eye, right eye, nose, left and right corner of the mouth
    as the viewer sees them; every further column is a group, such as ``age``; an empty cell says nothing.

    Raises:
        DataError: not such a file, a photograph twice, landmarks that are not ten numbers.
    """
    header, rows = table(path, ("image",))
    given = [c for c in LANDMARKS if c in header]
    if given and len(given) < len(LANDMARKS):
        missing = next(c for c in LANDMARKS if c not in header)
        raise _broken(path, f"landmarks without the column {missing}", "give x1,y1 to x5,y5, or none of them")
    people: dict[str, Person] = {}
    for number, row in enumerate(rows, start=2):
        name = plain(row["image"])
        if name in people:
            raise _broken(path, f"{printable(name)} twice (row {number})", "give each photograph one row")
        groups = {
            printable(k): printable(v) for k, v in row.items() if v and k not in ("image", "identity", *LANDMARKS)
        }
        people[name] = Person(row.get("identity", ""), groups, _landmarks(path, number, row) if given else None)
    return people


def table(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV file which has these columns; cells without white space around them.

    Raises:
        DataError: not UTF-8, not CSV, a column missing, a row of another length.
    """
    mend = f"write the header {','.join(columns)} as the first line and one row of as many cells per entry"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[c.strip() for c in line] for line in csv.reader(file, strict=True)]
    except (OSError, ValueError, csv.Error) as e:
        raise _broken(path, f"something else ({str(e)[:80]})", mend) from e
    header = lines[0] if lines else []
    if not set(columns) <= set(header):
        raise _broken(path, f"the header {printable(','.join(header))[:80] or '(empty)'}", mend)
    if len(set(header)) < len(header):
        raise _broken(path, "a column twice", mend)
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if cells and len(cells) != len(header):
            raise _broken(path, f"{len(cells)} cells in row {number} under {len(header)} columns", mend)
        if cells:
            rows.append(dict(zip(header, cells, strict=True)))
    return header, rows


def plain(name: str) -> str:
    """A name with forward slashes and without ``./``, as all readers write names."""
    return PurePosixPath(name.replace("\\", "/")).as_posix() if name.strip() else ""


def _landmarks(path: Path, number: int, row: Mapping[str, str]) -> Tensor | None:
    cells = [row[c] for c in LANDMARKS]
    if not any(cells):
        return None
    try:
        values = [float(c) for c in cells]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(v) and abs(v) < 1e6 for v in values):
        raise _broken(path, f"{','.join(cells)[:60]!r} in row {number}", "give ten numbers in px, or leave all ten out")
    return torch.tensor(values).reshape(5, 2)


def _broken(path: Path, got: str, mend: str) -> DataError:
    return DataError(f"CSV file {printable(path.name)}", expected="UTF-8 text, one row per entry", got=got, mend=mend)
