"""From what a reader lists to FacePairs: photographs checked, landmarks found, one size, all loss noted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from audit.data.assemble import Progress, inside, printable
from audit.data.faces import Face, FacePairs
from audit.data.framing import EYES, LARGEST, SHARED, SIDE, frame_of, framed, moved
from audit.data.images import ImageFile, inspect, read_as
from audit.data.people import Person
from audit.data.scenes import Unreadable
from audit.errors import DataError
from audit.landmarks import Finder, Photo, chip_landmarks, fault, locate

Pair = tuple[str, str, bool]
"""Two photographs by name, and whether they show one person."""

_SMALL = 20


@dataclass(frozen=True, slots=True)
class FaceEntry:
    """What the data says of one photograph.

    Attributes:
        name: path below the root; it becomes the face's id. gallery: whether it is enrolled.
        landmarks: (5, 2) px of the upright photograph, if the data has them.
    """

    name: str
    identity: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    landmarks: Tensor | None = None
    gallery: bool = False


@dataclass(frozen=True, slots=True)
class _Usable:
    entry: FaceEntry
    path: Path
    file: ImageFile


def described(name: str, identity: str, people: Mapping[str, Person], *, gallery: bool = False) -> FaceEntry:
    """The entry with what ``faces.csv`` says of it; its identity goes before the reader's."""
    person = people.get(name, Person())
    return FaceEntry(name, person.identity or identity, person.groups, person.landmarks, gallery)


def assemble_faces(
    entries: Sequence[FaceEntry],
    pairs: Sequence[Pair],
    root: Path,
    *,
    name: str,
    source: str,
    finder: Finder,
    notes: Iterable[str] = (),
    progress: Progress | None = None,
) -> FacePairs:
    """Opens every photograph below ``root`` and finds its landmarks; see ``FacePairs``.

    Landmarks are the data's; else a photograph of 112 × 112 px is taken for aligned; else the finder's. Photographs
    of one size of at most 320 px stay as they are; others become squares of 256 px of six eye distances around the
    face, black outside. What cannot be used is in ``unreadable``, and its pairs are dropped with a note.

    Raises:
        DataError: no usable photograph or pair, landmarks missing and nobody to find them, or a pair that says of two
            photographs something else than their identities do.
    """
    _agree(entries, pairs, name)
    usable, unreadable = _open(entries, root, progress)
    where, came = _landmarks(list(usable.values()), finder, unreadable, progress)
    usable = {n: u for n, u in usable.items() if n in where}
    if not usable:
        examples = "; ".join(f"{u.name}: {u.reason}" for u in unreadable[:3])
        raise DataError(
            f"data {printable(str(root))}",
            expected="at least one photograph with a face",
            got=f"{len(unreadable)} unusable ({examples})" if unreadable else "none",
            mend="check the path, that the photographs lie where the data says, and the landmarks",
        )
    faces, size, small = _faces(usable, where)
    at = {n: i for i, n in enumerate(usable)}
    kept, lost = _pairs(pairs, usable)
    if not kept:
        raise DataError(f"data {printable(str(root))}", expected="at least one pair of usable photographs",
                        got=f"none of {len(pairs)}", mend="give pairs, or several photographs per person")  # fmt: skip
    return FacePairs(
        faces=faces,
        pairs=torch.tensor([[at[a], at[b]] for a, b, _ in kept], dtype=torch.int64),
        same=torch.tensor([same for *_, same in kept], dtype=torch.bool),
        size=size,
        name=printable(name),
        source=printable(source),
        landmarks_from=came,
        gallery=tuple(at[n] for n, u in usable.items() if u.entry.gallery),
        unreadable=tuple(unreadable),
        notes=(*notes, *lost, *_remarks(usable.values(), small)),
    )


def _agree(entries: Sequence[FaceEntry], pairs: Sequence[Pair], name: str) -> None:
    who = {e.name: e.identity for e in entries}
    for a, b, same in pairs:
        if who[a] and who[b] and (who[a] == who[b]) != same:
            said = "one person" if same else "two people"
            raise DataError(
                f"data {printable(name)}",
                expected=f"{printable(a)} and {printable(b)} to show {said}, as their pair says",
                got=f"the identities {printable(who[a])} and {printable(who[b])}",
                mend="correct the pair or the identities",
            )


def _open(
    entries: Sequence[FaceEntry], root: Path, progress: Progress | None
) -> tuple[dict[str, _Usable], list[Unreadable]]:
    usable: dict[str, _Usable] = {}
    unreadable = []
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        for i, result in enumerate(pool.map(partial(_outcome, root), entries)):
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                usable[result.entry.name] = result
            if progress is not None:
                progress(0.5 * (i + 1) / len(entries), f"opening {printable(entries[i].name)}")
    finally:
        pool.shutdown(cancel_futures=True)
    return usable, unreadable


