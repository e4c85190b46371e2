"""Celeb-DF, DeepFakeDetection by itself, DFDC, and a plain folder of real and fake clips."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from audit.data.assemble import Progress, inside, printable
from audit.data.clip_files import FORMS, Found, Placed, class_tree, clips_among, files_below, sources, without_frame
from audit.data.clip_set import ClipEntry, assemble_clips, by_person, left_aside, missing
from audit.data.clip_tables import GROUPS, read_groups
from audit.data.clips import GENUINE, Clips, linked
from audit.data.forgery_tree import DFD, MANIPULATED, ORIGINAL, dfd_sources, read_ffpp
from audit.data.scenes import Unreadable
from audit.errors import DataError

CELEB = {"Celeb-real": GENUINE, "YouTube-real": GENUINE, "Celeb-synthesis": "Celeb-DF"}
"""Celeb-DF's folders -> the method of what is in them."""
CELEB_TEST = "List_of_testing_videos.txt"
METADATA = "metadata.json"
REAL = frozenset({"real"})
FAKE = frozenset({"fake"})

_MANY = 20
_DFD_FOLDERS = {"dfd_original": GENUINE, "dfd_manipulated": DFD}
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def read_celebdf(root: Path, *, cropped: bool | None = None, progress: Progress | None = None) -> Clips:
    """``Celeb-real/id0_0000.mp4``, ``YouTube-real/00170.mp4``, ``Celeb-synthesis/id0_id1_0000.mp4``; method Celeb-DF.

    There may be folders of frames in place of the videos, also below ``videos/``, ``frames/`` and the like. Clips that
    share a person (``id0``, ``id1``) are one group, or, where the swaps chain nearly everybody, clips of one video (see
    ``by_person``). ``List_of_testing_videos.txt``, if it is there, says which are of the split ``test``; the others
    are of ``train``.

    Raises:
        DataError: no such folders, a broken list, no usable clip of a class.
    """
    root = Path(root)
    clips, doubled = _in_folders(root, [n for n in CELEB if (root / n).is_dir()])
    if not clips:
        raise missing(root, f"videos in {', '.join(CELEB)}", "none")
    people, videos = {}, {}
    for c in clips:
        frame = r"(?s:[^0-9].*)?" if c.photograph else ""
        match = re.fullmatch(r"(id[0-9]+)(?:_(id[0-9]+))?_([0-9]+)" + frame, c.stem)
        alone = f"{c.name.partition('/')[0]} {without_frame(c.stem) if c.photograph else c.stem}"
        people[c.name] = [n for n in match.group(1, 2) if n] if match else [alone]
        videos[c.name] = [f"{match[1]}_{match[3]}"] if match else [alone]
    method = {c.name: CELEB[c.name.partition("/")[0]] for c in clips}
    groups, note = by_person(people, videos, [n for n, m in method.items() if m])
    listed, notes = _celeb_test(root, clips)
    entries = [ClipEntry(c, method[c.name], groups[c.name], split=listed.get(c.name, "")) for c in clips]
    return assemble_clips(
        entries,
        root,
        name=root.name,
        source=f"Celeb-DF in {root}",
        cropped=cropped,
        grouping="the names of Celeb-DF (id0_id1_0000_0012.png)",
        notes=[*([note] if note else []), *notes, *left_aside(doubled)],
        progress=progress,
    )


def read_dfd(root: Path, *, cropped: bool | None = None, progress: Progress | None = None) -> Clips:
    """DeepFakeDetection by itself: in the tree of FaceForensics++, or in folders ``DFD_original…`` and ``DFD_manip…``.

    ``01__scene.mp4`` shows actor 1, ``01_02__scene__CODE.mp4`` that video with the face of actor 2. Groups as in
    ``read_ffpp``.

    Raises:
        DataError: no such folders, or no usable clip of a class.
    """
    root = Path(root)
    if (root / ORIGINAL).is_dir() or (root / MANIPULATED).is_dir():
        return read_ffpp(root, methods=(DFD,), cropped=cropped, progress=progress)
    tops = {f.name: m for f in sorted(root.iterdir()) for k, m in _DFD_FOLDERS.items()
            if f.is_dir() and f.name.lower().startswith(k)}  # fmt: skip
    clips, doubled = _in_folders(root, list(tops))
    if not clips:
        raise missing(root, "videos in DFD_original… and DFD_manipulated…", "none")
    both = {c.name: dfd_sources(without_frame(c.stem) if c.photograph else c.stem) for c in clips}
    method = {c.name: tops[c.name.partition("/")[0]] for c in clips}
    groups, note = by_person({n: s[0] for n, s in both.items()}, {n: s[1] for n, s in both.items()},
                             [n for n, m in method.items() if m])  # fmt: skip
    return assemble_clips(
        [ClipEntry(c, method[c.name], groups[c.name]) for c in clips],
        root,
        name=root.name,
        source=f"DeepFakeDetection in {root}",
        cropped=cropped,
        grouping="the names of DeepFakeDetection (01__hug_0012.png)",
        notes=[*([note] if note else []), *left_aside(doubled)],
        progress=progress,
    )


