"""Footage after a video encoder at a constant quantiser: C23 and C40 of FaceForensics++, and other codecs.

The encoder is a real one, through PyAV, in memory; what it did can be read back from its bits
(``audit.data.quantiser``). Frames are encoded whole, before faces are cut out.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np

from audit.data.footage import exactly, upright
from audit.data.quantiser import quantisers
from audit.data.video_index import pyav
from audit.errors import DataError
from audit.shifts import Frame

Codec = Literal["h264", "h265", "vp9", "av1"]
Chroma = Literal["4:2:0", "4:4:4"]

_RATE = 25
_SMALLEST = 16
"""Height and width below which x265 refuses; smaller frames are continued by their edge."""
_BT601, _LIMITED = 5, 1
_TAG = 6
"""SMPTE 170M, the name of BT.601's matrix in the stream."""


@dataclass(frozen=True, slots=True)
class _Encoder:
    """How a codec is called in FFmpeg and in tables, its largest quantiser, and what it is told."""

    library: str
    title: str
    largest: int
    options: dict[str, str]
    rate_factor: str = ""
    full_chroma: bool = True

    def told(self, quantiser: int, frames: int, *, adaptive: bool) -> dict[str, str]:
        rule = {k: v.format(q=quantiser) for k, v in self.options.items()}
        key = f"{self.library.removeprefix('lib')}-params"
        if adaptive:
            rule[key] = self.rate_factor.format(q=quantiser)
        if self.library == "libx265" and frames < 3:  # its time stamps are undefined where B-frames have no room
            rule[key] += ":bframes=0"
        return rule


