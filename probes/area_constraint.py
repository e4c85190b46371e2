"""What a patch in perspective may change, checked by a computation of its own (rules of paper 000 §3.1, C1).

Nothing here uses ``probes.perspective`` or ``probes.areas``: the area is worked out once more from the formula and
drawn as a polygon, so that a mistake in the placement shows up here instead of confirming itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from audit.contracts import Areas
from probes.constraints import broken, misshapen

_SUB = 8
"""Polygons are drawn in eighths of a pixel."""


@dataclass(frozen=True, eq=False)
class AreaConstraint:
    """Only pixels that the canvas touches change, no more than are printed, in no more pieces than the mask has.

    A picture is allowed where it is finite and in [0, 1] and has the clean one's shape; no pixel outside all canvases
    differs; the number of pixels that differ is at most Σ printed area plus the ring that the edges touch; they form
    at most as many connected regions (8-neighbours) as there are objects times the regions of the mask.

    Args:
        share, aspect, at: the canvas inside a box, as in ``probes.areas.AreaPlacement``. mask: bool (P, Q) or ``None``.
        slack: how far a drawn condition may move the corners, as a share of the canvas's longer side.
        reach: px around the covered pixels that a camera's blur and compression may touch.
        fill: the canvas is the whole box, whatever its shape.
    """

    share: float = 0.2
    aspect: float = 1.0
    at: tuple[float, float] = (0.5, 0.5)
    mask: NDArray[np.bool_] | None = None
    slack: float = 0.0
    reach: int = 0
    fill: bool = False

    def describe(self) -> str:
        where = f"an upright rectangle of {self.share:.0%} of its box" if self.share < 1 else "its box"
        printed = "" if self.mask is None else f", of which {self.mask.mean():.0%} in {self._regions()} region(s)"
        loose = ""
        if self.slack or self.reach:
            loose = f" (moved by up to {self.slack:.0%} of its side, and {self.reach} px around it, by the condition)"
        return (
            f"On each object only its target area, or where it has none {where}, changes{printed}{loose}; "
            "every other pixel is the very same; all values stay in [0, 1]."
        )

    def violations(
        self, clean: Tensor, changed: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None
    ) -> list[str]:
        """One sentence per rule broken, over all images; empty where ``changed`` is allowed.

        Args:
            clean: (N, 3, H, W) in [0, 1]; changed: the same shape; boxes: per image (K, 4) xyxy px; areas: per image.
        """
        if said := misshapen(clean, changed, boxes):
            return [said]
        before, after = clean.detach().cpu().numpy(), changed.detach().cpu().numpy()
        found: list[str] = []
        for i in range(len(before)):
            quads = self._quads(boxes[i], None if areas is None else areas[i])
            found += [f"image {i}: {text}" for text in self._of_one(before[i], after[i], quads)]
        return found

    def _of_one(self, clean: NDArray[Any], changed: NDArray[Any], quads: list[NDArray[np.float64]]) -> list[str]:
        allowed, area = self._allowed(clean.shape[1], clean.shape[2], quads)
        found, differs = broken(clean, changed, allowed, area, "area")
        if self.mask is None:
            # A pixel under a patch that happens to have the patch's colour does not cut the patch in two.
            labels = ndimage.label(differs | allowed, structure=np.ones((3, 3)))[0]
            regions = len(np.unique(labels[differs]))
            if regions > len(quads):
                found.append(f"the changed pixels form {regions} regions for {len(quads)} objects")
        return found

    def _allowed(self, height: int, width: int, quads: list[NDArray[np.float64]]) -> tuple[NDArray[np.bool_], float]:
        """(height, width) mask of the pixels that the canvases touch, and the largest number that may differ."""
        mask, most = np.zeros((height, width), np.uint8), 0.0
        printed = 1.0 if self.mask is None else float(self.mask.mean())
        for quad in quads:
            edges = np.linalg.norm(quad - np.roll(quad, 1, 0), axis=1)
            layer = np.ones_like(mask)
            # Corners count from a pixel's corner here and from its middle in OpenCV.
            points = np.round((quad - 0.5) * _SUB).astype(np.int64).clip(-(2**20), 2**20).astype(np.int32)
            cv2.fillConvexPoly(layer, points, 0, shift=3)
            # Nothing of a canvas in the frame: then its surroundings are not in it either, unless it was moved in.
            aside = 1.5 + self.reach + self.slack * edges.max()
            if self.mask is not None:
                layer = 1 - self._printed(quad, height, width)
            if not layer.all():
                mask |= (cv2.distanceTransform(layer, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= aside).astype(np.uint8)
            x, y = quad[:, 0], quad[:, 1]
            area = 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))
            stretch = (1 + 2 * self.slack) ** 2
            # A mask's edges touch pixels too: as many as its outline has, seen on the canvas.
            outline = edges.sum() * self._outline()
            most += area * stretch * printed + (2 + 2 * self.reach) * outline * stretch + 4 * (2 + self.reach) ** 2
        return mask > 0, most

    def _printed(self, quad: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
        """(height, width) 1 where the printed part of a canvas is seen, at the middles of the pixels."""
        assert self.mask is not None
        rows, columns = self.mask.shape
        corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
        there = cv2.getPerspectiveTransform(quad.astype(np.float32), corners)
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        u, v, w = np.einsum("ij,jhw->ihw", there, np.stack([x, y, np.ones_like(x)]))
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = u / w, v / w
        inside = (w > 0) & (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
        at = self.mask[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
        # A texel thinner than a pixel may fall between the middles of pixels: those that points of it lie in are added.
        edges = np.linalg.norm(quad - np.roll(quad, -1, 0), axis=1)
        (j, i), steps = np.nonzero(self.mask), []
        for texels, (a, b) in ((rows, edges[1::2]), (columns, edges[::2])):
            count = max(1, math.ceil(max(a, b) / texels))
            steps.append(np.linspace(1e-3, 1 - 1e-3, count + 1))
        down, along = (a.ravel() for a in np.meshgrid(*steps, indexing="ij"))
        y, x = (j[:, None] + down).ravel(), (i[:, None] + along).ravel()
        back = np.linalg.inv(there.astype(np.float64)) @ np.stack([x, y, np.ones(len(x))])
        px, py = (np.floor(back[k] / back[2]).astype(int) for k in (0, 1))
        seen = (px >= 0) & (px < width) & (py >= 0) & (py < height)
        out: NDArray[np.uint8] = (inside & at).astype(np.uint8)
        out[py[seen], px[seen]] = 1
        return out

    def _outline(self) -> float:
        """Length of the printed part's outline over that of the whole canvas; at least 1."""
        if self.mask is None:
            return 1.0
        padded = np.pad(self.mask.astype(np.int8), 1)
        rows, columns = np.abs(np.diff(padded, axis=0)).sum(), np.abs(np.diff(padded, axis=1)).sum()
        return max(1.0, float(rows / self.mask.shape[1] + columns / self.mask.shape[0]) / 2)

    def _regions(self) -> int:
        return 1 if self.mask is None else int(ndimage.label(self.mask, structure=np.ones((3, 3)))[1])

    def _quads(self, boxes: Tensor, areas: Areas | None) -> list[NDArray[np.float64]]:
        out = []
        given = None if areas is None else areas.quads.detach().cpu().double().numpy()
        for k, (x1, y1, x2, y2) in enumerate(boxes.detach().cpu().double().tolist()):
            if given is not None and np.isfinite(given[k]).all():
                out.append(given[k])
                continue
            w, h = x2 - x1, y2 - y1
            wide = math.sqrt(max(0.0, self.share * w * h * self.aspect))
            high = wide / self.aspect
            if self.fill:
                wide, high = w, h
            if wide > w or high > h:
                fit = min(w / wide, h / high)
                wide, high = wide * fit, high * fit
            left = min(max(x1 + self.at[0] * w - wide / 2, x1), x2 - wide)
            top = min(max(y1 + self.at[1] * h - high / 2, y1), y2 - high)
            if wide > 0 and high > 0:
                out.append(np.array([[left, top], [left + wide, top], [left + wide, top + high], [left, top + high]]))
        return out
