"""What a video file holds: one pass over it that decodes every frame and keeps a few numbers of each."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from audit.data.assemble import Progress, printable
from audit.data.frames import no_frames
from audit.errors import DataError

SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"}
    | {".ogv", ".h264", ".264", ".hevc", ".265", ".mjpeg", ".3gp"}
)
"""What counts as a video in a folder."""

_CHUNK = 1 << 20
_SILENT = "gave no picture"
_UNSEEN = ("vp8", "vp9", "av1", "libdav1d")
"""Codecs that send pictures which are never shown."""


@dataclass(slots=True)
class VideoIndex:
    """A video's frames in the order in which they are shown.

    Attributes:
        digest: sha256 of the file's bytes. size: (height, width) px, upright. turns: quarter turns, counter-clockwise.
        stamps: presentation time of each frame in the stream's time base; empty where the container's are of no use,
            so that frames can only be counted from the start.
        sums: CRC-32 of each frame's first plane, 0 for a broken one.
        keys: frame numbers at which decoding can begin, ascending, each with its decoding time where it is known.
        broken: frame number -> why.
    """

    digest: str = ""
    size: tuple[int, int] = (0, 0)
    turns: int = 0
    stamps: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    keys: list[tuple[int, int | None]] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Seen:
    stamp: int | None
    total: int
    key: bool
    reason: str


def pyav() -> Any:
    """PyAV.

    Raises:
        DataError: it is not installed.
    """
    try:
        import av
    except ImportError as e:
        raise DataError(
            "video",
            expected="PyAV, which decodes video",
            got=f"no such package ({e})",
            mend="install the extra: pip install 'assay-audit[video]'",
        ) from e
    return av


def open_video(path: Path) -> tuple[Any, Any]:
    """(container, video stream), decoding strictly on one thread.

    Raises:
        DataError: it cannot be opened, or has no video stream.
    """
    av = pyav()
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as e:
        raise _unusable(path, f"something that cannot be opened ({_reason(e)})") from e
    if not container.streams.video:
        container.close()
        raise _unusable(path, "no video stream")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"err_detect": "explode"}  # else damage is painted over in silence
    return container, stream


def decoded(container: Any, stream: Any) -> Iterator[tuple[Any, Any, str]]:
    """(packet, frame or None, reason) as they come; one that breaks gives None and the reason, and is passed over."""
    av = pyav()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as e:
            yield None, None, f"the file ends early: {_reason(e)}"
            return
        try:
            frames = packet.decode()
        except av.FFmpegError as e:
            yield packet, None, f"cannot be decoded: {_reason(e)}"
            continue
        for frame in frames:
            yield packet, frame, "marked as damaged by the decoder" if frame.is_corrupt else ""
        if not frames:
            yield packet, None, ""


def checksum(frame: Any) -> int:
    """CRC-32 of the first plane without the padding of its rows."""
    plane, kind = frame.planes[0], frame.format
    bits = -(-kind.components[0].bits // 8) * 8 if kind.is_planar else kind.padded_bits_per_pixel
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    return zlib.crc32(rows[:, : -(-plane.width * bits // 8)].tobytes())


def index_video(path: Path, progress: Progress | None = None) -> VideoIndex:
    """Decodes the whole video once; pixels are let go at once.

    Raises:
        DataError: not a video, or no frame of it decodes.
    """
    path = Path(path)
    out = VideoIndex(digest=_digest(path))
    container, stream = open_video(path)
    total = max(1, path.stat().st_size)
    seen: list[_Seen] = []
    times: dict[int, int | None] = {}
    sent: set[int] = set()
    angle = 0
    try:
        for packet, frame, why in decoded(container, stream):
            if packet is None:
                out.notes.append(f"{printable(path.name)}: {why}")
                break
            if packet.is_keyframe and packet.pts is not None:
                times[packet.pts] = packet.dts
            if frame is not None:
                size = (frame.height, frame.width)
                if not any(out.size):
                    out.size, angle = size, frame.rotation
                other = f"{size[1]}x{size[0]} px in a video of {out.size[1]}x{out.size[0]}"
                reason = why if size == out.size else other
                seen.append(_Seen(frame.pts, 0 if reason else checksum(frame), bool(frame.key_frame), reason))
            elif why and packet.size:
                seen.append(_Seen(packet.pts, 0, False, why))
            if packet.size and not packet.is_discard and packet.pts is not None:
                sent.add(packet.pts)
            if progress is not None and packet.pos is not None:
                progress(min(1.0, packet.pos / total), f"opening {printable(path.name)}, frame {len(seen)}")
    finally:
        container.close()
    if not any(not s.reason for s in seen):
        raise no_frames(f"video {path.name}", f"{len(seen)} frame(s), none of which decodes" if seen else "no frame")
    seen = _once(seen)
    if stream.codec_context.name not in _UNSEEN:
        seen += _silent(seen, sent)
    _order(out, seen, times, path)
    _turn(out, angle, path)
    if progress is not None:
        progress(1.0, f"opening {printable(path.name)}, frame {len(seen)}")
    return out


def _once(seen: list[_Seen]) -> list[_Seen]:
    """One entry per frame: a picture that comes out although its packet broke is not to be trusted."""
    broken = {s.stamp: s.reason for s in seen if s.reason and s.stamp is not None}
    out: list[_Seen] = []
    met: set[int] = set()
    for s in seen:
        if s.stamp is not None and s.stamp in broken:
            if s.stamp in met:
                continue
            met.add(s.stamp)
            s.reason = broken[s.stamp]
        out.append(s)
    return out


def _silent(seen: list[_Seen], sent: set[int]) -> list[_Seen]:
    """Frames that were sent, gave nothing, and raised nothing: a decoder passes over what it cannot make sense of.

    Those before the first frame belong to a scene that was cut away. A codec that sends half of a frame at a time
    (interlaced video) has as many silent packets as frames: those are no loss.
    """
    shown = {s.stamp for s in seen}
    first = min((s.stamp for s in seen if s.stamp is not None and not s.reason), default=0)
    lost = [t for t in sorted(sent - shown) if t > first]
    return [] if len(lost) * 3 > len(sent) else [_Seen(t, 0, False, _SILENT) for t in lost]


def _order(out: VideoIndex, seen: list[_Seen], times: dict[int, int | None], path: Path) -> None:
    whole = [s.stamp for s in seen if not s.reason]
    stamps = [t for t in whole if t is not None]
    timed = len(stamps) == len(whole) and all(a < b for a, b in pairwise(stamps))
    known = [s.stamp for s in seen]
    if timed and None not in known and len(set(known)) == len(known):
        seen = sorted(seen, key=lambda s: s.stamp or 0)
        out.stamps = [s.stamp or 0 for s in seen]
        out.keys = [(i, times.get(s.stamp or 0)) for i, s in enumerate(seen) if s.key and not s.reason]
    else:
        lost = [s for s in seen if s.reason and s.reason != _SILENT]
        seen = [s for s in seen if not s.reason]
        out.notes.append(
            f"{printable(path.name)} has no usable time stamps, so its frames are counted from the start"
            + (f"; {len(lost)} that cannot be decoded are not counted" if lost else "")
        )
    out.sums = [s.total for s in seen]
    out.broken = {i: s.reason for i, s in enumerate(seen) if s.reason}


def _turn(out: VideoIndex, angle: int, path: Path) -> None:
    if angle % 90:
        out.notes.append(f"{printable(path.name)} asks to be turned by {angle} degrees and is taken as it is stored")
        return
    out.turns = angle // 90 % 4
    if out.turns % 2:
        out.size = out.size[::-1]


def _digest(path: Path) -> str:
    h = hashlib.sha256()
    try:
        with path.open("rb") as f:
            while block := f.read(_CHUNK):
                h.update(block)
    except (OSError, ValueError) as e:
        raise _unusable(path, f"a file that cannot be read ({_reason(e)})") from e
    return h.hexdigest()


def _reason(error: BaseException) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())[:120]


def _unusable(path: Path, got: str) -> DataError:
    return DataError(
        printable(f"video {path.name}"),
        expected="a video file that FFmpeg reads",
        got=got,
        mend="replace the file or take it out of the data",
    )
