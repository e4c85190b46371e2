"""Opens a data set whose format is found from what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from audit.data.assemble import Progress, images_below, printable
from audit.data.coco import read_coco
from audit.data.csv_boxes import COLUMNS, header_of, read_csv
from audit.data.drives import looks_like_drives, read_drives
from audit.data.folder import read_folder
from audit.data.groups import group_by
from audit.data.scenes import Scenes
from audit.data.starter import starter
from audit.data.voc import read_voc
from audit.data.wider import looks_wider, read_wider
from audit.data.yolo import looks_yolo, names_in_yaml, read_yolo
from audit.errors import DataError

FORMATS = (
    "COCO JSON, WIDER FACE text, Pascal VOC XML, YOLO text, CSV with the columns image,x1,y1,x2,y2, "
    "videos or folders of frames with areas, a folder of images, or the word starter"
)
PREFIXES = ("coco", "wider", "voc", "yolo", "csv", "video", "folder")
_PEEK = 1 << 16


def open_scenes(
    path: str | Path,
    *,
    detector_classes: Sequence[str] | None = None,
    images: Path | None = None,
    group: str = "image",
    progress: Progress | None = None,
) -> Scenes:
    """The data set at ``path``, a file or folder; its format is found from its content.

    A prefix names the format where that is wanted: ``wider:PATH``, ``coco:``, ``voc:``, ``yolo:``, ``csv:``,
    ``video:``, ``folder:`` (images only, to be labelled by the model). ``starter`` is the starter set.

    Video data are ``drive1.mp4``, or a folder ``drive1`` of frames, or a folder of several such; beside each may lie
    ``drive1.areas.csv`` (corners of the areas for a patch), labelme files in ``drive1/``, ``drive1.drive.toml`` (few
    annotated frames and a model for the others), ``drive1.patched.mp4`` (areas by differencing) and
    ``drive1.hidden.png`` or ``drive1.hidden/`` (what stands in front); see ``read_drives``.

    Args:
        detector_classes: class names for YOLO data that has numbers only.
        images: folder of the images of COCO, WIDER, VOC or CSV data, where they are not beside the annotations.
        group: what must not cross the split: ``image``, ``folder`` or ``video``, see ``group_by``.
        progress: called with the share done and a word on it.

    Raises:
        DataError: nothing there, no known format or several, or no usable image.
    """
    text = os.fspath(path)
    prefix, colon, rest = text.partition(":")
    kind = prefix if colon and prefix in PREFIXES else ""
    place = Path(rest if kind else text)
    if text == "starter" and not place.exists():
        return starter()
    readers: dict[str, Callable[[], Scenes]] = {
        "coco": lambda: read_coco(place, images=images, progress=progress),
        "wider": lambda: read_wider(place, images=images, progress=progress),
        "voc": lambda: read_voc(place, images=images, progress=progress),
        "yolo": lambda: read_yolo(place, names=detector_classes, progress=progress),
        "csv": lambda: read_csv(place, images=images, progress=progress),
        "video": lambda: read_drives(place, progress=progress),
        "folder": lambda: read_folder(place, progress=progress),
    }
    try:
        if not (rest if kind else text).strip() or not place.exists():
            raise _wrong(text, "nothing there")
        if kind not in readers:
            kind, place = _find(place)
        elif kind in {"coco", "csv"} and place.is_dir():
            place = _only(place, dict(_annotations(place)).get(kind, []))
        scenes = readers[kind]()
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise _wrong(text, f"{type(e).__name__}: {e}") from e
    return scenes if group == "image" else group_by(scenes, group)


def _find(path: Path) -> tuple[str, Path]:
    """The format of what is at ``path``, and the file or folder that its reader wants."""
    if path.is_file():
        kind = "video" if looks_like_drives(path) else _file_kind(path)
        if not kind:
            raise _wrong(str(path), "a file of another kind")
        return kind, path
    found = _annotations(path)
    if len(found) > 1:
        raise DataError(
            f"data {printable(str(path))}",
            expected="annotations in one format",
            got=" and ".join(kind for kind, _ in found),
            mend=f"say which one, e.g. {found[0][0]}:{printable(str(path))}",
        )
    if found:
        kind, files = found[0]
        return kind, _only(path, files)
    if images_below(path):
        return "folder", path
    raise _wrong(
        str(path), "a folder with neither images nor annotations" if any(path.iterdir()) else "an empty folder"
    )


def _annotations(folder: Path) -> list[tuple[str, list[Path]]]:
    """The formats that are found in a folder, each with what its reader can be given."""
    near = [folder, *(folder / n for n in ("annotations", "Annotations", "wider_face_split"))]
    kinds: dict[str, list[Path]] = {}
    for file in (f for n in near if n.is_dir() for f in _candidates(n)):
        kinds.setdefault(_file_kind(file), []).append(file)
    found: list[tuple[str, list[Path]]] = [(k, kinds[k]) for k in ("coco", "wider", "csv") if k in kinds]
    if looks_like_drives(folder):
        found.append(("video", [folder]))
    if "voc" in kinds:
        found.append(("voc", [folder]))
    labels = (f for f in folder.rglob("*.txt") if f.is_file() and looks_yolo(_first_line(f)))
    if "yolo" in kinds or next(labels, None) is not None:
        found.append(("yolo", [folder]))
    return found


def _candidates(folder: Path) -> Iterator[Path]:
    """Files that may hold annotations; of XML and text, which come in thousands, a few tell the kind."""
    for suffix in (".json", ".csv", ".yaml", ".yml"):
        yield from sorted(folder.glob(f"[!.]*{suffix}"))
    yield from sorted(folder.glob("wider_face_*_bbx_gt.txt"))
    for suffix in (".xml", ".txt"):
        yield from (f for f in islice(sorted(folder.glob(f"[!.]*{suffix}")), 5) if not f.name.startswith("wider_face_"))


def _only(folder: Path, files: list[Path]) -> Path:
    """The one file to read: the only one, or the only one with ``val`` in its name."""
    chosen = [f for f in files if "val" in f.stem] if len(files) > 1 else files
    if len(chosen) != 1:
        raise DataError(
            f"data {printable(str(folder))}",
            expected="one file of annotations",
            got=", ".join(printable(f.name) for f in files[:5]) or "none",
            mend="give the path of the file that is meant",
        )
    return chosen[0]


def _file_kind(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return "csv" if set(COLUMNS) <= set(header_of(file)) else ""
    head = _head(file)
    if suffix == ".json" or head.lstrip()[:1] == "{":
        keys = ('"images"', '"annotations"', '"categories"')
        return "coco" if any(k in head for k in keys) or any(k in _tail(file) for k in keys) else ""
    if suffix == ".xml":
        return "voc" if "<annotation" in head else ""
    if suffix in {".yaml", ".yml"}:
        return "yolo" if names_in_yaml(head) else ""
    if suffix == ".txt":
        return "wider" if looks_wider(head.splitlines()[:2]) else ""
    return ""


def _head(file: Path) -> str:
    with file.open("rb") as f:
        return f.read(_PEEK).decode("utf-8-sig", "replace")


def _tail(file: Path) -> str:
    with file.open("rb") as f:
        f.seek(max(0, file.stat().st_size - _PEEK))
        return f.read().decode("utf-8", "replace")


def _first_line(file: Path) -> str:
    return _head(file).lstrip().partition("\n")[0]


def _wrong(path: str, got: str) -> DataError:
    return DataError(
        f"data {printable(path)}",
        expected=FORMATS,
        got=got,
        mend="check the path, or name the format in front of it, as in coco:PATH",
    )
