"""Frames of a video by number: in order without seeking, else from the key frame before."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.data.assemble import Progress, printable
from audit.data.frames import frame_digest, numbered
from audit.data.video_index import checksum, decoded, index_video, open_video, pyav
from audit.errors import DataError

_KEPT = 4
"""Frames, and open videos, kept: a 1080p frame is 6 MiB, a decoder some ten times that."""
_NEAR = 8
"""Frames that are sooner decoded than sought past."""
_LOCK = threading.RLock()
_OPEN: list[Video] = []


class Video:
    """A video file whose frames are numbered from 0 in the order in which they are shown.

    Opening decodes all of it once, in constant memory: a broken frame keeps its number and is named in ``broken``.
    ``load`` gives exactly the frame that decoding from the start gives, whatever the order of calls: each is held
    against its checksum. Rotation in the file's metadata is applied; colours are converted as the stream says.
    A decoder stays open between calls (four per process); calls from several threads take turns.

    Raises:
        DataError: not a video, no frame, or PyAV is missing.
    """

    def __init__(self, path: Path, *, progress: Progress | None = None) -> None:
        self.path = Path(path)
        self.index = index_video(self.path, progress)
        self.count = len(self.index.sums)
        self.broken = self.index.broken
        self.notes = tuple(self.index.notes)
        self._keys = [k for k, _ in self.index.keys]
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._container: Any = None
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._at = -1
        self._process = 0

    def name(self, index: int) -> str:
        return numbered(index, self.count)

    def size(self, index: int) -> tuple[int, int]:
        _ = index
        return self.index.size

    def digest(self, index: int) -> str:
        return frame_digest(self.index.digest, index)

    def load(self, index: int) -> Tensor:
        """The frame as uint8 RGB (3, height, width).

        Raises:
            DataError: no such frame, a broken one, or the file has changed since it was opened.
        """
        if not 0 <= index < self.count or index in self.broken:
            raise self._wrong(f"a frame from 0 to {self.count - 1} that decodes", f"frame {index}")
        with _LOCK:
            if index not in self._cache:
                self._cache[index] = self._pixels(self._find(index))
                while len(self._cache) > _KEPT:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(index)
            return self._cache[index].clone()

    def close(self) -> None:
        """Lets the decoder and the kept frames go; the next ``load`` opens the file again."""
        with _LOCK:
            if self._container is not None and self._process == os.getpid():
                self._container.close()
            self._container, self._frames, self._at = None, iter(()), -1
            self._cache.clear()
            if self in _OPEN:
                _OPEN.remove(self)

    def _find(self, index: int) -> Any:
        begin = self._key_before(index)
        ways: list[Callable[[], None]] = [self._restart]
        if self.index.stamps and begin is not None:
            number, time = begin
            stamps = [self.index.stamps[number]] + ([] if time is None else [time])
            ways = [*(lambda t=t: self._seek(t) for t in stamps), self._restart]
        if self._at < index and (begin is None or begin[0] <= self._at + _NEAR) and self._ready():
            ways = [lambda: None, *ways]
        for go in ways:
            go()
            frame = self._advance(index)
            if frame is not None and checksum(frame) == self.index.sums[index]:
                return frame
        raise self._wrong("the frames that it had when the data set was opened", f"another frame {index}")

    def _key_before(self, index: int) -> tuple[int, int | None] | None:
        i = bisect_right(self._keys, index) - 1
        return self.index.keys[i] if i >= 0 else None

    def _ready(self) -> bool:
        return self._container is not None and self._process == os.getpid()

    def _advance(self, index: int) -> Any:
        """The frame, or None where decoding has come past it or to the end."""
        for at, frame in self._frames:
            self._at = at
            if at == index:
                return frame
            if at > index:
                return None
        self._at = self.count
        return None

    def _restart(self) -> None:
        self.close()
        self._container, stream = open_video(self.path)
        self._process = os.getpid()
        _OPEN.append(self)
        while len(_OPEN) > _KEPT:
            _OPEN[0].close()
        self._frames, self._at = self._numbered(stream), -1

    def _seek(self, stamp: int) -> None:
        if not self._ready():
            self._restart()
        stream = self._container.streams.video[0]
        try:
            self._container.seek(stamp, stream=stream, backward=True)
        except pyav().FFmpegError:  # some containers have no index: then from the start
            self._restart()
            return
        self._frames, self._at = self._numbered(stream), -1

    def _numbered(self, stream: Any) -> Iterator[tuple[int, Any]]:
        stamps = self.index.stamps
        count = 0
        for _, frame, reason in decoded(self._container, stream):
            if frame is None or reason:
                continue
            if not stamps:
                yield count, frame
                count += 1
            elif frame.pts is not None:
                i = bisect_left(stamps, frame.pts)
                if i < len(stamps) and stamps[i] == frame.pts:
                    yield i, frame

    def _pixels(self, frame: Any) -> Tensor:
        pixels = np.rot90(frame.to_ndarray(format="rgb24"), self.index.turns)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _wrong(self, expected: str, got: str) -> DataError:
        return DataError(
            printable(f"video {self.path.name}"),
            expected=expected,
            got=got,
            mend="leave the data alone while an audit runs, and ask for frames that are there",
        )
