"""A patch stuck on an area that the camera sees in perspective: a lorry's tail, a torso, a sign.

The area comes with the scene (four corners per frame), or is a rectangle inside the object's box. A mask says which
parts of the canvas are printed; the rest stays as it was. The light of the place can be matched, and a condition
(dusk, tilt, a blurred print) drawn for each object.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.contracts import Areas
from audit.errors import AuditError
from probes.area_constraint import AreaConstraint
from probes.perspective import QuadMap, quad_map
from probes.physical import EOT, Draw
from probes.probe import generator

_OF_THE_PRINT = ("paper", "colours", "snap", "blur_before")
"""What a draw says of the print itself, not of an object or an image."""
_FAINT = 1e-4
"""A pixel of which printed parts cover less than this keeps its own colour."""


@dataclass(frozen=True, slots=True, eq=False)
class AreaMap:
    """A ``probes.wear.Worn``: the quads of a batch, with mask, light and what was drawn for them.

    Attributes:
        gain, offset: (K, 3) what makes a printed value look as in the light of its object; ``None`` leaves it.
    """

    where: QuadMap
    mask: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None
    draw: Draw | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W) of the batch."""
        return self.where.shape

    @property
    def pixel(self) -> Tensor:
        """(M,) flat index of the covered pixels."""
        return self.where.pixel

    def redrawn(self, draw: Draw) -> AreaMap:
        """The same places under other light and another camera; geometry stays as it was prepared."""
        return replace(self, draw=draw)

    def place(self, images: Tensor, patch: Tensor) -> Tensor:
        """Images (N, 3, H, W) with the patch (3, P, Q) on every area; differentiable in both."""
        texture = patch if self.draw is None else self.draw.surface(patch)
        if self.mask is None:
            seen, opacity = self.where.read(texture).to(images.dtype), None
        else:
            printed = fitted(self.mask, (patch.shape[1], patch.shape[2])).to(texture)[None]
            read = self.where.read(torch.cat([texture * printed, printed])).to(images.dtype)
            opacity = read[:, 3]
            seen = read[:, :3] / opacity.clamp(min=_FAINT)[:, None]
            opacity = torch.where(opacity < _FAINT, torch.zeros_like(opacity), opacity)
        if self.gain is not None and self.offset is not None:
            owner = self.where.owner
            seen = (seen * self.gain[owner].to(seen) + self.offset[owner].to(seen)).clamp(0, 1)
        if self.draw is not None:
            seen = self.draw.light(seen, self.where.owner, self.where.uv)
        out = self.where.write(images, seen, opacity)
        return out if self.draw is None else self.draw.camera(out, self.where.pixel)


