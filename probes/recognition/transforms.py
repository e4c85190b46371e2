"""What makes a gradient carry over to other models: MI, TI, DI, SI and S²I, any of them together (R3).

DI, SI and S²I change what a model sees: they act on the aligned face, in the model's own size, because that is the
input whose resizing, shading and spectrum they vary; in the photograph the same change would depend on how large the
face happens to be in it. MI and TI act on the gradient in the photograph, where the patch is. The draws of one step
are the same for all pairs, so that a pair's result does not depend on which others are attacked with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.errors import AuditError

Order = Literal["fixed", "random"]


@dataclass(frozen=True)
class MI:
    """Momentum (Dong et al. 2018): g ← decay · g + ∇ / ‖∇‖₁, and the step follows g."""

    decay: float = 1.0
    name: ClassVar[str] = "mi"

    def __call__(self, gradient: Tensor, memory: Tensor) -> Tensor:
        """(N, ...): the new memory. ‖·‖₁ is the mean of magnitudes per pair, its sum up to a constant."""
        size = gradient.abs().flatten(1).mean(1).clamp(min=1e-30)
        return self.decay * memory + gradient / size.reshape(-1, *[1] * (gradient.ndim - 1))


@dataclass(frozen=True)
class TI:
    """Translation invariance (Dong et al. 2019): the gradient is convolved with a Gaussian kernel.

    It is the gradient with respect to the patch, which is zero where the mask is not: smoothing the whole
    photograph's and masking it afterwards won 10 of 16 pairs where this won 15.

    Args:
        radius: the kernel has 2·radius + 1 px of the photograph a side, and σ = radius / √3 as in the paper.
    """

    radius: int = 2
    name: ClassVar[str] = "ti"

    def __call__(self, gradient: Tensor) -> Tensor:
        """(N, C, H, W) smoothed; zeros beyond the edge."""
        line = _gaussian(self.radius).to(gradient)
        c = gradient.shape[1]
        across = line.expand(c, 1, 1, -1)
        flat = F.conv2d(gradient, across, padding=(0, self.radius), groups=c)
        return F.conv2d(flat, across.transpose(2, 3), padding=(self.radius, 0), groups=c)


@dataclass(frozen=True)
class DI:
    """Input diversity (Xie et al. 2019): with probability ``p`` the face is made smaller, and padded to its size.

    Args:
        smallest: share of the side that it is shrunk to at the least; the side and the place are drawn evenly.
    """

    p: float = 0.7
    smallest: float = 0.85
    copies: int = 1
    name: ClassVar[str] = "di"

    def __call__(self, faces: Tensor, copy: int, stream: torch.Generator) -> Tensor:
        """(N, 3, h, w) of (N, 3, h, w)."""
        del copy
        chance, share, down, right = torch.rand(4, generator=stream).tolist()
        h, w = faces.shape[2:]
        share = self.smallest + (1 - self.smallest) * share
        size = min(h, round(h * share)), min(w, round(w * share))
        if chance >= self.p or size == (h, w):
            return faces
        top, left = math.floor(down * (h - size[0] + 1)), math.floor(right * (w - size[1] + 1))
        small = F.interpolate(faces, size=size, mode="bilinear", align_corners=False)
        return F.pad(small, (left, w - size[1] - left, top, h - size[0] - top))


@dataclass(frozen=True)
class SI:
    """Scale invariance (Lin et al. 2020): the mean of the gradients at x / 2^i, i = 0 … copies − 1."""

    copies: int = 5
    name: ClassVar[str] = "si"

    def __call__(self, faces: Tensor, copy: int, stream: torch.Generator) -> Tensor:
        """(N, 3, h, w) of (N, 3, h, w)."""
        del stream
        halvings = copy % self.copies
        return faces / 2.0**halvings if halvings else faces


@dataclass(frozen=True)
class S2I:
    """Spectrum simulation (Long et al. 2022): x ← IDCT(DCT(x + ξ) ⊙ m), the mean of the gradients over ``copies``.

    Args:
        copies: 5 where the paper takes 20, as SI has 5 and each copy costs a model call; ``S2I(20)`` is the paper's.
        noise: ξ is normal with this σ, in [0, 1] units. spread: m is even in [1 − spread, 1 + spread].
    """

    copies: int = 5
    noise: float = 16 / 255
    spread: float = 0.5
    name: ClassVar[str] = "s2i"

    def __call__(self, faces: Tensor, copy: int, stream: torch.Generator) -> Tensor:
        """(N, 3, h, w) of (N, 3, h, w)."""
        del copy
        shape = faces.shape[1:]
        noise = self.noise * torch.randn(shape, generator=stream)
        scale = 1 + self.spread * (2 * torch.rand(shape, generator=stream) - 1)
        return idct(dct(faces + noise.to(faces)) * scale.to(faces))


InputTransform = DI | SI | S2I
Transform = MI | TI | DI | SI | S2I
NAMED: dict[str, type[Transform]] = {kind.name: kind for kind in (MI, TI, DI, SI, S2I)}


@dataclass(frozen=True)
class Pipeline:
    """Transforms in the order in which they act, or in another order drawn at each step.

    Gradients are averaged over the copies of the transform that asks for most; copy i of each goes through all of
    them, so that SI with S²I costs as many model calls as the larger of the two, not their product.

    Raises:
        AuditError: a transform twice, or an order that is neither.
    """

    transforms: tuple[Transform, ...]
    order: Order = "fixed"

    def __post_init__(self) -> None:
        names = [t.name for t in self.transforms]
        if len(set(names)) != len(names) or self.order not in ("fixed", "random"):
            raise AuditError("transforms of an attack", expected="each at most once, order fixed or random",
                             got=f"{', '.join(names)}, order {self.order!r}", mend="correct them")  # fmt: skip

    @classmethod
    def of(cls, given: Sequence[str | Transform], order: Order) -> Pipeline:
        """From transforms or their names."""
        return cls(tuple(transform(t) if isinstance(t, str) else t for t in given), order)

    @property
    def inputs(self) -> tuple[InputTransform, ...]:
        """Those that change what the model sees."""
        return tuple(t for t in self.transforms if isinstance(t, DI | SI | S2I))

    @property
    def copies(self) -> int:
        """Model calls per gradient."""
        return max((t.copies for t in self.inputs), default=1)

    def ordered(self, stream: torch.Generator) -> Pipeline:
        """As it acts at one step."""
        if self.order == "fixed":
            return self
        at = torch.randperm(len(self.transforms), generator=stream).tolist()
        return Pipeline(tuple(self.transforms[i] for i in at))

    def seen(self, faces: Tensor, copy: int, stream: torch.Generator) -> Tensor:
        """Faces as copy ``copy`` of the model sees them."""
        for t in self.inputs:
            faces = t(faces, copy, stream)
        return faces

    def direction(self, gradient: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Where a step goes, and the memory for the next; without MI the memory is not used."""
        for t in self.transforms:
            if isinstance(t, TI):
                gradient = t(gradient)
            elif isinstance(t, MI):
                gradient = memory = t(gradient, memory)
        return gradient, memory

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        return {"transforms": [[t.name, asdict(t)] for t in self.transforms], "order": self.order}


