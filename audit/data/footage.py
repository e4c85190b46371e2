"""Footage of files: videos decoded by PyAV, and still images; frames are counted by decoding, never believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from audit.data.assemble import printable
from audit.data.clips import Compression
from audit.data.frames import no_frames
from audit.data.images import inspect, read
from audit.data.quantiser import EXPORT, frame_quantiser
from audit.data.video_index import decoded, open_video, pyav
from audit.errors import DataError
from audit.shifts import Frame

_RATE = 25.0


@dataclass(frozen=True, slots=True)
class _Survey:
    """What one pass over a video found: frames, (height, width) upright, mean quantiser, frames that are broken."""

    count: int
    size: tuple[int, int]
    quantiser: float | None
    broken: int


@dataclass(frozen=True, slots=True)
class _Stream:
    """What the packets say without being decoded; ``fault`` where one of them is damaged."""

    codec: str
    fps: float
    bits: int
    fault: str


@dataclass(frozen=True)
class VideoFootage:
    """A video file. Frames are those that decode, numbered from 0 in the order in which they are shown.

    A frame that is broken or of another size than the first is passed over and has no number: what the container's
    header says of their number is not read. Rotation in the metadata is applied, colours are converted as the stream
    says, chroma is interpolated (bicubic). Nothing stays open between calls, so that it may be pickled and used by
    several threads and processes; ``count`` and ``compression`` decode all of it once and remember.

    Raises:
        DataError: (when asked, not when made) not a video, or no frame decodes; PyAV is missing.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> VideoFootage:
        """The footage, after a cheap check: the packets are read, and the first frame decodes.

        Raises:
            DataError: not a video, cut short, no frame that decodes, or PyAV is missing.
        """
        footage = cls(Path(path))
        if footage._stream.fault:
            raise footage._unusable(footage._stream.fault)
        footage.read([0])
        return footage

    @property
    def count(self) -> int:
        """Frames that decode, at least 1."""
        return self._survey.count

    @property
    def fps(self) -> float:
        """Frames per second, the stream's average; 25 where it says nothing."""
        return self._stream.fps

    @property
    def broken(self) -> int:
        """Frames that were passed over."""
        return self._survey.broken

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """uint8 (H, W, 3) RGB each; decoded from the start to the last of the rising indices.

        Raises:
            ValueError: the indices do not rise. DataError: a frame that the video does not have.
        """
        wanted = list(indices)
        if wanted != sorted(set(wanted)) or (wanted and wanted[0] < 0):
            raise ValueError(f"expected rising frame numbers from 0, got {wanted[:8]}")
        out: list[Frame] = []
        if not wanted:
            return out
        container, stream = open_video(self.path)
        count = 0
        try:
            for frame in _sound(container, stream, []):
                if count == wanted[len(out)]:
                    out.append(self._upright(frame))
                    if len(out) == len(wanted):
                        return out
                count += 1
        finally:
            container.close()
        if not count:
            raise no_frames(f"video {self.path.name}", "no frame that decodes")
        raise self._unusable(f"{count} frames that decode, and frame {wanted[len(out)]} was asked for")

    def compression(self) -> Compression:
        """Codec, bits per pixel of the stream's packets over the frames that decode, mean quantiser of all of them.

        The quantiser is the codec's own number, see ``audit.data.quantiser``; ``None`` where none can be read back.
        """
        found, stream = self._survey, self._stream
        pixels = found.count * found.size[0] * found.size[1]
        return Compression(stream.codec, stream.bits / pixels, found.quantiser, found.size)

    @cached_property
    def _stream(self) -> _Stream:
        av = pyav()
        container, stream = open_video(self.path)
        packets = size = 0
        fault = ""
        try:
            for packet in container.demux(stream):
                packets += packet.size > 0
                size += packet.size
                if packet.is_corrupt:
                    fault = f"a file that is cut short or damaged at packet {packets}"
        except av.FFmpegError:
            fault = f"a file that ends early, after packet {packets}"
        finally:
            name, rate = stream.codec_context.name, stream.average_rate or stream.guessed_rate
            container.close()
        return _Stream(_PLAIN.get(name, name), float(rate) if rate else _RATE, 8 * size, fault)

    @cached_property
    def _survey(self) -> _Survey:
        container, stream = open_video(self.path)
        stream.codec_context.options = {**stream.codec_context.options, **EXPORT}
        count, total, known = 0, 0.0, True
        size: tuple[int, int] | None = None
        lost: list[str] = []
        try:
            for frame in _sound(container, stream, lost):
                if size is None:
                    size = (frame.width, frame.height) if _turns(frame) % 2 else (frame.height, frame.width)
                count += 1
                found = frame_quantiser(frame) if known else None
                known = found is not None
                total += found.mean if found is not None else 0.0
        finally:
            container.close()
        if size is None:
            raise no_frames(f"video {self.path.name}", f"{len(lost)} frame(s), none of which decodes")
        return _Survey(count, size, total / count if known else None, len(lost))

    def _upright(self, frame: Any) -> Frame:
        try:
            return upright(frame)
        except (pyav().FFmpegError, ValueError) as e:
            raise self._unusable(f"a frame whose colours cannot be converted ({str(e)[:80]})") from e

    def _unusable(self, got: str) -> DataError:
        return DataError(printable(f"video {self.path.name}"), expected="a whole video whose frames decode", got=got,
                         mend="replace the file or take it out of the data")  # fmt: skip


