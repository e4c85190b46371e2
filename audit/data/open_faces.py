"""Opens data for face verification; the format is found from what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from audit.contracts import Landmarker
from audit.data.assemble import Progress, images_below, printable
from audit.data.csv_boxes import header_of
from audit.data.face_pairs import COLUMNS, looks_lfw, read_lfw_pairs, read_pairs_csv
from audit.data.faces import FacePairs
from audit.data.identities import COMPARE, GALLERY, PAIRS, read_competition, read_gallery, read_identities
from audit.errors import DataError
from audit.landmarks import Finder, LandmarkCache

FACE_FORMATS = (
    "pairs as LFW's pairs.txt or CSV with the columns a,b,same, a folder per person, "
    "gallery/ with probe/, or files 0001.png with 0001_compare.png"
)
FACE_PREFIXES = ("lfw", "pairs", "people", "gallery", "competition")
_PEEK = 1 << 12


def open_faces(
    path: str | Path,
    *,
    landmarker: Landmarker | None = None,
    images: Path | None = None,
    limit: int = PAIRS,
    cache: LandmarkCache | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> FacePairs:
    """The pairs of faces at ``path``, a file or folder; its format is found from its content.

    A prefix names the format where that is wanted: ``lfw:PATH`` (pairs.txt), ``pairs:`` (CSV), ``people:`` (a folder
    per person), ``gallery:`` (1:N), ``competition:``. Beside any of them, ``faces.csv`` may hold identities, groups and
    landmarks per photograph, see ``read_people``.

    Args:
        landmarker: finds landmarks of photographs that have none in the data and are not aligned 112 × 112.
        images: folder of the photographs of a list of pairs, where they are not beside it.
        limit: pairs of one person, and of two, that are made of folders at most.
        cache: where found landmarks are kept. device: where the landmarker wants its images.
        progress: called with the share done and a word on it.

    Raises:
        DataError: nothing there, no known format or several, landmarks missing, no usable pair.
    """
    text = os.fspath(path)
    prefix, colon, rest = text.partition(":")
    kind = prefix if colon and prefix in FACE_PREFIXES else ""
    place = Path(rest if kind else text)
    finder = Finder(landmarker, cache, device)
    readers: dict[str, Callable[[], FacePairs]] = {
        "lfw": lambda: read_lfw_pairs(place, images=images, finder=finder, progress=progress),
        "pairs": lambda: read_pairs_csv(place, images=images, finder=finder, progress=progress),
        "people": lambda: read_identities(place, limit=limit, finder=finder, progress=progress),
        "gallery": lambda: read_gallery(place, limit=limit, finder=finder, progress=progress),
        "competition": lambda: read_competition(place, finder=finder, progress=progress),
    }
    try:
        if not (rest if kind else text).strip() or not place.exists():
            raise _wrong(text, "nothing there")
        kind, place = _find(place, kind)
        return readers[kind]()
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise _wrong(text, f"{type(e).__name__}: {e}") from e


def _find(path: Path, wanted: str) -> tuple[str, Path]:
    """The format of what is at ``path`` (``wanted``, where the user named one), and what its reader wants."""
    if path.is_file():
        kind = _file_kind(path)
        if not (wanted or kind):
            raise _wrong(str(path), "a file of another kind")
        return wanted or kind, path
    lists = {k: [f for f in sorted(path.iterdir()) if f.is_file() and _file_kind(f) == k] for k in ("lfw", "pairs")}
    if wanted and wanted not in lists:
        return wanted, path
    # Photographs that a list of pairs speaks of lie in folders too: the list says more than they do.
    found = [k for k in lists if lists[k] and k in (wanted or k)]
    if len(found) > 1 or any(len(lists[k]) > 1 for k in found):
        listed = ", ".join(printable(f.name) for k in found for f in lists[k])
        raise _wrong(str(path), f"several lists of pairs, {listed[:200]}", "give the path of the one that is meant")
    if found:
        return found[0], lists[found[0]][0]
    if wanted:
        raise _wrong(str(path), f"a folder without a list that {wanted}: wants")
    names = images_below(path)
    kinds = {
        "gallery": any(n.startswith(f"{GALLERY}/") for n in names),
        "competition": any(COMPARE.fullmatch(n) for n in names),
        "people": any("/" in n for n in names),
    }
    # A gallery's folders look like people's.
    kind = next((k for k, there in kinds.items() if there), "")
    if kind:
        return kind, path
    raise _wrong(str(path), f"a folder with {len(names)} photographs and no word on who is who")


def _file_kind(file: Path) -> str:
    if file.suffix.lower() == ".csv":
        return "pairs" if set(COLUMNS) <= set(header_of(file)) else ""
    if file.suffix.lower() != ".txt":
        return ""
    with file.open("rb") as f:
        head = f.read(_PEEK).decode("utf-8-sig", "replace").splitlines()
    return "lfw" if looks_lfw(head) else ""


def _wrong(
    path: str, got: str, mend: str = "check the path, or name the format in front of it, as in people:PATH"
) -> DataError:
    return DataError(f"data {printable(path)}", expected=FACE_FORMATS, got=got, mend=mend)
