"""What stands in front of the areas, as pictures or as polygons; read when it is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data.areas import Marks, Points, around
from audit.data.assemble import printable
from audit.data.frames import pictures
from audit.data.images import inspect, read_as
from audit.data.pinhole import corners
from audit.errors import DataError

_NUMBER = re.compile(r"([0-9]+)\D*$")


class Hiding:
    """Masks of the frames of one drive.

    Args:
        path: one picture for all frames, or a folder with one per frame, named by its number from 0 or as the frame's
            file is; white stands wholly in front. marks: those whose ``hidden`` polygons are filled.
        count: how many frames there are. names: their file names, where they are files.

    Raises:
        DataError: no picture there, one that does not decode, one without a frame or beyond the last, two for one.
    """

    def __init__(self, path: Path | None, marks: Marks | None, count: int, names: Sequence[str] = ()) -> None:
        self._polygons = {} if marks is None else marks.hidden
        self._files: dict[int, Path] = {}
        self._all: Path | None = None
        self._kept: dict[tuple[int, int], Tensor] = {}
        if path is not None and path.is_dir():
            stems = {Path(n).stem: i for i, n in enumerate(names)}
            for file in pictures(path):
                frame = _frame(file.stem, stems)
                if frame < 0:
                    raise _unfit(file, "a mask named as one of the frames", "another name")
                if frame >= count:
                    mend = "count frames from 0, and check that the masks belong to these frames"
                    raise _unfit(file, f"masks of frames 0 to {count - 1}", f"one of frame {frame}", mend)
                if frame in self._files:
                    raise _unfit(file, "one mask per frame", f"frame {frame} in {self._files[frame].name} as well")
                self._files[frame] = file
        else:
            self._all = path
        some = [f for f in (self._all, *self._files.values()) if f is not None]
        if path is not None and not some:
            raise _unfit(path, "pictures of what stands in front", "none")
        self._sizes = {f: inspect(f).size for f in some}

    def of(self, frame: int, size: tuple[int, int]) -> Callable[[], Tensor] | None:
        """What gives (height, width) uint8 of a frame, or None where nothing stands in front.

        Raises:
            DataError: a mask of another size than its frame.
        """
        file = self._all or self._files.get(frame)
        polygons = self._polygons.get(frame, [])
        if file is None and not polygons:
            return None
        if file is not None and self._sizes[file] != size:
            h, w = self._sizes[file]
            raise _unfit(file, f"{size[1]}x{size[0]} px as frame {frame} has", f"{w}x{h} px")
        if file is not None and file == self._all and not polygons:
            return partial(self._shared, file, size)
        return partial(_mask, file, polygons, size)

    def missing(self, frames: Iterable[int]) -> int:
        """How many of these frames have nothing in front of them though others have a mask of their own."""
        return sum(f not in self._files and f not in self._polygons for f in frames) if self._files else 0

    def _shared(self, file: Path, size: tuple[int, int]) -> Tensor:
        if size not in self._kept:
            self._kept[size] = _mask(file, [], size)
        return self._kept[size]


def _frame(stem: str, stems: Mapping[str, int]) -> int:
    """A mask's frame, or -1. Frames that are named by numbers themselves are meant by those, not by their places."""
    if stem in stems:
        return stems[stem]
    number = _NUMBER.search(stem)
    if number is None or (stems and not stem.isdecimal()):
        return -1
    own = {int(s): i for s, i in stems.items() if s.isdecimal()}
    return own.get(int(number[1]), -1) if own else int(number[1])


def _mask(file: Path | None, polygons: Sequence[Points], size: tuple[int, int]) -> Tensor:
    out = np.zeros(size, np.uint8) if file is None else np.array(read_as(file, size).amax(0).numpy())
    for drawn in polygons:
        _fill(out, corners(around(drawn)) if len(drawn) == 2 else drawn)
    return torch.from_numpy(np.ascontiguousarray(out))


def _fill(out: NDArray[np.uint8], points: Points) -> None:
    """Adds the share of each pixel that a polygon covers, times 255, counted on a grid of quarters of a pixel."""
    limit = np.array(out.shape[::-1])
    low = np.clip(np.floor(points.min(0)), 0, limit).astype(int)
    high = np.clip(np.ceil(points.max(0)), 0, limit).astype(int)
    width, height = (high - low).tolist()
    if not width or not height:
        return
    fine = np.zeros((height * 4, width * 4), np.uint8)
    inside = np.clip(points, -16 * limit, 16 * limit) - low
    cv2.fillPoly(fine, [np.round(inside * 4 - 0.5).astype(np.int32)], 255)
    part = out[low[1] : high[1], low[0] : high[0]]
    np.maximum(part, cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), out=part)


def _unfit(file: Path, expected: str, got: str, mend: str = "correct the masks or take them away") -> DataError:
    return DataError(printable(f"mask {file.name}"), expected=expected, got=printable(got), mend=mend)