def _outcome(root: Path, entry: FaceEntry) -> _Usable | Unreadable:
    path = inside(root, entry.name)
    if path is None:
        return Unreadable(printable(entry.name), "the name is empty or leads out of the folder of the photographs")
    try:
        return _Usable(entry, path, inspect(path))
    except DataError as e:
        return Unreadable(printable(entry.name), e.got)


def _landmarks(
    usable: Sequence[_Usable], finder: Finder, unreadable: list[Unreadable], progress: Progress | None
) -> tuple[dict[str, Tensor], str]:
    """Name -> (5, 2) px of the whole photograph, and who found them."""
    found: dict[str, Tensor] = {}
    asked: list[_Usable] = []
    came: Counter[str] = Counter()
    for u in usable:
        chip = chip_landmarks(u.file.size)
        own = u.entry.landmarks if u.entry.landmarks is not None else chip
        if own is None:
            asked.append(u)
            continue
        found[u.entry.name] = own
        came[
            "the data" if u.entry.landmarks is not None else "the usual template: 112x112 px are taken for aligned"
        ] += 1
    if asked:
        photos = [Photo(partial(read_as, u.path, u.file.size), u.file.size, u.file.digest) for u in asked]
        later = None if progress is None else _second_half(progress)
        points = locate(photos, finder, later)
        found.update((u.entry.name, p) for u, p in zip(asked, points, strict=True))
        came["the landmarker"] += len(asked)
    sound = {}
    for u in usable:
        reason = fault(found[u.entry.name], u.file.size)
        if not reason and frame_of(found[u.entry.name]).side > LARGEST * max(u.file.size):
            reason = "its landmarks are too far apart for its size"
        if reason:
            unreadable.append(Unreadable(printable(u.entry.name), reason))
        else:
            sound[u.entry.name] = found[u.entry.name]
    return sound, ", ".join(f"{who} ({n})" if len(came) > 1 else who for who, n in came.items())


def _second_half(progress: Progress) -> Callable[[float, str], None]:
    return lambda share, text: progress(0.5 + 0.5 * share, text)


def _faces(
    usable: Mapping[str, _Usable], where: Mapping[str, Tensor]
) -> tuple[tuple[Face, ...], tuple[int, int], list[str]]:
    """The faces, their one size, and the names of those that had to be enlarged much."""
    sizes = {u.file.size for u in usable.values()}
    keep = len(sizes) == 1 and max(max(s) for s in sizes) <= SHARED
    faces, small = [], []
    for name, u in usable.items():
        read, landmarks = partial(read_as, u.path, u.file.size), where[name]
        frame = frame_of(landmarks)
        if frame.side < EYES * _SMALL:
            small.append(name)
        if not keep:
            read, landmarks = partial(framed, u.path, u.file.size, frame), moved(landmarks, frame)
        groups = dict(u.entry.groups)
        faces.append(Face(printable(name), printable(u.entry.identity), read, u.file.digest, landmarks.float(), groups))
    return tuple(faces), sizes.pop() if keep else (SIDE, SIDE), small


def _pairs(pairs: Sequence[Pair], usable: Mapping[str, _Usable]) -> tuple[list[Pair], list[str]]:
    kept: dict[tuple[str, str], Pair] = {}
    lost: Counter[str] = Counter()
    first: dict[str, str] = {}
    for a, b, same in pairs:
        if a not in usable or b not in usable:
            why = "for a photograph that cannot be used"
        elif usable[a].file.digest == usable[b].file.digest:
            why = "because both are one and the same photograph"
        elif (min(a, b), max(a, b)) in kept:
            why = "because they came more than once"
        else:
            kept[min(a, b), max(a, b)] = (a, b, same)
            continue
        lost[why] += 1
        first.setdefault(why, f"{printable(a)} with {printable(b)}")
    return list(kept.values()), [
        f"{n} of {len(pairs)} pairs were dropped {why}, the first {first[why]}" for why, n in lost.items()
    ]


def _remarks(usable: Iterable[_Usable], small: Sequence[str]) -> list[str]:
    notes = []
    people: dict[str, str] = {}
    nobody = 0
    for u in usable:
        who = u.entry.identity
        nobody += not who
        if who and people.setdefault(u.file.digest, who) != who:
            notes.append(f"{printable(u.entry.name)} shows {printable(who)}, and as the same file "
                         f"{printable(people[u.file.digest])}")  # fmt: skip
    if nobody:
        notes.append(f"{nobody} photograph(s) without identity are each taken for a person of their own")
    if small:
        notes.append(f"{len(small)} face(s) have less than {_SMALL} px between the eyes, the first "
                     f"{printable(small[0])}")  # fmt: skip
    return notes
