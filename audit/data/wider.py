"""WIDER FACE's text of boxes, with its easy, medium and hard faces (Yang et al., WIDER FACE, CVPR 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audit.data.assemble import Box, Entry, Progress, assemble, from_xywh, images_root, printable
from audit.data.images import SUFFIXES
from audit.data.scenes import Scenes
from audit.errors import DataError

SUBSETS = ("easy", "medium", "hard")
_INVALID = 7
"""Column of the ``invalid`` flag: left top width height blur expression illumination invalid occlusion pose."""


def read_wider(
    path: Path, *, images: Path | None = None, lists: Path | None = None, progress: Progress | None = None
) -> Scenes:
    """Scenes of ``wider_face_*_bbx_gt.txt``: per image a line with its name, one with the count, one line per face.

    A face is ``left top width height`` in px, then six attributes (or none); ``invalid`` makes it ignored. An image
    with the count 0 is followed by one row of zeros and has no face. Where ``wider_{easy,medium,hard}_val.mat`` are at
    hand each scene has those subsets; a subset that names no face of an image is all False there. Every image is a
    group of its own (``group_by(scenes, "folder")`` groups by event).

    Args:
        path: the text, or the folder that holds it (the one of the validation part where there are several).
        images: folder of the event folders; without it the usual places are tried.
        lists: folder of the ``.mat`` lists; without it the text's folder, and ``ground_truth`` in or beside it.

    Raises:
        DataError: not such a text, lists of other images, images not found, or none usable.
    """
    path = text_of(Path(path))
    faces = dict(_parse(path))
    part = path.stem.removeprefix("wider_face_").removesuffix("_bbx_gt")
    bases = (path.parent, path.parent.parent)
    below = ("images", f"WIDER_{part}/images", f"WIDER_{part}", "")
    root = images_root(images, [b / n for b in bases for n in below], list(faces), f"WIDER text {printable(path.name)}")
    marked = _subsets(path, lists, faces)
    entries = [
        Entry(
            name=name,
            boxes=[box for box, _ in rows],
            labels=[0] * len(rows),
            ignore=[invalid for _, invalid in rows],
            subsets=marked.get(name, {}),
        )
        for name, rows in faces.items()
    ]
    return assemble(
        entries, root, classes=["face"], name=path.stem, source=f"WIDER FACE text {path}", progress=progress
    )


def text_of(path: Path) -> Path:
    """The box text at ``path`` or in that folder; of several the validation part's.

    Raises:
        DataError: none, or several of which none is the validation part's.
    """
    if path.is_file():
        return path
    found = sorted([*path.glob("wider_face_*_bbx_gt.txt"), *path.glob("*/wider_face_*_bbx_gt.txt")])
    chosen = [f for f in found if "_val_" in f.name] or found
    if len(chosen) != 1:
        raise DataError(
            f"WIDER folder {printable(str(path))}",
            expected="one text wider_face_val_bbx_gt.txt",
            got=", ".join(printable(f.name) for f in chosen) or "none",
            mend="give the path of the text itself",
        )
    return chosen[0]


def looks_wider(lines: list[str]) -> bool:
    """Whether a text begins as WIDER's does: the name of an image, then a count."""
    return len(lines) > 1 and Path(lines[0].strip()).suffix.lower() in SUFFIXES and lines[1].strip().isdigit()


def _parse(path: Path) -> Iterator[tuple[str, list[tuple[Box, bool]]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as e:
        raise _broken(path, 1, "bytes that are not UTF-8") from e
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        if not name and not any(line.strip() for line in lines[at:]):
            return
        if not looks_wider([name, lines[at + 1] if at + 1 < len(lines) else ""]):
            raise _broken(path, at + 1, f"{name[:60]!r}, where the name of an image and then a count should stand")
        count = int(lines[at + 1])
        at += 2
        rows = [_face(path, at + i, lines[at + i] if at + i < len(lines) else "") for i in range(count)]
        at += count
        # The dummy row of an image without faces is zeros; some re-written lists leave it out.
        if count == 0 and at < len(lines) and set(lines[at].split()) == {"0"}:
            at += 1
        yield name, rows


def _face(path: Path, at: int, line: str) -> tuple[Box, bool]:
    try:
        values = [float(v) for v in line.split()]
    except ValueError:
        values = []
    if len(values) < 4:
        raise _broken(path, at + 1, f"{line[:60]!r}, where a face's left, top, width and height should stand")
    return from_xywh(values[:4]), len(values) > _INVALID and values[_INVALID] != 0


def _subsets(
    path: Path, lists: Path | None, faces: Mapping[str, list[tuple[Box, bool]]]
) -> dict[str, dict[str, list[bool]]]:
    """Image name -> subset -> one bool per face, from those lists that are there."""
    beside = [path.parent, path.parent / "ground_truth", path.parent.parent / "ground_truth"]
    marked: dict[str, dict[str, list[bool]]] = {}
    for subset in SUBSETS:
        name = f"wider_{subset}_val.mat"
        file = next((f / name for f in ([lists] if lists is not None else beside) if (f / name).is_file()), None)
        if file is None:
            if lists is not None:
                raise _bad_list(lists / name, "no such file")
            continue
        chosen = _list(file)
        if not chosen.keys() & faces.keys():
            if lists is None:
                continue  # a list of the validation part beside the training part's text
            raise _bad_list(file, "a list of none of these images")
        for image, rows in faces.items():
            places = chosen.get(image, ())
            if any(not 1 <= p <= len(rows) for p in places):
                raise _bad_list(file, f"face {max(places)} of {len(rows)} in {image}")
            marked.setdefault(image, {})[subset] = [i + 1 in places for i in range(len(rows))]
    return marked


def _list(file: Path) -> dict[str, set[int]]:
    """Image name -> the places, from 1, of the faces in the subset.

    The file holds cell arrays ``event_list`` (E, 1), ``file_list`` (E, 1) of (n, 1) names without suffix, and
    ``gt_list`` (E, 1) of (n, 1) of (k, 1) places.
    """
    from scipy.io import loadmat

    try:
        mat: dict[str, Any] = loadmat(file)
        table = {}
        for event, names, gts in zip(
            mat["event_list"].ravel(), mat["file_list"].ravel(), mat["gt_list"].ravel(), strict=True
        ):
            for name, places in zip(names.ravel(), gts.ravel(), strict=True):
                key = f"{event.ravel()[0]}/{name.ravel()[0]}.jpg"
                table[key] = {int(p) for p in places.ravel()}
    except Exception as e:  # loadmat raises anything at all on bytes that are no .mat
        raise _bad_list(file, str(e)[:80] or type(e).__name__) from e
    return table


def _bad_list(file: Path, got: str) -> DataError:
    return DataError(
        f"WIDER list {printable(file.name)}",
        expected="event_list, file_list and gt_list of the images in the text",
        got=got,
        mend="use the lists of WIDER's own evaluation tools, of the same part, or leave them away",
    )


def _broken(path: Path, line: int, got: str) -> DataError:
    return DataError(
        f"WIDER text {printable(path.name)} line {line}",
        expected="for each image its name, the count of faces, and a row per face",
        got=got,
        mend="use the text as WIDER FACE gives it",
    )
