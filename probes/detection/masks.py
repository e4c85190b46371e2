"""Where on its area a patch should lie: masks of random shapes, tried in black (paper 000, §3.3.4, catalogue D13).

Masks of triangles, ellipses and rectangles are drawn at random and filled with black on the objects; the ones that hide
most are changed further by adding shapes or erasing them. Every mask that is tried keeps to the largest area and number
of connected regions. The mask found can then be used with any attack on what is inside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.contracts import Detector
from audit.errors import AuditError
from probes.detection.craftset import CraftSet, Placed
from probes.detection.queries import Feedback, Look, Questions, images_of
from probes.probe import frozen, generator
from probes.wear import Wear

Mask = NDArray[np.uint8]
"""(P, Q), 255 where the patch lies and 0 where it does not."""

ATTEMPTS = 200
"""Drawings thrown away, at most, before one that keeps to the rules is called impossible."""
PARENTS = 4
"""Masks that the next round is derived from."""


class Maskable(Wear, Protocol):
    """A wear of which only the part inside a mask is worn."""

    def with_mask(self, mask: Tensor) -> Wear:
        """The same wear with a bool mask (P, Q), true where the patch lies."""
        ...


@dataclass(frozen=True, slots=True)
class MaskFound:
    """What a search came to.

    Attributes:
        mask: uint8 (P, Q), 255 where the patch lies. area: share of the P·Q texels in it. regions: connected regions,
            corners count as contact.
        loss: of the mask on the images that it was searched with, see ``Questions.losses``.
        history: ``query`` (images sent) and ``loss`` (lowest so far), one per call of masks asked about together.
        origin: the search's spec, with its seed.
    """

    mask: Tensor
    area: float
    regions: int
    loss: float
    history: dict[str, list[float]]
    origin: dict[str, Any]


def area_and_regions(mask: Mask) -> tuple[float, int]:
    """Share of the texels that are not 0, and the number of connected regions (8 neighbours) that they form."""
    on = np.ascontiguousarray(mask != 0).astype(np.uint8)
    return float(on.mean()), int(cv2.connectedComponents(on, connectivity=8)[0]) - 1


def screen(mask: Mask, max_area: float, max_regions: int) -> bool:
    """Whether a mask keeps to the rules: not empty, at most that share of the area, at most so many regions."""
    area, regions = area_and_regions(mask)
    return 0 < area <= max_area and 1 <= regions <= max_regions


@dataclass(frozen=True)
class MaskSearch:
    """Random shapes in black, the best kept, added to and erased from.

    Args:
        placement: how the patch is worn; its ``with_mask`` says where it is not. size: rows and columns of texels.
        max_area: largest share of the texels inside the mask, in (0, 1]. max_regions: most connected regions.
        candidates: masks tried per round. rounds: how many; the first draws masks anew, the others change the best.
        images: images that each mask is asked on. max_images: images sent at most; ``None`` for no such limit.
        feedback, attacked: as for the query attacks; ``attacked`` as indices of the detector's classes.
    """

    placement: Maskable
    size: tuple[int, int]
    max_area: float = 0.5
    max_regions: int = 5
    candidates: int = 24
    rounds: int = 12
    images: int = 8
    max_images: int | None = 5000
    feedback: Feedback = "scores"
    attacked: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = (*self.size, self.max_regions, self.candidates, self.rounds, self.images)
        if min(counts) < 1 or not 1 / (self.size[0] * self.size[1]) <= self.max_area <= 1:
            raise AuditError(
                "mask search",
                expected="positive size and counts, and a largest area in (0, 1] of at least one texel",
                got=f"size {self.size!r}, area {self.max_area!r}, counts {counts[2:]!r}",
                mend="correct them",
            )

    def spec(self) -> dict[str, Any]:
        """All that determines the mask beside model, data and seed."""
        return {
            "probe": "MaskSearch",
            "version": 1,
            "placement": self.placement.spec(),
            "size": list(self.size),
            "rules": [self.max_area, self.max_regions],
            "effort": [self.candidates, self.rounds, self.images, self.max_images],
            "feedback": self.feedback,
            "attacked": list(self.attacked),
        }

    def search(self, detector: Detector, craft: CraftSet, *, seed: int) -> MaskFound:
        """The best mask on the first ``images`` images of ``craft``; of equal ones the smaller.

        Raises:
            AuditError: ``max_images`` is less than one mask costs, or no drawing keeps to the rules.
        """
        stream = generator("mask search", seed)
        parts = tuple(craft.sample(self.images))
        cost = images_of(parts)
        limit = cost * self.candidates * self.rounds
        if self.max_images is not None:
            limit = min(limit, self.max_images)
        if limit < cost:
            raise _wrong("max_images of a mask search", f"at least {cost}, the images of one mask", self.max_images)
        asked = Questions(detector, craft, self.feedback, self.attacked, limit, points=0)
        best: list[tuple[float, float, int, Mask]] = []
        history: dict[str, list[float]] = {"query": [], "loss": []}
        with frozen(detector):
            for turn in range(self.rounds):
                count = min(self.candidates, (limit - asked.sent) // cost)
                if not count:
                    break
                # Where decisions alone are told and nothing was hidden yet, no mask is known to be worth a change.
                parents = [b[3] for b in best if self.feedback == "scores" or b[0] < 1]
                masks = [self.drawn(parents, turn / self.rounds if parents else 0.0, stream) for _ in range(count)]
                losses = asked.losses([self._look(m) for m in masks], parts)
                for i, (loss, mask) in enumerate(zip(losses, masks, strict=True)):
                    best.append((loss, area_and_regions(mask)[0], turn * self.candidates + i, mask))
                best = sorted(best, key=lambda b: b[:3])[:PARENTS]
                history["query"].append(float(asked.sent))
                history["loss"].append(best[0][0])
        loss, _, _, mask = best[0]
        area, regions = area_and_regions(mask)
        origin = self.spec() | {"seed": seed, "images_sent": asked.sent}
        return MaskFound(torch.from_numpy(mask), area, regions, loss, history, origin)

    def drawn(self, parents: list[Mask], done: float, stream: torch.Generator) -> Mask:
        """A mask that keeps to the rules: a new one, or one of ``parents`` with shapes added or erased.

        Args:
            done: share of the search that is over, in [0, 1): shapes get smaller with it.

        Raises:
            AuditError: none of many drawings kept to the rules.
        """
        for _ in range(ATTEMPTS):
            mask = parents[_integer(len(parents), stream)].copy() if parents else np.zeros(self.size, np.uint8)
            for _ in range(1 + _integer(2 if parents else 2 * self.max_regions, stream)):
                erase = bool(parents) and _integer(2, stream) == 1
                shape(mask, 0 if erase else 255, 1 - 0.8 * done, stream)
            if screen(mask, self.max_area, self.max_regions):
                return mask
        raise _wrong("rules of a mask search", "rules that a drawing can keep", (self.max_area, self.max_regions))

    def _look(self, mask: Mask) -> Look:
        worn = self.placement.with_mask(torch.from_numpy(mask != 0))

        def look(part: Placed) -> Tensor:
            with torch.no_grad():
                black = torch.zeros(3, *self.size, device=part.images.device)
                return worn.prepare(part.images, part.boxes, part.areas).place(part.images, black)

        return look


def shape(mask: Mask, value: Literal[0, 255], scale: float, stream: torch.Generator) -> None:
    """Draws one triangle, ellipse or rectangle in ``value`` onto a mask, turned and placed at random.

    Args:
        scale: of the shape; at 1 its half axes are 5 to 35 % of the mask's sides.
    """
    rows, columns = mask.shape
    kind = _integer(3, stream)
    x, y, wide, high, turn, skew = torch.rand(6, generator=stream, dtype=torch.float64).tolist()
    middle = np.array([x * columns, y * rows])
    half = np.maximum(np.array([columns, rows]) * (0.05 + 0.3 * np.array([wide, high])) * scale, 0.5)
    if kind == 0:
        corners = np.array([[-1.0, 1.0], [1.0, 1.0], [2 * skew - 1, -1.0]])
    elif kind == 1:
        corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    else:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        corners = np.stack([np.cos(angles), np.sin(angles)], 1)
    angle = 2 * np.pi * turn
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = np.round(middle + (corners * half) @ rotation).astype(np.int32)
    cv2.fillPoly(mask, [points], int(value))


def _integer(below: int, stream: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=stream))


def _wrong(what: str, expected: str, got: object) -> AuditError:
    return AuditError(what, expected=expected, got=repr(got), mend="correct it in the probe")
