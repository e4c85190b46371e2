"""Image files to uint8 RGB tensors, whatever their mode; what cannot be read is said, not guessed."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from audit.errors import DataError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif"}
)
"""What counts as an image in a folder. One that this Pillow cannot decode (HEIC, say) is reported, not passed over."""

_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What is known of an image file that was found to decode.

    Attributes:
        size: (height, width) in px after EXIF orientation. digest: sha256 of the file's bytes.
    """

    size: tuple[int, int]
    digest: str


def inspect(path: Path) -> ImageFile:
    """Size and digest of a file, after checking that all of it decodes.

    JPEGs are decoded at an eighth of their size: every byte is read, most of the arithmetic is left out.

    Raises:
        DataError: the file cannot be read or decoded; ``got`` of the error is the reason.
    """
    data = _bytes(path)
    image = _open(path, data)
    turned = _orientation(image) >= 5
    width, height = image.size
    try:
        _refuse_unknown_range(image)
        if image.format == "JPEG":
            image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        if image.format == "PNG":
            Image.open(io.BytesIO(data)).verify()  # decoding alone passes over wrong checksums
        image.load()
    except Exception as e:  # Pillow's plugins raise anything at all on hostile bytes
        raise _undecodable(path, e) from e
    return ImageFile((width, height) if turned else (height, width), hashlib.sha256(data).hexdigest())


def read(path: Path) -> Tensor:
    """The image as uint8 RGB (3, height, width), turned upright by its EXIF orientation.

    Grey and palette images become RGB; 16-bit grey is scaled from its full range (65535 -> 255); what is transparent
    is laid on white; CMYK is converted without a colour profile, profiles of other modes are left aside too; of an
    animation the first frame counts.

    Raises:
        DataError: the file cannot be read or decoded.
    """
    image = _open(path, _bytes(path))
    turn = _TURN.get(_orientation(image))
    try:
        _refuse_unknown_range(image)
        rgb = _rgb(image)
    except Exception as e:  # see inspect
        raise _undecodable(path, e) from e
    pixels = np.array(rgb if turn is None else rgb.transpose(turn))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_as(path: Path, size: tuple[int, int]) -> Tensor:
    """``read``, and the size still is what it was when the set was opened.

    Raises:
        DataError: the file is gone, broken, or of another size by now.
    """
    pixels = read(path)
    if tuple(pixels.shape[1:]) != size:
        raise DataError(
            f"image {path.name}",
            expected=f"{size[0]}x{size[1]} px as when the data set was opened",
            got=f"{pixels.shape[1]}x{pixels.shape[2]} px",
            mend="leave the data alone while an audit runs",
        )
    return pixels


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as e:
        raise _unreadable(path, "no such file") from e
    except (OSError, ValueError) as e:  # ValueError: a NUL or a lone surrogate in the name
        raise _unreadable(path, f"cannot be opened: {getattr(e, 'strerror', None) or e}") from e
    if not data:
        raise _unreadable(path, "empty file")
    return data


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as e:
        raise _unreadable(path, "not an image of a known format") from e
    except Exception as e:  # see inspect
        raise _undecodable(path, e) from e


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  a broken EXIF block says nothing of orientation; the pixels may be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _refuse_unknown_range(image: Image.Image) -> None:
    if image.mode == "F" or (image.mode == "I" and image.format not in {"PNG", "PPM"}):
        raise ValueError(f"pixels of mode {image.mode}, whose black and white are not known")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.int64) * 255 + 32767) // 65535
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _undecodable(path: Path, error: Exception) -> DataError:
    return _unreadable(path, f"cannot be decoded: {error or type(error).__name__}")


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"image {path.name}",
        expected="an image file that decodes",
        got=" ".join(reason.split())[:200],
        mend="replace the file or take it out of the data",
    )
