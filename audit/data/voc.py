"""Pascal VOC: one XML file of boxes for each image (Everingham et al., The PASCAL Visual Object Classes Challenge)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from audit.data.assemble import Box, Entry, Progress, as_box, assemble, images_root, inside, printable
from audit.data.images import SUFFIXES
from audit.data.scenes import Scenes, Unreadable
from audit.errors import DataError


def read_voc(path: Path, *, images: Path | None = None, progress: Progress | None = None) -> Scenes:
    """Scenes of a folder with VOC's ``Annotations/*.xml`` and ``JPEGImages/``, of a folder of XML files, or of one.

    VOC counts pixels from 1 and includes the last one, so ``xmin ymin xmax ymax`` becomes the box
    ``(xmin - 1, ymin - 1, xmax, ymax)``. ``difficult`` makes an object ignored; the parts of an object (head, hand)
    are not objects. The image is the one that ``<filename>`` names or, where there is none, one of the XML's own name.

    Args:
        images: folder of the images; without it ``JPEGImages`` or ``images`` beside the XML files, or their folder.

    Raises:
        DataError: no XML file, images not found, or none usable.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path / "Annotations" if (path / "Annotations").is_dir() else path
    files = [path] if path.is_file() else sorted(folder.glob("*.xml"))
    parsed: list[tuple[Path, ET.Element]] = []
    unreadable = []
    for file in files:
        try:
            parsed.append((file, _parse(file)))
        except (ET.ParseError, ValueError) as e:
            unreadable.append(Unreadable(printable(file.name), f"not VOC XML: {str(e)[:120]}"))
    if not parsed:
        raise DataError(
            f"VOC folder {printable(str(path))}",
            expected="XML files with an <annotation> each",
            got=f"{len(unreadable)} unusable ({unreadable[0].name}: {unreadable[0].reason})" if unreadable else "none",
            mend="give the folder that holds Annotations/ and JPEGImages/",
        )
    near = [base / b for base in (folder.parent, folder) for b in ("JPEGImages", "images", "")]
    candidates = [n for file, root in parsed[:50] for n in _names(file, root)]
    root = images_root(images, near, candidates, f"VOC folder {printable(str(path))}")
    objects = [(_image(file, tree, root), tree, list(_objects(tree))) for file, tree in parsed]
    classes = sorted({label for _, _, found in objects for label, _, _ in found})
    entries = [
        Entry(
            name=image,
            boxes=[box for _, box, _ in found],
            labels=[classes.index(label) for label, _, _ in found],
            ignore=[difficult for _, _, difficult in found],
            size=_size(tree),
        )
        for image, tree, found in objects
    ]
    return assemble(
        entries,
        root,
        classes=classes,
        name=path.stem,
        source=f"Pascal VOC XML {path}",
        unreadable=unreadable,
        progress=progress,
    )


def _parse(file: Path) -> ET.Element:
    data = file.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError("it declares a document type, which VOC files do not and which can be made to fill the memory")
    tree = ET.fromstring(data)  # noqa: S314  no entities, see above; expat limits their growth besides
    if tree.tag != "annotation":
        raise ValueError(f"the outermost element is <{tree.tag}>, not <annotation>")
    return tree


def _names(file: Path, tree: ET.Element) -> Iterator[str]:
    stated = (tree.findtext("filename") or "").strip()
    if stated:
        yield stated
    for suffix in sorted(SUFFIXES):
        yield file.stem + suffix


def _image(file: Path, tree: ET.Element, root: Path) -> str:
    names = list(_names(file, tree))
    for name in names:
        path = inside(root, name)
        if path is None or path.is_file():
            return name
    return names[0]


def _objects(tree: ET.Element) -> Iterator[tuple[str, Box, bool]]:
    for item in tree.findall("object"):
        x1, y1, x2, y2 = as_box([item.findtext(f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")])
        label = (item.findtext("name") or "").strip() or "object"
        yield label, (x1 - 1, y1 - 1, x2, y2), (item.findtext("difficult") or "0").strip() not in {"", "0"}


def _size(tree: ET.Element) -> tuple[int, int] | None:
    try:
        height, width = int(tree.findtext("size/height") or 0), int(tree.findtext("size/width") or 0)
    except ValueError:
        return None
    return (height, width) if height > 0 < width else None