@dataclass(frozen=True, eq=False)
class AreaPlacement:
    """A ``probes.wear.Wear``: a patch in perspective on the scene's areas, or on a part of the object's box.

    Where a scene names an area for an object, the canvas fills it. Elsewhere, on a box of width w and height h, it is
    an upright rectangle of width √(share·w·h·aspect) and that divided by ``aspect`` in height, made smaller where it
    would stick out, with its centre at ``at``, moved inside the box.

    Args:
        share: area of the canvas over that of the box, in (0, 1]. aspect: width over height of the print.
        at: centre of the canvas, as shares of the box's width and height.
        mask: bool (P, Q), which parts of the canvas are printed; all, if not given.
        light: match the light of the place: the print's black and white become what the dark and bright parts of the
            clean area are.
        condition: what is drawn for each object when the patch is shown; nothing, if not given.
        fill: the canvas is the whole box, whatever its shape, as it fills an area that the scene names; ``aspect`` then
            only says how many texels it has either way, and ``share`` must be 1.

    Raises:
        AuditError: a number out of range or an empty mask.
    """

    share: float = 0.2
    aspect: float = 1.0
    at: tuple[float, float] = (0.5, 0.5)
    mask: Tensor | None = None
    light: bool = False
    condition: EOT | None = None
    fill: bool = False

    def __post_init__(self) -> None:
        inside = len(self.at) == 2 and all(0 <= a <= 1 for a in self.at)
        if self.fill and self.share != 1:
            raise AuditError(
                "area of a patch",
                expected="share 1 for a canvas that fills the box",
                got=f"share {self.share!r}",
                mend="say with a mask how much of it is printed",
            )
        if not 0 < self.share <= 1 or not 0.05 <= self.aspect <= 20 or not inside:
            raise AuditError(
                "area of a patch",
                expected="share in (0, 1], aspect in [0.05, 20] and a centre in [0, 1] × [0, 1]",
                got=f"share {self.share!r}, aspect {self.aspect!r}, at {self.at!r}",
                mend="correct the profile's patch_share, patch_aspect or patch_at",
            )
        if self.mask is not None and (self.mask.ndim != 2 or not bool(self.mask.any())):
            raise AuditError(
                "mask of a patch",
                expected="(height, width) with at least one printed texel",
                got=f"shape {tuple(self.mask.shape)} with {int(self.mask.sum())} printed",
                mend="mark the printed part with true",
            )

    def __str__(self) -> str:
        words = [f"{self.share:.0%} of the box" if self.share < 1 else "whole box"]
        words += [] if self.fill else [f"aspect {self.aspect:g}"]
        words += [f"{self.printed:.0%} of the canvas printed"] if self.mask is not None else []
        words += ["light matched"] if self.light else []
        words += [f"under {self.condition!r}"] if self.condition is not None else []
        return "area, " + ", ".join(words)

    @property
    def printed(self) -> float:
        """Share of the canvas that is printed."""
        return 1.0 if self.mask is None else float(self.mask.float().mean())

    def constraint(self, texels: tuple[int, int]) -> AreaConstraint:
        """What a patch of (P, Q) texels worn so may change."""
        slack, reach = (0.0, 0) if self.condition is None else (self.condition.slack, self.condition.reach)
        mask = None if self.mask is None else fitted(self.mask, texels).cpu().numpy()
        return AreaConstraint(self.share, self.aspect, self.at, mask, slack, reach, self.fill)

    def with_mask(self, mask: Tensor) -> AreaPlacement:
        """The same place with only that part of the canvas printed; ``mask`` (P, Q), true or non-zero is printed."""
        return replace(self, mask=mask.to("cpu") > 0)

    def under(self, condition: EOT | None) -> AreaPlacement:
        """The same place under a condition."""
        return replace(self, condition=condition)

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        mask = None if self.mask is None else hashlib.sha256(_packed(self.mask).encode()).hexdigest()
        return self._plain() | {"mask": mask, "condition": None if self.condition is None else self.condition.spec()}

    def to_json(self) -> dict[str, Any]:
        """Everything to build it again with ``from_json``."""
        mask = None if self.mask is None else {"size": list(self.mask.shape), "bits": _packed(self.mask)}
        return self._plain() | {"mask": mask, "condition": None if self.condition is None else self.condition.spec()}

    @classmethod
    def from_json(cls, about: dict[str, Any]) -> AreaPlacement:
        """From what ``to_json`` gave."""
        bits = about["mask"]
        mask = None
        if bits is not None:
            flat = np.unpackbits(np.frombuffer(base64.b64decode(bits["bits"]), np.uint8))
            mask = torch.from_numpy(flat[: bits["size"][0] * bits["size"][1]].astype(bool)).view(*bits["size"])
        condition = None if about["condition"] is None else EOT.from_spec(about["condition"])
        fill = about.get("fill", False)
        return cls(about["share"], about["aspect"], tuple(about["at"]), mask, about["light"], condition, fill)

    def quads(self, boxes: Tensor, areas: Areas | None = None) -> Tensor:
        """(K, 4, 2) px corners of the canvas on each object: its area where it has one, else from its box."""
        b = boxes.float()
        size = b[:, 2:] - b[:, :2]
        side = (self.share * size.clamp(min=0).prod(1)).sqrt()
        extent = torch.stack([side * self.aspect**0.5, side / self.aspect**0.5], 1)
        extent = extent * (size / extent.clamp(min=1e-6)).amin(1, keepdim=True).clamp(max=1)
        extent = size if self.fill else extent
        half = extent / 2
        centre = b[:, :2] + size * b.new_tensor(self.at)
        centre = torch.minimum(torch.maximum(centre, b[:, :2] + half), b[:, 2:] - half)
        corners = b.new_tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
        quads = centre[:, None] + corners * half[:, None]
        if areas is None:
            return quads
        given = areas.quads.to(quads)
        return torch.where(given.isfinite().all(2, keepdim=True).all(1, keepdim=True), given, quads)

    def prepare(
        self,
        images: Tensor,
        boxes: Sequence[Tensor],
        areas: Sequence[Areas] | None = None,
        draw: Draw | None = None,
    ) -> AreaMap:
        """The map of a batch; ``draw`` in place of the own condition's."""
        where: Sequence[Areas | None] = areas or [None] * len(boxes)
        quads = [self.quads(b.to(images.device), a) for b, a in zip(boxes, where, strict=True)]
        flat = torch.cat(quads)
        if draw is None and self.condition is not None:
            draw = _drawn(self.condition, quads)
        if draw is not None:
            quads = list(torch.split(draw.quads(flat), [len(q) for q in quads]))
        hidden = [None if a is None else a.hidden for a in where]
        placed = quad_map(quads, (images.shape[2], images.shape[3]), hidden=hidden, device=images.device)
        gain, offset = _light(images, placed, len(flat)) if self.light else (None, None)
        if self.fill and self.mask is not None:
            # Of a whole box little is printed; what is not costs time and memory at every step.
            placed = placed.only(placed.read(self.mask[None].to(placed.coverage))[:, 0] > 0)
        return AreaMap(placed, self.mask, gain, offset, draw)

    def regions(self, boxes: Tensor, areas: Areas | None = None) -> Tensor:
        """(K, 4) xyxy px around the canvas on each object, not clipped to the image."""
        quads = self.quads(boxes, areas)
        return torch.cat([quads.amin(1), quads.amax(1)], 1) if len(quads) else boxes.new_zeros(0, 4)

    def shown(self, pixels: Tensor) -> NDArray[np.uint8]:
        """uint8 (P, Q, 3) as it would be printed; what is not printed stays white."""
        picture = pixels
        if self.mask is not None:
            printed = fitted(self.mask, (pixels.shape[1], pixels.shape[2]))
            picture = torch.where(printed, pixels, torch.full_like(pixels, 255))
        return picture.permute(1, 2, 0).contiguous().numpy()

    def _plain(self) -> dict[str, Any]:
        plain = {"wear": "area", "share": self.share, "aspect": self.aspect, "at": list(self.at), "light": self.light}
        # Only where it is so: a patch's seed follows from its spec, and older ones were saved without.
        return plain | ({"fill": True} if self.fill else {})


