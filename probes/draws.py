"""One draw of physical conditions: all that was drawn, to be applied again bit for bit."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from audit.errors import DataError
from probes.blur import gaussian_blur
from probes.camera import Camera, photograph
from probes.printing import as_printed

_TOE = 0.01
"""Lifts black before a power is taken, so that the gradient of a dark texel stays finite."""
_SHAPES: dict[str, tuple[int, ...]] = {"shift": (2,), "perspective": (4, 2), "shadow": (4,), "balance": (3,)}
_WHOLE = ("seeds", "jpeg")


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What ``EOT.draw`` drew for K objects in N images; float32 on the CPU, ``None`` where a part is off.

    Attributes:
        scale: (K,) factor. rotation: (K,) degrees, clockwise in the image.
        shift: (K, 2) shares of the area's own width and height. perspective: (K, 4, 2) per corner, shares of the two
            edges that meet there.
        brightness: (K,) gain. shadow: (K, 4) share of light taken, direction in degrees, distance of its edge from the
            middle, softness of the edge (both in patch coordinates). gamma: (K,) exponent. contrast: (K,) factor.
        paper: (3,) black, white, and σ of the spread in texels. colours: (C, 3) printable. snap: (2,) strength and
            softness, see ``probes.printing.as_printed``.
        blur_before: (1,) σ in texels.
        blur_after, sharpen, balance, tone, noise, seeds, jpeg: per image, see ``probes.camera.Camera``.
    """

    scale: Tensor | None = None
    rotation: Tensor | None = None
    shift: Tensor | None = None
    perspective: Tensor | None = None
    brightness: Tensor | None = None
    shadow: Tensor | None = None
    gamma: Tensor | None = None
    contrast: Tensor | None = None
    paper: Tensor | None = None
    colours: Tensor | None = None
    snap: Tensor | None = None
    blur_before: Tensor | None = None
    blur_after: Tensor | None = None
    sharpen: Tensor | None = None
    balance: Tensor | None = None
    tone: Tensor | None = None
    noise: Tensor | None = None
    seeds: Tensor | None = None
    jpeg: Tensor | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON, exactly: :meth:`from_json` gives the same bits."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: None if v is None else v.tolist() for name, v in values.items()}

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Draw:
        """The draw that :meth:`to_json` wrote.

        Raises:
            DataError: an unknown or missing name, or a value that is no list of numbers.
        """
        names = [f.name for f in fields(cls)]
        if not isinstance(d, dict) or sorted(d) != sorted(names):
            raise _bad("the keys " + ", ".join(names), ", ".join(sorted(map(str, d))) if isinstance(d, dict) else d)
        made: dict[str, Tensor | None] = {}
        for name in names:
            kind = torch.int64 if name in _WHOLE else torch.float32
            try:
                made[name] = None if d[name] is None else torch.tensor(d[name], dtype=kind)
            except (TypeError, ValueError, RuntimeError) as e:
                raise _bad(f"a list of numbers under {name}", json.dumps(d[name], default=repr)[:80]) from e
            value = made[name]
            if value is not None and not value.numel() and name in _SHAPES:
                made[name] = value.reshape(0, *_SHAPES[name])  # JSON keeps no shape of an empty list
        return cls(**made)

    def quads(self, quads: Tensor) -> Tensor:
        """The areas (K, 4, 2) px as they turn out; NaN stays NaN.

        Each about its own centre, the mean of its corners: corners jittered along their own edges, scaled, rotated in
        the image, then shifted along its own mean edges.
        """
        if self.scale is None and self.rotation is None and self.shift is None and self.perspective is None:
            return quads
        self._count(self.scale, self.rotation, self.shift, self.perspective, of=len(quads))
        upper_left, upper_right, lower_right, lower_left = quads.unbind(1)
        across = ((upper_right - upper_left) + (lower_right - lower_left)) / 2
        down = ((lower_left - upper_left) + (lower_right - upper_right)) / 2
        centre = quads.mean(1, keepdim=True)
        arms = quads - centre
        if self.perspective is not None:
            jitter = self.perspective.to(quads)
            top, bottom = upper_right - upper_left, lower_right - lower_left
            left, right = lower_left - upper_left, lower_right - upper_right
            flat, steep = torch.stack([top, top, bottom, bottom], 1), torch.stack([left, right, right, left], 1)
            arms = _still_convex(arms, jitter[..., :1] * flat + jitter[..., 1:] * steep)
        if self.scale is not None:
            arms = arms * self.scale.to(quads)[:, None, None]
        if self.rotation is not None:
            angle = self.rotation.to(quads).deg2rad()[:, None]
            c, s = angle.cos(), angle.sin()
            x, y = arms.unbind(2)
            arms = torch.stack([c * x - s * y, s * x + c * y], 2)
        if self.shift is not None:
            way = self.shift.to(quads)
            centre = centre + (way[:, :1] * across + way[:, 1:] * down)[:, None]
        return centre + arms

    def surface(self, texture: Tensor) -> Tensor:
        """The texture (C, P, Q) in [0, 1], C ≥ 3, as it is stuck on: its first three printed, then all blurred."""
        if self.paper is not None:
            black, white, spread = self.paper.tolist()
            strength, softness = (1.0, 1.0) if self.snap is None else self.snap.tolist()
            made = as_printed(
                texture[:3],
                self.colours,
                black=black,
                white=white,
                spread=spread,
                strength=strength,
                softness=softness,
            )
            texture = torch.cat([made, texture[3:]]) if len(texture) > 3 else made
        return texture if self.blur_before is None else gaussian_blur(texture, self.blur_before.item())

    def light(self, seen: Tensor, owner: Tensor, uv: Tensor) -> Tensor:
        """What the covered pixels see of the patch, under each object's light.

        y = seen·brightness·(1 − shadow), then y^gamma, then (y − ½)·contrast + ½, clamped to [0, 1]. The power is
        ((y + e)^g − e^g)/((1 + e)^g − e^g) with e = 0.01: 0 and 1 stay, and the gradient is finite at 0. The shadow is
        a half-plane of the patch whose edge fades like a sigmoid.

        Args:
            seen: (M, 3) in [0, 1]. owner: (M,) int64 index of the object. uv: (M, 2) patch coordinates in [0, 1].

        Returns:
            (M, 3) in [0, 1], differentiable in ``seen``.
        """
        if self.brightness is None and self.shadow is None and self.gamma is None and self.contrast is None:
            return seen
        out = seen
        with torch.no_grad():
            gain = None if self.brightness is None else self.brightness.to(seen)[owner]
            if self.shadow is not None:
                taken = self._shade(owner, uv.to(seen))
                gain = 1 - taken if gain is None else gain * (1 - taken)
        if gain is not None:
            out = (out * gain[:, None]).clamp(0, 1)
        if self.gamma is not None:
            power = self.gamma.to(seen)
            low, high = _TOE**power, (1 + _TOE) ** power
            table = torch.stack([power, low, 1 / (high - low)], 1)[owner]
            out = ((out + _TOE) ** table[:, :1] - table[:, 1:2]) * table[:, 2:]
        if self.contrast is not None:
            out = (out - 0.5) * self.contrast.to(seen)[owner, None] + 0.5
        return out.clamp(0, 1)

    def camera(self, images: Tensor, pixel: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] as a camera sees the covered pixels (M,): ``probes.camera.photograph``."""
        parts = (self.blur_after, self.sharpen, self.balance, self.tone, self.noise, self.seeds, self.jpeg)
        self._count(*parts, of=len(images))
        return photograph(images, pixel, Camera(*parts))

    def _shade(self, owner: Tensor, uv: Tensor) -> Tensor:
        """(M,) share of the light that the shadow takes."""
        assert self.shadow is not None
        taken, direction, distance, softness = self.shadow.to(uv).unbind(1)
        angle = direction * (math.pi / 180)
        way = torch.stack([angle.cos(), angle.sin()], 1) / softness[:, None]
        table = torch.cat([way, -(distance / softness)[:, None], taken[:, None]], 1)[owner]
        inside = (uv[:, 0] - 0.5) * table[:, 0] + (uv[:, 1] - 0.5) * table[:, 1] + table[:, 2]
        return table[:, 3] * inside.sigmoid()

    @staticmethod
    def _count(*parts: Tensor | None, of: int) -> None:
        for part in parts:
            if part is not None and len(part) != of:
                raise ValueError(f"a draw for {len(part)} objects or images does not fit {of}")


def _still_convex(corners: Tensor, ways: Tensor) -> Tensor:
    """Corners (K, 4, 2) moved by ``ways``, or by ½, ¼ or none of them: each keeps a tenth of its own bend."""

    def bend(c: Tensor) -> Tensor:
        back, forth = c - c.roll(1, 1), c.roll(-1, 1) - c
        return back[..., 0] * forth[..., 1] - back[..., 1] * forth[..., 0]

    before, out = bend(corners), corners
    for share in (0.25, 0.5, 1.0):
        moved = corners + share * ways
        sound = (bend(moved) * before.sign() >= 0.1 * before.abs()).all(1)
        out = torch.where(sound[:, None, None], moved, out)
    return out


def _bad(expected: str, got: object) -> DataError:
    return DataError("a draw of physical conditions", expected=expected, got=str(got), mend="take it from a report")
