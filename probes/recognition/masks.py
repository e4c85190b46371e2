"""Where a patch may be on a face: parts of the face by its five landmarks, drawn by hand, or searched for.

Every mask is grown in the frame of the usual 112 × 112 alignment around the face's own landmarks, and read in the
photograph: its pixels are the ``k`` that lie nearest to the part's skeleton, with ``k`` the most that the area allows,
``k · scale² <= area · 112²`` (scale: px of the aligned face per px of the photograph). So each face's mask is as near
below the limit as whole pixels let it be, and an aligned face of 112 × 112 gets exactly 1 254 at ten per cent (R1).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal
from torch import Tensor

from audit.alignment import CHIP, Alignment
from audit.errors import AuditError
from probes.recognition.parts import PARTS, canonical

REGIONS = 5
AREA = 0.10
AREAS = (0.02, 0.05, 0.10, 0.20)
"""The ladder of areas that a budget climbs."""

_CHUNK = 8
_EIGHT = np.ones((3, 3), bool)


class Mask(Protocol):
    """Where a patch may be."""

    @property
    def name(self) -> str: ...

    @property
    def area(self) -> float: ...

    @property
    def searches(self) -> bool:
        """Whether it asks for a map of where a change counts most."""
        ...

    def spec(self) -> dict[str, Any]: ...

    def photo_masks(self, landmarks: Tensor, photo: tuple[int, int], heat: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class FaceMask:
    """A part of the face.

    Args:
        name: ``glasses`` (lenses filled, with a bridge), ``frame`` (rims, bridge and temples, eyes free),
            ``forehead``, ``nose``, ``respirator`` (mouth and chin), ``features`` (eyebrows, eye sockets, nose and lips
            in one connected region, R5), ``cheeks`` (two stickers), ``whole`` (a square on the middle of the aligned
            face: with area 1 the whole of it, beyond every rule, for diagnostics).
        area: at most this share of the aligned face.

    Raises:
        AuditError: no such part, or an area outside (0, 1].
    """

    name: str = "features"
    area: float = AREA

    def __post_init__(self) -> None:
        if self.name not in PARTS:
            raise AuditError("mask of a face", expected=f"one of {', '.join(PARTS)}", got=repr(self.name),
                             mend="name one of those, or draw one")  # fmt: skip
        _require_area(self.area)

    def __repr__(self) -> str:
        return f"{self.name} {self.area:.0%}"

    @property
    def searches(self) -> bool:
        return False

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        return {"mask": self.name, "area": self.area}

    def photo_masks(self, landmarks: Tensor, photo: tuple[int, int], heat: Tensor | None = None) -> Tensor:
        """Bool (N, H, W) for faces with landmarks (N, 5, 2) px in photographs of size ``photo`` (height, width).

        At most five regions (8-neighbours) and at most the area, for every face. ``heat`` is not looked at.
        """
        del heat
        out = torch.zeros(len(landmarks), *photo, dtype=torch.bool)
        for part in torch.split(torch.arange(len(landmarks)), _CHUNK):
            at = landmarks[part].double().cpu()
            (top, left), grid, points = canonical(at, photo)
            near = _nearest(PARTS[self.name](grid, points), _most(at, photo, self.area))
            out[part, top : top + near.shape[1], left : left + near.shape[2]] = near
        return out


@dataclass(frozen=True)
class FreeSearch:
    """Up to five squares or discs, put where a change of the photograph counts most for this pair.

    Greedy: the square with the largest sum of ``heat`` is taken, its pixels count no more, and so on; deterministic.
    Each has a fifth of the area. Without ``heat`` they stand on the five landmarks.

    Args:
        area: of all spots together. spots: how many, 1 to 5. shape: ``square`` or ``disc``.
    """

    area: float = AREA
    spots: int = REGIONS
    shape: str = "square"

    def __post_init__(self) -> None:
        _require_area(self.area)
        if not 1 <= self.spots <= REGIONS or self.shape not in ("square", "disc"):
            raise AuditError("free search of a mask", expected=f"1 to {REGIONS} spots, shape square or disc",
                             got=f"{self.spots} spots, shape {self.shape!r}", mend="correct them")  # fmt: skip

    def __repr__(self) -> str:
        return f"{self.spots} {self.shape}s {self.area:.0%}"

    @property
    def name(self) -> str:
        return "spots"

    @property
    def searches(self) -> bool:
        return True

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        return {"mask": self.name, "area": self.area, "spots": self.spots, "shape": self.shape}

    def photo_masks(self, landmarks: Tensor, photo: tuple[int, int], heat: Tensor | None = None) -> Tensor:
        """Bool (N, H, W); ``heat``: (N, H, W), not negative, how much a change of each pixel counts."""
        if heat is None:
            centres = [at[: self.spots] for at in landmarks.double().cpu()]
            side = [int(k) // self.spots for k in _most(landmarks.double().cpu(), photo, self.area)]
            return torch.stack([self._at(c, k, photo) for c, k in zip(centres, side, strict=True)])
        out = torch.zeros(len(heat), *photo, dtype=torch.bool)
        for i, k in enumerate(_most(landmarks.double().cpu(), photo, self.area).tolist()):
            out[i] = self._search(heat[i].detach().cpu().double(), k // self.spots, photo)
        return out

    def _search(self, heat: Tensor, pixels: int, photo: tuple[int, int]) -> Tensor:
        stamp = self._stamp(pixels)
        left, out = heat.clone(), torch.zeros(photo, dtype=torch.bool)
        h, w = stamp.shape
        if pixels < 1 or h > photo[0] or w > photo[1]:
            return out
        turned = stamp.flip((0, 1)).double().numpy()
        for _ in range(self.spots):
            sums = signal.fftconvolve(left.numpy(), turned, mode="valid")
            y, x = divmod(int(sums.argmax()), sums.shape[1])
            out[y : y + h, x : x + w] |= stamp
            left[y : y + h, x : x + w][stamp] = 0
        return out

    def _at(self, centres: Tensor, pixels: int, photo: tuple[int, int]) -> Tensor:
        stamp, out = self._stamp(pixels), torch.zeros(photo, dtype=torch.bool)
        h, w = stamp.shape
        if pixels < 1 or h > photo[0] or w > photo[1]:
            return out
        for x, y in centres.round().long().tolist():
            top, left = min(max(y - h // 2, 0), photo[0] - h), min(max(x - w // 2, 0), photo[1] - w)
            out[top : top + h, left : left + w] |= stamp
        return out

    def _stamp(self, pixels: int) -> Tensor:
        side = max(1, int(pixels**0.5))
        if self.shape == "square":
            # whole rows, and what is left of the pixels as one more
            rows = -(-pixels // side)
            return (torch.arange(rows * side) < pixels).reshape(rows, side)
        wide = side + side // 3 + 2
        y, x = torch.meshgrid(torch.arange(wide), torch.arange(wide), indexing="ij")
        apart = (y - (wide - 1) / 2) ** 2 + (x - (wide - 1) / 2) ** 2
        return _nearest(apart[None], torch.tensor([pixels]))[0]


class DrawnMask:
    """A mask drawn on the aligned face.

    Args:
        drawn: PNG, or an array (112, 112): wherever it is not black (not 0) the patch may be.
        area: at most this share of the aligned face.

    Raises:
        AuditError: another size, nothing drawn, more than five regions or more than the area.
    """

    def __init__(self, drawn: str | Path | NDArray[Any], area: float = AREA) -> None:
        _require_area(area)
        self.area = area
        if isinstance(drawn, str | Path):
            try:
                with Image.open(drawn) as file:
                    array = np.asarray(file.convert("L"))
            except OSError as error:
                raise AuditError(f"mask {drawn}", expected="a picture", got=f"{type(error).__name__}: {error}",
                                 mend="save it as PNG") from error  # fmt: skip
        else:
            array = np.asarray(drawn)
        self.drawn = array.astype(bool)
        most = pixels_allowed(area)
        regions = int(ndimage.label(self.drawn, _EIGHT)[1]) if self.drawn.ndim == 2 else 0
        if self.drawn.shape != (CHIP, CHIP) or not 1 <= int(self.drawn.sum()) <= most or regions > REGIONS:
            raise AuditError(
                "drawn mask",
                expected=f"{CHIP} × {CHIP} with 1 to {most} pixels in at most {REGIONS} regions",
                got=f"{' × '.join(map(str, array.shape))} with {int(self.drawn.sum())} pixels in {regions} regions",
                mend="draw another, or allow more area",
            )

    def __repr__(self) -> str:
        return f"drawn {self.digest[:8]} {self.area:.0%}"

    @property
    def digest(self) -> str:
        """sha256 of its pixels."""
        return hashlib.sha256(np.packbits(self.drawn).tobytes()).hexdigest()

    @property
    def name(self) -> str:
        return "drawn"

    @property
    def searches(self) -> bool:
        return False

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        return {"mask": self.name, "area": self.area, "sha256": self.digest}

    def photo_masks(self, landmarks: Tensor, photo: tuple[int, int], heat: Tensor | None = None) -> Tensor:
        """Bool (N, H, W): the drawing on each face, thinned from its edge where whole pixels make it too large."""
        del heat
        out = []
        for at in torch.split(landmarks.double().cpu(), _CHUNK):
            seen = Alignment.by_landmarks(at, photo, (CHIP, CHIP)).to_photo(torch.from_numpy(self.drawn))
            depth = np.stack([ndimage.distance_transform_edt(np.pad(m, 1))[1:-1, 1:-1] for m in seen.numpy()])
            deepest = torch.from_numpy(-depth)
            out.append(_nearest(deepest, torch.minimum(_most(at, photo, self.area), seen.sum((1, 2)))))
        return torch.cat(out) if out else torch.zeros(0, *photo, dtype=torch.bool)


def from_name(name: str, area: float = AREA) -> Mask:
    """The mask of this name; ``spots`` is the free search, a path ending in .png one that is drawn."""
    if name == "spots":
        return FreeSearch(area)
    return DrawnMask(name, area) if name.lower().endswith(".png") else FaceMask(name, area)


def pixels_allowed(area: float) -> int:
    """Pixels of the aligned face that ``area`` allows: 1 254 at ten per cent."""
    return int(area * CHIP * CHIP + 1e-9)


def wear(clean: Tensor, content: Tensor, masks: Tensor) -> Tensor:
    """uint8 (N, 3, H, W): photographs with ``content`` ((N, 3, H, W) in [0, 1]) where ``masks`` says, in 8 bits.

    Every pixel of the mask differs from the clean one, if by one level of one channel: so the regions and the area of
    what changed are those of the mask, and no pixel that happens to keep its colour cuts a region in two.
    """
    put = (content * 255).round().clamp(0, 255).to(torch.uint8)
    same = (put == clean).all(1)
    first = torch.where(clean[:, 0] < 255, clean[:, 0] + 1, clean[:, 0] - 1)
    put[:, 0] = torch.where(same, first, put[:, 0])
    return torch.where(masks[:, None], put, clean)


def _require_area(area: float) -> None:
    if not 0 < area <= 1:
        raise AuditError("area of a mask", expected="a share of the aligned face in (0, 1]", got=repr(area),
                         mend="write 0.1 for ten per cent")  # fmt: skip


def _most(landmarks: Tensor, photo: tuple[int, int], area: float) -> Tensor:
    """(N,) int64: pixels of each photograph that the area allows."""
    scale = Alignment.by_landmarks(landmarks, photo, (CHIP, CHIP)).scale
    return (pixels_allowed(area) / scale**2).floor().long().clamp(max=photo[0] * photo[1])


def _nearest(levels: Tensor, most: Tensor) -> Tensor:
    """Bool (N, H, W): per face the ``most`` pixels of the lowest level, of them the five largest regions."""
    out = np.zeros(levels.shape, bool)
    for i, (level, k) in enumerate(zip(levels.numpy(), most.tolist(), strict=True)):
        if k < 1:
            continue
        flat = level.reshape(-1)
        order = np.argpartition(flat, k - 1)[:k] if k < flat.size else np.arange(flat.size)
        out[i].reshape(-1)[order] = True
        labels, regions = ndimage.label(out[i], _EIGHT)
        if regions > REGIONS:
            sizes = np.bincount(labels.reshape(-1))[1:]
            out[i] = np.isin(labels, np.argsort(-sizes, kind="stable")[:REGIONS] + 1)
    return torch.from_numpy(out)


NAMES = (*(n for n in PARTS if n != "whole"), "spots")
"""The masks that keep the rules at ten per cent."""
WHOLE = FaceMask("whole", 1.0)
