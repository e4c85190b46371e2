"""What a patch on a face may be: a few connected regions of a small area, counted on |x_adv − x| (paper 000 §4.1).

The competition counts on 112 × 112 aligned faces: at most 5 connected regions, at most 10 % of the pixels, which is
1 254 of 12 544. In a photograph of another scale an area is the changed pixels times the squared scale under the usual
alignment, so that it means the same on every photograph and a 112 × 112 face counts exactly. Its final stage limits
the worn patch instead, to 60 cm². This module sees two pictures only: it knows nothing of masks and of how they came.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.alignment import ARCFACE, CHIP
from audit.measures.driving import regions

PIXELS = CHIP * CHIP
WORN_CM2 = 60.0
"""The competition's limit on a worn patch, seen from the front."""

EYES_CM = 6.3
"""Between the pupils of adults, on average (Dodgson 2004)."""

FACE_PX_PER_CM = float((ARCFACE[1] - ARCFACE[0]).norm()) / EYES_CM
"""Pixels of an aligned 112 × 112 face per cm of an average adult's: about 5.6."""

_ROUNDING = 1e-6  # of a scale that was computed; no whole number of pixels is that close above a limit


@dataclass(frozen=True, slots=True)
class RuleCount:
    """One face held against the rules.

    Attributes:
        regions: connected regions of changed pixels. area: px of an aligned 112 × 112 face. share: of its pixels, in
            [0, 1] for such a face. cm2: the area, where the rules say how large a pixel is.
        broken: per rule broken its name ("regions", "area", "cm2") and a sentence.
    """

    regions: int
    area: float
    cm2: float | None
    broken: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        """No rule is broken."""
        return not self.broken

    @property
    def sentences(self) -> tuple[str, ...]:
        """One per rule broken."""
        return tuple(text for _, text in self.broken)

    @property
    def share(self) -> float:
        """Area of an aligned face's area."""
        return self.area / PIXELS


@dataclass(frozen=True, kw_only=True)
class FaceRules:
    """At most ``regions`` connected regions, of at most the share ``area`` of an aligned face in all.

    Attributes:
        regions: 0 or more. area: share in (0, 1]; 1 for no limit on faces that fill their picture.
        connectivity: 8 joins pixels that touch at a corner, as OpenCV and scikit-image do unless told otherwise; 4
            does not. The paper does not say which.
        cm2: limit on the area of the worn patch, ``None`` for none; see ``WORN_CM2``.
        px_per_cm: pixels of an aligned 112 × 112 face per cm on the face.

    Raises:
        ValueError: a number that cannot be.
    """

    regions: int = 5
    area: float = 0.10
    connectivity: int = 8
    cm2: float | None = None
    px_per_cm: float = FACE_PX_PER_CM

    def __post_init__(self) -> None:
        sound = self.regions >= 0 and 0 < self.area <= 1 and self.connectivity in {4, 8}
        if not sound or not self.px_per_cm > 0 or not math.isfinite(self.px_per_cm):
            raise ValueError(f"expected regions >= 0, 0 < area <= 1, connectivity 4 or 8, px_per_cm > 0, got {self}")
        if self.cm2 is not None and not self.cm2 > 0:
            raise ValueError(f"expected cm2 > 0, got {self.cm2}")

    @property
    def pixels(self) -> float:
        """The largest area allowed, in px of an aligned 112 × 112 face: 1254.4 at 10 %."""
        return self.area * PIXELS

    def check(self, clean: Tensor, changed: Tensor, scale: float = 1.0) -> RuleCount:
        """Counts one picture.

        Args:
            clean, changed: (3, H, W) uint8. scale: px of an aligned 112 × 112 face per px of the picture.

        Raises:
            ValueError: other types or shapes, or a scale that is not above 0.
        """
        if clean.dtype != torch.uint8 or changed.dtype != torch.uint8:
            raise ValueError(f"expected 8-bit pictures, got {clean.dtype} and {changed.dtype}")
        if clean.ndim != 3 or clean.shape != changed.shape:
            raise ValueError(f"expected (3, H, W) twice, got {tuple(clean.shape)} and {tuple(changed.shape)}")
        return self.count((clean != changed).any(dim=0).cpu().numpy(), scale)

    def count(self, changed: NDArray[np.bool_], scale: float = 1.0) -> RuleCount:
        """Counts one mask (H, W) of changed pixels."""
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"expected a scale above 0, got {scale}")
        found = regions(np.ascontiguousarray(changed).view(np.uint8), self.connectivity)
        area = int(np.count_nonzero(changed)) * scale**2
        cm2 = None if self.cm2 is None else area / self.px_per_cm**2
        said = []
        if found > self.regions:
            said.append(("regions", f"{found} connected regions, at most {self.regions} are allowed"))
        if area > self.pixels * (1 + _ROUNDING):
            said.append(("area", f"an area of {_px(area)} px, at most {math.floor(self.pixels)} are allowed"))
        if cm2 is not None and self.cm2 is not None and cm2 > self.cm2 * (1 + _ROUNDING):
            said.append(("cm2", f"an area of {cm2:.4g} cm², at most {self.cm2:g} are allowed"))
        return RuleCount(found, area, cm2, tuple(said))

    def violations(self, clean: Tensor, changed: Tensor, scales: Tensor | float = 1.0) -> list[str]:
        """One sentence per picture and rule broken, with the picture's number; empty where all is allowed.

        Args:
            clean, changed: (N, 3, H, W) uint8. scales: (N,), or one for all.
        """
        if clean.shape != changed.shape or clean.ndim != 4:
            raise ValueError(f"expected (N, 3, H, W) twice, got {tuple(clean.shape)} and {tuple(changed.shape)}")
        each = torch.as_tensor(scales, dtype=torch.float64).expand(len(clean)).tolist()
        counts = (self.check(a, b, s) for a, b, s in zip(clean, changed, each, strict=True))
        return [f"picture {i}: {text}" for i, count in enumerate(counts) for text in count.sentences]

    def describe(self) -> str:
        """The rules in words, for the report."""
        joined = "" if self.connectivity == 8 else f" ({self.connectivity} neighbours)"
        text = f"at most {self.regions} connected regions{joined}"
        if self.area < 1:
            text += f" of at most {100 * self.area:.4g} % of the aligned face"
        return text if self.cm2 is None else f"{text}, at most {self.cm2:g} cm² in all"

    def spec(self) -> dict[str, Any]:
        """Everything that decides what is allowed, as JSON."""
        return asdict(self)


def _px(area: float) -> str:
    return f"{area:.0f}" if area == int(area) else f"{area:.1f}"
