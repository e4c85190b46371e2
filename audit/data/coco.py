"""COCO instances: one JSON file with ``images``, ``annotations`` and ``categories`` (cocodataset.org, data format)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.data.assemble import Entry, Progress, assemble, from_xywh, images_root, printable
from audit.data.scenes import Scenes
from audit.errors import DataError


def read_coco(path: Path, *, images: Path | None = None, progress: Progress | None = None) -> Scenes:
    """Scenes of a COCO JSON file.

    ``bbox`` is left, top, width, height in px. ``iscrowd`` (or ``ignore``) makes an object ignored; crowds form the
    subset ``crowd``. Every image that the file lists is a scene, with objects or without. An image whose upright size
    is not the ``width`` and ``height`` that the file gives is left out: its boxes would not fit.

    Args:
        images: folder that ``file_name`` starts from; without it the usual places beside the file are tried.

    Raises:
        DataError: not such a file, images not found, or none usable.
    """
    path = Path(path)
    tables = _load(path)
    names = [str(i.get("file_name", "")) for i in _rows(tables, "images", path.name)]
    root = images_root(images, _places(path), names, f"COCO file {printable(path.name)}")
    return from_tables(tables, root, name=path.stem, source=f"COCO JSON {path}", progress=progress)


def from_tables(
    tables: Mapping[str, Any], root: Path, *, name: str, source: str, progress: Progress | None = None
) -> Scenes:
    """Scenes of COCO's tables as they are in memory; file names start from ``root``.

    Raises:
        DataError: a table is missing or not a list of objects, an image or category lacks its id, or none is usable.
    """
    categories = sorted(_rows(tables, "categories", name), key=lambda c: str(c.get("id")).zfill(12))
    index = {_key(c, "id", "categories", name): i for i, c in enumerate(categories)}
    files = {_key(i, "id", "images", name): i for i in _rows(tables, "images", name)}
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for a in _rows(tables, "annotations", name):
        objects[_key(a, "image_id", "annotations", name)].append(a)
    notes = []
    homeless = sum(len(v) for k, v in objects.items() if k not in files)
    if homeless:
        notes.append(f"{homeless} annotation(s) belong to images that the file does not list")
    nameless = sum(_label(a, index) < 0 for k, v in objects.items() if k in files for a in v)
    if nameless:
        notes.append(f"{nameless} object(s) of categories that the file does not name are ignored")
    entries = [
        Entry(
            name=str(_key(image, "file_name", "images", name)),
            boxes=[from_xywh(a.get("bbox")) for a in objects[key]],
            labels=[_label(a, index) for a in objects[key]],
            ignore=[bool(a.get("iscrowd")) or bool(a.get("ignore")) for a in objects[key]],
            size=_size(image),
            subsets={"crowd": [bool(a.get("iscrowd")) for a in objects[key]]},
        )
        for key, image in files.items()
    ]
    classes = [str(c.get("name", c["id"])) for c in categories]
    return assemble(entries, root, classes=classes, name=name, source=source, notes=notes, progress=progress)


def _load(path: Path) -> dict[str, Any]:
    try:
        tables = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise _broken(path.name, f"text that is not JSON ({str(e)[:80]})") from e
    if not isinstance(tables, dict):
        raise _broken(path.name, f"a JSON {type(tables).__name__}")
    for table in ("images", "annotations", "categories"):
        _rows(tables, table, path.name)
    return tables


def _rows(tables: Mapping[str, Any], table: str, name: str) -> list[dict[str, Any]]:
    rows = tables.get(table)
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise _broken(name, f"no list of objects under {table!r}")
    return rows


def _key(row: Mapping[str, Any], key: str, table: str, name: str) -> Any:
    value = row.get(key)
    if not isinstance(value, int | str):
        raise _broken(name, f"an entry of {table!r} without a usable {key!r}")
    return value


def _label(annotation: Mapping[str, Any], index: Mapping[Any, int]) -> int:
    value = annotation.get("category_id")
    return index.get(value, -1) if isinstance(value, int | str) else -1


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height > 0 < width else None


def _places(path: Path) -> list[Path]:
    """Where the images of ``…/annotations/instances_val2017.json`` usually lie."""
    part = path.stem.removeprefix("instances_").removeprefix("_annotations.")
    below = ["", part, "images", f"images/{part}", "val2017", "train2017", "images/val2017", "images/train2017", "data"]
    return [base / b for base in (path.parent, path.parent.parent) for b in below]


def _broken(name: str, got: str) -> DataError:
    return DataError(
        f"COCO file {printable(name)}",
        expected="a JSON object with the lists 'images', 'annotations' and 'categories'",
        got=got,
        mend="export the annotations as COCO instances again",
    )
