"""What a printer makes of a patch: the colours it can print, and how the print looks."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor
from torch.nn import functional as F

from audit.errors import AuditError, DataError
from probes.blur import gaussian_blur
from probes.prints import PrintSize, export_print, texels_for

__all__ = [
    "PRINTABLE",
    "PrintSize",
    "Printing",
    "as_printed",
    "export_print",
    "gamut_of",
    "printable_colours",
    "printer_table",
    "texels_for",
]

_PAPER = (0.96, 0.96, 0.94)
_INKS = ((0.10, 0.62, 0.86), (0.86, 0.12, 0.50), (0.97, 0.90, 0.14), (0.13, 0.13, 0.14))
"""What full cover of cyan, magenta, yellow and black leaves of red, green and blue, on white."""


def _ink_mixtures() -> Tensor:
    half = (0.0, 0.5, 1.0)
    covers = [(*cmy, 0.0) for cmy in itertools.product(half, repeat=3)]
    covers += [(0.0, 0.0, 0.0, k) for k in (0.25, 0.5, 0.75, 1.0)]
    cover, inks = torch.tensor(covers)[:, :, None], torch.tensor(_INKS)
    return torch.tensor(_PAPER) * (1 - cover * (1 - inks)).prod(1)


PRINTABLE: Tensor = _ink_mixtures()
"""(31, 3) RGB in [0, 1]: a plain office printer, where nothing better is known.

Made by a model of our own: cyan, magenta and yellow each at cover 0, ½ and 1 in all 27 combinations, and black alone at
¼, ½, ¾ and 1. An ink at cover a multiplies each channel by 1 − a·(1 − what it leaves at full cover); paper is
(0.96, 0.96, 0.94). For a real printer use :func:`gamut_of` or a list that was measured.
"""


def printable_colours(path: Path | str) -> Tensor:
    """A list of printable colours from a text or CSV file.

    A row holds r, g, b, split by commas, semicolons or blanks; ``#`` starts a comment; a first row without any digit is
    a heading. If any number is above 1, all of them count from 0 to 255, else from 0 to 1.

    Returns:
        (C, 3) float32 in [0, 1], in the order of the file, doubles dropped.

    Raises:
        DataError: no such file, not text, a row that is not three numbers in range, or no row at all.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else "bytes that are no UTF-8"
        raise _bad_list(path, "a text file", why) from e
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text or (not rows and not re.search(r"\d", text)):
            continue
        try:
            row = [float(v) for v in re.split(r"[,;\s]+", text)]
        except ValueError as e:
            raise _bad_list(path, f"three numbers in row {number}", repr(text)) from e
        if len(row) != 3 or not all(0 <= v <= 255 for v in row):
            raise _bad_list(path, f"three numbers from 0 to 1 or from 0 to 255 in row {number}", repr(text))
        rows.append(row)
    if not rows:
        raise _bad_list(path, "rows of r, g, b", "none")
    colours = torch.tensor(rows, dtype=torch.float64)
    colours = colours / 255 if colours.max() > 1 else colours
    return torch.tensor(list(dict.fromkeys(map(tuple, colours.tolist()))), dtype=torch.float32)


def printer_table(profile: Path | str, levels: int = 9, intent: int = 1) -> Tensor:
    """What a printer makes of each colour, by its ICC profile: sRGB → printer → sRGB.

    Args:
        profile: an ICC file for CMYK, RGB or grey. levels: points per channel, 2 to 33.
        intent: ICC rendering intent towards the printer: 0 perceptual, 1 relative colorimetric, 2 saturation,
            3 absolute; the way back is relative colorimetric, or absolute with 3.

    Returns:
        (levels, levels, levels, 3) in [0, 1] by red, green, blue asked for; a table for :func:`as_printed`.

    Raises:
        DataError: no profile, or one that cannot be used both ways. AuditError: levels or intent out of range.
    """
    if not 2 <= levels <= 33 or intent not in (0, 1, 2, 3):
        raise AuditError(
            "sampling of a printer profile",
            expected="2 to 33 levels and an intent from 0 to 3",
            got=f"{levels} levels, intent {intent!r}",
            mend="correct them",
        )
    path, steps = Path(profile), np.linspace(0, 255, levels).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)
    mode = ""
    try:
        printer, screen = ImageCms.ImageCmsProfile(str(path)), ImageCms.createProfile("sRGB")
        mode = {"CMYK": "CMYK", "RGB": "RGB", "GRAY": "L"}.get(str(printer.profile.xcolor_space).strip(), "")
        if not mode:
            raise _bad_profile(path, f"colour space {str(printer.profile.xcolor_space).strip()}")
        there = ImageCms.buildTransform(screen, printer, "RGB", mode, ImageCms.Intent(intent))
        back = ImageCms.buildTransform(printer, screen, mode, "RGB", ImageCms.Intent(3 if intent == 3 else 1))
        seen = back.apply(there.apply(Image.fromarray(grid)))
    except (OSError, ImageCms.PyCMSError) as e:
        raise _bad_profile(path, str(getattr(e, "strerror", None) or e)) from e
    return torch.from_numpy(np.array(seen)).float().div(255).reshape(levels, levels, levels, 3)


def gamut_of(profile: Path | str, levels: int = 5, intent: int = 1) -> Tensor:
    """Colours that a printer can print, by its ICC profile: what comes back of ``levels``³ sRGB colours.

    Returns:
        (C, 3) in [0, 1], C ≤ levels³, each colour once. Arguments and errors as :func:`printer_table`.
    """
    seen = printer_table(profile, levels, intent).reshape(-1, 3)
    return seen.new_tensor(sorted(set(map(tuple, seen.tolist()))))