@dataclass(frozen=True)
class StillFootage:
    """Image files, each a frame; they may differ in size. Read as ``audit.data.images.read`` does.

    Raises:
        DataError: no file is given, or (when asked) one cannot be decoded.
    """

    paths: tuple[Path, ...]

    def __init__(self, paths: Path | Sequence[Path]) -> None:
        listed = (paths,) if isinstance(paths, Path) else tuple(paths)
        if not listed:
            raise no_frames("stills", "no file")
        object.__setattr__(self, "paths", listed)

    @classmethod
    def open(cls, paths: Path | Sequence[Path]) -> StillFootage:
        """The footage, after all of every file has been found to decode.

        Raises:
            DataError: a file that cannot be decoded.
        """
        footage = cls(paths)
        for path in footage.paths:
            inspect(path)
        return footage

    @property
    def count(self) -> int:
        """Files."""
        return len(self.paths)

    @property
    def fps(self) -> float:
        """0: stills."""
        return 0.0

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """uint8 (H, W, 3) RGB each."""
        return [np.ascontiguousarray(read(self.paths[i]).permute(1, 2, 0).numpy()) for i in indices]

    def compression(self) -> Compression:
        """Codec (several are joined by +), bits per pixel over all files, and the size of the first.

        The quantiser of a JPEG is the mean of the 64 entries of its luminance table, a step: 1 at quality 100, 29 at
        75, 58 at 50 for libjpeg's tables. The mean over the files, ``None`` where one of them is no JPEG.
        """
        sizes = [inspect(path).size for path in self.paths]
        headers = [_header(path) for path in self.paths]
        codecs, tables, lengths = zip(*headers, strict=True)
        steps = [t for t in tables if t is not None]
        mean = float(np.mean(steps)) if len(steps) == len(tables) else None
        pixels = sum(height * width for height, width in sizes)
        return Compression("+".join(sorted(set(codecs))), 8 * sum(lengths) / pixels, mean, sizes[0])


def _header(path: Path) -> tuple[str, float | None, int]:
    """An image's codec, the mean of its luminance table if it is a JPEG, and its file's length in bytes."""
    try:
        with Image.open(path) as image:
            luminance = getattr(image, "quantization", {}).get(0)
            codec = (image.format or "unknown").lower()
        return codec, float(np.mean(luminance)) if luminance else None, path.stat().st_size
    except Exception as e:  # Pillow's plugins raise anything at all on hostile bytes
        raise DataError(printable(f"image {path.name}"), expected="an image file as it was when the data was opened",
                        got=f"{type(e).__name__}: {str(e)[:80]}", mend="leave the data alone while an audit runs",
                        ) from e  # fmt: skip


def exactly() -> Any:
    """How FFmpeg is to convert colours: chroma interpolated, rounding and bits the same on every processor."""
    how = pyav().video.reformatter.Interpolation
    return how.BICUBIC | how.ACCURATE_RND | how.FULL_CHR_H_INT | how.FULL_CHR_H_INP | how.BITEXACT


def upright(frame: Any) -> Frame:
    """A decoded frame as uint8 (H, W, 3) RGB, turned as its metadata say.

    The matrix and range of the stream are respected. Chroma that was sampled at half the size is interpolated: taking
    the nearest, as FFmpeg does unless told otherwise, loses 7 dB on a frame of FaceForensics++.
    """
    pixels = np.rot90(frame.to_ndarray(format="rgb24", interpolation=exactly()), _turns(frame))
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _turns(frame: Any) -> int:
    """Quarter turns, counter-clockwise; other angles are left aside."""
    return 0 if frame.rotation % 90 else frame.rotation // 90 % 4


def _sound(container: Any, stream: Any, lost: list[str]) -> Iterator[Any]:
    """Frames that decode and are of one size; the reasons of all others are added to ``lost``.

    A picture that comes out although its packet broke is not to be trusted.
    """
    size: tuple[int, int] | None = None
    broken: set[int] = set()
    for packet, frame, why in decoded(container, stream):
        if frame is None:
            if why:
                lost.append(why)
                if packet is not None and packet.pts is not None:
                    broken.add(packet.pts)
            continue
        if frame.pts is not None and frame.pts in broken:
            continue
        size = size or (frame.height, frame.width)
        if why or (frame.height, frame.width) != size:
            lost.append(why or "of another size")
            continue
        yield frame


_PLAIN = {"libdav1d": "av1", "libaom-av1": "av1", "hevc": "h265", "libvpx": "vp8", "libvpx-vp9": "vp9"}
