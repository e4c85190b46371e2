"""PNG files from strangers: what the header says, and pixels only of a picture that is known to be small and whole."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
GREY, RGB = 0, 2
_MODES = {GREY: "L", RGB: "RGB"}


@dataclass(frozen=True, slots=True)
class Head:
    """What a PNG's header says; Pillow brings 16-bit colours down to 8 without a word."""

    width: int
    height: int
    depth: int
    kind: int

    @property
    def form(self) -> str:
        """Such as "8-bit RGB"."""
        return form(self.kind, self.depth)


def form(kind: int, depth: int = 8) -> str:
    """A colour type in words."""
    return f"{depth}-bit {_KINDS.get(kind, 'of an unknown kind')}"


def head(data: bytes) -> Head | None:
    """The header of a PNG; ``None`` for another kind of file."""
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR" or len(data) < 26:
        return None
    return Head(*struct.unpack(">IIBB", data[16:26]))


def pixels(data: bytes) -> tuple[NDArray[np.uint8] | None, str]:
    """The pixels of 8-bit grey, (H, W), or of 8-bit RGB, (H, W, 3), as ``head`` says, or ``None`` and why not.

    Look at the header first: a picture of any size could ask for any memory.
    """
    said = head(data)
    if said is None or said.depth != 8 or said.kind not in _MODES:
        return None, "neither 8-bit grey nor 8-bit RGB"
    if _headers(data) > 1:  # Pillow goes by the last one: another size, or 16 bits brought down to 8
        return None, "more than one header"
    shape = (said.height, said.width) + ((3,) if said.kind == RGB else ())
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])  # nothing is decoded yet
        if (*image.size, image.mode) != (said.width, said.height, _MODES[said.kind]):
            return None, f"the header says {said.form}, {said.width}x{said.height} px, and the file is another picture"
        image.verify()  # decoding alone passes over wrong checksums
        found = np.array(Image.open(io.BytesIO(data), formats=["PNG"]))
    except Exception as error:  # noqa: BLE001 Pillow raises anything at all on hostile bytes; it becomes a broken rule
        return None, f"cannot be decoded: {' '.join(str(error).split())[:100] or type(error).__name__}"
    if found.shape != shape or found.dtype != np.uint8:
        return None, f"the header says {said.form}, {said.width}x{said.height} px, and other pixels came out"
    return found, ""


def _headers(data: bytes) -> int:
    """How many chunks up to the end of the picture are headers."""
    at, count = len(_SIGNATURE), 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        count += kind == b"IHDR"
        if kind == b"IEND":
            break
        at += length + 12
    return count
