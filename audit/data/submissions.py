"""A submitted patch: the picture and the mask that says which of its pixels are stuck, held against the rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data import png
from audit.errors import DataError
from audit.measures.driving import CANVAS, MOST_REGIONS, Rule, regions

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Submission:
    """A patch as it was handed in.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; mask: (H, W) uint8. ``None`` where the file breaks a rule that they need.
        regions: connected regions of the mask, ``None`` without one. rules: every rule with its outcome.
        digests: ``patch`` and ``mask`` -> ``path``, as it was given, and ``sha256``.
    """

    pixels: Bytes | None
    mask: Bytes | None
    regions: int | None
    rules: tuple[Rule, ...]
    digests: dict[str, dict[str, str]]


def read_submission(patch: Path, mask: Path, *, canvas: tuple[int, int] = CANVAS, connectivity: int = 8) -> Submission:
    """Both pictures of a submission and how they stand to the rules.

    The patch has to be a PNG of 8-bit RGB, the mask a PNG of 8-bit grey (or of three equal channels), both of the
    canvas' size. A picture of another size is not decoded.

    Args:
        canvas: (width, height) px. connectivity: 8 or 4, see ``audit.measures.driving.regions``.

    Raises:
        DataError: a file cannot be opened. What stands in it is a matter of the rules.
    """
    files = {"patch": _bytes(patch), "mask": _bytes(mask)}
    rules = [Rule("canvas", canvas == CANVAS, _size(CANVAS), _size(canvas), voids=False)]
    picture, of_patch = _decode("patch", files["patch"], canvas, (png.RGB,))
    grey, of_mask = _decode("mask", files["mask"], canvas, (png.GREY, png.RGB))
    rules += of_patch + of_mask
    if grey is not None and grey.ndim == 3:
        same = bool((grey == grey[..., :1]).all())
        rules.append(Rule("mask channels", same, "three equal channels, or grey", "equal" if same else "colours"))
        grey = np.ascontiguousarray(grey[..., 0]) if same else None
    count = None
    if grey is not None:
        between = int(((grey > 0) & (grey < 255)).sum())
        rules.append(Rule("mask is binary", between == 0, "only 0 and 255", f"{between} px in between"))
        count = regions(grey, connectivity)
        allowed = f"at most {MOST_REGIONS} ({connectivity} neighbours)"
        rules.append(Rule("connected regions", count <= MOST_REGIONS, allowed, str(count)))
    if grey is not None and picture is not None:
        outside = int((picture.any(axis=2) & (grey == 0)).sum())
        got = f"{outside} px of the patch outside, not stuck"
        rules.append(Rule("values inside the mask only", outside == 0, "black outside the mask", got, voids=False))
    given = {"patch": patch, "mask": mask}
    digests = {r: {"path": str(given[r]), "sha256": hashlib.sha256(data).hexdigest()} for r, data in files.items()}
    return Submission(picture, grey, count, tuple(rules), digests)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(
            f"submission {path}",
            expected="a PNG file that can be opened",
            got=getattr(error, "strerror", None) or str(error),
            mend="correct the path",
        ) from error


def _decode(what: str, data: bytes, canvas: tuple[int, int], kinds: tuple[int, ...]) -> tuple[Bytes | None, list[Rule]]:
    """The pixels, ``None`` where a rule is broken, and the rules on a file's form in the order they are looked at."""
    head = png.head(data)
    if head is None:
        return None, [Rule(f"{what} is a PNG", ok=False, expected="a PNG", got="another kind of file")]
    size = (head.width, head.height)
    sized, plain = size == canvas, head.depth == 8 and head.kind in kinds
    form = Rule(
        f"{what} is {png.form(kinds[0])}",
        plain,
        " or ".join(png.form(k) for k in kinds),
        head.form,
    )
    fits = Rule(f"{what} has the canvas' size", sized, _size(canvas), _size(size))
    pixels, broken = None, ""
    if sized and plain:  # a picture of any size could ask for any memory
        pixels, broken = png.pixels(data)
    readable = Rule(f"{what} is a PNG", not broken, "a PNG that decodes", broken or "a PNG")
    return pixels, [readable, form, fits]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} px"