AREA = AreaPlacement()
"""A fifth of the box, square, in its middle."""


def fitted(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool (P, Q): the mask on a canvas of other texels, each taking the value at its middle."""
    if tuple(mask.shape) == size:
        return mask.bool()
    rows = ((torch.arange(size[0]) + 0.5) * mask.shape[0] / size[0]).long()
    columns = ((torch.arange(size[1]) + 0.5) * mask.shape[1] / size[1]).long()
    return mask.bool()[rows.to(mask.device)][:, columns.to(mask.device)]


def _light(images: Tensor, where: QuadMap, count: int) -> tuple[Tensor, Tensor]:
    """(K, 3) gain and offset: black and white of the print become the 5 % and 95 % level of each clean area.

    With less contrast in the area than a fifth of the range, its middle and a fifth are taken: a plain wall says how
    bright it is, not how dark its black would be.
    """
    n, height, width = where.shape
    plane = height * width
    flat = images.movedim(1, -1).reshape(n * plane, -1)[where.pixel].double()
    gain = torch.ones(count, 3, dtype=flat.dtype, device=flat.device)
    offset = torch.zeros_like(gain)
    for k in range(count):
        own = flat[where.owner == k]
        if not len(own):
            continue
        level = own.mean(1).quantile(own.new_tensor([0.05, 0.95]))
        contrast = (level[1] - level[0]).clamp(min=0.2)
        low = (level.mean() - contrast / 2).clamp(min=0)
        gain[k], offset[k] = contrast.clamp(max=1 - low), low
    return gain, offset


def _drawn(condition: EOT, quads: Sequence[Tensor]) -> Draw:
    """A condition for each image from its own places alone: a picture shows the same in whatever company it comes.

    How the print came out is one for all, as there is one print.
    """
    one = condition.draw(generator("condition"), 1, 1)
    each = [condition.draw(generator("condition", _where(q)), len(q), 1) for q in quads]
    values: dict[str, Tensor | None] = {}
    for f in fields(Draw):
        parts = [getattr(d, f.name) for d in each]
        off = f.name in _OF_THE_PRINT or any(p is None for p in parts)
        values[f.name] = getattr(one, f.name) if off else torch.cat(parts)
    return Draw(**values)


def _packed(mask: Tensor) -> str:
    return base64.b64encode(np.packbits(mask.cpu().numpy().astype(bool)).tobytes()).decode()


def _where(quads: Tensor) -> str:
    return hashlib.sha256(quads.detach().cpu().double().round(decimals=3).numpy().tobytes()).hexdigest()
