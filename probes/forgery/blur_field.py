"""Gaussian blur with a standard deviation of its own at every pixel (paper 003, eq. 4 and 5), cheap in σ.

All taps of a k × k kernel at one distance d = u² + v² share the weight w_d = exp(−d / 2σ²) = q^d, and k = 9 has only 15
distances. The sums of an image over such rings do not depend on σ: they are taken once, and a step over σ is then a
polynomial in q at every pixel, whose derivative comes with it (Horner).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.errors import AuditError

Of = Literal["sigma", "inverse"]
"""What a map holds: σ in px, or 1/σ, which the paper steps and generates for the sake of stability."""

STEEPEST = 12.5
"""Largest 1/σ that is told apart, 0.08 px; from 7.5 on no tap weighs anything, and the image stays as it is."""

_SMALLEST = 1e-12  # a nearest tap's weight under it is 0
_BLOCK = 22000  # pixels at a time, so that what is worked on stays in the processor's cache


@dataclass(frozen=True, slots=True)
class Taps:
    """The rings of a k × k kernel without its centre, from the nearest to the farthest.

    Attributes:
        kernel: k. distances: u² + v². counts: taps at that distance. powers: of q that are needed: gaps between
            distances or squares, and what they are products of; each is that of two before it.
    """

    kernel: int
    distances: tuple[int, ...]
    counts: tuple[int, ...]
    powers: tuple[int, ...]

    @property
    def radius(self) -> int:
        """Of the square, px: (k − 1) / 2."""
        return self.kernel // 2

    def offsets(self, ring: int) -> list[tuple[int, int]]:
        """The (u, v) of a ring."""
        r, d = range(-self.radius, self.radius + 1), self.distances[ring]
        return [(u, v) for u in r for v in r if u * u + v * v == d]


@lru_cache
def taps(kernel: int) -> Taps:
    """The rings of a k × k kernel.

    Raises:
        AuditError: k is even or under 3.
    """
    if kernel < 3 or kernel % 2 == 0:
        raise AuditError("kernel of a blur", expected="an odd number of px from 3 on", got=repr(kernel),
                         mend="take 3, 5, 7 or 9, as the paper does")  # fmt: skip
    side = range(-(kernel // 2), kernel // 2 + 1)
    found = [u * u + v * v for u in side for v in side]
    rings = sorted(set(found) - {0})
    wanted = {b - a for a, b in pairwise((0, *rings))} | {2 * v - 1 for v in side if v > 0}
    for m in range(max(wanted), 1, -1):
        if m in wanted:
            wanted |= {m // 2, m - m // 2}
    return Taps(kernel, tuple(rings), tuple(found.count(d) for d in rings), tuple(sorted(wanted)))


@dataclass(frozen=True, eq=False)
class RingSums:
    """Images with all that their blurring needs and that does not depend on σ.

    Attributes:
        images: (N, 3, H, W). rings: (N, R, 3, H, W), for each ring the sum of its taps less as many times the centre.
            Beyond its border an image goes on as its edge is.
    """

    images: Tensor
    rings: Tensor
    taps: Taps

    @classmethod
    def of(cls, images: Tensor, kernel: int = 9) -> RingSums:
        """The sums of images (N, 3, H, W) over the rings of a k × k kernel; the images may want gradients."""
        t = taps(kernel)
        r, (h, w) = t.radius, images.shape[2:]
        at = {d: i for i, d in enumerate(t.distances)}
        with torch.no_grad():
            rings = images.new_zeros(len(images), len(t.distances), *images.shape[1:])
            wide = F.pad(images, (r,) * 4, mode="replicate")
            for v in range(r + 1):
                columns = wide[..., r + v : r + v + w]
                columns = columns + wide[..., r - v : r - v + w] if v else columns
                for u in range(r + 1):
                    if u or v:
                        for row in {r + u, r - u}:
                            rings[:, at[u * u + v * v]] += columns[:, :, row : row + h]
            for i, count in enumerate(t.counts):
                rings[:, i].sub_(images, alpha=count)
        return cls(images, rings, t)

    def __getitem__(self, index: slice) -> RingSums:
        return RingSums(self.images[index], self.rings[index], self.taps)

    def blurred(self, field: Tensor, of: Of = "sigma", *, literal: bool = False) -> Tensor:
        """The images under the field: x_adv(i, j) = Σ_uv G_ij(u, v) · x(i + u, j + v), over the k × k around a pixel.

        G_ij(u, v) = exp(−(u² + v²) / 2σ_ij²), divided by its own sum. The literal eq. 4 has 1 / (2πσ²) in its stead,
        which darkens where σ is large against k, and brightens where σ is under 0.4 px.

        Args:
            field: (N, H, W), σ in px or 1/σ, from 0 to infinity; only its magnitude counts. Where σ is under 0.13 px
                the image stays as it is, bit by bit (the literal form is then 1 / 2πσ² times it, at most 25 times).
            of: what the field holds. literal: the constant as eq. 4 has it.

        Returns:
            (N, 3, H, W), differentiable once in the field and in the images; not clipped. All gradients are finite,
            and those in the field are 0 where it is 0 or infinite (normalised form).
        """
        out: Tensor = _Blur.apply(self.images, self.rings, field, self.taps, of, literal)
        return out


def blurred(images: Tensor, field: Tensor, kernel: int = 9, of: Of = "sigma", *, literal: bool = False) -> Tensor:
    """``RingSums.blurred`` for images (N, 3, H, W) that are blurred only once."""
    return RingSums.of(images, kernel).blurred(field, of, literal=literal)


class _Blur(torch.autograd.Function):
    """The blur and, in the same pass over the rings, its derivative in the field: one image more to keep."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, rings: Tensor, field: Tensor, t: Taps, of: Of, literal: bool
    ) -> Tensor:  # fmt: skip
        n, c, h, w = images.shape
        x, sums = images.reshape(n, c, h * w), rings.reshape(n, -1, c, h * w)
        flat = field.detach().reshape(n, 1, h * w)
        out = torch.empty_like(x)
        slope = torch.empty_like(x) if ctx.needs_input_grad[2] else None
        many, pixels = _block(n, h * w, x.device)
        room = _Room(x.new_empty(len(t.powers) + 5, many, 1, pixels), x.new_empty(2, many, c, pixels), t)
        for i in range(0, n, many):
            for a in range(0, h * w, pixels):
                at = (slice(i, i + many), slice(None), slice(a, a + pixels))
                parts = (x[at], sums[i : i + many, :, :, a : a + pixels], flat[at], out[at])
                _blur(*parts, None if slope is None else slope[at], room, of, literal=literal)
        ctx.save_for_backward(field, *([] if slope is None else [slope]))
        ctx.about = t, of, literal
        return out.reshape(n, c, h, w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        field, *kept = ctx.saved_tensors
        t, of, literal = ctx.about
        to_images = _adjoint(gradient, _inverse(field, of), t, literal=literal) if ctx.needs_input_grad[0] else None
        to_field = None
        if kept:
            slope = kept[0].reshape(gradient.shape)
            to_field = gradient[:, 0] * slope[:, 0]
            for i in range(1, slope.shape[1]):
                to_field.addcmul_(gradient[:, i], slope[:, i])
        return to_images, None, to_field, None, None, None


@dataclass(frozen=True, eq=False)
class _Room:
    """Memory that each block is worked on in: to ask for it anew costs more than the work.

    Attributes:
        planes: (p + 5, n, 1, P), one for each power of q and five more. sums: (2, n, 3, P).
    """

    planes: Tensor
    sums: Tensor
    taps: Taps

    def part(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Planes and sums for a block like (n, 3, P), which may be smaller than others."""
        n, _, pixels = like.shape
        return self.planes[:, :n, :, :pixels], self.sums[:, :n, :, :pixels]


def _inverse(field: Tensor, of: Of, out: Tensor | None = None) -> Tensor:
    """1/σ, at most ``STEEPEST``."""
    found = torch.clamp(field, -STEEPEST, STEEPEST, out=out) if of == "inverse" else torch.reciprocal(field, out=out)
    return found.clamp_(-STEEPEST, STEEPEST)


def _block(n: int, pixels: int, device: torch.device) -> tuple[int, int]:
    """Images and pixels that are worked on together: little on a CPU, for the sake of its cache; else everything."""
    if device.type != "cpu":
        return n, pixels
    parts = max(1, math.ceil(pixels / _BLOCK))
    return max(1, _BLOCK // max(1, pixels)), max(16, 16 * math.ceil(pixels / parts / 16))


def _powers(inverse: Tensor, t: Taps, planes: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The number q = exp(−1/2σ²), and q^m for the gaps between the rings, into the planes.

    The powers are of a q that is no smaller than keeps all of them normal: denormal numbers are a hundred times slower.
    They only ever stand behind another factor q, which is then under 1e-5, and they are next to nothing beside 1.
    """
    q = torch.mul(inverse, inverse, out=planes[0]).mul_(-0.5).exp_()
    torch.threshold_(q, _SMALLEST, 0.0)
    found = {1: torch.clamp(q, min=1e-37 ** (1 / t.powers[-1]), out=planes[1])}
    for plane, m in zip(planes[2:], t.powers[1:], strict=False):
        found[m] = torch.mul(found[m // 2], found[m - m // 2], out=plane)
    return q, found


def _blur(
    x: Tensor, rings: Tensor, field: Tensor, out: Tensor, slope: Tensor | None, room: _Room, of: Of, *, literal: bool
) -> None:
    """The blurred pixels into ``out``, and their derivative in the field into ``slope``.

    With A = Σ q^d R_d and B = Σ n_d q^d, both with the centre in them, the normalised blur is x + A/B, where R_d is the
    ring's sum less n_d·x. A is q·a, and dA/d log q = q·b, where a and b are Horner's sums from the farthest ring on:
    a_i = R_i + q^gap·a_(i+1) and, for the rings' own weights d, b_i = R_i + (d_(i+1)/d_i)·q^gap·b_(i+1). B is a square,
    (Σ_v q^(v²))², as the kernel is separable.

    Args:
        x, out, slope: (n, 3, P). rings: (n, R, 3, P). field: (n, 1, P).
    """
    t, (planes, (a, b)) = room.taps, room.part(x)
    root, fall, scale, inverse = planes[-4:]
    _inverse(field, of, inverse)
    q, powers = _powers(inverse, t, planes)
    d, ring = t.distances, rings.unbind(1)
    for i in range(len(d) - 1, 0, -1):
        p, last = powers[d[i] - d[i - 1]], i == len(d) - 1
        torch.addcmul(ring[i - 1], ring[i] if last else a, p, out=a)
        if slope is not None:
            torch.addcmul(ring[i - 1], ring[i] if last else b, p, value=d[i] / d[i - 1], out=b)
    # root = Σ_v q^(v²) = 1 + 2q·(1 + q³·(1 + q⁵·(1 + …))), and fall is half its derivative in log q
    root.fill_(1.0)
    fall.fill_(float(t.radius**2))
    for v in range(t.radius, 1, -1):
        root.mul_(powers[2 * v - 1]).add_(1.0)
        fall.mul_(powers[2 * v - 1]).add_((v - 1) ** 2)
    fall.mul_(q)
    root.mul_(q).mul_(2.0).add_(1.0)
    # log q = −1/2σ², so its derivative in 1/σ is −1/σ, and in σ it is 1/σ³
    turn = torch.neg(inverse, out=scale) if of == "inverse" else torch.pow(inverse, 3, out=scale)
    if literal:
        _literal(x, inverse, out, slope, (q, root, fall, turn), (a, b))
        return
    share = q.div_(root).div_(root)
    torch.addcmul(x, a, share, out=out)
    if slope is not None:
        share.mul_(turn)
        torch.mul(b, share, out=slope)
        slope.addcmul_(a, share.mul_(fall).div_(root), value=-4)


def _literal(
    x: Tensor, inverse: Tensor, out: Tensor, slope: Tensor | None, planes: Sequence[Tensor], sums: Sequence[Tensor]
) -> None:
    """c·(A + B·x) with eq. 4's constant c = 1/2πσ² = −log q / π in the place of 1/B, and its derivative."""
    (q, root, fall, turn), (a, b), c = planes, sums, inverse * inverse * (0.5 / math.pi)
    a.mul_(q).addcmul_(x, root * root)
    torch.mul(a, c, out=out)
    if slope is not None:
        b.mul_(q).addcmul_(x, fall * root, value=4).mul_(c).sub_(a, alpha=1 / math.pi)
        torch.mul(b, turn, out=slope)


def _adjoint(gradient: Tensor, inverse: Tensor, t: Taps, *, literal: bool) -> Tensor:
    """The gradient in the images: every pixel hands what it is given back to its taps, weighted as it took them."""
    r, (h, w) = t.radius, gradient.shape[2:]
    inverse = inverse[:, None]
    q, powers = _powers(inverse, t, inverse.new_empty(len(t.powers) + 1, *inverse.shape))
    weights: list[Tensor] = []
    p = q
    for gap in (b - a for a, b in pairwise((0, *t.distances))):
        p = p * powers[gap] if weights else q
        weights.append(p)
    total = torch.ones_like(inverse)
    for n, weight in zip(t.counts, weights, strict=True):
        total += n * weight
    share = inverse * inverse * (0.5 / math.pi) if literal else 1 / total
    given = gradient * share
    wide = F.pad(given, (r,) * 4)
    for ring, weight in enumerate(weights):
        part = given * weight
        for u, v in t.offsets(ring):
            wide[:, :, r + u : r + u + h, r + v : r + v + w] += part
    # what lies beyond the border is the edge's own
    for axis, size in ((2, h), (3, w)):
        low, high = wide.narrow(axis, 0, r), wide.narrow(axis, r + size, r)
        wide.narrow(axis, r, 1).add_(low.sum(axis, keepdim=True))
        wide.narrow(axis, r + size - 1, 1).add_(high.sum(axis, keepdim=True))
        wide = wide.narrow(axis, r, size)
    return wide