# chroma is taken from the centre of its four pixels; unsaid, a decoder places it half a pixel to the left
_X264 = "threads=1:lookahead-threads=1:cpu-independent=1:chromaloc=1"
_X265 = "pools=none:frame-threads=1:wpp=0:log-level=none:chromaloc=1"
_ENCODERS: dict[str, _Encoder] = {
    "h264": _Encoder(
        "libx264", "H.264", 51,
        {"preset": "medium", "x264-params": f"qp={{q}}:ipratio=1:pbratio=1:aq-mode=0:mbtree=0:{_X264}"},
        f"crf={{q}}:{_X264}",
    ),
    "h265": _Encoder(
        "libx265", "H.265", 51,
        {"preset": "veryfast", "x265-params": f"qp={{q}}:ipratio=1:pbratio=1:aq-mode=0:cutree=0:{_X265}"},
        f"crf={{q}}:{_X265}",
    ),
    "vp9": _Encoder(
        "libvpx-vp9", "VP9", 63,
        {"deadline": "good", "cpu-used": "5", "crf": "{q}", "qmin": "{q}", "qmax": "{q}", "b": "0", "aq-mode": "0",
         "row-mt": "0"},
    ),
    "av1": _Encoder(
        "libsvtav1", "AV1", 63,
        {"preset": "8", "svtav1-params": "rc=0:aq-mode=0:qp={q}:lp=1"}, full_chroma=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Encode:
    """A video encoder at a constant quantiser, on the whole video (003 Table II: C23 and C40 are H.264 at 23 and 40).

    H.264 is libx264 at its default preset, ``medium``, which the files of FaceForensics++ name too: groups of pictures
    and B-frames as x264 chooses them, one quantiser for every macroblock of every frame (no factor between frame types,
    no adaptive quantisation, no macroblock tree). H.265 is libx265 ``veryfast``, likewise. VP9 is libvpx (deadline
    ``good``, speed 5) at one index; AV1 is SVT-AV1 preset 8 at a constant quantiser, with its own offsets between
    the layers of a group. Quantisers of different codecs are different scales. Colours go through BT.601 in limited
    range, and the stream says so. One thread: equal frames give equal bytes.

    Frames of an odd or very small size are continued by their edge and cut back. With a rate of 0 the frames are
    stills: each is a clip of a single intra frame, for itself, and they may differ in size.

    Attributes:
        codec: ``h264``, ``h265``, ``vp9`` or ``av1``. quantiser: 0 (the finest) to 51 for H.264 and H.265, to 63 for
            VP9 and AV1. chroma: ``4:2:0`` as nearly all video; ``4:4:4`` keeps all of it (not for AV1).
        adaptive: H.264 and H.265 only: the number is a constant *rate factor* at x264's defaults, the quantiser then
            follows type, content and motion. So the files of FaceForensics++ were made, as their headers say.

    Raises:
        ValueError: a codec, quantiser or chroma that is not among these.
    """

    codec: Codec = "h264"
    quantiser: int = 23
    chroma: Chroma = "4:2:0"
    adaptive: bool = False

    level: ClassVar[Literal["video", "image"]] = "video"

    def __post_init__(self) -> None:
        if self.codec not in _ENCODERS:
            raise ValueError(f"expected a codec of {', '.join(_ENCODERS)}, got {self.codec!r}")
        encoder = _ENCODERS[self.codec]
        if not 0 <= self.quantiser <= encoder.largest:
            raise ValueError(f"expected a quantiser of {encoder.title} from 0 to {encoder.largest}, "
                             f"got {self.quantiser}")  # fmt: skip
        if self.chroma not in ("4:2:0", "4:4:4") or (self.chroma == "4:4:4" and not encoder.full_chroma):
            raise ValueError(f"expected a chroma that {encoder.title} has here, got {self.chroma!r}")
        if self.adaptive and not encoder.rate_factor:
            raise ValueError(f"expected h264 or h265 for a constant rate factor, got {self.codec!r}")

    @property
    def name(self) -> str:
        """Such as ``H.264 QP 40``."""
        scale = "CRF" if self.adaptive else "QP" if self.codec in ("h264", "h265") else "q"
        return f"{_ENCODERS[self.codec].title} {scale} {self.quantiser}" + " 4:4:4" * (self.chroma == "4:4:4")

    def spec(self) -> dict[str, Any]:
        """Codec, quantiser, chroma, library and all that the encoder is told, its preset among it, and the build."""
        encoder = _ENCODERS[self.codec]
        told = encoder.told(self.quantiser, 3, adaptive=self.adaptive)
        return {"shift": "encode", **asdict(self), "library": encoder.library, "options": told, "build": build()}

    def apply(self, frames: Sequence[Frame], *, fps: float, seed: int) -> list[Frame]:
        """As many frames of the same sizes; the seed changes nothing.

        Raises:
            DataError: the encoder is not in this build, or frames of one video differ in size.
        """
        del seed
        if fps <= 0:
            return [self._through([frame], _RATE)[0] for frame in frames]
        return self._through(frames, fps)

    def encode(self, frames: Sequence[Frame], fps: float) -> bytes:
        """The bytes of an MP4 file with these frames: uint8 (H, W, 3) RGB of one size, at least one; 0 fps means 25.

        Raises:
            DataError: the encoder is not in this build, no frame, or frames that differ in size.
        """
        av, encoder = pyav(), _ENCODERS[self.codec]
        if encoder.library not in av.codecs_available:
            raise DataError(f"encoding to {encoder.title}", expected=f"a build of FFmpeg with {encoder.library}",
                            got="one without it", mend=f"use one of {', '.join(available_codecs())}")  # fmt: skip
        sizes = {f.shape[:2] for f in frames}
        if len(sizes) != 1:
            got = f"{len(frames)} frames of {len(sizes)} sizes"
            raise DataError(f"encoding to {encoder.title}", expected="frames of one size, at least one", got=got,
                            mend="encode each video for itself")  # fmt: skip
        os.environ.setdefault("SVT_LOG", "1")  # else SVT-AV1 writes a page to the terminal for each clip
        rate = Fraction(fps).limit_denominator(1001) if fps > 0 else Fraction(_RATE)
        pixels = "yuv" + self.chroma.replace(":", "") + "p"
        height, width = padded(*sizes.pop())
        file = io.BytesIO()
        with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            told = encoder.told(self.quantiser, len(frames), adaptive=self.adaptive)
            stream = container.add_stream(encoder.library, rate=rate, options=told)
            stream.height, stream.width, stream.pix_fmt = height, width, pixels
            context = stream.codec_context
            context.thread_count, context.colorspace, context.color_range = 1, _TAG, _LIMITED
            for number, frame in enumerate(frames):
                edge = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
                picture = np.ascontiguousarray(np.pad(frame, edge, mode="edge") if any(map(sum, edge)) else frame)
                shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
                shown = shown.reformat(format=pixels, dst_colorspace=_BT601, interpolation=exactly())
                shown.pts, shown.time_base = number, 1 / rate
                container.mux(stream.encode(shown))
            container.mux(stream.encode())
        return file.getvalue()

    def read_back(self, frames: Sequence[Frame], fps: float) -> dict[str, Any]:
        """What was done to these frames: ``bytes``, and where the codec tells, the lowest and highest ``quantiser``."""
        data = self.encode(frames, fps)
        found = quantisers(data)
        told: dict[str, Any] = {"frames": len(frames), "bytes": len(data)}
        if found:
            told["quantiser"] = [min(q.low for q in found), max(q.high for q in found)]
        return told

    def _through(self, frames: Sequence[Frame], fps: float) -> list[Frame]:
        if not len(frames):
            return []
        out = decode(self.encode(frames, fps), frames[0].shape[:2])
        if len(out) != len(frames):
            raise DataError(f"encoding to {self.name}", expected=f"{len(frames)} frames back", got=str(len(out)),
                            mend="report it: the encoder or decoder of this build drops frames")  # fmt: skip
        return out


@dataclass(frozen=True)
class Still:
    """Each frame for itself, as a clip of a single intra frame at a constant quantiser; see ``Encode``.

    What a still image suffers that passes through a video encoder: no motion, nothing borrowed from its neighbours.

    Attributes: as of ``Encode``.
    """

    quantiser: int = 23
    codec: Codec = "h264"
    chroma: Chroma = "4:2:0"

    level: ClassVar[Literal["video", "image"]] = "video"

    def __post_init__(self) -> None:
        _ = self.encoder

    @property
    def encoder(self) -> Encode:
        """The encoder of each frame."""
        return Encode(self.codec, self.quantiser, self.chroma)

    @property
    def name(self) -> str:
        """Such as ``H.264 QP 40, each frame intra``."""
        return f"{self.encoder.name}, each frame intra"

    def spec(self) -> dict[str, Any]:
        """As of ``Encode``."""
        return {**self.encoder.spec(), "shift": "still"}

    def apply(self, frames: Sequence[Frame], *, fps: float, seed: int) -> list[Frame]:
        """As many frames of the same sizes, which may differ; rate and seed change nothing."""
        del fps
        return self.encoder.apply(frames, fps=0, seed=seed)


def decode(data: bytes, size: tuple[int, int] | None = None) -> list[Frame]:
    """The frames of an encoded video, uint8 (H, W, 3) RGB, in the order in which they are shown.

    Args:
        size: (height, width) to which what was continued by its edge is cut back.
    """
    return [f if size is None else np.ascontiguousarray(f[: size[0], : size[1]]) for f in _decoded(data)]


def available_codecs() -> tuple[Codec, ...]:
    """Those of ``Encode`` whose encoder this build of PyAV has."""
    built = pyav().codecs_available
    codecs: tuple[Codec, ...] = ("h264", "h265", "vp9", "av1")
    return tuple(c for c in codecs if _ENCODERS[c].library in built)


def build() -> dict[str, Any] | None:
    """Versions of PyAV and of the libraries of FFmpeg in it, as others may give other bytes; none if not there."""
    try:
        av = pyav()
    except DataError:
        return None
    return {"PyAV": av.__version__, **{name: list(version) for name, version in av.library_versions.items()}}


def padded(height: int, width: int) -> tuple[int, int]:
    """The even size, at least 16, at which a frame is encoded."""
    return max(_SMALLEST, height + height % 2), max(_SMALLEST, width + width % 2)


def _decoded(data: bytes) -> Iterator[Frame]:
    with pyav().open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            yield upright(frame)


C23 = Encode("h264", 23)
"""FaceForensics++'s higher quality, at a constant quantiser."""
C40 = Encode("h264", 40)
"""FaceForensics++'s lower quality, at a constant quantiser."""
