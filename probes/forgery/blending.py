"""Self-blended images: a face pasted onto itself, so that nothing but the blending is forged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from audit.shifts import Frame
from probes.forgery.face_geometry import INNER, OUTLINE, Points, region
from probes.forgery.per_face import FaceForger, required, rounded

Soft = NDArray[np.float32]
"""float32 (H, W) in [0, 1]."""
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)

_USUAL = 224
"""px; the published numbers of pixels are for faces cut out at this size, and are scaled to others."""
_LAPLACE = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Pieces:
    """What a self-blended image is made of: I = M ⊙ s + (1 − M) ⊙ t.

    Attributes:
        source, target: uint8 (H, W, 3). mask: float32 (H, W) in [0, 1].
    """

    source: Frame
    target: Frame
    mask: Soft

    def blended(self) -> Frame:
        """The image, rounded to 8 bits."""
        m = self.mask[..., None]
        return rounded(m * self.source + (1 - m) * self.target)


@dataclass(frozen=True)
class SelfBlended(FaceForger):
    """Self-blended images (Shiohara and Yamasaki 2022), with their published ranges.

    Source and target are one face. One of the two, drawn evenly, is changed: each channel by ±20 with probability 0.3,
    brightness and contrast by ±10 %, and it is either shrunk 2 or 4 times and brought back or sharpened (their hue,
    saturation and value move by less than one grey level and are left out). The source is then shifted by ±3 % of the
    width and ±1.5 % of the height and scaled by 0.95 to 1/0.95. The mask is an outline of the face (with or without
    jaw) that moves with the source, is bent (displacements of α = 50 px of noise smoothed by σ = 7 px), blurred, cut
    to where the blur left it whole, blurred again, and multiplied by a ratio from {¼, ½, ¾, 1, 1, 1}.
    """

    imitates: ClassVar[str] = (
        "the blending that most face swaps end with: a boundary, and two sides that differ in colour, sharpness, "
        "place and size"
    )
    lacks: ClassVar[str] = (
        "a generator: no synthesised texture, no other identity or expression, and nothing that changes over time"
    )
    refs: ClassVar[tuple[str, ...]] = ("Shiohara and Yamasaki 2022",)

    @property
    def name(self) -> str:
        return "self-blended"

    def spec(self) -> dict[str, Any]:
        return {"forger": self.name, "ratios": list(RATIOS)}

    def forged(self, face: Frame, points: Points, draw: np.random.Generator) -> Frame:
        return self.pieces(face, points, draw).blended()

    def pieces(self, face: Frame, points: Points, draw: np.random.Generator) -> Pieces:
        """Pseudo source, pseudo target and mask of one face."""
        size = face.shape[:2]
        outline = required(region(OUTLINE if draw.random() < 0.5 else INNER, points, (size[0], size[1])))
        changed, plain = _toned(face, draw), face
        source, target = (changed, plain) if draw.random() < 0.5 else (plain, changed)
        move = _affine(size[0], size[1], draw)
        where = (size[1], size[0])
        source = np.asarray(cv2.warpAffine(source, move, where, borderMode=cv2.BORDER_REPLICATE), np.uint8)
        moved = cv2.warpAffine(outline.astype(np.float32), move, where)
        mask = _softened(_bent(moved, draw), draw) * np.float32(draw.choice(RATIOS))
        return Pieces(source, target, mask)


def _toned(face: Frame, draw: np.random.Generator) -> Frame:
    values = face.astype(np.float32)
    if draw.random() < 0.3:
        values += draw.uniform(-20, 20, 3).astype(np.float32)
    contrast, brightness = draw.uniform(-0.1, 0.1, 2).astype(np.float32)
    values = np.clip(values * (1 + contrast) + brightness * 255, 0, 255)
    if draw.random() < 0.5:
        return _coarse(rounded(values), int(draw.choice((2, 4))))
    alpha, lightness = np.float32(draw.uniform(0.2, 0.5)), np.float32(draw.uniform(0.5, 1.0))
    kernel = _LAPLACE.copy()
    kernel[1, 1] += lightness
    return rounded((1 - alpha) * values + alpha * cv2.filter2D(values, -1, kernel))


def _coarse(face: Frame, times: int) -> Frame:
    h, w = face.shape[:2]
    small = cv2.resize(face, (max(1, w // times), max(1, h // times)), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)


def _affine(height: int, width: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3): scaled about the middle, then shifted."""
    scale = draw.uniform(0.95, 1 / 0.95)
    shift = np.array([draw.uniform(-0.03, 0.03) * width, draw.uniform(-0.015, 0.015) * height])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([np.eye(2) * scale, middle * (1 - scale) + shift])


def _bent(mask: Soft | NDArray[Any], draw: np.random.Generator) -> Soft:
    h, w = mask.shape
    unit = min(h, w) / _USUAL
    noise = draw.uniform(-1, 1, (2, h, w)).astype(np.float32)
    # white noise smoothed by σ px keeps 1/σ of its size: σ and α are scaled together, noise keeps its share by 1/unit
    dx, dy = (cv2.GaussianBlur(n, (0, 0), 7 * unit) * 50 * unit**2 for n in noise)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    return np.asarray(cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)


def _softened(mask: Soft, draw: np.random.Generator) -> Soft:
    """Blurred, cut to where it is still whole, blurred again; 1 at its highest.

    The first blur decides how far the mask shrinks and the second how soft its edge is: where the first is the wider
    one the mask ends within the face, else it reaches beyond.
    """
    unit = min(mask.shape) / _USUAL
    first, second = (_odd(int(draw.integers(2, 13)) * 2 + 1, unit) for _ in range(2))
    sigma = float(draw.integers(5, 46)) * unit
    blurred = cv2.GaussianBlur(mask, (first, first), 0)
    whole = np.where(blurred >= blurred.max() - 1e-4, blurred, 0).astype(np.float32)
    soft = cv2.GaussianBlur(whole, (second, second), sigma)
    return np.asarray(np.clip(soft / max(float(soft.max()), 1e-6), 0, 1), np.float32)


def _odd(size: int, unit: float) -> int:
    return max(1, round((size * unit - 1) / 2)) * 2 + 1
