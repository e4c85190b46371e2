"""Patches that nobody optimised: what an attack has to beat on the same mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import Alignment, similarity_transform
from audit.budget import Budget
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import DataError
from audit.examples import Attacked, Examples
from audit.execution import Execution
from probes.probe import Access, Progress
from probes.recognition.face_run import noise
from probes.recognition.masks import FaceMask, Mask, wear
from probes.recognition.placing import Numbers


@dataclass(frozen=True)
class PlainPatch(ABC):
    """What the unoptimised patches share. ``mask``: where they are, as for ``FacePatch``."""

    mask: Mask = field(default_factory=FaceMask)

    kind: ClassVar[str]
    goal: ClassVar[str] = "none: what a patch does that nobody optimised"
    threat: ClassVar[str] = "Nobody: the same area covered without any knowledge of the model."
    refs: ClassVar[tuple[str, ...]] = ("000 §4.1",)
    access: ClassVar[Access] = "none"

    def __repr__(self) -> str:
        return f"{self.kind} {self.mask!r}"

    @property
    def name(self) -> str:
        return f"{self.kind} patch ({self.mask!r})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside data and seed, as JSON."""
        return {"probe": f"{self.kind} patch", **self.mask.spec()}

    def craft(
        self,
        models: Sequence[Comparison],
        attacked: Attacked,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Examples:
        """The patch on all pairs; the models are not asked."""
        del models, execution, budget, progress
        sources = attacked.sources
        masks = self.mask.photo_masks(sources.landmarks, sources.size)
        return Examples(wear(sources.images, self.content(attacked, seed), masks), masks)

    @abstractmethod
    def content(self, attacked: Attacked, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1]."""


class NoiseFace(PlainPatch):
    """Even noise, drawn for each pair by its names: what it wins is occlusion."""

    kind: ClassVar[str] = "noise"

    def content(self, attacked: Attacked, seed: int) -> Tensor:
        return noise(attacked.sources, attacked.targets, seed)


class GreyFace(PlainPatch):
    """Plain grey of 0.5: what it wins is occlusion."""

    kind: ClassVar[str] = "grey"

    def content(self, attacked: Attacked, seed: int) -> Tensor:
        del seed
        return torch.full(attacked.sources.images.shape, 0.5)


class OtherFace(PlainPatch):
    """The same part of another person's face, laid on by the landmarks: a face of the background, or if there is none,
    of another pair.
    """

    kind: ClassVar[str] = "another face's"

    def content(self, attacked: Attacked, seed: int) -> Tensor:
        sources = attacked.sources
        donors, rows = _donors(attacked, seed)
        out = [warped(donors[rows[part]], sources[part]) for part in torch.split(torch.arange(len(sources)), 64)]
        return torch.cat(out) if out else torch.zeros(0, 3, *sources.size)


def warped(donors: Portraits, onto: Portraits) -> Tensor:
    """(N, 3, H, W) in [0, 1]: each donor's photograph turned so that its landmarks lie nearest to the other's."""
    matrix = torch.stack([
        similarity_transform(own[None], at)[0]
        for own, at in zip(donors.landmarks.double(), onto.landmarks.double(), strict=True)
    ])  # fmt: skip
    moved = Alignment(matrix, donors.size, onto.size)
    # beyond its edge a donor goes on as the edge is: black would be a feature of its own
    margin = max(donors.size) // 2
    wide = F.pad(donors.images.float() / 255, (margin,) * 4, mode="replicate")
    shifted = matrix.clone()
    shifted[:, :, 2] -= margin * matrix[:, :, :2].sum(2)
    h, w = donors.size
    return Alignment(shifted, (h + 2 * margin, w + 2 * margin), moved.face).faces(wide).clamp(0, 1)


def _donors(attacked: Attacked, seed: int) -> tuple[Portraits, Tensor]:
    """Portraits, and for each pair the row of one of somebody else than its two people."""
    sources, targets = attacked.sources, attacked.targets
    pool = attacked.background if len(attacked.background) else attacked.targets
    stream = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pool), generator=stream).tolist()
    # by the pair's own names: where the turn starts does not depend on which others are attacked
    starts = (Numbers(seed, sources.ids, targets.ids).uniform(0, 1)[:, 0] * len(order)).long().tolist()
    rows = []
    for i, start in enumerate(starts):
        mine = {_who(sources, i), _who(targets, i)}
        turn = order[start:] + order[:start]
        other = next((j for j in turn if _who(pool, j) not in mine), None)
        if other is None:
            raise DataError("another face's patch", expected="a third person among the faces", got="none",
                            mend="add faces of other people")  # fmt: skip
        rows.append(other)
    return pool, torch.tensor(rows, dtype=torch.int64)


def _who(portraits: Portraits, i: int) -> str:
    return portraits.identities[i] or portraits.ids[i]
