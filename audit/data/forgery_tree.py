"""FaceForensics++ as it is handed out: originals, manipulations, qualities and the official splits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from audit.data.assemble import Progress, printable
from audit.data.clip_files import FORMS, Found, clips_among, files_below, without_frame
from audit.data.clip_set import ClipEntry, assemble_clips, by_person, chosen, left_aside, missing
from audit.data.clips import GENUINE, Clips, linked
from audit.errors import DataError

ORIGINAL = "original_sequences"
MANIPULATED = "manipulated_sequences"
DFD = "DeepFakeDetection"
"""The method of Google's DeepFakeDetection set, whose originals show actors."""
ACTORS = "actors"
QUALITIES = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}
"""What folders call a quality -> its name here."""
DFD_NAME = re.compile(r"([0-9]+)(?:_([0-9]+))?__(.+?)(?:__[A-Z0-9]+)?")
"""``01__kitchen_pan``, ``01_02__kitchen_pan__YVGY8LOK``: the actor filmed, the one whose face was put in, the scene."""

_LISTS = ("train", "val", "test")


def read_ffpp(
    root: Path,
    quality: str | Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    *,
    cropped: bool | None = None,
    progress: Progress | None = None,
) -> Clips:
    """``original_sequences/youtube/c23/videos/004.mp4``, ``manipulated_sequences/<method>/c23/videos/004_982.mp4``.

    In place of ``videos/`` there may be ``images/`` (whole frames, as the authors' script writes them), ``frames/``,
    ``faces/`` or ``crops/``, a folder per video; the first of them counts. ``domain`` is the quality, ``raw`` (also
    ``c0``), ``c23`` or ``c40``. DeepFakeDetection, which lies in the same tree, keeps to its own originals: its domain
    is ``DFD raw`` and so on.

    A clip's sources are the numbers in its name, and clips that share any are one group, by whatever chain; so are the
    pairs of the official lists ``train.json``, ``val.json``, ``test.json`` in ``root`` or ``root/splits``, which give
    ``split``. DeepFakeDetection is grouped by its actors, or by video where the swaps chain them all (see
    ``by_person``). Groups do not depend on what is chosen.

    Args:
        quality: one or several, all by default. methods: folders of ``manipulated_sequences``, all by default.
        splits: of ``train``, ``val``, ``test``; all clips by default, those in no list too.
        cropped: see ``assemble_clips``.

    Raises:
        DataError: no such tree, a choice that is not there, a broken list, no usable clip of a class.
    """
    root = Path(root)
    names = [f"{top}/{n}" for top in (ORIGINAL, MANIPULATED) if (root / top).is_dir() for n in files_below(root / top)]
    forms = _forms(names)
    if not forms:
        raise missing(root, f"{ORIGINAL}/youtube/c23/videos and {MANIPULATED}/<method>/c23/videos", "no such folders")
    used = [n for n in names if n.split("/")[3:4] and forms.get(tuple(n.split("/")[:3])) == n.split("/")[3]]
    bases = {"/".join(n.split("/")[:4]) for n in used}
    clips, doubled = clips_among(used, bases.__contains__)
    there = [c.name.split("/") for c in clips]
    made = chosen(root, "methods", methods, (p[1] for p in there if p[0] == MANIPULATED))
    wanted = [quality] if isinstance(quality, str) else quality
    wanted = None if wanted is None else [QUALITIES.get(q, q) for q in wanted]
    qualities = chosen(root, "qualities", wanted, (QUALITIES[p[2]] for p in there))
    lists = _official(root)
    of_split = chosen(root, "official lists", splits, lists) if splits is not None else None
    groups, official, notes = _grouped(clips, lists)
    entries = [
        ClipEntry(
            found=c,
            method=GENUINE if p[0] == ORIGINAL else p[1],
            group=groups[c.name],
            domain=("DFD " if _dfd(c) else "") + QUALITIES[p[2]],
            split=official[c.name],
            cropped=False if p[3] == "images" else None,
        )
        for c, p in zip(clips, there, strict=True)
        if QUALITIES[p[2]] in qualities
        and (p[1] in made if p[0] == MANIPULATED else _needed(c, made))
        and (of_split is None or official[c.name] in of_split)
    ]
    return assemble_clips(
        entries,
        root,
        name=root.name,
        source=f"FaceForensics++ tree {root}",
        cropped=cropped,
        notes=[*notes, *left_aside(doubled)],
        progress=progress,
    )


