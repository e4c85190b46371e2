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
    """The pixels, or ``None`` and why not. Look at the header first: a picture of any size could ask for any memory."""
    try:
        Image.open(io.BytesIO(data)).verify()  # decoding alone passes over wrong checksums
        return np.array(Image.open(io.BytesIO(data))), ""
    except Exception as error:  # noqa: BLE001 Pillow raises anything at all on hostile bytes; it becomes a broken rule
        return None, f"cannot be decoded: {' '.join(str(error).split())[:100] or type(error).__name__}"
