"""Lists of pairs: LFW's ``pairs.txt``, and CSV with the columns ``a,b,same``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from audit.data.assemble import Progress, images_root, inside, printable
from audit.data.face_set import FaceEntry, Pair, assemble_faces, described
from audit.data.faces import FacePairs
from audit.data.people import people_beside, plain, table
from audit.errors import DataError
from audit.landmarks import Finder

COLUMNS = ("a", "b", "same")
_FOLDERS = (
    "images", "lfw", "lfw-deepfunneled", "lfw_funneled", "lfw-funneled", "images_deepfunneled", "lfw-py/lfw_funneled",
    "lfw-deepfunneled/lfw-deepfunneled",
)  # fmt: skip
_SUFFIXES = (".jpg", ".png", ".jpeg", ".bmp", ".webp")
_SAME = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}


def read_lfw_pairs(
    path: Path, *, images: Path | None = None, finder: Finder | None = None, progress: Progress | None = None
) -> FacePairs:
    """A file in the format of LFW's ``pairs.txt`` (Huang et al. 2007).

    Lines ``name n m``, photographs ``n`` and ``m`` of one person, or ``name n name m``, of two, between white space or
    tabs; a first line ``folds n``, or ``n``, says that ``n`` pairs of each kind follow per fold, and has to be true.
    A photograph is ``name/name_0001.jpg`` (or ``.png``) below ``images``, by default a folder beside the file.

    Raises:
        DataError: another format, more or fewer pairs than the first line says, photographs not found, none usable.
    """
    path = Path(path)
    lines = _lines(path)
    counted, lines = _header(lines)
    listed = [_parsed(path, number, line) for number, line in lines]
    genuine = sum(a[0] == b[0] for a, b in listed)
    if counted is not None and (genuine, len(listed) - genuine) != (counted, counted):
        raise _broken(path, f"{genuine} pairs of one person and {len(listed) - genuine} of two, not {counted} of each "
                      "as its first line says", "correct the first line or leave it out")  # fmt: skip
    names = [f"{who}/{who}_{n:04d}.jpg" for pair in listed for who, n in pair]
    others = [n.replace(".jpg", s) for n in names[:100] for s in _SUFFIXES[1:]]
    root = images_root(images, _beside(path), names[:1000] + others, f"pairs {printable(path.name)}")
    people = people_beside(path.parent, root)
    entries: dict[tuple[str, int], FaceEntry] = {}
    for who, n in (one for pair in listed for one in pair):
        if (who, n) not in entries:
            entries[who, n] = described(_found(root, f"{who}/{who}_{n:04d}"), who, people)
    pairs = [(entries[a].name, entries[b].name, a[0] == b[0]) for a, b in listed]
    return assemble_faces(list(entries.values()), pairs, root, name=path.stem, source=f"LFW pairs {path}",
                          finder=finder or Finder(), progress=progress)  # fmt: skip


def read_pairs_csv(
    path: Path, *, images: Path | None = None, finder: Finder | None = None, progress: Progress | None = None
) -> FacePairs:
    """A CSV file with the columns ``a``, ``b`` (photographs) and ``same`` (1 or 0); ``faces.csv`` may lie beside it.

    Who is who comes from ``faces.csv``; else from the folders, where one folder per person agrees with all pairs; else
    photographs that pairs call one person are one.

    Raises:
        DataError: another format, pairs that contradict each other, photographs not found, none usable.
    """
    path = Path(path)
    _, rows = table(path, COLUMNS)
    pairs: list[Pair] = []
    for number, row in enumerate(rows, start=2):
        same = _SAME.get(row["same"].lower())
        if same is None:
            raise _broken(path, f"same={row['same'][:20]!r} in row {number}", "write 1 or 0")
        pairs.append((plain(row["a"]), plain(row["b"]), same))
    names = list(dict.fromkeys(n for a, b, _ in pairs for n in (a, b)))
    root = images_root(images, _beside(path), names, f"CSV file {printable(path.name)}")
    people = people_beside(path.parent, root)
    entries, note = _identified([described(n, "", people) for n in names], pairs, path.name)
    return assemble_faces(entries, pairs, root, name=path.stem, source=f"CSV {path}", finder=finder or Finder(),
                          notes=note, progress=progress)  # fmt: skip


def looks_lfw(lines: Sequence[str]) -> bool:
    """Whether the first lines of a text file are those of LFW's pairs."""
    fields = [line.split() for line in lines if line.strip()]
    return _is_pair(next((f for f in fields[:2] if not _is_header(f)), []))


