"""Expectation over transformations: the conditions under which a printed patch is seen, drawn anew at each step.

An ``EOT`` says what may happen, a ``Draw`` what happened. In the order of the world: printing, blur before the warp
(D13), the area's geometry, its light, and the camera. Every number drawn comes from a counter: (seed, which object or
image, which number). So no draw depends on how many others there are, nor on which parts are switched on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from audit.errors import AuditError
from probes.counter import Counter
from probes.draws import Draw
from probes.printing import Printing

__all__ = ["CONDITIONS", "EOT", "FULL", "GENTLE", "NOTHING", "Draw"]

Range = tuple[float, float]
_LIMITS: dict[str, tuple[float, float]] = {
    "scale": (-0.9, 4.0),
    "rotation": (-180.0, 180.0),
    "shift": (-1.0, 1.0),
    "perspective": (0.0, 0.2),
    "brightness": (-1.0, 4.0),
    "contrast": (-1.0, 4.0),
    "gamma": (-2.0, 2.0),
    "shadow": (0.0, 1.0),
    "blur_before": (0.0, 8.0),
    "blur_after": (0.0, 3.0),
    "noise": (0.0, 1.0),
    "camera": (0.0, 1.0),
}
# What one object, image or print draws: each number has its own place, for good.
_OBJECT, _IMAGE, _PRINT = 1, 2, 3
_BALANCE, _TONE, _SHARPEN = 0.15, 0.5, 0.8


@dataclass(frozen=True, slots=True, repr=False)
class EOT:
    """Ranges of physical conditions; every value is drawn evenly between low and high, 0 or (0, 0) switches a part off.

    A single number x stands for (−x, x), or for (0, x) where nothing below 0 exists.

    Args:
        scale: change of size as a share: factor 1 + s; −0.9 to 4.
        rotation: degrees in the image, clockwise; −180 to 180.
        shift: along the area's own width and height, as shares of them; −1 to 1.
        perspective: how far each corner moves along each of its two edges, as a share of them, either way; 0 to 0.2.
            Halved, down to nothing, on an area so skew that a corner would turn inside out.
        brightness: change of the light as a share: gain 1 + b; −1 to 4.
        contrast: change of the contrast about mid grey as a share: factor 1 + c; −1 to 4.
        gamma: exponent in octaves: 2^g, positive is darker; −2 to 2.
        shadow: share of the light that a shadow over part of the area takes; 0 to 1.
        blur_before: σ in texels, before the patch is warped into the image; 0 to 8.
        blur_after: σ in px of the image; 0 to 3.
        noise: σ of sensor noise, values in [0, 1]; 0 to 1.
        jpeg: qualities from 1 to 100, ``None`` for none.
        camera: share of the full strength of white balance (gains ±0.15), tone curve (±0.5) and sharpening (0 to 0.8,
            σ 1 px); 0 to 1.
        printing: how it is printed, or a list of printable colours (C, 3) in [0, 1]; ``None`` for a perfect print.

    Raises:
        AuditError: a range out of these limits, or one that falls.
    """

    scale: Range | float = (-0.15, 0.15)
    rotation: Range | float = (-8.0, 8.0)
    shift: Range | float = (-0.04, 0.04)
    perspective: Range | float = (0.0, 0.06)
    brightness: Range | float = (-0.25, 0.25)
    contrast: Range | float = (-0.2, 0.2)
    gamma: Range | float = (-0.35, 0.35)
    shadow: Range | float = (0.0, 0.4)
    blur_before: Range | float = (0.0, 0.6)
    blur_after: Range | float = (0.0, 0.8)
    noise: Range | float = (0.0, 0.03)
    jpeg: tuple[int, int] | None = (60, 95)
    camera: Range | float = (0.0, 0.5)
    printing: Printing | Any = None

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            given = getattr(self, name)
            pair = (0.0 - given if low < 0 else 0.0, given) if isinstance(given, int | float) else tuple(given)
            if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
                raise _wrong(name, f"a range that rises within {low:g} to {high:g}", given)
            object.__setattr__(self, name, (float(pair[0]), float(pair[1])))
        if self.jpeg is not None:
            qualities = tuple(self.jpeg)
            if len(qualities) != 2 or not 1 <= qualities[0] <= qualities[1] <= 100:
                raise _wrong("jpeg", "qualities that rise within 1 to 100, or None", self.jpeg)
            object.__setattr__(self, "jpeg", (int(qualities[0]), int(qualities[1])))
        if self.printing is not None and not isinstance(self.printing, Printing):
            object.__setattr__(self, "printing", Printing.of(self.printing))

    def __repr__(self) -> str:
        parts = [f"{n}={low:g}..{high:g}" for n in _LIMITS for low, high in [getattr(self, n)] if (low, high) != (0, 0)]
        parts += [f"jpeg={self.jpeg[0]}..{self.jpeg[1]}"] if self.jpeg else []
        parts += [f"printing={len(self.printing.colours or ())} colours"] if self.printing else []
        return f"EOT({', '.join(parts)})"

    @classmethod
    def none(cls) -> EOT:
        """Nothing at all happens."""
        return cls(**dict.fromkeys(_LIMITS, 0.0), jpeg=None)

    @classmethod
    def only(cls, **parts: Any) -> EOT:
        """Nothing but these parts."""
        return cls(**{**dict.fromkeys(_LIMITS, 0.0), "jpeg": None, **parts})

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        listed = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "printing"}
        plain = {name: None if v is None else list(v) for name, v in listed.items()}
        return {**plain, "printing": None if self.printing is None else _plain(asdict(self.printing))}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> EOT:
        """The one whose :meth:`spec` this is, also after JSON.

        Raises:
            AuditError: an unknown or missing name, or a value out of range.
        """
        if sorted(spec) != sorted(f.name for f in fields(cls)):
            raise _wrong("specification", "the keys that EOT.spec gives", sorted(spec))
        printing = spec["printing"]
        try:
            return cls(**{**spec, "printing": None if printing is None else Printing(**_tuples(printing))})
        except TypeError as e:
            raise _wrong("specification", "values as EOT.spec gives them", str(e)) from e

    @property
    def slack(self) -> float:
        """How far a draw may move a corner at most, as a share of the area's longest edge.

        No corner of a convex area is further from the mean of all than that edge.
        """
        (small, large), turn = self._range("scale"), min(180.0, max(map(abs, self._range("rotation"))))
        angle = math.radians(turn)
        turned = max(math.hypot((1 + s) * math.cos(angle) - 1, (1 + s) * math.sin(angle)) for s in (small, large))
        bent, moved = self._range("perspective")[1], max(map(abs, self._range("shift")))
        return turned + 2 * (1 + large) * bent + 2 * moved

    @property
    def reach(self) -> int:
        """How far from a covered pixel a camera may change others, in px: JPEG changes the whole of a block."""
        return 0 if self.jpeg is None else 7

    def draw(self, stream: torch.Generator, objects: int, images: int) -> Draw:
        """What happens to so many objects and images; takes one number from ``stream``, however many there are.

        An object's values depend on the stream and its place in the order alone, an image's likewise.
        """
        seed = int(torch.randint(0, 1 << 62, (), generator=stream, device=stream.device))
        obj, img = Counter(seed, _OBJECT, objects), Counter(seed, _IMAGE, images)
        made: dict[str, Tensor | None] = {}
        made["scale"] = _plus_one(obj.between(0, self._range("scale")))
        made["rotation"] = obj.between(1, self._range("rotation"))
        made["shift"] = obj.stacked(range(2, 4), self._range("shift"))
        corners = obj.stacked(range(4, 12), self._range("perspective"), signs=range(12, 20))
        made["perspective"] = None if corners is None else corners.view(objects, 4, 2)
        made["brightness"] = _plus_one(obj.between(20, self._range("brightness")))
        made["contrast"] = _plus_one(obj.between(21, self._range("contrast")))
        gamma = obj.between(22, self._range("gamma"))
        made["gamma"] = None if gamma is None else gamma.exp2()
        taken = obj.between(23, self._range("shadow"))
        if taken is not None:
            rest = (obj.uniform(24, 0, 360), obj.uniform(25, -0.35, 0.35), obj.uniform(26, 0.01, 0.1))
            made["shadow"] = torch.stack([taken, *rest], 1)

        made["blur_after"] = img.between(0, self._range("blur_after"))
        made["noise"] = img.between(1, self._range("noise"))
        made["seeds"] = None if made["noise"] is None else img.seeds(2)
        if self.jpeg is not None:
            low, high = self.jpeg
            made["jpeg"] = img.uniform(3, low, high + 1).floor().clamp(low, high).long()
        strength = img.between(4, self._range("camera"))
        if strength is not None:
            gains = torch.stack([img.uniform(i, -_BALANCE, _BALANCE) for i in (5, 6, 7)], 1)
            made["balance"] = 1 + strength[:, None] * gains
            made["tone"] = strength * img.uniform(8, -_TONE, _TONE)
            made["sharpen"] = strength * img.uniform(9, 0, _SHARPEN)

        one = Counter(seed, _PRINT, 1)
        made["blur_before"] = one.between(0, self._range("blur_before"))
        if isinstance(self.printing, Printing):
            ranges = (self.printing.black, self.printing.white, self.printing.spread)
            made["paper"] = torch.cat([one.uniform(1 + i, *r) for i, r in enumerate(ranges)])
            if self.printing.colours is not None:
                made["colours"] = torch.tensor(self.printing.colours)
                made["snap"] = torch.tensor([self.printing.strength, self.printing.softness])
        return Draw(**made)

    def _range(self, name: str) -> Range:
        pair: Range = getattr(self, name)
        return pair


def _plus_one(share: Tensor | None) -> Tensor | None:
    return None if share is None else 1 + share


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _wrong(name: str, expected: str, got: object) -> AuditError:
    return AuditError(f"EOT {name}", expected=expected, got=repr(got), mend="correct the range")


NOTHING = EOT.none()
"""No transformation: every method of its draws hands back what it was given."""
GENTLE = EOT(
    scale=0.08,
    rotation=4.0,
    shift=0.02,
    perspective=0.03,
    brightness=0.12,
    contrast=0.1,
    gamma=0.15,
    shadow=0.2,
    blur_before=0.3,
    blur_after=0.4,
    noise=0.015,
    jpeg=(85, 98),
    camera=0.25,
)
"""A well placed camera in even light."""
FULL = EOT(
    scale=0.25,
    rotation=15.0,
    shift=0.08,
    perspective=0.1,
    brightness=0.4,
    contrast=0.35,
    gamma=0.6,
    shadow=0.6,
    blur_before=1.0,
    blur_after=1.2,
    noise=0.05,
    jpeg=(40, 95),
    camera=1.0,
    printing=Printing(),
)
"""Everything at once, wide, printed on the printer of ``PRINTABLE``."""

CONDITIONS: dict[str, EOT] = {
    "dark": EOT.only(brightness=(-0.7, -0.6)),
    "bright": EOT.only(brightness=(0.6, 0.8)),
    "low-contrast": EOT.only(contrast=(-0.7, -0.6)),
    "gamma": EOT.only(gamma=(0.8, 1.0)),
    "shadow": EOT.only(shadow=(0.6, 0.8)),
    "tilted": EOT.only(perspective=(0.12, 0.2)),
    "rotated": EOT.only(rotation=(15.0, 25.0)),
    "smaller": EOT.only(scale=(-0.5, -0.4)),
    "blurred": EOT.only(blur_after=(1.5, 2.0)),
    "noise": EOT.only(noise=(0.08, 0.12)),
    "jpeg": EOT.only(jpeg=(8, 15)),
    "printed": EOT.only(printing=Printing()),
}
"""One strong condition each, for the questions "which condition breaks the patch" and "does it hold in all"."""
