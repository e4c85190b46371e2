"""Write a patch as a PNG or PDF that prints at its true size."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from audit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

NAME = "print"
PRINTS = "probes.prints"
"""Loaded by name: the core knows no probes."""
OPAQUE = 128
"""Alpha from which a texel is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("patch", metavar="PATCH", help="a picture, e.g. of a report's evidence folder")
    parser.add_argument("out", metavar="OUT", help="the file to write, .png or .pdf")
    parser.add_argument("--width-cm", type=float, required=True, metavar="CM", help="width of the print")
    parser.add_argument("--height-cm", type=float, metavar="CM", help="height; by the picture's aspect if not given")
    parser.add_argument("--dpi", type=float, default=300, help="dots per inch (300)")


def _read(path: str) -> tuple[Tensor, Tensor]:
    """uint8 (3, P, Q) and bool (P, Q), true where the picture is opaque."""
    import numpy as np
    import torch
    from PIL import Image

    try:
        with Image.open(path) as opened:
            rgba = torch.from_numpy(np.array(opened.convert("RGBA"))).permute(2, 0, 1)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"patch {path}", expected="a picture", got=str(error), mend="give a PNG of a report's evidence folder, say"
        ) from error
    return rgba[:3].contiguous(), rgba[3] >= OPAQUE


def run(options: argparse.Namespace) -> int:
    """Writes the print and says what it is; 0.

    Raises:
        AuditError: a picture that cannot be read, a size that cannot be printed, a file that cannot be written.
    """
    pixels, mask = _read(options.patch)
    if Path(options.out).exists() and Path(options.out).samefile(options.patch):
        raise DataError(
            f"print {options.out}",
            expected="another file than the patch",
            got="the patch itself",
            mend="choose another name",
        )
    height = options.height_cm
    if height is None:
        height = options.width_cm * pixels.shape[1] / pixels.shape[2]
    prints = importlib.import_module(PRINTS)
    size = prints.PrintSize(options.width_cm, height, options.dpi)
    facts = prints.export_print(pixels, options.out, size, mask)
    wide, high = facts["pixels"]
    sys.stdout.write(
        f"{options.out}: {facts['width_cm']:.1f} × {facts['height_cm']:.1f} cm at {facts['dpi']:g} dpi, "
        f"{wide} × {high} dots; print it at 100 %, not fitted to the page\n"
    )
    return 0