def read_dfdc(root: Path, *, cropped: bool | None = None, progress: Progress | None = None) -> Clips:
    """Folders with ``metadata.json``: ``{"x.mp4": {"label": "FAKE", "split": "train", "original": "y.mp4"}}``.

    The method is ``DFDC``: the set does not tell its methods apart. A fake and its original are one group. In place of
    ``x.mp4`` there may be a folder ``x`` of frames. Videos that a list names and that are not there are counted in the
    notes: few have all of it.

    Raises:
        DataError: no such file, a broken one, or no usable clip of a class.
    """
    root = Path(root)
    names = files_below(root)
    parts = [f for f in ["", *_folders(names)] if (root / f / METADATA).is_file()]
    if not parts:
        raise missing(root, f"folders with {METADATA}", "none")
    clips, doubled = clips_among(names, {p.rstrip("/") for p in parts}.__contains__)
    by_name = {c.name: c for c in clips} | {f"{c.name}.mp4": c for c in clips if c.still and not c.photograph}
    entries, unreadable, absent, links = [], [], [], {}
    rows: list[tuple[Found, str, str]] = []
    for part in parts:
        for name, label, split, original in _metadata(root / part / METADATA):
            if inside(root / part, name) is None:
                unreadable.append(Unreadable(printable(name), "the name is empty or leads out of the folder"))
                continue
            found = by_name.get(part + name)
            if found is None:
                absent.append(part + name)
                continue
            own = part + name
            links[found.name] = [own] if label == "REAL" or not original else [part + original, own]
            rows.append((found, label, split))
    groups = linked(links)
    entries = [ClipEntry(f, GENUINE if label == "REAL" else "DFDC", groups[f.name], split=s) for f, label, s in rows]
    notes = left_aside(doubled)
    if absent:
        notes.append(f"{len(absent)} clip(s) that {METADATA} names are not there, the first {printable(absent[0])}")
    nameless = len(clips) - len({f.name for f, *_ in rows})
    if nameless:
        notes.append(f"{nameless} clip(s) that no {METADATA} names are left out")
    return assemble_clips(
        entries,
        root,
        name=root.name,
        source=f"DFDC folders in {root}",
        cropped=cropped,
        grouping=METADATA,
        unreadable=unreadable,
        notes=notes,
        progress=progress,
    )


def read_plain(root: Path, *, cropped: bool | None = None, progress: Progress | None = None) -> Clips:
    """``real/`` and ``fake/<method>/`` with videos, photographs, or a folder of frames per video.

    What lies in ``fake/`` itself is of the method ``fake``. Where there is no ``fake/``, every other folder beside
    ``real/`` is a method. Folders above are the domain: ``c23/real/``, ``c23/fake/Deepfakes/``; one called ``train``,
    ``val`` or ``test`` is the split.

    Clips are grouped by the sources in their names (``519.mp4`` with ``519_515.mp4``, see ``clip_files.sources``), or
    as ``groups.csv`` says, with the columns ``file,group`` and one row for each clip that it wants otherwise.

    Raises:
        DataError: no such folders, or no usable clip of a class.
    """
    root = Path(root)
    placed, doubled = plain_tree(files_below(root))
    if not placed:
        raise missing(root, "clips in real/ and fake/<method>/", "none")
    given = read_groups(root)
    links = {p.found.name: (given[p.found.name],) if p.found.name in given else sources(p.found) for p in placed}
    groups = linked(links)
    notes = left_aside(doubled)
    (largest, size), *_ = Counter(groups.values()).most_common(1)
    if size > max(_MANY, len(placed) / 2):
        notes.append(f"{size} of {len(placed)} clips are one group by their names, {printable(largest)}: where they "
                     "have nothing to do with one another, groups.csv can say so")  # fmt: skip
    strange = sorted(given.keys() - links.keys())
    if strange:
        notes.append(
            f"groups.csv names {len(strange)} file(s) that are no clip here, the first {printable(strange[0])}"
        )
    return assemble_clips(
        [ClipEntry(p.found, p.method, groups[p.found.name], p.domain, p.split) for p in placed],
        root,
        name=root.name,
        source=f"folder of real and fake clips {root}",
        cropped=cropped,
        grouping="" if given else GROUPS,
        notes=notes,
        progress=progress,
    )


