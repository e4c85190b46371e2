"""What lies beside a video or a folder of frames, and what it says together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from audit.data.annotate import Drive, read_drive
from audit.data.areas import Marks, Points, Target, read_areas_csv
from audit.data.assemble import Progress, printable
from audit.data.differencing import find_areas
from audit.data.frames import Folder, Frames, part_of
from audit.data.labelme import labelme_files, read_labelme
from audit.data.video import Video
from audit.data.video_index import SUFFIXES
from audit.errors import DataError


@dataclass(frozen=True, slots=True)
class Beside:
    """Paths of what lies beside a drive; None where there is none."""

    table: Path | None = None
    labelme: Path | None = None
    model: Path | None = None
    patched: Path | None = None
    hidden: Path | None = None

    def overruled(self, areas: Path | None, patched: Path | None, hidden: Path | None) -> Beside:
        """The same with what was given by hand in place of what was found."""
        out = self
        if areas is not None:
            areas = Path(areas)
            kind = "labelme" if areas.is_dir() else "model" if areas.suffix == ".toml" else "table"
            keep = {"table": self.table, "labelme": self.labelme} if kind == "model" else {}
            out = replace(Beside(**keep, patched=self.patched, hidden=self.hidden), **{kind: areas})
        if patched is not None:
            out = replace(out, patched=Path(patched))
        return out if hidden is None else replace(out, hidden=Path(hidden))


def beside(path: Path) -> Beside:
    """What lies beside ``path``, a video or a folder of frames, by its name."""
    path = named(path)
    folder = path.is_dir()
    stem = path.name if folder else path.stem
    around = path.parent
    drawn = path if folder else around / stem
    video = (around / f"{stem}.patched{s}" for s in sorted(SUFFIXES))
    patched = [around / f"{stem}.patched"] if folder else [around / f"{stem}.patched{path.suffix}", *video]
    hidden = [around / f"{stem}.hidden", around / f"{stem}.hidden.png", around / "hidden.png"]
    return Beside(
        table=_first([around / f"{stem}.areas.csv"]),
        labelme=drawn if drawn.is_dir() and labelme_files(drawn) else None,
        model=_first([around / f"{stem}.drive.toml"]),
        patched=_first(patched),
        hidden=_first(hidden),
    )


def named(path: Path) -> Path:
    """The same path with a name: ``.`` and ``..`` have none. A symbolic link keeps its own."""
    return path if path.name not in {"", ".."} else Path(os.path.abspath(path))  # noqa: PTH100  resolve() follows links


def open_frames(path: Path, progress: Progress | None = None) -> Frames:
    """A video, or a folder of images."""
    return Folder(path, progress=progress) if path.is_dir() else Video(path, progress=progress)


def read_marks(frames: Frames, found: Beside, default_class: str, progress: Progress | None = None) -> Marks | None:
    """What is said of the frames, or None where nothing is.

    Raises:
        DataError: two sidecars that say the same, one that is unreadable, or one for other frames.
    """
    if found.table is not None and found.labelme is not None:
        raise DataError(
            printable(f"frames {frames.path.name}"),
            expected="areas from one source",
            got=f"{printable(found.table.name)} and labelme files",
            mend="take one of them away, or name the one that is meant",
        )
    names: list[str] = [f.name for f in frames.files] if isinstance(frames, Folder) else []
    marks: Marks | None = None
    if found.table is not None:
        marks = read_areas_csv(found.table, names=names, default_class=default_class)
    elif found.labelme is not None:
        marks = read_labelme(found.labelme, names=names, default_class=default_class)
    if marks is not None:
        _require_within(marks, frames)
    if found.model is not None:
        whole = next(i for i in range(frames.count) if i not in frames.broken)
        marks = read_drive(found.model, Drive(frames.count, frames.size(whole)), marks)
    if found.patched is not None:
        marks = _compared(frames, found.patched, marks, default_class, progress)
    return marks


def _require_within(marks: Marks, frames: Frames) -> None:
    beyond = [i for i in marks.frames if i >= frames.count]
    if beyond:
        raise DataError(
            marks.source,
            expected=f"frames from 0 to {frames.count - 1}, as {printable(frames.path.name)} has",
            got=f"frame {min(beyond)}",
            mend="count frames from 0, and check that the file belongs to this video",
        )


def _compared(frames: Frames, path: Path, marks: Marks | None, default_class: str, progress: Progress | None) -> Marks:
    """Areas by differencing, given to the objects that hold them, or objects by themselves where there are none."""
    other = open_frames(path, part_of(progress, 0, 0.3))
    if other.count != frames.count:
        raise DataError(
            printable(f"patched frames {path.name}"),
            expected=f"{frames.count} frames, as {printable(frames.path.name)} has",
            got=str(other.count),
            mend="give the same recording with and without the patch",
        )
    wanted = sorted(range(frames.count) if marks is None else marks.frames)
    quads = find_areas(_pixels(frames, wanted, part_of(progress, 0.3, 1)), _pixels(other, wanted, None)).double()
    out = Marks(source=f"differences to {printable(path.name)}") if marks is None else marks
    missing = 0
    for i, quad in zip(wanted, quads.numpy(), strict=True):
        if not np.isfinite(quad).all():
            missing += 1
        elif marks is None:
            out.frames[i] = [Target(quad, None, default_class, "0")]
        else:
            out.frames[i] = _given(out.frames[i], quad)
    out.notes.append(
        f"areas found by comparing with {printable(path.name)} in {len(wanted) - missing} of {len(wanted)} frame(s)"
    )
    if marks is None:
        out.notes.append(f"nothing names the objects' class; they are taken for {default_class!r}")
    return out


def _given(targets: list[Target], quad: Points) -> list[Target]:
    x, y = quad.mean(0)
    holding = []
    for k, t in enumerate(targets):
        if t.area is None and t.box is not None and t.box[0] <= x <= t.box[2] and t.box[1] <= y <= t.box[3]:
            holding.append(((t.box[2] - t.box[0]) * (t.box[3] - t.box[1]), k))
    if not holding:
        return targets
    chosen = min(holding)[1]
    return [replace(t, area=quad) if k == chosen else t for k, t in enumerate(targets)]


def _pixels(frames: Frames, wanted: list[int], progress: Progress | None) -> Iterator[Tensor | None]:
    for n, i in enumerate(wanted, start=1):
        yield None if i in frames.broken else frames.load(i)
        if progress is not None:
            progress(n / len(wanted), f"comparing {printable(frames.path.name)}, frame {i}")


def _first(paths: list[Path]) -> Path | None:
    return next((p for p in paths if p.exists()), None)
