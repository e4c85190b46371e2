"""Face-warping artefacts: a face that came at a small size and was brought to its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from audit.shifts import Frame
from probes.forgery.face_geometry import INNER, SQUARE, Mask, Points, carried, from_template, region
from probes.forgery.per_face import FaceForger, required

SIDES = (64, 127)
"""px, lowest and highest: how large the generators of the time made a face."""


@dataclass(frozen=True)
class WarpedFace(FaceForger):
    """The face is turned upright at a small size, blurred, and warped back (Li and Lyu 2019).

    The square around the inner face becomes one of 64 to 127 px a side, drawn evenly and never larger than it was, is
    blurred by a Gaussian of 5 × 5 (σ 1.1 px), and read back bilinearly. Pasted is, drawn evenly, all of the square or
    the inner face alone, with a hard edge, as published. Outside of that nothing changes.
    """

    imitates: ClassVar[str] = (
        "face swaps whose generator makes small faces: the resolution within the face does not fit that around it"
    )
    lacks: ClassVar[str] = "another identity, blending of the boundary, colour that does not fit, synthesised texture"
    refs: ClassVar[tuple[str, ...]] = ("Li and Lyu 2019",)

    @property
    def name(self) -> str:
        return "warped face"

    def spec(self) -> dict[str, Any]:
        return {"forger": self.name, "sides": list(SIDES)}

    def forged(self, face: Frame, points: Points, draw: np.random.Generator) -> Frame:
        mask, drawn = self.mask(face, points, draw)
        corners = carried(from_template(points), SQUARE)
        side = max(2, min(drawn, round(float(np.linalg.norm(corners[1] - corners[0])))))
        # middles of pixels: the square's edge is half a pixel before the middle of its first
        target = np.array([[-0.5, -0.5], [side - 0.5, -0.5], [side - 0.5, side - 0.5]])
        matrix = cv2.getAffineTransform(corners[:3].astype(np.float32), target.astype(np.float32))
        small = cv2.warpAffine(face, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
        small = cv2.GaussianBlur(small, (5, 5), 0)
        back = cv2.warpAffine(
            small,
            matrix,
            (face.shape[1], face.shape[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(np.where(mask[..., None], back, face), np.uint8)

    def mask(self, face: Frame, points: Points, draw: np.random.Generator) -> tuple[Mask, int]:
        """Where the face is pasted, and the side that was drawn for it, px."""
        shape = INNER if draw.random() < 0.5 else SQUARE
        pasted = required(region(shape, points, (face.shape[0], face.shape[1])))
        return pasted, int(draw.integers(SIDES[0], SIDES[1] + 1))
