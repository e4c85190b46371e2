"""A folder of images per class, as torchvision's ImageFolder has them: data for classifiers."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.data.assemble import Progress, images_below, printable
from audit.data.groups import own_group, side_of
from audit.data.images import ImageFile, inspect, read_as
from audit.data.scenes import Unreadable
from audit.errors import DataError
from audit.labelled import Labelled


@dataclass(frozen=True, slots=True)
class ClassImage:
    """One image.

    Attributes:
        id: its path below the root. label: index into the classes. size: (height, width) px, upright.
        digest: sha256 of its file; exact copies are one group by it. load: gives uint8 RGB (3, height, width).
    """

    id: str
    label: int
    size: tuple[int, int]
    digest: str
    load: Callable[[], Tensor]

    @property
    def group(self) -> str:
        """What must not be on both sides of a split."""
        return own_group(self.digest)


@dataclass(frozen=True)
class ClassImages:
    """A data set for classifiers.

    Attributes:
        items: sorted by class, then by name. classes: names; the label is the place among them.
        unreadable: files left out, with the reason.
    """

    items: tuple[ClassImage, ...]
    classes: tuple[str, ...]
    name: str
    source: str
    unreadable: tuple[Unreadable, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def digest(self) -> str:
        """sha256 over classes, names, labels and the files' digests."""
        h = hashlib.sha256("\0".join(self.classes).encode())
        for i in self.items:
            h.update(f"\0\0{i.id}\0{i.label}\0{i.digest}".encode())
        return h.hexdigest()

    def split(self, craft_share: float) -> tuple[ClassImages, ClassImages]:
        """(craft, held out) with no group on both sides, by hash of the group.

        Raises:
            DataError: fewer than two groups.
        """
        sides = side_of({i.group for i in self.items}, craft_share, self.name)
        craft, held_out = (tuple(i for i in self.items if sides[i.group] is side) for side in (True, False))
        return replace(self, items=craft), replace(self, items=held_out)

    def sample(self, limit: int, seed: int) -> ClassImages:
        """At most ``limit`` images in all, of each class as many as of another as far as they reach.

        Chosen by hash of name and seed: classes take turns, and where not all get one, chance says which do.
        """
        queues: dict[int, list[ClassImage]] = defaultdict(list)
        for i in sorted(self.items, key=lambda i: _rank(seed, i.id)):
            queues[i.label].append(i)
        turns = [(n, _rank(seed, self.classes[label]), i.id) for label, q in queues.items() for n, i in enumerate(q)]
        chosen = {name for *_, name in sorted(turns)[: max(limit, 0)]}
        return replace(self, items=tuple(i for i in self.items if i.id in chosen))

    def labelled(self, size: tuple[int, int]) -> Labelled:
        """All images decoded: resized with antialiasing until they just cover ``size``, the middle cut out.

        Args:
            size: (height, width) px.

        Raises:
            DataError: a file changed since the set was opened.
        """
        images = [fitted(i.load(), size) for i in self.items]
        ids = tuple(i.id for i in self.items)
        return Labelled(
            images=torch.stack(images) if images else torch.zeros((0, 3, *size), dtype=torch.uint8),
            labels=torch.tensor([i.label for i in self.items], dtype=torch.int64),
            ids=ids,
            groups=tuple(i.group for i in self.items),
            clips=ids,
        )


def read_classes(root: Path, classes: Sequence[str] | None = None, *, progress: Progress | None = None) -> ClassImages:
    """The images in and below ``root/<class>/``, decoded when they are wanted.

    A file that lies in folders of two classes can belong to neither and is named among the unreadable. Hidden folders
    and files beside the folders are left aside.

    Args:
        classes: names of the folders in the model's order; sorted by name where they are not given. A class of the
            model without a folder has no images; a folder that is no class of the model is an error.

    Raises:
        DataError: no folders, a folder that is not among ``classes``, a class twice, or no usable image.
    """
    root = Path(root)
    if not root.is_dir():
        raise _wrong(root, "a folder with one folder per class", "no such folder", "check the path")
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    names = tuple(folders if classes is None else classes)
    strange = [f for f in folders if f not in names]
    if not folders or strange or len(set(names)) < len(names):
        got = "no folder" if not folders else f"{strange[0]!r}" if strange else "a class named twice"
        raise _wrong(root, "one folder per class, named as the model's classes", got, "rename folders or classes")
    entries = [
        (f"{n}/{file}", label) for label, n in enumerate(names) if n in folders for file in images_below(root / n)
    ]
    unreadable = []
    opened: list[tuple[str, int, ImageFile]] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, ((name, label), found) in enumerate(
            zip(entries, pool.map(partial(_opened, root), entries), strict=True)
        ):
            if isinstance(found, ImageFile):
                opened.append((name, label, found))
            else:
                unreadable.append(Unreadable(printable(name), found))
            if progress is not None:
                progress((done + 1) / len(entries), f"opening {printable(name)}")
    said: dict[str, dict[int, str]] = defaultdict(dict)
    for name, label, file in opened:
        said[file.digest].setdefault(label, name)
    items = []
    for name, label, file in opened:
        others = [n for other, n in said[file.digest].items() if other != label]
        if others:
            unreadable.append(
                Unreadable(printable(name), f"the same file lies in another class: {printable(others[0])}")
            )
        else:
            load = partial(read_as, root / name, file.size)
            items.append(ClassImage(printable(name), label, file.size, file.digest, load))
    if not items:
        examples = "; ".join(f"{u.name}: {u.reason}" for u in unreadable[:3])
        raise _wrong(root, "at least one usable image", f"{len(unreadable)} unusable ({examples})" if unreadable else
                     "none", "check the files")  # fmt: skip
    return ClassImages(
        items=tuple(items),
        classes=tuple(printable(n) for n in names),
        name=printable(root.name or str(root)),
        source=f"folder per class {printable(str(root))}",
        unreadable=tuple(unreadable),
    )


def fitted(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (3, h, w) made to cover (3, H, W) with its shape kept, bilinear with antialiasing, and its middle."""
    height, width = image.shape[1:]
    scale = max(size[0] / height, size[1] / width)
    h, w = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    if (h, w) != (height, width):
        there = F.interpolate(image[None].float(), (h, w), mode="bilinear", antialias=True, align_corners=False)
        image = there[0].round().clamp(0, 255).to(torch.uint8)
    top, left = (h - size[0]) // 2, (w - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]].clone()


def _opened(root: Path, entry: tuple[str, int]) -> ImageFile | str:
    try:
        return inspect(root / entry[0])
    except DataError as e:
        return e.got


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def _wrong(root: Path, expected: str, got: str, mend: str) -> DataError:
    return DataError(f"data {printable(str(root))}", expected=expected, got=got, mend=mend)
