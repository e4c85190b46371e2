"""One scene per frame of the videos chosen, with what was read beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audit.data.areas import Marks, Target, around
from audit.data.assemble import Box, Progress, printable, sound
from audit.data.frames import Folder, Frames, part_of
from audit.data.groups import grouped
from audit.data.hiding import Hiding
from audit.data.scenes import Scene, Scenes, Unreadable
from audit.data.sidecars import Beside, named, open_frames, read_marks
from audit.data.video_index import pyav
from audit.errors import DataError


@dataclass
class _Drive:
    name: str
    frames: Frames
    marks: Marks | None
    hiding: Hiding
    scenes: list[Scene] = field(default_factory=list)
    left_out: list[Unreadable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def scenes_of(
    chosen: Sequence[tuple[Path, Beside]],
    root: Path,
    blocks: int | None,
    default_class: str,
    progress: Progress | None,
) -> Scenes:
    """Scenes of videos or folders of frames, each with what lies beside it; see ``audit.data.read_drives``.

    Raises:
        DataError: see there.
    """
    if any(p.is_file() for p, _ in chosen):
        pyav()
    if blocks is not None and blocks < 1:
        raise DataError("blocks", expected="1 or more", got=str(blocks), mend="give the number of blocks per video")
    chosen = [(named(p), found) for p, found in chosen]
    names = [p.name if p.is_dir() else p.stem for p, _ in chosen]
    drives, left_out = [], []
    for k, (path, found) in enumerate(chosen):
        part = part_of(progress, k / len(chosen), (k + 1) / len(chosen))
        name = printable(names[k] if names.count(names[k]) == 1 else path.name)
        try:
            frames = open_frames(path, part_of(part, 0, 0.5 if found.patched else 1))
        except DataError as e:
            if len(chosen) == 1:
                raise
            left_out.append(Unreadable(printable(path.name), e.got))
            continue
        marks = read_marks(frames, found, default_class, part_of(part, 0.5, 1))
        files: list[str] = [f.name for f in frames.files] if isinstance(frames, Folder) else []
        hiding = Hiding(found.hidden, marks, frames.count, files)
        drives.append(_Drive(name, frames, marks, hiding, notes=list(frames.notes)))
    marked = [d for d in drives if d.marks is not None]
    labels = {t.label for d in marked if d.marks for seen in d.marks.frames.values() for t in seen}
    classes = sorted(labels - {""})
    for d in drives:
        if marked and d.marks is None:
            left_out.append(Unreadable(d.name, "nothing beside it says where its objects are"))
        else:
            _fill(d, classes)
    used = marked or drives
    count = blocks if blocks is not None else 1 if len(used) > 1 else 2
    scenes = [s for d in used for s in _blocked(d, count)]
    left_out += [u for d in used for u in d.left_out]
    if not scenes:
        raise DataError(
            printable(f"video data {root}"),
            expected="at least one annotated frame that decodes",
            got=f"none ({'; '.join(f'{u.name}: {u.reason}' for u in left_out[:3]) or 'no frame is annotated'})",
            mend="check that the sidecars belong to these videos",
        )
    notes = [n for d in used for n in d.notes]
    copies = len(scenes) - len({s.digest for s in scenes})
    if copies:
        notes.append(f"{copies} frame(s) are exact copies of others; copies stay on one side of the split")
    if count > 1:
        notes.append(
            f"each video is cut into {count} blocks of neighbouring frames that count as groups; frames on both sides "
            "of a border may look alike, so the split is weaker than one between videos"
        )
    return Scenes(
        scenes=grouped(scenes),
        classes=tuple(printable(c) for c in classes),
        name=printable(root.stem if root.is_file() else named(root).name or str(root)),
        source=f"video {printable(str(root))}" + _by(marked),
        labelled_by="human" if marked else "self",
        unreadable=tuple(left_out),
        notes=tuple(notes),
    )


def _fill(drive: _Drive, classes: Sequence[str]) -> None:
    """One scene per frame that decodes and that something is said of."""
    frames, marks = drive.frames, drive.marks
    drive.left_out += [Unreadable(f"{drive.name}/{frames.name(i)}", why) for i, why in sorted(frames.broken.items())]
    lost = clipped = 0
    used = []
    for i in range(frames.count):
        name = f"{drive.name}/{frames.name(i)}"
        if i in frames.broken or (marks is not None and i not in marks.frames):
            continue
        size = frames.size(i)
        drawn = size if marks is None else marks.sizes.get(i, size)
        if drawn != size:
            reason = f"drawn on {drawn[1]}x{drawn[0]} px, but upright the frame has {size[1]}x{size[0]}"
            drive.left_out.append(Unreadable(name, reason))
            continue
        used.append(i)
        targets = [] if marks is None else marks.frames[i]
        boxes, bad, cut = sound([_box(t) for t in targets], size)
        lost, clipped = lost + int(bad.sum()), clipped + int(cut.sum())
        labels = torch.tensor([classes.index(t.label) if t.label else -1 for t in targets], dtype=torch.int64)
        drive.scenes.append(
            Scene(
                id=name,
                group=drive.name,
                size=size,
                boxes=boxes,
                labels=labels.clamp(min=0),
                ignore=bad | (labels < 0),
                digest=frames.digest(i),
                load=partial(frames.load, i),
                areas=_areas(targets),
                hidden=drive.hiding.of(i, size),
            )
        )
    drive.notes += _told(drive, lost, clipped, drive.hiding.missing(used))


def _box(target: Target) -> Box:
    if target.box is not None:
        return target.box
    assert target.area is not None, "a sidecar gives every object an area or a box"
    return around(target.area)


def _areas(targets: Sequence[Target]) -> Tensor | None:
    if all(t.area is None for t in targets):
        return None
    nothing = np.full((4, 2), np.nan)
    return torch.from_numpy(np.stack([nothing if t.area is None else t.area for t in targets])).float()


def _told(drive: _Drive, lost: int, clipped: int, missing: int) -> list[str]:
    notes = []
    if drive.frames.broken:
        notes.append(
            f"{drive.name}: {len(drive.frames.broken)} of {drive.frames.count} frame(s) do not decode; those after "
            "one in a video, up to the next key frame, may show its damage"
        )
    if drive.marks is not None:
        notes += drive.marks.notes
        silent = drive.frames.count - len(drive.marks.frames)
        without = sum(t.box is None for seen in drive.marks.frames.values() for t in seen)
        nameless = sum(not t.label for seen in drive.marks.frames.values() for t in seen)
        for count, what in (
            (silent, "frame(s) that nothing is said of are left out"),
            (without, "object(s) have no box of their own: the bounding box of the area stands for it"),
            (nameless, "object(s) without a class are ignored"),
        ):
            if count:
                notes.append(f"{drive.name}: {count} {what}")
    if missing:
        notes.append(f"{drive.name}: {missing} frame(s) have no mask though others do: nothing hides areas there")
    if lost:
        notes.append(f"{drive.name}: {lost} box(es) without area inside the frame are ignored")
    if clipped:
        notes.append(f"{drive.name}: {clipped} box(es) reached over the edge and were clipped to the frame")
    return notes


def _blocked(drive: _Drive, count: int) -> list[Scene]:
    if count == 1:
        return drive.scenes
    total = len(drive.scenes)
    return [replace(s, group=f"{drive.name}#{1 + i * count // total}") for i, s in enumerate(drive.scenes)]


def _by(marked: Sequence[_Drive]) -> str:
    sources = sorted({d.marks.source for d in marked if d.marks is not None})
    return f", {sources[0]}" + (f" and {len(sources) - 1} more" if len(sources) > 1 else "") if sources else ""
