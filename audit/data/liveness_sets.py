"""Live faces and presentation attacks: a folder per domain, class and species, or one table of labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from audit.data.assemble import Progress, inside, printable
from audit.data.clip_files import Found, Placed, class_tree, files_below
from audit.data.clip_set import ClipEntry, assemble_clips, left_aside, missing
from audit.data.clips import GENUINE, Clips
from audit.data.people import plain
from audit.data.scenes import Unreadable
from audit.data.video_index import SUFFIXES as VIDEOS
from audit.errors import DataError

LABELS = "labels.csv"
COLUMNS = ("file", "spoof", "kind")
LIVE = frozenset({"live", "real", "genuine"})
SPOOF = frozenset({"spoof", "attack", "fake"})
ATTACK = "attack"
"""The species of what is only known to be one."""

_REMARK = re.compile(r"\s*\([^()]*\)\s*$")


def read_liveness(root: Path, *, cropped: bool | None = None, progress: Progress | None = None) -> Clips:
    """``<domain>/live/…`` and ``<domain>/spoof/<species>/…``, or ``labels.csv`` beside the photographs.

    Folders: ``live``, ``real`` or ``genuine``; ``spoof``, ``attack`` or ``fake``, whose own files are of the species
    ``attack``. A domain is what lies above (``Oulu``, ``CASIA``, ``Idiap``, ``MSU``); a folder ``train``, ``dev`` or
    ``test`` among them is the split. The first folder below the species is the subject, by which clips are grouped;
    without one each file is a group of its own, and so is a folder of frames.

    Table: the columns ``file,spoof,kind``, spoof 0 or 1, and if wanted ``domain`` and ``subject``. ``kind`` is the
    species, without a remark in brackets at its end. Files are videos, photographs or folders of frames.

    Methods are the species; ``genuine`` is ``live``. Photographs are whole unless ``cropped`` says otherwise: what is
    around a face tells of an attack too.

    Raises:
        DataError: no such folders, a broken table, or no usable clip of a class.
    """
    root = Path(root)
    if (root / LABELS).is_file():
        entries, unreadable, notes = _labelled(root)
        source, grouping = f"labels.csv in {root}", ""
    else:
        placed, doubled = class_tree(files_below(root), LIVE, SPOOF, ATTACK)
        if not placed:
            raise missing(root, f"clips in <domain>/live and <domain>/spoof/<species>, or {LABELS}", "none")
        entries, unreadable, notes = [_entry(p) for p in placed], [], left_aside(doubled)
        source, grouping = f"folders of live faces and attacks in {root}", "a folder for each subject"
    return assemble_clips(
        entries,
        root,
        name=root.name,
        source=source,
        genuine="live",
        faked="attacks",
        cropped=cropped,
        grouping=grouping,
        unreadable=unreadable,
        notes=notes,
        progress=progress,
    )


def looks_labelled(root: Path) -> bool:
    """Whether a folder has a table of labels."""
    return (root / LABELS).is_file()


def _entry(p: Placed) -> ClipEntry:
    folder = p.found.still and not p.found.photograph
    subject = p.below[0] if p.below else p.found.stem if folder else ""
    return ClipEntry(
        p.found, p.method, _group(p.domain, subject) if subject else p.found.name, p.domain, p.split, cropped=False
    )


def _group(domain: str, subject: str) -> str:
    return f"{domain}/{subject}" if domain else subject


def _labelled(root: Path) -> tuple[list[ClipEntry], list[Unreadable], list[str]]:
    header, rows = _table(root / LABELS)
    names = files_below(root)
    there = set(names)
    frames: dict[str, list[str]] = {}
    for n in names:
        frames.setdefault(n.rpartition("/")[0], []).append(n)
    entries, unreadable = [], []
    for row in rows:
        name = plain(row["file"])
        if inside(root, name) is None:
            unreadable.append(Unreadable(printable(name), "the name is empty or leads out of the folder"))
            continue
        entries.append(_row(name, row, there, frames))
    named = {f for e in entries for f in (e.found.name, *e.found.frames)}
    rest = [n for n in names if n not in named]
    notes = (
        [f"{len(rest)} file(s) that {LABELS} does not name are left out, the first {printable(rest[0])}"]
        if rest
        else []
    )
    if "subject" not in header:
        notes.append(f"{LABELS} has no column subject: each file is taken for a group of its own")
    return entries, unreadable, notes


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows; a comma in ``kind`` need not be quoted where that is the last column: it is free text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[c.strip() for c in line] for line in csv.reader(file, strict=True)]
    except (ValueError, csv.Error) as e:
        raise _broken(f"something else ({str(e)[:80]})") from e
    header = lines[0] if lines else []
    if not set(COLUMNS) <= set(header) or len(set(header)) < len(header):
        raise _broken(f"the header {printable(','.join(header))[:80] or '(empty)'}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        last = len(header) - 1
        if header[last] == "kind" and len(cells) > len(header):
            cells = [*cells[:last], ", ".join(cells[last:])]  # noqa: PLW2901
        if cells and len(cells) != len(header):
            raise _broken(f"{len(cells)} cells in row {number} under {len(header)} columns")
        if cells:
            row = dict(zip(header, cells, strict=True))
            if row["spoof"] not in ("0", "1"):
                raise _broken(f"spoof {printable(row['spoof'])[:40]!r} in row {number}")
            rows.append(row)
    return header, rows


def _broken(got: str) -> DataError:
    return DataError(f"CSV file {LABELS}", expected=f"UTF-8 text with the columns {','.join(COLUMNS)}, spoof 0 or 1",
                     got=got, mend="write one row per file, 1 for an attack and 0 for a live face")  # fmt: skip


def _row(name: str, row: Mapping[str, str], there: set[str], frames: Mapping[str, list[str]]) -> ClipEntry:
    """A file that is not there stays in: opening says so."""
    video = Path(name).suffix.lower() in VIDEOS
    found = (
        Found(name) if video else Found(name, (name,) if name in there or name not in frames else tuple(frames[name]))
    )
    domain, subject = row.get("domain", ""), row.get("subject", "")
    species = _REMARK.sub("", row["kind"]) or ATTACK
    group = _group(domain, subject) if subject else name
    return ClipEntry(found, species if row["spoof"] == "1" else GENUINE, group, domain, cropped=False)
