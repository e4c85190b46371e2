"""Boxes in a table: CSV with the header ``image,x1,y1,x2,y2`` and, if wanted, ``class`` and ``group``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from audit.data.assemble import Box, Entry, Progress, as_box, assemble, images_root, printable
from audit.data.scenes import Scenes
from audit.errors import DataError

COLUMNS = ("image", "x1", "y1", "x2", "y2")


def read_csv(
    path: Path, *, images: Path | None = None, default_class: str = "face", progress: Progress | None = None
) -> Scenes:
    """Scenes of a CSV file with one row per box; further columns are left aside.

    Boxes are xyxy in px of the upright image. A row with the four coordinates empty names an image without objects.
    Rows of one ``group`` (the first one named for an image counts) stay on one side of the split.

    Args:
        images: folder that the image names start from; without it the folder of the file.
        default_class: what the boxes are where there is no column ``class``; the notes say so.

    Raises:
        DataError: no such header, not CSV, images not found, or none usable.
    """
    path = Path(path)
    header, rows = _table(path)
    if not set(COLUMNS) <= set(header):
        raise _broken(path, f"the header {','.join(header)[:80] or '(empty)'}")
    classes = sorted({r["class"].strip() for r in rows if r["class"]}) if "class" in header else [default_class]
    found: dict[str, list[tuple[Box, int]]] = {}
    groups: dict[str, str] = {}
    for row in rows:
        boxes = found.setdefault(row["image"], [])
        cells = [row[c].strip() for c in COLUMNS[1:]]
        if row.get("group"):
            groups.setdefault(row["image"], row["group"])
        if any(cells):
            label = row["class"].strip() if "class" in header else default_class
            boxes.append((as_box(cells), classes.index(label) if label else -1))
    root = images_root(images, [path.parent, path.parent / "images"], list(found), f"CSV file {printable(path.name)}")
    entries = [
        Entry(name=n, boxes=[b for b, _ in boxes], labels=[c for _, c in boxes], group=groups.get(n))
        for n, boxes in found.items()
    ]
    notes = [] if "class" in header else [f"the file has no column 'class'; its boxes are taken for {default_class!r}"]
    nameless = sum(c < 0 for boxes in found.values() for _, c in boxes)
    if nameless:
        notes.append(f"{nameless} box(es) without a class are ignored")
    return assemble(
        entries, root, classes=classes, name=path.stem, source=f"CSV {path}", notes=notes, progress=progress
    )


def header_of(path: Path) -> Sequence[str]:
    """The column names of a CSV file, or nothing where it is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            return [c.strip() for c in next(csv.reader(f), [])]
    except (ValueError, csv.Error):
        return []


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            lines = list(csv.reader(f, strict=True))
    except (ValueError, csv.Error) as e:
        raise _broken(path, f"something else ({str(e)[:80]})") from e
    header = [c.strip() for c in lines[0]] if lines else []
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if cells and len(cells) != len(header):
            raise _broken(path, f"{len(cells)} cells in row {number} under {len(header)} columns")
        if cells:
            rows.append(dict(zip(header, cells, strict=True)))
    return header, rows


def _broken(path: Path, got: str) -> DataError:
    return DataError(
        f"CSV file {printable(path.name)}",
        expected=f"UTF-8 text with the columns {','.join(COLUMNS)} and perhaps class and group",
        got=got,
        mend="write the header as the first line and one box per row",
    )
