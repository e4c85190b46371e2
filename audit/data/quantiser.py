"""How coarsely a stream is quantised, read back from its bits: what an encoder did, whatever it was asked to do.

FFmpeg's decoders of H.264, MPEG-2, MPEG-4 and VP9 export the quantiser of each block that they decode. The number is
the codec's own: QP from 0 to 51 for 8-bit H.264, where six more double the step; the index from 0 to 255 for VP9. The
decoders of H.265 and AV1 export none.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audit.data.video_index import decoded, open_video, pyav
from audit.errors import DataError

EXPORT = {"export_side_data": "venc_params"}
"""Options of a decoder that hands on the quantisers."""

_DELTA = 4  # of AVVideoBlockParams: src_x, src_y, w, h, delta_qp, each int32


class Quantiser(NamedTuple):
    """Of one frame, over its luminance blocks: the mean weighted by their area, the smallest and the largest."""

    mean: float
    low: int
    high: int


def quantisers(source: Path | bytes, limit: int | None = None) -> list[Quantiser] | None:
    """The quantiser of each frame in the order in which they are shown; ``None`` where the codec exports none.

    Args:
        source: a video file, or its bytes. limit: only so many frames; all where it is ``None``.

    Raises:
        DataError: not a video, or no frame of it decodes.
    """
    container, stream = _opened(source)
    stream.codec_context.options = {**stream.codec_context.options, **EXPORT}
    found: list[Quantiser] = []
    shown = 0
    try:
        for _, frame, why in decoded(container, stream):
            if frame is None or why:
                continue
            shown += 1
            known = frame_quantiser(frame)
            if known is None:
                return None
            found.append(known)
            if limit is not None and len(found) >= limit:
                break
    finally:
        container.close()
    if not shown:
        raise _unusable("no frame that decodes")
    return found


def frame_quantiser(frame: Any) -> Quantiser | None:
    """Of a frame whose decoder was opened with ``EXPORT``; ``None`` where it exported nothing."""
    side = frame.side_data.get("VIDEO_ENC_PARAMS")
    if side is None:
        return None
    if not side.nb_blocks:
        return Quantiser(float(side.qp), side.qp, side.qp)
    rows = np.frombuffer(side, np.uint8)[side.blocks_offset :][: side.nb_blocks * side.block_size]
    blocks = rows.reshape(side.nb_blocks, side.block_size).view(np.int32)
    each = blocks[:, _DELTA] + side.qp
    area = blocks[:, 2].astype(np.float64) * blocks[:, 3]
    return Quantiser(float((each * area).sum() / area.sum()), int(each.min()), int(each.max()))


def _opened(source: Path | bytes) -> tuple[Any, Any]:
    if isinstance(source, Path):
        return open_video(source)
    av = pyav()
    try:
        container = av.open(io.BytesIO(source))
    except (av.FFmpegError, ValueError) as e:
        raise _unusable("something that cannot be opened") from e
    if not container.streams.video:
        container.close()
        raise _unusable("no video stream")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    return container, stream


def _unusable(got: str) -> DataError:
    return DataError("video", expected="bytes of a video that FFmpeg reads", got=got, mend="give a whole video")