@dataclass(frozen=True, slots=True)
class Printing:
    """How prints come out, for ``probes.physical.EOT``.

    Args:
        colours: the printable colours (C, 3) in [0, 1]; ``None`` for a printer that prints all of them.
        black, white: ranges of the value of solid black and of bare paper, in [0, 1].
        spread: range of the blur by light that scatters in the paper (optical dot gain), σ in texels.
        strength: how far a colour moves to the nearest printable ones, 0 (stays) to 1.
        softness: distance in RGB within which printable colours mix, > 0.

    Raises:
        AuditError: a value out of range.
    """

    colours: tuple[tuple[float, ...], ...] | None = tuple(tuple(c) for c in PRINTABLE.tolist())
    black: tuple[float, float] = (0.03, 0.10)
    white: tuple[float, float] = (0.85, 0.97)
    spread: tuple[float, float] = (0.0, 0.5)
    strength: float = 0.5
    softness: float = 0.1

    def __post_init__(self) -> None:
        rising = all(len(r) == 2 and r[0] <= r[1] for r in (self.black, self.white, self.spread))
        values = [v for c in self.colours or () for v in c]
        if (
            not rising
            or not 0 <= self.black[0] <= self.black[1] < self.white[0] <= self.white[1] <= 1
            or not 0 <= self.spread[0] <= self.spread[1] <= 8
            or not (0 <= self.strength <= 1 and 0 < self.softness < math.inf)
            or (self.colours is not None and (not self.colours or any(len(c) != 3 for c in self.colours)))
            or not all(0 <= v <= 1 for v in values)
        ):
            raise AuditError(
                "printing",
                expected="ranges with 0 <= black < white <= 1, spread in 0 to 8 texels, strength in [0, 1], "
                "softness above 0 and colours (C, 3) in [0, 1]",
                got=f"{self!r:.300}",
                mend="correct it",
            )

    @classmethod
    def of(cls, colours: Tensor | Sequence[Sequence[float]]) -> Printing:
        """With these printable colours (C, 3) in [0, 1]."""
        rows: Any = colours.tolist() if isinstance(colours, Tensor) else colours
        return cls(tuple(tuple(float(v) for v in c) for c in rows))


def as_printed(
    texture: Tensor,
    gamut: Tensor | None = None,
    *,
    black: float = 0.05,
    white: float = 0.95,
    spread: float = 0.0,
    strength: float = 1.0,
    softness: float = 0.1,
) -> Tensor:
    """A texture as its print looks; differentiable.

    First the gamut, then blur by scattered light, then black + (white − black)·value.

    Args:
        texture: (3, P, Q) in [0, 1].
        gamut: (C, 3) printable colours: a colour x moves by ``strength`` to the mean of the colours c with the weights
            exp(−|x − c|²/(2·softness²)); or (S, S, S, 3), a table as :func:`printer_table` makes, read trilinearly;
            ``None`` keeps all colours. ``softness`` is a distance in RGB.
        black, white: values of solid black and of paper. spread: σ in texels.

    Returns:
        (3, P, Q) in [black, white].
    """
    if gamut is not None:
        gamut = gamut.to(texture)
        if gamut.ndim == 2:
            made = _Mixed.apply(texture.flatten(1).T, gamut, softness).T.reshape(texture.shape)
        else:
            made = _looked_up(texture, gamut)
        texture = texture + strength * (made - texture)
    return black + (white - black) * gaussian_blur(texture, spread)


class _Mixed(torch.autograd.Function):
    """Texels (n, 3) to means of colours by nearness: weights w, their mean m = Σ w·c, and ∂m/∂x = cov_w(c)/softness².

    The covariance comes out of the same product as the mean, so that nothing of size (n, C) has to be kept.
    """

    @staticmethod
    def forward(ctx: Any, texels: Tensor, colours: Tensor, softness: float) -> Tensor:
        near = torch.addmm(colours.square().sum(1), texels, colours.T, beta=-0.5 / softness**2, alpha=softness**-2)
        products = colours[:, (0, 0, 0, 1, 1, 1, 2, 2, 2)] * colours[:, (0, 1, 2) * 3]
        moments = torch.softmax(near, 1) @ torch.cat([colours, products], 1)
        ctx.save_for_backward(moments)
        ctx.softness = softness
        return moments[:, :3].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (moments,) = grads, ctx.saved_tensors
        mean, second = moments[:, :3], moments[:, 3:].view(-1, 3, 3)
        along = (second @ grad[:, :, None])[:, :, 0] - mean * (mean * grad).sum(1, keepdim=True)
        return along / ctx.softness**2, None, None


def _looked_up(texture: Tensor, table: Tensor) -> Tensor:
    grid = texture.permute(1, 2, 0).flip(-1)[None, None] * 2 - 1  # the sampler asks for blue, green, red
    read = F.grid_sample(table.permute(3, 0, 1, 2)[None], grid, align_corners=True, padding_mode="border")
    return read[0, :, 0]


def _bad_list(path: Path, expected: str, got: str) -> DataError:
    return DataError(f"list of printable colours {path}", expected=expected, got=got, mend="correct the file")


def _bad_profile(path: Path, got: str) -> DataError:
    return DataError(
        f"printer profile {path}",
        expected="an ICC profile for CMYK, RGB or grey that works both ways",
        got=got,
        mend="ask the printer's maker for its ICC profile",
    )
