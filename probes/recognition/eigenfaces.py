"""A face generator that is always at hand: a principal component analysis of the background's faces, and no more.

Eigenfaces (Turk and Pentland 1991). A linear model of a few hundred aligned portraits draws blurred faces; it stands in
where the owner hands in no generator of their own, so that latent attacks (R4, R7) run everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audit import state
from audit.alignment import CHIP, Alignment
from audit.contracts import FaceGenerator
from audit.data.faces import Portraits
from audit.errors import DataError, ModelError

COMPONENTS = 64
MOST = 512
"""Portraits that are used at most, chosen by the hash of their ids: a few hundred tell the components apart."""
_LEAST = 1e-6
"""Share of the largest variance below which a component is rounding."""
_TOLERANCE = 1e-3


def aligned(portraits: Portraits) -> Tensor:
    """(N, 3, 112, 112) float32 in [0, 1]: portraits where the usual template puts eyes, nose and mouth."""
    at = Alignment.by_landmarks(portraits.landmarks, portraits.size, (CHIP, CHIP))
    return at.faces(portraits.images.float() / 255)


@dataclass(frozen=True, eq=False)
class Eigenfaces:
    """Draws faces as mean + Σ wᵢ·σᵢ·vᵢ of a principal component analysis; codes w are whitened.

    Over the faces it was fitted on, each wᵢ has mean 0 and variance 1. What leaves [0, 1] is cut off.

    Attributes:
        mean: (D,) with D = 3·112·112. components: (L, D), of length one, by falling variance; the entry of greatest
            magnitude is positive. spread: (L,) standard deviation σ along each. fitted: faces it was fitted on.
    """

    mean: Tensor
    components: Tensor
    spread: Tensor
    fitted: int

    @classmethod
    def fit(cls, portraits: Portraits, components: int = COMPONENTS, most: int = MOST) -> Eigenfaces:
        """On portraits, of which at most ``most`` are used; never more components than faces less one.

        Raises:
            DataError: fewer than two portraits, or all the same.
        """
        chosen = sorted(range(len(portraits)), key=lambda i: hashlib.sha256(portraits.ids[i].encode()).digest())[:most]
        if len(chosen) < 2:
            raise DataError("background of the face generator", expected="at least two portraits",
                            got=str(len(chosen)), mend="give more people who are not attacked")  # fmt: skip
        faces = aligned(portraits[chosen]).flatten(1)
        mean = faces.mean(0)
        off = faces - mean
        # Far fewer faces than pixels: the eigenvectors of the small matrix of inner products hold the large ones.
        values, vectors = torch.linalg.eigh((off @ off.T).double())
        values, vectors = values.flip(0), vectors.flip(1)
        k = min(components, len(chosen) - 1, int((values > _LEAST * values[0]).sum()))
        if k < 1 or float(values[0]) <= 0:
            raise DataError("background of the face generator", expected="portraits that differ",
                            got=f"{len(chosen)} of one picture", mend="give portraits of several people")  # fmt: skip
        basis = F.normalize(vectors[:, :k].T.float() @ off, dim=1)
        sign = basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
        spread = (values[:k] / (len(chosen) - 1)).sqrt().float()
        return cls(mean, basis * sign, spread, len(chosen))

    @property
    def latent(self) -> int:
        """Length of a code."""
        return len(self.spread)

    @property
    def names(self) -> tuple[str, ...]:
        """A component has no meaning of its own, so a number is its name."""
        return tuple(f"component {i + 1}" for i in range(self.latent))

    @property
    def directions(self) -> Tensor:
        """(L, L) one standard deviation along each component."""
        return torch.eye(self.latent, device=self.mean.device)

    def __call__(self, codes: Tensor) -> Tensor:
        """Faces (N, 3, 112, 112) in [0, 1] of codes (N, L)."""
        return self.linear(codes).clamp(0, 1)

    def linear(self, codes: Tensor) -> Tensor:
        """Faces before what leaves [0, 1] is cut off."""
        drawn = self.mean + (codes * self.spread) @ self.components
        return drawn.view(len(codes), 3, CHIP, CHIP)

    def project(self, faces: Tensor) -> Tensor:
        """(N, L) codes of the drawings nearest to aligned faces (N, 3, 112, 112), before the cut to [0, 1]."""
        return (faces.flatten(1) - self.mean) @ self.components.T / self.spread

    def to(self, device: torch.device) -> Eigenfaces:
        """The same on another device."""
        return Eigenfaces(self.mean.to(device), self.components.to(device), self.spread.to(device), self.fitted)

    @cached_property
    def digest(self) -> str:
        """sha256 of mean, components and spread."""
        h = hashlib.sha256()
        for part in (self.mean, self.components, self.spread):
            h.update(part.cpu().contiguous().numpy().tobytes())
        return h.hexdigest()


def identity(generator: FaceGenerator | None) -> dict[str, Any]:
    """What tells one generator from another, as JSON; ``None`` is the built-in one, which the background decides."""
    if generator is None:
        return {"generator": "eigenfaces of the background", "components": COMPONENTS, "most": MOST}
    own = getattr(generator, "digest", None)
    known = own if isinstance(own, str) else _held(generator)
    return {"generator": type(generator).__qualname__, "latent": int(generator.latent), "state": known}


def _held(generator: FaceGenerator) -> str:
    """sha256 of its modules, and of its tensors that are in none: a mean, directions."""
    h = hashlib.sha256(state.state_digest(state.modules_of(generator)).encode())
    parts = {**getattr(generator, "__dict__", {}), "directions": getattr(generator, "directions", None)}
    for name, part in sorted(parts.items()):
        if isinstance(part, Tensor):
            h.update(name.encode() + str(part.dtype).encode() + part.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()


def built_in(background: Portraits, device: torch.device) -> Eigenfaces:
    """The generator that is used where none is handed in."""
    return Eigenfaces.fit(background).to(device)


def drawer(generator: FaceGenerator, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A generator held to its contract: (N, L) codes to (N, 3, 112, 112) in [0, 1], whatever size it draws.

    It is asked once for two faces, of the mean code and of a random one. Its pictures are brought to 112 × 112 by an
    antialiased bilinear sample.

    Raises:
        ModelError: no length of codes, a wrong shape or range, values not finite, no gradient, or bad directions.
    """
    latent = getattr(generator, "latent", None)
    if not isinstance(latent, int) or latent < 1:
        raise ModelError("face generator", expected="`latent`, the length of its codes, at least 1", got=repr(latent),
                         mend="add it")  # fmt: skip
    one = torch.randn(1, latent, generator=torch.Generator().manual_seed(0))
    codes = torch.cat([torch.zeros(1, latent), one]).to(device).requires_grad_()
    drawn: Any = generator(codes)
    if not isinstance(drawn, Tensor) or drawn.ndim != 4 or tuple(drawn.shape[:2]) != (2, 3):
        got = f"shape {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else type(drawn).__name__
        raise ModelError("face generator", expected="faces (N, 3, H, W) of codes (N, L)", got=f"{got} for N = 2",
                         mend="return a batch of RGB pictures")  # fmt: skip
    low, high = float(drawn.detach().min()), float(drawn.detach().max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise ModelError("face generator", expected="finite values in [0, 1]", got=f"{low:.3g} to {high:.3g}",
                         mend="scale its pictures, for instance (x + 1) / 2 where it draws in [-1, 1]")  # fmt: skip
    if not drawn.requires_grad:
        raise ModelError("face generator", expected="pictures that are differentiable in the codes", got="no gradient",
                         mend="leave out no_grad and detach")  # fmt: skip
    ways = getattr(generator, "directions", None)
    if ways is not None and (not isinstance(ways, Tensor) or ways.ndim != 2 or ways.shape[1] != latent):
        got = f"shape {tuple(ways.shape)}" if isinstance(ways, Tensor) else type(ways).__name__
        raise ModelError("directions of the face generator", expected=f"a tensor (D, {latent})", got=got,
                         mend="give one row per attribute")  # fmt: skip

    def draw(codes: Tensor) -> Tensor:
        pictures = generator(codes).float().clamp(0, 1)
        if tuple(pictures.shape[2:]) == (CHIP, CHIP):
            return pictures
        return F.interpolate(pictures, (CHIP, CHIP), mode="bilinear", align_corners=False, antialias=True)

    return draw


def first_codes(generator: FaceGenerator, faces: Tensor) -> Tensor:
    """(N, L) where an attack on aligned faces begins: their projection where there is one, else the mean, zeros."""
    project = getattr(generator, "project", None)
    if callable(project):
        return project(faces)  # type: ignore[no-any-return]
    return torch.zeros(len(faces), generator.latent, device=faces.device)
