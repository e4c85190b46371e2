"""A patch as a file that a print shop can use: true size, one sharp square of colour per texel."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from audit.errors import AuditError

CM_PER_INCH = 2.54
_MOST_PIXELS = 1 << 28


@dataclass(frozen=True, slots=True)
class PrintSize:
    """How large a patch is printed.

    Args:
        width_cm, height_cm: size of the print, above 0 and at most 5000 cm.
        dpi: dots per inch, 10 to 4800.

    Raises:
        AuditError: a value out of range, less than one dot, or more than 268 million dots.
    """

    width_cm: float
    height_cm: float
    dpi: float = 300.0

    def __post_init__(self) -> None:
        sides = (self.width_cm, self.height_cm)
        if not all(0 < s <= 5000 for s in sides) or not 10 <= self.dpi <= 4800:
            raise _wrong("sides above 0 and at most 5000 cm, and 10 to 4800 dpi", self)
        width, height = self.pixels
        if min(width, height) < 1 or width * height > _MOST_PIXELS:
            raise _wrong(f"at least one dot a side and at most {_MOST_PIXELS} dots, not {width} × {height}", self)

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height) in dots at true size, to the nearest dot."""
        return round(self.width_cm / CM_PER_INCH * self.dpi), round(self.height_cm / CM_PER_INCH * self.dpi)

    @property
    def dot_cm(self) -> float:
        """Side of a dot, the smallest thing that can be printed, in cm."""
        return CM_PER_INCH / self.dpi

    def texel_cm(self, shape: tuple[int, int]) -> tuple[float, float]:
        """(width, height) in cm of a texel, the smallest feature of a patch of ``shape`` (P, Q) texels."""
        return self.width_cm / shape[1], self.height_cm / shape[0]


def texels_for(size: PrintSize, feature_cm: float) -> tuple[int, int]:
    """The most texels (P, Q) with no texel smaller than ``feature_cm`` cm, nor than a dot; at least one each way.

    A camera that sees an object of w cm across n pixels resolves features of about w/n cm: smaller ones are lost.

    Raises:
        AuditError: a feature that is not above 0.
    """
    if not 0 < feature_cm < math.inf:
        raise AuditError(
            "smallest feature of a print", expected="a size above 0 cm", got=repr(feature_cm), mend="fix it"
        )
    least = max(feature_cm, size.dot_cm) * (1 - 1e-9)
    return max(1, int(size.height_cm / least)), max(1, int(size.width_cm / least))


def export_print(pixels: Tensor, path: Path | str, size: PrintSize, mask: Tensor | None = None) -> dict[str, Any]:
    """Writes a patch at its true size, as PNG or PDF by the suffix.

    Every texel becomes a sharp rectangle of dots. A PNG holds exact colours and its dpi, and is transparent where
    masked out; a PDF page is as large as the print, to 0.01 mm, holds a picture of JPEG quality 100 without
    subsampling, and is white there.

    Args:
        pixels: uint8 (3, P, Q). path: ends in .png or .pdf; its folder exists. mask: bool (P, Q), true where the patch
            is; ``None`` for all of it.

    Returns:
        What was written: ``format``, ``width_cm``, ``height_cm``, ``dpi``, ``pixels`` [width, height], ``texels``
        [Q, P], ``texel_cm`` [width, height], ``printed`` (share of the texels).

    Raises:
        AuditError: wrong pixels or mask, another suffix, texels smaller than a dot, or a path that cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".png", ".pdf"):
        raise _bad_file(path, "a name ending in .png or .pdf", repr(path.name))
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.numel():
        raise _bad_file(path, "uint8 pixels (3, P, Q)", f"{pixels.dtype} {tuple(pixels.shape)}")
    rows, columns = pixels.shape[1:]
    if mask is not None and (mask.dtype != torch.bool or mask.shape != pixels.shape[1:]):
        raise _bad_file(path, f"a bool mask ({rows}, {columns})", f"{mask.dtype} {tuple(mask.shape)}")
    width, height = size.pixels
    if width < columns or height < rows:
        raise _bad_file(path, f"at least a dot per texel of {columns} × {rows}", f"{width} × {height} dots")

    colours = pixels.detach().cpu().permute(1, 2, 0).numpy()
    shown = np.full((rows, columns), 255, np.uint8) if mask is None else mask.cpu().numpy().astype(np.uint8) * 255
    if mask is not None and kind == ".png":
        colours = np.dstack([colours, shown])
    elif mask is not None:
        colours = np.where(shown[..., None] > 0, colours, np.uint8(255))
    image = Image.fromarray(colours[_nearest(rows, height)][:, _nearest(columns, width)])

    held = io.BytesIO()
    if kind == ".png":
        image.save(held, "PNG", dpi=(size.dpi, size.dpi))
    else:
        exact = (width / size.width_cm * CM_PER_INCH, height / size.height_cm * CM_PER_INCH)
        image.save(held, "PDF", dpi=exact, quality=100, subsampling=0)
    try:
        path.write_bytes(held.getbuffer())
    except OSError as e:
        raise _bad_file(path, "a place that can be written", e.strerror or type(e).__name__) from e
    return {
        "format": kind[1:].upper(),
        "width_cm": size.width_cm,
        "height_cm": size.height_cm,
        "dpi": size.dpi,
        "pixels": [width, height],
        "texels": [columns, rows],
        "texel_cm": list(size.texel_cm((rows, columns))),
        "printed": float((shown > 0).mean()),
    }


def _nearest(texels: int, dots: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The texel under the middle of each dot."""
    return ((2 * np.arange(dots, dtype=np.int64) + 1) * texels) // (2 * dots)


def _wrong(expected: str, size: PrintSize) -> AuditError:
    got = f"{size.width_cm!r} × {size.height_cm!r} cm at {size.dpi!r} dpi"
    return AuditError("size of a print", expected=expected, got=got, mend="correct the size, or take fewer dpi")


def _bad_file(path: Path, expected: str, got: str) -> AuditError:
    return AuditError(f"print {path}", expected=expected, got=got, mend="correct it and export again")