def plain_tree(names: list[str]) -> tuple[list[Placed], int]:
    """What ``class_tree`` finds in a plain folder."""
    folders = _folders(names)
    at: dict[str, set[str]] = {}
    for folder in folders:
        above, _, last = folder.rstrip("/").rpartition("/")
        at.setdefault(above, set()).add(last)
    methods = {
        f"{above}/{f}".lstrip("/")
        for above, inner in at.items()
        if any(f.lower() in REAL for f in inner) and not any(f.lower() in FAKE for f in inner)
        for f in inner
        if f.lower() not in REAL
    }
    return class_tree(names, REAL, FAKE, "fake", methods)


def _folders(names: list[str]) -> list[str]:
    """All folders that files lie in or below, each with a slash at its end, sorted."""
    found = set()
    for name in names:
        at = name.find("/")
        while at >= 0:
            found.add(name[: at + 1])
            at = name.find("/", at + 1)
    return sorted(found)


def _in_folders(root: Path, tops: list[str]) -> tuple[list[Found], int]:
    """The clips of some folders; images directly in one, or in its ``frames/`` and the like, are photographs."""
    names = [f"{t}/{n}" for t in tops for n in files_below(root / t)]
    flat = {*tops, *(f"{t}/{f}" for t in tops for f in FORMS)}
    return clips_among(names, flat.__contains__)


def _celeb_test(root: Path, clips: list[Found]) -> tuple[dict[str, str], list[str]]:
    """Clip -> split, by the official list; empty without one."""
    file = root / CELEB_TEST
    if not file.is_file():
        return {}, []
    at = {f"{c.name.partition('/')[0]}/{c.stem}": c.name for c in clips}
    splits = dict.fromkeys((c.name for c in clips), "train")
    absent = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except ValueError as e:
        raise _broken(file, str(e)) from e
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, _, name = line.strip().partition(" ")
        top = name.partition("/")[0]
        if top not in CELEB or label != ("0" if CELEB[top] else "1"):
            raise _broken(file, f"{printable(line)[:80]!r} in line {number}")
        clip = at.get(name.strip().removesuffix(".mp4"))
        if clip is None:
            absent.append(name)
        else:
            splits[clip] = "test"
    return splits, (
        [f"{len(absent)} clip(s) that {CELEB_TEST} names are not there, the first {printable(absent[0])}"]
        if absent
        else []
    )


def _metadata(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """(name, REAL or FAKE, split, original or empty) of each video."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise _broken(file, str(e)) from e
    if not isinstance(about, dict):
        raise _broken(file, type(about).__name__)
    for name, row in about.items():
        label = row.get("label") if isinstance(row, dict) else None
        if label not in ("REAL", "FAKE"):
            raise _broken(file, f"the label {str(label)[:40]!r} of {printable(name)[:80]}")
        original = row.get("original")
        split = _SPLITS.get(str(row.get("split") or "").lower(), "")
        yield name, label, split, original if isinstance(original, str) else ""


def _broken(file: Path, got: str) -> DataError:
    expected = {
        METADATA: '{"x.mp4": {"label": "REAL" or "FAKE", "split": …, "original": …}, …}',
        CELEB_TEST: "lines such as 1 YouTube-real/00170.mp4 and 0 Celeb-synthesis/id0_id1_0000.mp4",
    }[file.name]
    return DataError(
        f"file {printable(file.name)}",
        expected=expected,
        got=got[:200],
        mend="take the one that was handed out with the data",
    )
