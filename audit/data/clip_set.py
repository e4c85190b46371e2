"""From what a reader lists to Clips: headers checked, copies grouped, what cannot be used named."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from audit.data.assemble import Progress, inside, printable
from audit.data.clip_files import Found
from audit.data.clip_tables import BOXES, Boxes, Rows, boxes_of, read_boxes
from audit.data.clips import GENUINE, Clip, Clips, Footage, linked
from audit.data.footage import StillFootage, VideoFootage
from audit.data.images import inspect
from audit.data.scenes import Unreadable
from audit.data.video_index import pyav
from audit.errors import DataError

_MANY = 20
"""Photographs from which on it is said that their names join none of them."""
_ALONE = 0.9
_CHAINED = 20
"""Clips that hang together before people are given up as groups."""


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """What the data says of one clip; see ``Clip``.

    Attributes:
        cropped: whether its frames are faces cut out already; ``None`` where the layout does not say.
    """

    found: Found
    method: str
    group: str
    domain: str = ""
    split: str = ""
    cropped: bool | None = None


@dataclass(frozen=True, slots=True)
class _Opened:
    entry: ClipEntry
    footage: Footage
    digest: str
    boxes: Boxes | None
    damaged: tuple[Unreadable, ...]


def assemble_clips(
    entries: Sequence[ClipEntry],
    root: Path,
    *,
    name: str,
    source: str,
    genuine: str = "real",
    faked: str = "fake",
    both: bool = True,
    cropped: bool | None = None,
    grouping: str = "the names of FaceForensics++ (519_515_0012.png)",
    unreadable: Iterable[Unreadable] = (),
    notes: Iterable[str] = (),
    progress: Progress | None = None,
) -> Clips:
    """Opens every clip below ``root``: a still is decoded, of a video no more than its packets and its first frame.

    What cannot be used is in ``unreadable``: a video that is cut short, a photograph or a single frame that does not
    decode (the clip goes on without that frame). A video whose pictures are damaged farther in is found when it is
    read. Clips that share an exact copy of a file are one
    group. ``boxes.csv`` in ``root`` gives the faces.

    Whether frames are faces cut out already: what ``cropped`` says; else what the layout says (a folder ``faces`` or
    ``crops``); else stills without boxes are, videos and stills with boxes are not. A note says for how many.

    Args:
        both: whether there have to be clips of both classes. genuine, faked: what the classes are called.
        grouping: what can say which photographs go together, for a note where hardly any do; empty for no note.

    Raises:
        DataError: no usable clip, or none of a class; a broken table; PyAV is missing and there are videos.
    """
    rows: Rows = read_boxes(root / BOXES) if (root / BOXES).is_file() else {}
    if any(not e.found.still for e in entries):
        pyav()
    left_out = list(unreadable)
    opened: dict[str, _Opened] = {}
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        for i, result in enumerate(pool.map(partial(_outcome, root, rows), entries)):
            key = printable(entries[i].found.name)
            if isinstance(result, Unreadable):
                left_out.append(result)
            elif key in opened:
                left_out.append(Unreadable(key, "named more than once; the first entry is used"))
            else:
                opened[key] = result
                left_out.extend(result.damaged)
            if progress is not None:
                progress((i + 1) / len(entries), f"opening {key}")
    finally:
        pool.shutdown(cancel_futures=True)
    _classes(opened.values(), left_out, root, genuine if both else "", faked)
    groups = linked({k: (f"group {o.entry.group}", f"same file {o.digest}") for k, o in opened.items()})
    clips = tuple(
        Clip(
            id=key,
            method=printable(o.entry.method),
            group=printable(groups[key].removeprefix("group ")),
            footage=o.footage,
            digest=_with_boxes(o),
            domain=printable(o.entry.domain),
            split=o.entry.split,
            boxes=o.boxes,
            cropped=_cropped(o, cropped),
        )
        for key, o in opened.items()
    )
    return Clips(
        clips=clips,
        name=printable(name or str(root)),
        source=printable(source),
        genuine=genuine,
        unreadable=tuple(left_out),
        notes=(*notes, *_remarks(clips, list(opened.values()), entries, rows), *_alone(clips, entries, grouping)),
    )


def by_person(
    people: Mapping[str, Sequence[str]], videos: Mapping[str, Sequence[str]], fakes: Iterable[str]
) -> tuple[dict[str, str], str]:
    """Clip -> group by the people in it, or by the video it was made of; and the note on it, empty for people.

    Where faces were swapped between everybody, all people hang together and there is no split between them: where the
    largest group holds more than half of the fakes, and 20 at least, videos are the groups.

    Args:
        people: clip -> the people it shows. videos: clip -> the videos whose pixels it has. fakes: the swapped clips.
    """
    groups = linked(people)
    sizes: dict[str, int] = {}
    fakes = list(fakes)
    for f in fakes:
        sizes[groups[f]] = sizes.get(groups[f], 0) + 1
    largest = max(sizes.values(), default=0)
    if largest < _CHAINED or 2 * largest <= len(fakes):
        return groups, ""
    return linked(videos), (
        f"swaps chain the people of {largest} of {len(fakes)} fakes together: clips are grouped by the video that they "
        "were made of, and a person may stand on both sides of a split"
    )


def missing(place: Path, expected: str, got: str, mend: str = "check the path and the folders in it") -> DataError:
    """The error of a layout that is not there."""
    return DataError(f"data {printable(str(place))}", expected=expected, got=got, mend=mend)


def chosen(place: Path, what: str, wanted: Sequence[str] | None, there: Iterable[str]) -> tuple[str, ...]:
    """The names that were asked for, or all.

    Raises:
        DataError: one of them is not there.
    """
    names = sorted(set(there))
    strange = [w for w in wanted or () if w not in names]
    if strange:
        raise missing(place, f"{what} {', '.join(printable(n) for n in names)[:200] or '(none is there)'}",
                      repr(strange[0]), "choose among these")  # fmt: skip
    return tuple(wanted) if wanted is not None else tuple(names)


def left_aside(count: int) -> list[str]:
    """The note on folders of frames beside their video."""
    return [f"{count} folder(s) of frames lie beside their video and are left aside"] if count else []


def _outcome(root: Path, rows: Rows, entry: ClipEntry) -> _Opened | Unreadable:
    found = entry.found
    name = printable(found.name)
    path = inside(root, found.name)
    if path is None:
        return Unreadable(name, "the name is empty or leads out of the folder of the data")
    try:
        if not found.still:
            video = VideoFootage.open(path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return _Opened(entry, video, digest, boxes_of(found, (), rows), ())
        digests, kept, damaged = _stills(root, found)
        if not kept:
            return damaged[0] if found.photograph else Unreadable(name, f"none of its {len(damaged)} frames decodes")
        digest = digests[0] if found.photograph else hashlib.sha256("\0".join(digests).encode()).hexdigest()
        stills = StillFootage([root / found.frames[i] for i in kept])
        return _Opened(entry, stills, digest, boxes_of(found, kept, rows), tuple(damaged))
    except DataError as e:
        return Unreadable(name, e.got)
    except (OSError, ValueError) as e:  # ValueError: a lone surrogate or a NUL in the name
        return Unreadable(name, f"cannot be opened: {getattr(e, 'strerror', None) or e}")


def _stills(root: Path, found: Found) -> tuple[list[str], list[int], list[Unreadable]]:
    """Digests and numbers of the frames that decode, and the others."""
    digests, kept, damaged = [], [], []
    for i, frame in enumerate(found.frames):
        try:
            digests.append(inspect(root / frame).digest)
            kept.append(i)
        except DataError as e:
            damaged.append(Unreadable(printable(frame), e.got))
    return digests, kept, damaged


def _cropped(o: _Opened, told: bool | None) -> bool:
    if told is not None:
        return told
    if o.boxes is not None:
        return False
    if o.entry.found.in_crops:
        return True
    return o.entry.found.still if o.entry.cropped is None else o.entry.cropped


def _classes(opened: Iterable[_Opened], left_out: Sequence[Unreadable], root: Path, genuine: str, faked: str) -> None:
    methods = [o.entry.method for o in opened]
    real = methods.count(GENUINE)
    if methods and (not genuine or 0 < real < len(methods)):
        return
    examples = "; ".join(f"{u.name}: {u.reason}" for u in left_out[:3])
    aside = f", {len(left_out)} unusable ({examples})" if left_out else ""
    if not genuine or not methods:
        raise missing(root, "at least one usable clip", f"none{aside}")
    raise missing(root, f"clips that are {genuine} and clips that are {faked}",
                  f"{real} {genuine} and {len(methods) - real} {faked}{aside}",
                  "check the folders, or add clips of the other class")  # fmt: skip


def _with_boxes(o: _Opened) -> str:
    """The digest of the files, and of the boxes where there are any: another box is another face."""
    return o.digest if o.boxes is None else hashlib.sha256(f"{o.digest}\0{o.boxes}".encode()).hexdigest()


def _alone(clips: Sequence[Clip], entries: Sequence[ClipEntry], grouping: str) -> list[str]:
    """The note on photographs that nothing joins: frames of one video may pass for as many videos."""
    names = {printable(e.found.name) for e in entries if e.found.photograph}
    photographs = [c.group for c in clips if c.id in names]
    sizes = Counter(c.group for c in clips)
    alone = sum(sizes[g] == 1 for g in photographs)
    if not grouping or len(photographs) <= _MANY or alone < _ALONE * len(photographs):
        return []
    first = f"{alone} of {len(photographs)} photographs are each a group by itself: intervals and splits take each for"
    return [f"{first} a video of its own; where some are frames of one video, {grouping} can say so"]


def _remarks(clips: Sequence[Clip], opened: Sequence[_Opened], entries: Sequence[ClipEntry], rows: Rows) -> list[str]:
    notes = []
    cut = sum(c.cropped for c in clips)
    if cut:
        notes.append(f"the frames of {cut} of {len(clips)} clip(s) are taken for faces that are cut out already")
    files = {n for e in entries for n in (e.found.name, *e.found.frames)}
    strange = sorted(rows.keys() - files)
    if strange:
        notes.append(f"{BOXES} names {len(strange)} file(s) that are no clip here, the first {printable(strange[0])}")
    methods: dict[str, str] = {}
    clash = [c.id for c, o in zip(clips, opened, strict=True) if methods.setdefault(o.digest, c.method) != c.method]
    if len(methods) < len(clips):
        notes.append(
            f"{len(clips) - len(methods)} clip(s) are exact copies of others; copies stay on one side of a split"
        )
    if clash:
        notes.append(f"{len(clash)} clip(s) are copies of one of another class or method, the first {clash[0]}: one of "
                     "the two labels is wrong")  # fmt: skip
    return notes