def transform(name: str) -> Transform:
    """The transform of this name with its usual options."""
    if name not in NAMED:
        raise AuditError("transform of an attack", expected=f"one of {', '.join(NAMED)}", got=repr(name),
                         mend="name one of those")  # fmt: skip
    return NAMED[name]()


def dct(images: Tensor) -> Tensor:
    """Orthonormal DCT-II of both sides of (..., h, w), as a product of matrices."""
    a, b = _cosines(images.shape[-2]).to(images), _cosines(images.shape[-1]).to(images)
    return a @ images @ b.T


def idct(spectrum: Tensor) -> Tensor:
    """The inverse of ``dct``: its matrices are orthonormal, so their transposes."""
    a, b = _cosines(spectrum.shape[-2]).to(spectrum), _cosines(spectrum.shape[-1]).to(spectrum)
    return a.T @ spectrum @ b


@lru_cache(maxsize=8)
def _cosines(n: int) -> Tensor:
    """(n, n): row k is √(2/n) cos(π (2i + 1) k / 2n), the first row √(1/n)."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    rows = math.sqrt(2 / n) * torch.cos(math.pi * (2 * i + 1) * k / (2 * n))
    rows[0] /= math.sqrt(2)
    return rows


@lru_cache(maxsize=8)
def _gaussian(radius: int) -> Tensor:
    """(2·radius + 1,) summing to one."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-(at**2) / (2 * max(radius, 1e-9) ** 2 / 3))
    return line / line.sum()
