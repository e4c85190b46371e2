"""Tables beside clips: ``boxes.csv``, where the faces are, and ``groups.csv``, what must stay together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audit.data.assemble import Box, printable
from audit.data.clip_files import Found
from audit.data.people import plain, table
from audit.errors import DataError

BOXES = "boxes.csv"
GROUPS = "groups.csv"

Rows = Mapping[str, Mapping[int | None, Box]]
"""File -> frame, or ``None`` for all frames -> box."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """Frame number -> (4,) float32 xyxy px, or ``None``: what ``Clip.boxes`` is."""

    known: Mapping[int, Box]
    always: Box | None = None

    def __call__(self, frame: int) -> Tensor | None:
        box = self.known.get(frame, self.always)
        return None if box is None else torch.tensor(box, dtype=torch.float32)


def read_boxes(path: Path) -> dict[str, dict[int | None, Box]]:
    """A CSV file with the columns ``file,frame,x1,y1,x2,y2``, xyxy in px of the upright frame.

    ``file`` is a video, a photograph, a folder of frames or one of those frames, by its path from the table's folder.
    ``frame`` counts from 0 those that decode, in a folder all, in the order of the numbers in the names; a row without
    it holds for every frame. Of several boxes of one frame the largest counts.

    Raises:
        DataError: not such a file, a frame that is no number, a box without area.
    """
    found: dict[str, dict[int | None, Box]] = {}
    for number, row in enumerate(table(path, ("file", "frame", "x1", "y1", "x2", "y2"))[1], start=2):
        cell = row["frame"]
        if cell and not (cell.isascii() and cell.isdecimal() and len(cell) < 10):
            raise _broken(path, f"the frame {printable(cell)[:40]!r} in row {number}", "count frames from 0")
        try:
            x1, y1, x2, y2 = (float(row[c]) for c in ("x1", "y1", "x2", "y2"))
        except ValueError:
            x1 = y1 = x2 = y2 = math.nan
        if not (all(abs(v) < 1e6 for v in (x1, y1, x2, y2)) and x1 < x2 and y1 < y2):
            raise _broken(path, f"no box in row {number}", "give four numbers in px with x1 < x2 and y1 < y2")
        frames = found.setdefault(plain(row["file"]), {})
        frame = int(cell) if cell else None
        old = frames.get(frame)
        if old is None or (x2 - x1) * (y2 - y1) > (old[2] - old[0]) * (old[3] - old[1]):
            frames[frame] = x1, y1, x2, y2
    return found


def boxes_of(found: Found, kept: Sequence[int], rows: Rows) -> Boxes | None:
    """The boxes of one clip, or ``None`` where the table has none of it.

    Args:
        kept: which of its frames, as the table counts them, its footage consists of; unused for a video.
    """
    own = rows.get(found.name, {})
    always = own.get(None)
    if not found.still:
        known = {f: b for f, b in own.items() if f is not None}
        return Boxes(known, always) if own else None
    known = {}
    for now, before in enumerate(kept):
        single = {} if found.photograph else rows.get(found.frames[before], {})
        box = own.get(before) or single.get(None) or single.get(0)
        if box is not None:
            known[now] = box
    return Boxes(known, always) if known or always else None


def read_groups(folder: Path) -> dict[str, str]:
    """``groups.csv`` with the columns ``file,group``: clip -> group; empty where there is no such file.

    Raises:
        DataError: not such a file, a clip twice, or an empty group.
    """
    path = folder / GROUPS
    if not path.is_file():
        return {}
    groups: dict[str, str] = {}
    for number, row in enumerate(table(path, ("file", "group"))[1], start=2):
        name = plain(row["file"])
        if not row["group"] or name in groups:
            got = f"{printable(name)} {'twice' if name in groups else 'without a group'} (row {number})"
            raise _broken(path, got, "give each clip one row with its group")
        groups[name] = row["group"]
    return groups


def _broken(path: Path, got: str, mend: str) -> DataError:
    return DataError(f"CSV file {printable(path.name)}", expected="UTF-8 text, one row per entry", got=got, mend=mend)
