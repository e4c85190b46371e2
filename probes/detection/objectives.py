"""What a trained patch is to bring down: which candidates of a detector are attacked, and by which loss.

The four objectives of paper 002 (§3.2, §4.2). With A_i the box of candidate i, S_i = σ(z_i) its score, B the true
boxes and P the patch as it lies on each of them, the attacked candidates are

    PatchIoU          IoU(A_i, B) > 0.6
    PatchScore        S_i > δ − m
    PatchScoreFocal   S_i > δ − m, each weighted by S_i^γ, γ = 2
    PatchCombination  S_i > δ − m and (IoU(A_i, B) > 0.3 or IoU(A_i, P) > 0.3)

Selection and weights are taken as they stand, without gradient; the loss of the selected ones is minimised. All of it
works on log-odds: through a score that is close to one no gradient comes back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.contracts import Areas, Candidates
from audit.errors import AuditError
from probes.wear import Wear

Surrogate = Literal["hinge", "softplus", "logit", "log-score"]


@dataclass(frozen=True, slots=True)
class Targets:
    """The objects of a batch in one block, ready for the objectives; made once per batch.

    B is the largest number of boxes in an image of the batch.

    Attributes:
        boxes: (N, B, 4) xyxy px; patches: (N, B, 4) the patch on each; labels: (N, B); valid: (N, B) bool.
        classes: (T,) int64, the attacked classes.
        count: number of boxes.
    """

    boxes: Tensor
    patches: Tensor
    labels: Tensor
    valid: Tensor
    classes: Tensor
    count: int

    @classmethod
    def of(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        placement: Wear,
        classes: Sequence[int],
        *,
        worn: Sequence[Tensor] | None = None,
        areas: Sequence[Areas] | None = None,
    ) -> Targets:
        """Targets of a batch: per image boxes (K_i, 4) xyxy px and labels (K_i,); ``classes`` as indices.

        ``worn``: the boxes that the patches are placed by, where they are not just the true ones. ``areas``:
        per image, where the scenes name areas.
        """
        device = boxes[0].device
        counts = torch.tensor([len(b) for b in boxes], device=device)
        most = max(1, int(counts.max()))
        valid = torch.arange(most, device=device) < counts[:, None]
        flat = torch.cat(list(boxes)).float()
        where: Sequence[Areas | None] = areas or [None] * len(boxes)
        lies = zip(boxes if worn is None else worn, where, strict=True)
        regions = torch.cat([placement.regions(b.float(), a) for b, a in lies])
        block = torch.zeros(len(boxes), most, 4, device=device)
        patches, names = block.clone(), torch.zeros(len(boxes), most, dtype=torch.long, device=device)
        block[valid], patches[valid], names[valid] = flat, regions, torch.cat(list(labels))
        return cls(block, patches, names, valid, torch.tensor(list(classes), device=device), int(counts.sum()))


@dataclass(frozen=True, slots=True)
class Selection:
    """The attacked candidates of a batch: image, candidate and class of each, (S,) int64."""

    image: Tensor
    candidate: Tensor
    label: Tensor

    def of(self, logits: Tensor) -> Tensor:
        """(S,) log-odds of the selected among (N, A, C)."""
        return logits[self.image, self.candidate, self.label]


@dataclass(frozen=True, slots=True, repr=False)
class Objective(ABC):
    """Base of the four: which candidates, and how their log-odds become a loss.

    Args:
        surrogate: the loss of one candidate, as a function of its log-odds z, f = floor in log-odds.
            ``log-score`` is the paper's log σ(z), whose gradient 1 − S dies out just where the detector is sure.
            ``softplus`` is −log(1 − S), with gradient S. ``logit`` is z itself. ``hinge`` is max(0, z − f): every
            candidate that is still too high is pushed down with the same strength, and no other.
        score: δ − m of the paper, the score above which a candidate is attacked.
        margin: the floor is lowered to at least this many log-odds under the owner's threshold, so that what is pushed
            under the floor is out of sight of the detector and not just on the edge.
    """

    surrogate: Surrogate = "hinge"
    score: float = 0.5
    margin: float = 2.0

    refs: ClassVar[tuple[str, ...]] = ("002 §3.2",)
    hides: ClassVar[bool] = True
    """Whether it succeeds where objects are not found; else no diagnostic may expect that."""

    def __post_init__(self) -> None:
        if self.surrogate not in get_args(Surrogate):
            raise AuditError(
                "patch objective",
                expected=f"a surrogate among {', '.join(get_args(Surrogate))}",
                got=repr(self.surrogate),
                mend="name one of those",
            )
        if not 0 < self.score < 1:
            raise AuditError(
                "patch objective", expected="a score in (0, 1)", got=repr(self.score), mend="the paper uses 0.5"
            )

    def __repr__(self) -> str:
        given = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return self.name + (f"({', '.join(given)})" if given else "")

    @property
    def name(self) -> str:
        """The class's name, e.g. ``PatchIoU``."""
        return type(self).__name__

    def spec(self) -> dict[str, float | str]:
        """All that determines the loss, as JSON."""
        return {"name": self.name} | {f.name: getattr(self, f.name) for f in fields(self)}

    def floor(self, threshold: float) -> float:
        """The log-odds above which a candidate is attacked, for an owner's threshold (a score)."""
        return min(_logit(self.score), _logit(threshold) - self.margin)

    @abstractmethod
    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        """The attacked candidates, from detached values."""

    def weights(self, z: Tensor) -> Tensor:
        """(S,) weight of each selected candidate with log-odds ``z``, without gradient."""
        return torch.ones_like(z)

    def loss(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        """What the patch minimises: a scalar, the mean over the selected candidates; zero where none is left.

        Args:
            candidates: boxes (N, A, 4) xyxy px, logits (N, A, C). threshold: the owner's, a score in (0, 1).
        """
        each = self.each(candidates, targets, threshold)
        return each.sum() / max(1, len(each))

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        """(S,) loss of each selected candidate."""
        return self.terms(self.select(candidates, targets, threshold).of(candidates.logits), threshold)

    def terms(self, z: Tensor, threshold: float) -> Tensor:
        """(S,) loss of candidates with log-odds ``z``."""
        z = z.float()
        floor = self.floor(threshold)
        value = {
            "hinge": lambda: F.relu(z - floor),
            "softplus": lambda: F.softplus(z),
            "logit": lambda: z,
            "log-score": lambda: F.logsigmoid(z),
        }[self.surrogate]()
        return value * self.weights(z.detach())

    def height(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        """How much is left to bring down: Σ max(0, z − floor) of the selected, per box.

        Unlike the loss it can be compared between steps: it falls when a candidate leaves the selection.
        """
        z = self.select(candidates, targets, threshold).of(candidates.logits.detach())
        return (z - self.floor(threshold)).clamp(min=0).sum() / max(1, targets.count)

    def _high(self, candidates: Candidates, targets: Targets, floor: float) -> tuple[Tensor, Tensor, Tensor]:
        """Image, candidate and best attacked class of the candidates above the floor."""
        best, label = candidates.logits.detach()[..., targets.classes].max(-1)
        image, candidate = (best > floor).nonzero(as_tuple=True)
        return image, candidate, targets.classes[label[image, candidate]]


@dataclass(frozen=True, slots=True, repr=False)
class PatchIoU(Objective):
    """D1: the candidates on the true boxes, IoU(A_i, B) > ``iou``, in the class of the box they are on.

    With the surrogates that ask only for those above a floor, lower ones are left out before any overlap is computed.
    """

    iou: float = 0.6

    refs: ClassVar[tuple[str, ...]] = ("002 §3.2",)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        whole = self.surrogate in ("logit", "log-score")
        image, candidate, _ = self._high(candidates, targets, -math.inf if whole else self.floor(threshold))
        overlap, which = best_overlap(candidates.boxes.detach()[image, candidate], targets.boxes, targets.valid, image)
        on = overlap > self.iou
        image, candidate, which = image[on], candidate[on], which[on]
        return Selection(image, candidate, targets.labels[image, which])


@dataclass(frozen=True, slots=True, repr=False)
class PatchScore(Objective):
    """D2: every candidate with a score above the floor, wherever it is."""

    refs: ClassVar[tuple[str, ...]] = ("002 §4.2",)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        return Selection(*self._high(candidates, targets, self.floor(threshold)))


@dataclass(frozen=True, slots=True, repr=False)
class PatchScoreFocal(PatchScore):
    """D3: as ``PatchScore``, weighted by S^``gamma``: what is seen most surely is pushed down first."""

    gamma: float = 2.0

    refs: ClassVar[tuple[str, ...]] = ("002 §4.2 eq. 2",)

    def weights(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z) ** self.gamma


@dataclass(frozen=True, slots=True, repr=False)
class PatchCombination(Objective):
    """D4: candidates above the floor on a true box (IoU > ``iou_box``) or on the patch (IoU > ``iou_patch``)."""

    iou_box: float = 0.3
    iou_patch: float = 0.3

    refs: ClassVar[tuple[str, ...]] = ("002 §4.2",)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        image, candidate, label = self._high(candidates, targets, self.floor(threshold))
        boxes = candidates.boxes.detach()[image, candidate]
        on = best_overlap(boxes, targets.boxes, targets.valid, image)[0] > self.iou_box
        on |= best_overlap(boxes, targets.patches, targets.valid, image)[0] > self.iou_patch
        return Selection(image[on], candidate[on], label[on])


PATCH_IOU = PatchIoU()

OBJECTIVES: tuple[Objective, ...] = (PATCH_IOU, PatchScore(), PatchScoreFocal(), PatchCombination())
"""The four with their default settings."""


def best_overlap(boxes: Tensor, targets: Tensor, valid: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Highest IoU of each box (S, 4) with the valid ones among ``targets`` (N, B, 4) of its own image, and which."""
    own = targets[image]
    low = torch.maximum(boxes[:, None, :2], own[..., :2])
    high = torch.minimum(boxes[:, None, 2:], own[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    union = _area(boxes)[:, None] + _area(own) - inter
    iou = torch.where(valid[image], inter / union.clamp(min=1e-9), inter.new_zeros(()))
    value, which = iou.max(1)
    return value, which


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _logit(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))
