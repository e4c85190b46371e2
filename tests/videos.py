"""Videos that the tests render."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from PIL import Image


def texture(height, width, seed=0, block=8):
    """Coarse noise (height, width, 3), which codecs keep."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (height // block + 1, width // block + 1, 3), dtype=np.uint8)
    return small.repeat(block, 0).repeat(block, 1)[:height, :width]


def moving(count, size=(64, 96), seed=0):
    """Frames that all differ: a texture that moves on by two pixels, and a corner that brightens."""
    base = texture(*size, seed)
    for i in range(count):
        frame = np.roll(base, 2 * i, 1)
        frame[:8, :8] = i * 255 // max(count - 1, 1)
        yield frame


def write_video(path, frames, codec="libx264", pixels="yuv420p", stamps=None, **options):
    """An H.264 video with B-frames and a key frame every twelve; ``stamps``: times in 1/100 s, else 25 per second."""
    options = {"bf": "3", "g": "12", "crf": "12"} | options if codec == "libx264" else options
    stream = None
    with av.open(str(path), "w") as container:
        for i, picture in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=25, options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
                if stamps is not None:
                    stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[i], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_frames(folder, frames):
    """PNG files 0.png, 1.png …: as numbers, not as text, they are in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def in_order(path):
    """All frames (H, W, 3) by plain decoding from the start."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
