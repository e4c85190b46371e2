"""What attacks on images may change, checked in NumPy and SciPy: other code than that which attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.ndimage import map_coordinates
from torch import Tensor

from audit.labelled import Adversarial

Levels = NDArray[np.float64]
Mask = Literal["learned", "salient", "all", "low", "high"]
_ROUND = 1e-6
WARP = 0.05
"""Levels by which two ways of sampling may differ: positions are float32 in one of them."""


def _sound(clean: Tensor, changed: Adversarial) -> Iterator[str]:
    """Same number and size, 8 bits; nothing else can be checked where this is broken."""
    if str(changed.images.dtype) != "torch.uint8":
        yield f"pixels of type {changed.images.dtype}, 8 bits are allowed"
    if changed.images.shape != clean.shape:
        yield f"images of shape {tuple(changed.images.shape)}, the clean ones have {tuple(clean.shape)}"


def _changes(clean: Tensor, changed: Adversarial) -> Iterator[tuple[int, Levels]]:
    """(i, change (3, H, W) in levels) for each image."""
    for i, (a, b) in enumerate(zip(clean.numpy(), changed.images.numpy(), strict=True)):
        yield i, b.astype(np.float64) - a.astype(np.float64)


@dataclass(frozen=True)
class PixelBound:
    """‖change‖ ≤ ε per image, on the 8-bit images themselves: rounding is given nothing on top.

    Attributes:
        epsilon: in [0, 1]. norm: ``linf``: of the largest change of a value; ``l2``: of all values of an image.
    """

    epsilon: float
    norm: Literal["linf", "l2"] = "linf"

    def violations(self, clean: Tensor, changed: Adversarial) -> list[str]:
        """One sentence per broken image."""
        broken = list(_sound(clean, changed))
        if broken:
            return broken
        for i, change in _changes(clean, changed):
            size = np.abs(change).max(initial=0) if self.norm == "linf" else np.sqrt(np.square(change).sum())
            if size > 255 * self.epsilon + _ROUND:
                unit = "levels" if self.norm == "linf" else "levels in the Euclidean norm"
                broken.append(f"image {i}: changed by {size:.6g} {unit}, at most {255 * self.epsilon:.6g} are allowed")
        return broken

    def describe(self) -> str:
        if self.norm == "linf":
            return f"no value changes by more than {255 * self.epsilon:g} of 255 levels"
        return f"the change of an image has a Euclidean norm of at most {self.epsilon:g}, values being 0 to 1"


@dataclass(frozen=True)
class FlowRules:
    """Nothing but sampled elsewhere: x'(i, j) = x(i + Δu, j + Δv), at most ``limit`` px away.

    The image is sampled anew with SciPy by the recorded ``flow``, and must agree within rounding.
    """

    limit: float

    def violations(self, clean: Tensor, changed: Adversarial) -> list[str]:
        """One sentence per broken rule and image."""
        broken = list(_sound(clean, changed))
        flow = changed.maps.get("flow")
        if flow is None or flow.shape != (len(clean), 2, *clean.shape[2:]):
            broken.append("no flow (N, 2, H, W) was recorded")
        if broken or flow is None:
            return broken
        h, w = clean.shape[2:]
        rows, columns = np.mgrid[:h, :w].astype(np.float64)
        for i, (a, b, f) in enumerate(zip(clean.numpy(), changed.images.numpy(), flow.double().numpy(), strict=True)):
            longest = float(np.hypot(f[0], f[1]).max(initial=0))
            if not longest <= self.limit + 1e-4:
                broken.append(f"image {i}: a flow of {longest:.6g} px, at most {self.limit:g} are allowed")
                continue
            # beyond the edge an image goes on as the edge is
            at = np.stack([np.clip(rows + f[0], 0, h - 1), np.clip(columns + f[1], 0, w - 1)])
            again = np.stack([map_coordinates(c.astype(np.float64), at, order=1, mode="nearest") for c in a])
            away = float(np.abs(again - b).max(initial=0))
            if away > 0.5 + WARP:
                broken.append(f"image {i}: {away:.4g} levels from what its flow gives, rounding is allowed")
        return broken

    def describe(self) -> str:
        return f"pixels are taken from at most {self.limit:g} px away, and not changed otherwise"


@dataclass(frozen=True)
class FrequencyRules:
    """‖change‖∞ ≤ ε, and only the frequencies of the recorded ``mask`` change.

    Rounding to 8 bits changes all frequencies. It moves a value by half a level at most, so the part of the change that
    is outside the mask has a root mean square of at most half a level, in each block.

    Attributes:
        epsilon: L∞ in [0, 1]. block: px of the cosine transform's blocks; ``None`` for the whole image.
        share: of the frequencies that the mask of a changed image may have, at least one. kind: of mask, see
            ``FrequencyAttack``: ``low`` and ``high`` fix it, ``all`` allows any, the others fix its size alone.
    """

    epsilon: float
    block: int | None = 8
    share: float = 1.0
    kind: Mask = "all"

    def violations(self, clean: Tensor, changed: Adversarial) -> list[str]:
        """One sentence per broken rule and image."""
        broken = PixelBound(self.epsilon).violations(clean, changed)
        h, w = clean.shape[2:]
        bh, bw = (h, w) if self.block is None else (self.block, self.block)
        mask = changed.maps.get("mask")
        if mask is None or mask.shape != (len(clean), bh, bw):
            return [*broken, f"no mask (N, {bh}, {bw}) of frequencies was recorded"]
        if any(str(b).startswith(("pixels", "images")) for b in broken):
            return broken
        for (i, change), allowed in zip(_changes(clean, changed), mask.numpy() > 0, strict=True):
            rows, columns = h // bh * bh, w // bw * bw
            if np.abs(change[:, rows:]).any() or np.abs(change[:, :, columns:]).any():
                broken.append(f"image {i}: changed beyond the last whole block")
            if change.any() and not self._allows(allowed):
                broken.append(f"image {i}: a mask of {allowed.sum()} frequencies, allowed are {self._masks()}")
            blocks = change[:, :rows, :columns].reshape(3, rows // bh, bh, columns // bw, bw).transpose(0, 1, 3, 2, 4)
            outside = dctn(blocks, axes=(3, 4), norm="ortho") * ~allowed
            worst = float(np.sqrt(np.square(outside).sum((3, 4)).max(initial=0) / (bh * bw)))
            if worst > 0.5 + 1e-3:
                broken.append(f"image {i}: other frequencies changed by {worst:.4g} levels, rounding explains 0.5")
        return broken

    def describe(self) -> str:
        where = "the image's" if self.block is None else f"the {self.block} × {self.block} blocks'"
        which = "any" if self.kind == "all" else f"only {self._masks()}"
        return f"{PixelBound(self.epsilon).describe()}, and of {where} frequencies {which} may change"

    def _masks(self) -> str:
        size = f"{100 * self.share:g} % of them"
        return {"all": "all", "low": f"the lowest {size}", "high": f"the highest {size}"}.get(self.kind, size)

    def _allows(self, mask: NDArray[np.bool_]) -> bool:
        if self.kind == "all":
            return True
        count = max(1, round(self.share * mask.size))
        if self.kind not in ("low", "high"):
            return int(mask.sum()) <= count
        bh, bw = mask.shape
        u, v = np.mgrid[:bh, :bw]
        order = np.lexsort((np.arange(mask.size), ((u * bw) ** 2 + (v * bh) ** 2).ravel()))
        fixed = np.zeros(mask.size, dtype=bool)
        fixed[order[:count] if self.kind == "low" else order[mask.size - count :]] = True
        return bool((mask.ravel() == fixed).all())
