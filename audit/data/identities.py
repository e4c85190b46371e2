"""Photographs in folders: one per person, galleries with probes, and a competition's pairs of files."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath

from audit.data.assemble import Progress, images_below, printable
from audit.data.face_set import FaceEntry, Pair, assemble_faces, described
from audit.data.faces import FacePairs
from audit.data.people import people_beside
from audit.errors import DataError
from audit.landmarks import Finder

PAIRS = 3000
"""Pairs of one person that are made at most, and as many of two: as in LFW's protocol."""
GALLERY = "gallery"
PROBES = ("probe", "probes")
COMPARE = re.compile(r"(.+)_compare(\.[^./]+)$")

_PER_PERSON = 32


def read_identities(
    path: Path, *, limit: int = PAIRS, finder: Finder | None = None, progress: Progress | None = None
) -> FacePairs:
    """One folder per person. Pairs are made by hash of the names, the same every time.

    Pairs of one person: all, or ``limit`` of them, taken in turn from the people so that nobody outweighs the others.
    Pairs of two: as many, every photograph about as often as another; where nobody has two photographs, ``limit``.

    Raises:
        DataError: no folder with photographs, one person only, or no usable pair.
    """
    path = Path(path)
    who = {n: n.partition("/")[0] for n in images_below(path) if "/" in n}
    if len(set(who.values())) < 2:
        raise _folder(path, "folders of at least two people", f"{len(set(who.values()))}")
    people = people_beside(path)
    entries = [described(n, w, people) for n, w in who.items()]
    genuine = _genuine(entries, limit)
    note = f"{len(genuine)} pairs of one person were made from the folders, by hash, and at most as many of two"
    if not genuine:
        note = f"nobody has two photographs: {limit} pairs of two people were made at most, by hash"
    return assemble_faces(
        entries,
        [*genuine, *_impostors(entries, len(genuine) or limit)],
        path,
        name=path.name,
        source=f"folders of people in {printable(str(path))}",
        finder=finder or Finder(),
        notes=[note],
        progress=progress,
    )


def read_gallery(
    path: Path, *, limit: int = PAIRS, finder: Finder | None = None, progress: Progress | None = None
) -> FacePairs:
    """Enrolled people and probes, for 1:N: ``gallery/`` and ``probe/``, or the folders beside ``gallery/``.

    In each, a photograph is ``Name.jpg``, ``Name_2.jpg`` or ``Name/anything.jpg``. A pair is a probe with an enrolled
    photograph: all of one person (at most ``limit``), as many of two. People who are not enrolled may be among the
    probes.

    Raises:
        DataError: nobody enrolled, no probe, or no usable pair.
    """
    path = Path(path)
    people = people_beside(path)
    names = images_below(path)
    enrolled = [described(n, _owner(n, 1), people, gallery=True) for n in names if n.startswith(f"{GALLERY}/")]
    within = [n for n in names if n.partition("/")[0] in PROBES]
    probes = [described(n, _owner(n, 1), people) for n in within] or [
        described(n, _owner(n, 0), people) for n in names if not n.startswith(f"{GALLERY}/")
    ]
    if not enrolled or not probes:
        raise _folder(path, "photographs in gallery/ and in probe/ or beside it",
                      f"{len(enrolled)} enrolled and {len(probes)} probes")  # fmt: skip
    by_person: dict[str, list[FaceEntry]] = defaultdict(list)
    for e in enrolled:
        by_person[e.identity].append(e)
    same = [(p.name, g.name, True) for p in probes for g in by_person.get(p.identity, [])]
    strange = sum(p.identity not in by_person for p in probes)
    genuine = sorted(same, key=lambda p: _hash(*p[:2]))[:limit]
    return assemble_faces(
        [*enrolled, *probes],
        [*genuine, *_strangers(probes, enrolled, len(genuine) or limit)],
        path,
        name=path.name,
        source=f"gallery and probes in {printable(str(path))}",
        finder=finder or Finder(),
        notes=[f"{len(by_person)} people are enrolled; {strange} probes show somebody else"],
        progress=progress,
    )


