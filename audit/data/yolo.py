"""YOLO text: beside each image a file of ``class cx cy w h``, all but the class in shares of the image's size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from audit.data.assemble import Box, Entry, Progress, assemble, images_below, printable
from audit.data.scenes import Scenes, Unreadable
from audit.errors import DataError

_PAIR = re.compile(r"""^\s*(?:-|(\d+)\s*:)\s*(?:"([^"]*)"|'((?:[^']|'')*)'|(.*?))\s*(?:\s#.*)?$""")
_ITEM = re.compile(r"""(?:(\d+)\s*:\s*)?(?:"([^"]*)"|'((?:[^']|'')*)'|([^,"'\s][^,"']*))""")
_LIST_FILES = ("classes.txt", "obj.names", "coco.names", "labels.txt", "labels/classes.txt")


def read_yolo(path: Path, *, names: Sequence[str] | None = None, progress: Progress | None = None) -> Scenes:
    """Scenes of a folder in YOLO's layout, or of its ``data.yaml``.

    The labels of ``…/images/a/b.jpg`` are ``…/labels/a/b.txt``, or ``b.txt`` beside the image; an image without such a
    file has no objects. Where ``data.yaml`` names a folder of validation images (``val``), only those are read.

    Args:
        names: the classes, where neither ``names`` in ``data.yaml`` nor a ``classes.txt`` gives them.

    Raises:
        DataError: no images, no labels, no class names, or a class beyond the names.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    settings = path if path.is_file() else next(iter(sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])), None)
    text = settings.read_text(encoding="utf-8", errors="replace") if settings is not None else ""
    own = names_in_yaml(text) or _names_in_list(folder)
    classes = own or list(names or ())
    if not classes:
        raise DataError(
            f"YOLO folder {printable(str(folder))}",
            expected="class names in data.yaml or classes.txt",
            got="numbers only",
            mend="write classes.txt with one name per line, in the order of the numbers",
        )
    part = _validation(text, folder)
    images = [f"{part}/{n}" if part else n for n in images_below(folder / part)]
    entries, unreadable, labelled = [], [], 0
    for image in images:
        labels = _label_file(folder, image)
        labelled += labels.is_file()
        try:
            rows = list(_rows(labels)) if labels.is_file() else []
        except ValueError as e:
            unreadable.append(Unreadable(printable(image), f"labels {printable(labels.name)}: {e}"))
            continue
        beyond = next((c for c, _ in rows if c >= len(classes)), None)
        if beyond is not None:
            raise DataError(
                f"YOLO labels {printable(labels.name)}",
                expected=f"classes 0 to {len(classes) - 1}, as there are {len(classes)} names",
                got=f"class {beyond}",
                mend="complete the names in data.yaml or classes.txt",
            )
        boxes = [b for _, b in rows]
        entries.append(Entry(name=image, boxes=boxes, labels=[c for c, _ in rows], relative=True))
    if images and not labelled:
        raise DataError(
            f"YOLO folder {printable(str(folder))}",
            expected="a labels/*.txt for the images",
            got=f"{len(images)} images and none",
            mend="lay out images/ and labels/ side by side",
        )
    notes = [] if own else ["the class names are the model's: the data set gives numbers only"]
    if labelled < len(images):
        notes.append(f"{len(images) - labelled} image(s) have no label file and count as images without objects")
    if part:
        notes.append(f"only the validation images in {printable(part)} are read")
    return assemble(
        entries,
        folder,
        classes=classes,
        name=folder.name,
        source=f"YOLO text {path}",
        unreadable=unreadable,
        notes=notes,
        progress=progress,
    )


def names_in_yaml(text: str) -> list[str]:
    """The entry ``names`` of a ``data.yaml``: a list or numbered pairs, in brackets or line by line; else nothing.

    This small part of YAML is read here, so that no YAML package is needed.
    """
    found = re.search(r"^names[ \t]*:[ \t]*(?:#[^\n]*)?(.*)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        return []
    body = found[1].strip("\r\n")
    if body.lstrip()[:1] in {"[", "{"}:
        inner = re.match(r"""\s*[\[{]((?:"[^"]*"|'[^']*'|[^\]}"'])*)""", body)
        parts = _ITEM.findall(inner[1] if inner else "")
    else:
        parts = []
        for line in body.splitlines():
            pair = _PAIR.match(line)
            if pair is not None and (line[:1].isspace() or line.startswith("-")):
                parts.append(pair.groups(default=""))
            elif line.strip() and not line.lstrip().startswith("#"):
                break
    numbered = {int(n) if n else i: (a or b.replace("''", "'") or c).strip() for i, (n, a, b, c) in enumerate(parts)}
    return [numbered.get(i, f"class {i}") for i in range(max(numbered, default=-1) + 1)]


def looks_yolo(line: str) -> bool:
    """Whether a line is a whole number and four numbers."""
    try:
        _row(line)
    except ValueError:
        return False
    return True


def _names_in_list(folder: Path) -> list[str]:
    file = next((folder / n for n in _LIST_FILES if (folder / n).is_file()), None)
    if file is None:
        return []
    names = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    while names and not names[-1]:
        names.pop()
    return names


def _validation(text: str, folder: Path) -> str:
    """The folder, below ``folder``, that ``val`` of data.yaml names, or nothing where there is no such folder."""
    values = {k: v.strip("\"'") for k, v in re.findall(r"^(val|path)[ \t]*:[ \t]*([^\s#]+)", text, re.MULTILINE)}
    val = values.get("val", "")
    # Exports often say ../valid/images for what lies in valid/images.
    for name in (val, f"{values.get('path', '.')}/{val}", val.removeprefix("../")):
        if val and not Path(name).is_absolute() and ".." not in Path(name).parts and (folder / name).is_dir():
            return Path(name).as_posix().removeprefix(".")
    return ""


def _label_file(folder: Path, image: str) -> Path:
    parts = list(Path(image).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        other = folder.joinpath(*parts[:last], "labels", *parts[last + 1 :])
        if other.is_file():
            return other
    return folder.joinpath(*parts)


def _rows(file: Path) -> Iterator[tuple[int, Box]]:
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if line.strip():
            try:
                yield _row(line)
            except ValueError as e:
                raise ValueError(f"line {number}: {e}") from e


def _row(line: str) -> tuple[int, Box]:
    cells = line.split()
    if len(cells) != 5 or not cells[0].isdecimal():
        raise ValueError(f"expected a class number, cx, cy, w and h, got {line.strip()[:60]!r}")
    cx, cy, w, h = (float(c) for c in cells[1:])
    return int(cells[0]), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