def _is_header(fields: Sequence[str]) -> bool:
    return len(fields) in (1, 2) and all(f.isdecimal() for f in fields)


def _is_pair(fields: Sequence[str]) -> bool:
    numbers = {3: (1, 2), 4: (1, 3)}.get(len(fields), ())
    return bool(numbers) and all(fields[i].isdecimal() for i in numbers)


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as e:
        raise _broken(path, f"something else ({str(e)[:80]})", "check the path") from e
    return [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _header(lines: list[tuple[int, str]]) -> tuple[int | None, list[tuple[int, str]]]:
    """How many pairs of each kind there have to be, and the lines that hold them."""
    if lines and _is_header(fields := lines[0][1].split()):
        product = 1
        for f in fields:
            product *= int(f[:9])
        return product, lines[1:]
    return None, lines


def _parsed(path: Path, number: int, line: str) -> tuple[tuple[str, int], tuple[str, int]]:
    fields = [f.strip() for f in line.strip().split("\t")] if line.strip().count("\t") >= 2 else line.split()
    if not _is_pair(fields) or any(len(f) > 9 for f in (fields[1], fields[-1])):
        raise _broken(path, f"{line.strip()[:60]!r} in line {number}", "write `name n m` or `name n name m`")
    return (fields[0], int(fields[1])), (fields[0 if len(fields) == 3 else 2], int(fields[-1]))


def _beside(path: Path) -> list[Path]:
    return [path.parent, *(path.parent / f for f in _FOLDERS)]


def _found(root: Path, stem: str) -> str:
    """The photograph's name with the suffix that it has."""
    for suffix in _SUFFIXES:
        file = inside(root, stem + suffix)
        try:
            if file is not None and file.is_file():
                return stem + suffix
        except (OSError, ValueError):  # a name that no file can have
            break
    return stem + _SUFFIXES[0]


def _identified(entries: list[FaceEntry], pairs: Sequence[Pair], name: str) -> tuple[list[FaceEntry], list[str]]:
    """The entries with identities, and a note where they are inferred from the pairs."""
    if all(e.identity for e in entries):
        return entries, []
    folder = {e.name: str(PurePosixPath(e.name).parent) for e in entries}
    if len(set(folder.values())) > 1 and all((folder[a] == folder[b]) == same for a, b, same in pairs):
        return [e if e.identity else replace(e, identity=folder[e.name]) for e in entries], []
    one: Mapping[str, str] = _joined([e.name for e in entries], pairs)
    members: dict[str, list[FaceEntry]] = {}
    for e in entries:
        members.setdefault(one[e.name], []).append(e)
    for a, b, same in pairs:
        if not same and one[a] == one[b]:
            raise DataError(
                f"CSV file {printable(name)}",
                expected=f"{printable(a)} and {printable(b)} to show two people, as their pair says",
                got="other pairs by which they show one",
                mend="correct the pairs",
            )
    known = {k: next((e.identity for e in m if e.identity), "") for k, m in members.items()}
    alone = {k: "" if len(m) == 1 else f"person of {m[0].name}" for k, m in members.items()}
    out = [e if e.identity else replace(e, identity=known[one[e.name]] or alone[one[e.name]]) for e in entries]
    return out, ["who is who is inferred from the pairs: photographs that they call one person are one"]


def _joined(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Name -> one name for all photographs that pairs of one person join."""
    parent = {n: n for n in names}

    def root(n: str) -> str:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for a, b, same in pairs:
        if same:
            parent[root(a)] = root(b)
    return {n: root(n) for n in names}


def _broken(path: Path, got: str, mend: str) -> DataError:
    return DataError(
        f"pairs {printable(path.name)}",
        expected="lines `name n m` and `name n name m` as LFW has them, or CSV with the columns a,b,same",
        got=printable(got),
        mend=mend,
    )