def read_competition(path: Path, *, finder: Finder | None = None, progress: Progress | None = None) -> FacePairs:
    """Pairs of different people as ``0001.png`` and ``0001_compare.png``, as competitions have them (000 §4.1).

    Raises:
        DataError: no such pair of files, or none usable.
    """
    path = Path(path)
    names = images_below(path)
    people = people_beside(path)
    partner = {m[1] + m[2]: n for n in names if (m := COMPARE.fullmatch(n))}
    pairs: list[Pair] = [(a, b, False) for a, b in partner.items() if a in set(names)]
    if not pairs:
        raise _folder(path, "files such as 0001.png and 0001_compare.png", "none with its partner")
    entries = [described(n, "", people) for pair in pairs for n in pair[:2]]
    alone = sorted(set(names) - {e.name for e in entries})
    notes = ["every pair is taken to show two people, as in the competition"]
    if alone:
        notes.append(f"{len(alone)} photograph(s) without a partner are left out, the first {printable(alone[0])}")
    return assemble_faces(entries, pairs, path, name=path.name, source=f"pairs of files in {printable(str(path))}",
                          finder=finder or Finder(), notes=notes, progress=progress)  # fmt: skip


def _genuine(entries: Sequence[FaceEntry], limit: int) -> list[Pair]:
    """Pairs of one person: the first of everybody, then the second, until there are enough."""
    each = [sorted(combinations(sorted(e.name for e in own), 2), key=lambda p: _hash(*p)) for own in _by_hash(entries)]
    each.sort(key=lambda own: _hash(*own[0]) if own else b"")
    turns = max((len(own) for own in each), default=0)
    in_turn = [(*own[turn], True) for turn in range(turns) for own in each if turn < len(own)]
    return in_turn[:limit]


def _by_hash(entries: Sequence[FaceEntry]) -> Iterator[list[FaceEntry]]:
    """Each person's photographs; of many, 32 by hash: their pairs are counted in squares."""
    own: dict[str, list[FaceEntry]] = defaultdict(list)
    for e in sorted(entries, key=lambda e: _hash(e.name)):
        if len(own[e.identity]) < _PER_PERSON:
            own[e.identity].append(e)
    yield from own.values()


def _impostors(entries: Sequence[FaceEntry], count: int) -> list[Pair]:
    """Pairs of two people: neighbours on a ring in order of hash, then neighbours but one, until there are enough."""
    ring = sorted(entries, key=lambda e: _hash(e.name))
    found: dict[tuple[str, str], Pair] = {}
    for step in range(1, len(ring) // 2 + 1):
        for i, e in enumerate(ring):
            if len(found) == count:
                return list(found.values())
            other = ring[(i + step) % len(ring)]
            if e.identity != other.identity:
                a, b = sorted((e.name, other.name))
                found[a, b] = (a, b, False)
    return list(found.values())


def _strangers(probes: Sequence[FaceEntry], enrolled: Sequence[FaceEntry], count: int) -> list[Pair]:
    """Pairs of a probe with somebody else's enrolled photograph, probes and enrolled in turn."""
    ps, gs = (sorted(x, key=lambda e: _hash(e.name)) for x in (probes, enrolled))
    found: list[Pair] = []
    for step in range(len(gs)):
        for i, p in enumerate(ps):
            if len(found) == count:
                return found
            g = gs[(i + step) % len(gs)]
            if p.identity != g.identity:
                found.append((p.name, g.name, False))
    return found


def _owner(name: str, above: int) -> str:
    """Who is on ``Name.jpg``, ``Name_2.jpg`` or ``Name/…``, below ``above`` folders."""
    parts = PurePosixPath(name).parts[above:]
    return parts[0] if len(parts) > 1 else re.sub(r"_\d+$", "", PurePosixPath(parts[0]).stem)


def _hash(*names: str) -> bytes:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).digest()


def _folder(path: Path, expected: str, got: str) -> DataError:
    return DataError(f"data {printable(str(path))}", expected=expected, got=got,
                     mend="check the path and the folders in it")  # fmt: skip
