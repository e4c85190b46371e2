"""What a patch may change, checked by a computation of its own.

Nothing here uses ``probes.geometry``: the rectangle is worked out once more from the formula, so that a mistake in the
placement shows up here instead of confirming itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from audit.contracts import Areas

# Vertical centre of the patch as (share of the box height, share of the patch side).
_CENTRE = {
    "top": (0.0, 0.5),
    "upper": (0.25, 0.25),
    "center": (0.5, 0.0),
    "lower": (0.75, -0.25),
    "bottom": (1.0, -0.5),
}
_EDGE = {"top": 1, "bottom": 3, "left": 0, "right": 2}
_ROUNDING = 1e-4
"""Pixels of tolerance where a rectangle's edge falls on a pixel's edge."""


@dataclass(frozen=True, slots=True)
class PatchConstraint:
    """Only the pixels under the patch change, and the patch is no larger than declared (C1).

    On a box of width w and height h the patch is a square of side s = alpha·√(w·h) with its centre at w/2 and
    ``position`` down the box, less the removed part. A picture is allowed where

    - it is finite and in [0, 1] and has the shape of the clean one;
    - no pixel outside all patch rectangles differs;
    - at most Σ s²·(1 − removed) pixels differ, plus the ring of pixels that the rectangles' edges touch;
    - the changed pixels form at most as many connected regions (8-neighbours) as there are boxes.
    """

    position: str = "top"
    alpha: float = 0.5
    remove: str = "none"

    def describe(self) -> str:
        cut = "" if self.remove == "none" else f", without its {self.remove.replace('-', ' ')}"
        return (
            f"On each object only a square of side {self.alpha:g}·√(w·h) at its {self.position} changes{cut}; "
            "every other pixel is the very same; all values stay in [0, 1]."
        )

    def violations(
        self, clean: Tensor, changed: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None
    ) -> list[str]:
        """One sentence per rule broken, over all images; empty where ``changed`` is allowed.

        Args:
            clean: (N, 3, H, W) in [0, 1]; changed: the same shape; boxes: per image (K, 4) xyxy px.
            areas: not asked for, the patch is placed by the boxes.
        """
        del areas
        if said := misshapen(clean, changed, boxes):
            return [said]
        before, after = clean.detach().cpu().numpy(), changed.detach().cpu().numpy()
        found: list[str] = []
        for i in range(len(before)):
            found += [f"image {i}: {text}" for text in self._of_one(before[i], after[i], boxes[i])]
        return found

    def _of_one(self, clean: NDArray[Any], changed: NDArray[Any], boxes: Tensor) -> list[str]:
        allowed, area = self._allowed(clean.shape[1], clean.shape[2], boxes)
        found, differs = broken(clean, changed, allowed, area, "patch")
        # A pixel under a patch that happens to have the patch's colour does not cut the patch in two.
        labels = ndimage.label(differs | allowed, structure=np.ones((3, 3)))[0]
        regions = len(np.unique(labels[differs]))
        if regions > len(boxes):
            found.append(f"the changed pixels form {regions} regions for {len(boxes)} boxes")
        return found

    def _allowed(self, height: int, width: int, boxes: Tensor) -> tuple[NDArray[np.bool_], float]:
        """(height, width) mask of the pixels that the patches touch, and the largest number that may differ."""
        mask, area = np.zeros((height, width), dtype=np.bool_), 0.0
        for x1, y1, x2, y2 in boxes.detach().cpu().double().tolist():
            w, h = x2 - x1, y2 - y1
            side = self.alpha * math.sqrt(max(0.0, w * h))
            box_share, side_share = _CENTRE[self.position]
            cx, cy = x1 + w / 2, y1 + box_share * h + side_share * side
            edge = [cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2]
            if self.remove != "none":
                amount, where = self.remove.split("-")
                inwards = side * {"half": 1 / 2, "third": 1 / 3}[amount]
                edge[_EDGE[where]] += inwards if where in ("left", "top") else -inwards
            left, top = max(0, math.floor(edge[0] - _ROUNDING)), max(0, math.floor(edge[1] - _ROUNDING))
            right, bottom = math.ceil(edge[2] + _ROUNDING), math.ceil(edge[3] + _ROUNDING)
            if side > 0 and right > 0 and bottom > 0:
                mask[top:bottom, left:right] = True
                area += (edge[2] - edge[0] + 2) * (edge[3] - edge[1] + 2)
        return mask, area


def misshapen(clean: Tensor, changed: Tensor, boxes: Sequence[Tensor]) -> str:
    """What is wrong with the shapes, as a sentence; empty where they fit."""
    if clean.shape == changed.shape and len(boxes) == len(clean):
        return ""
    return (
        f"expected patched images of shape {tuple(clean.shape)} with one list of boxes each, "
        f"got {tuple(changed.shape)} with {len(boxes)} lists"
    )


def broken(
    clean: NDArray[Any], changed: NDArray[Any], allowed: NDArray[np.bool_], area: float, what: str
) -> tuple[list[str], NDArray[np.bool_]]:
    """The rules on values, place and area that one image (3, H, W) breaks; (H, W) which of its pixels differ.

    Args:
        allowed: (H, W) pixels that may differ. area: how many of them. what: the word for what changes them.
    """
    found = []
    wrong = int((~np.isfinite(changed)).sum())
    if wrong:
        found.append(f"{wrong} values are not finite")
    outside = int(((changed < 0) | (changed > 1)).sum())
    if outside:
        low, high = np.nanmin(changed), np.nanmax(changed)
        found.append(f"{outside} values lie outside [0, 1] (from {low:.4g} to {high:.4g})")
    differs: NDArray[np.bool_] = (changed != clean).any(0)
    leaked = differs & ~allowed
    if leaked.any():
        y, x = (int(v[0]) for v in np.nonzero(leaked))
        found.append(f"{int(leaked.sum())} pixels outside the {what} differ, the first at x={x}, y={y}")
    if differs.sum() > area:
        found.append(f"{int(differs.sum())} pixels differ where the declared {what} reaches {math.floor(area)}")
    return found, differs