def looks_ffpp(root: Path) -> bool:
    """Whether a folder is such a tree."""
    return (root / ORIGINAL).is_dir() or (root / MANIPULATED).is_dir()


def dfd_sources(stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(people, videos) that a clip of DeepFakeDetection was made of, by its name; the name itself where it is none."""
    match = DFD_NAME.fullmatch(stem)
    if match is None:
        return (f"DFD {stem}",), (f"DFD {stem}",)
    return tuple(f"DFD actor {n}" for n in match.group(1, 2) if n), (f"DFD {match[1]}__{match[3]}",)


def _forms(names: Iterable[str]) -> dict[tuple[str, ...], str]:
    """(sequences, method, quality) -> the folder of its clips that counts."""
    found: dict[tuple[str, ...], str] = {}
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) < 4 or folders[2] not in QUALITIES or folders[3] not in FORMS:
            continue
        place = tuple(folders[:3])
        if place not in found or FORMS.index(folders[3]) < FORMS.index(found[place]):
            found[place] = folders[3]
    return found


def _dfd(found: Found) -> bool:
    return found.name.split("/")[1] in (ACTORS, DFD)


def _needed(found: Found, made: Sequence[str]) -> bool:
    """Whether an original is the original of any of the methods; all are where there is no method at all."""
    return not made or (DFD in made if _dfd(found) else any(m != DFD for m in made))


def _sources(found: Found) -> tuple[str, ...]:
    """The numbers in a name; a still that lies beside others has those of its frame and face after them."""
    original = found.name.startswith(ORIGINAL)
    frame = r"(?s:[^0-9].*)?" if found.photograph else ""
    match = re.fullmatch((r"([0-9]+)" if original else r"([0-9]+)_([0-9]+)") + frame, found.stem)
    return match.groups() if match else (found.stem,)


def _grouped(
    clips: Sequence[Found], lists: Mapping[str, Sequence[tuple[str, str]]]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Clip -> group, clip -> official split, and what is to be said of them."""
    actors = {c.name: dfd_sources(without_frame(c.stem) if c.photograph else c.stem) for c in clips if _dfd(c)}
    swapped = [n for n in actors if n.startswith(MANIPULATED)]
    dfd, note = by_person({n: s[0] for n, s in actors.items()}, {n: s[1] for n, s in actors.items()}, swapped)
    sources = {c.name: _sources(c) for c in clips if c.name not in actors}
    pairs = {f"\0{name} {i}": pair for name, own in lists.items() for i, pair in enumerate(own)}
    groups = linked({**sources, **pairs}) | dfd
    belongs: dict[str, str] = {}
    for name, own in lists.items():
        for number in (n for pair in own for n in pair):
            if belongs.setdefault(number, name) != name:
                raise _broken(f"{name}.json", f"{number}, which {belongs[number]}.json has too",
                              "give each video to one split")  # fmt: skip
    official = dict.fromkeys(groups, "")
    across = []
    for clip, own_sources in sources.items():
        named = {belongs.get(s, "") for s in own_sources}
        official[clip] = named.pop() if len(named) == 1 else ""
        across += [clip] if len(named) > 1 else []
    notes = [note] if note else []
    if across:
        notes.append(f"{len(across)} clip(s) have sources in two official splits and are in none, the first "
                     f"{printable(across[0])}")  # fmt: skip
    return groups, official, notes


def _official(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Split -> pairs of numbers, of the lists that are there."""
    found = {}
    for name in _LISTS:
        file = next((f for f in (root / f"{name}.json", root / "splits" / f"{name}.json") if f.is_file()), None)
        if file is None:
            continue
        try:
            pairs = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as e:
            raise _broken(file.name, f"something else ({str(e)[:80]})") from e
        good = isinstance(pairs, list) and all(
            isinstance(p, list) and len(p) == 2 and all(isinstance(n, str) and n for n in p) for p in pairs
        )
        if not good:
            raise _broken(file.name, "something else")
        found[name] = [(a, b) for a, b in pairs]
    return found


def _broken(name: str, got: str, mend: str = "take the list that FaceForensics++ hands out") -> DataError:
    return DataError(
        f"official list {printable(name)}", expected='pairs such as [["071", "054"], …]', got=got, mend=mend
    )
