"""Frames by number, whether of a video or of a folder of images."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from torch import Tensor

from audit.data.assemble import Progress, printable
from audit.data.images import SUFFIXES, ImageFile, inspect, read_as
from audit.errors import DataError


class Frames(Protocol):
    """Frames numbered from 0, in the order in which they are shown."""

    @property
    def path(self) -> Path:
        """The video, or the folder of the images."""
        ...

    @property
    def count(self) -> int:
        """How many there are, broken ones among them."""
        ...

    @property
    def broken(self) -> Mapping[int, str]:
        """Number of a frame that cannot be decoded -> why."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the report should know."""
        ...

    def name(self, index: int) -> str:
        """A name that sorts as the numbers do."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) in px, upright."""
        ...

    def digest(self, index: int) -> str:
        """sha256 of the frame's own file, or over the video's sha256 and the frame's number."""
        ...

    def load(self, index: int) -> Tensor:
        """The frame as uint8 RGB (3, height, width)."""
        ...


class Folder:
    """The images of one folder (not of those below it) as frames; numbers in their names are compared as numbers.

    Raises:
        DataError: no image in the folder, or none that decodes.
    """

    def __init__(self, path: Path, *, progress: Progress | None = None) -> None:
        self.path = Path(path)
        self.files = pictures(self.path)
        self.count = len(self.files)
        self.notes: tuple[str, ...] = ()
        self.broken: dict[int, str] = {}
        self._known: dict[int, ImageFile] = {}
        pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        try:
            for i, found in enumerate(pool.map(_outcome, self.files)):
                if isinstance(found, str):
                    self.broken[i] = found
                else:
                    self._known[i] = found
                if progress is not None:
                    progress((i + 1) / self.count, f"opening {self.path.name}/{self.files[i].name}")
        finally:
            pool.shutdown(cancel_futures=True)
        if not self._known:
            raise no_frames(f"frames {self.path.name}", f"{self.count} image(s), none of which decodes")

    def name(self, index: int) -> str:
        return numbered(index, self.count)

    def size(self, index: int) -> tuple[int, int]:
        return self._known[index].size

    def digest(self, index: int) -> str:
        return self._known[index].digest  # without the number, so that exact copies are seen to be copies

    def load(self, index: int) -> Tensor:
        return read_as(self.files[index], self.size(index))


def pictures(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their numbers; hidden ones are left aside."""
    files = [f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()]
    return sorted(files, key=lambda f: _natural(f.name))


def numbered(index: int, count: int) -> str:
    """The number with zeros in front, so that names sort in the order of the frames."""
    return f"{index:0{max(6, len(str(count)))}d}"


def frame_digest(file: str, index: int) -> str:
    return hashlib.sha256(f"{file}\0{index}".encode()).hexdigest()


def part_of(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """A progress whose 0 to 1 is ``begin`` to ``end`` of the whole."""
    if progress is None:
        return None
    whole: Callable[[float, str], None] = progress
    return lambda share, text: whole(begin + share * (end - begin), text)


def no_frames(subject: str, got: str) -> DataError:
    return DataError(
        printable(subject),
        expected="at least one frame that decodes",
        got=got,
        mend="check the path, or take this file out of the data",
    )


def _outcome(path: Path) -> ImageFile | str:
    try:
        return inspect(path)
    except DataError as e:
        return e.got


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    pieces = re.split(r"([0-9]+)", name)
    return tuple((1, int(p)) if i % 2 else (0, p) for i, p in enumerate(pieces))
