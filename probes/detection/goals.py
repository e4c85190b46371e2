"""What else than hiding an attacker may want of a detector: false objects, another class, a wrong place, a flood.

    Ghosts        a false object beside each patch
    ClassChange   the object is found where it is, but as something else
    BoxShift      the object is found, but not where it is
    Flood         as many detections as possible, so that what follows the network takes long

With σ⁻¹ the log-odds of a score: what is to be seen must rise over the roof, what is not must fall under the floor.
Each ``height`` is what is left to achieve, zero on success, and can be compared between steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.contracts import Candidates
from audit.errors import AuditError, ModelError
from probes.detection.choosing import fixed_loss, ious, resolved, touching, tracked
from probes.detection.objectives import Objective, Selection, Targets

LEAST = -20.0
"""Log-odds that stand for no candidate at all: a score of 2e-9."""


@dataclass(frozen=True, slots=True, repr=False)
class Goal(Objective):
    """Base of the objectives that do not hide. Their loss is their own: ``surrogate`` must be left as it is.

    What has got where it shall be is left out of the loss: no term then has a gradient of zero, which is a sign of
    masking everywhere else.
    """

    hides: ClassVar[bool] = False
    refs: ClassVar[tuple[str, ...]] = ("NISTAML.022", "AML.T0043.000")

    def __post_init__(self) -> None:
        Objective.__post_init__(self)
        fixed_loss(self)

    def roof(self, threshold: float) -> float:
        """The log-odds that are safely seen: max(σ⁻¹(score), σ⁻¹(threshold) + margin)."""
        return max(_logit(self.score), _logit(threshold) + self.margin)


@dataclass(frozen=True, slots=True, repr=False)
class Ghosts(Goal):
    """A false object at each patch: the paper's criterion 2, wanted instead of shunned.

    L = mean of roof − z over those under the roof of the ``most`` highest candidates at each patch: of those that touch
    it (``choosing.TOUCH``) and have IoU at most ``apart`` with every true box, in their best attacked class.
    Height: max(0, roof − highest z) of each patch, per box.

    Args:
        most: candidates that are raised per patch. apart: most overlap with a true box.
    """

    most: int = 5
    apart: float = 0.3

    refs: ClassVar[tuple[str, ...]] = ("002 §4.1", "NISTAML.022", "AML.T0043.000")

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        """The candidates that are to be raised."""
        best, label = candidates.logits.detach()[..., targets.classes].max(-1)
        image, candidate, _ = _highest(best, self._free(candidates, targets), self.most)
        low = best[image, candidate] < self.roof(threshold)
        image, candidate = image[low], candidate[low]
        return Selection(image, candidate, targets.classes[label[image, candidate]])

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        z = self.select(candidates, targets, threshold).of(candidates.logits)
        return self.roof(threshold) - z.float()

    def height(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        best = candidates.logits.detach()[..., targets.classes].amax(-1).float()
        top = _top(best, self._free(candidates, targets))[targets.valid]
        return (self.roof(threshold) - top).clamp(min=0).sum() / max(1, targets.count)

    def _free(self, candidates: Candidates, targets: Targets) -> Tensor:
        """(N, A, B) bool: candidates at each patch that are on no true object."""
        boxes = candidates.boxes.detach()
        near = touching(boxes, targets.patches, targets.valid)
        return near & (_ious(boxes, targets) <= self.apart).all(2, keepdim=True)


@dataclass(frozen=True, slots=True, repr=False)
class ClassChange(Goal):
    """The object is found at its box, IoU > ``iou``, but as another class.

    For the candidates on an object of class y: L = mean of z_y − floor over those above the floor and of roof − z_o
    over those under the roof of the ``most`` with the highest z_o, o the target or the best class but y.
    Height: max(0, max z_y − floor) + max(0, roof − max z_o) of each object, per box. An object of the target class is
    left as it is.

    Args:
        target: index of the class to be mistaken for; ``None`` is any but the object's own.
        most: candidates that are raised per object. iou: as the measure matches boxes.

    A detector with one class raises an ``AuditError``.
    """

    target: int | None = None
    most: int = 5
    iou: float = 0.5

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        """The candidates that show an object as what it is."""
        own, _, on = self._views(candidates, targets)
        image, candidate, slot = (on & (own > self.floor(threshold))).nonzero(as_tuple=True)
        return Selection(image, candidate, targets.labels[image, slot])

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        own, other, on = self._views(candidates, tracked(targets))
        down = own[on & (own.detach() > self.floor(threshold))] - self.floor(threshold)
        up = self.roof(threshold) - other[_highest(other.detach(), on, self.most)]
        return torch.cat([down, up[up > 0]])

    def height(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        own, other, on = self._views(Candidates(candidates.boxes.detach(), candidates.logits.detach()), targets)
        counts = self._counts(targets)
        right = (_top(own, on)[counts] - self.floor(threshold)).clamp(min=0)
        wrong = (self.roof(threshold) - _top(other, on)[counts]).clamp(min=0)
        return (right + wrong).sum() / max(1, targets.count)

    def _counts(self, targets: Targets) -> Tensor:
        return targets.valid if self.target is None else targets.valid & (targets.labels != self.target)

    def _views(self, candidates: Candidates, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """(N, A, B) log-odds of each object's own class and of the other class; which candidates lie on it."""
        logits, count = candidates.logits.float(), candidates.logits.shape[2]
        if count < 2 or self.target is not None:
            resolved(self.target, count, targets.classes)  # raises where there is nothing to be mistaken for
        n, a = logits.shape[:2]
        label = targets.labels[:, None].expand(n, a, -1)
        own = logits.gather(2, label)
        if self.target is not None:
            other = logits[..., self.target, None].expand_as(own)
        else:
            first, second = logits.topk(2, 2)[0].unbind(2)
            other = torch.where(own >= first[..., None], second[..., None], first[..., None])
        on = (_ious(candidates.boxes.detach(), targets) > self.iou) & self._counts(targets)[:, None]
        return own, other, on


@dataclass(frozen=True, slots=True, repr=False)
class BoxShift(Goal):
    """The object is still found in its class, but its box is pushed off it: the gradient goes through the boxes.

    For the candidates i with IoU_i > 0.1 with the true box they overlap most, in its class:
    L = mean of ``strength`` · (IoU_i − ``below``) over those seen at the threshold with a larger IoU, and of roof − z_i
    over the highest of each object where it is under the roof, as it is to stay in sight.
    Height: ``strength`` · max(0, max IoU_i − ``below``) over those seen + max(0, σ⁻¹(threshold) − max z_i), per box. An
    object that is hidden has not been displaced.

    Args:
        below: the overlap to get under; the measure takes less than 0.5 for displaced.
        strength: how many log-odds a whole IoU is worth.

    Fixed boxes cannot be moved: where they carry no gradient though the scores do, a ``ModelError`` is raised.
    """

    below: float = 0.4
    strength: float = 10.0
    touch: float = 0.1

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        """The candidates that show an object where it is."""
        iou, on, z = self._on(candidates, targets)
        image, candidate, slot = (on & (z >= _logit(threshold)) & (iou > self.below)).nonzero(as_tuple=True)
        return Selection(image, candidate, targets.labels[image, slot])

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        if torch.is_grad_enabled() and candidates.logits.requires_grad and not candidates.boxes.requires_grad:
            raise ModelError(
                "attack that displaces boxes",
                expected="candidates whose boxes depend on the images",
                got="boxes without a gradient",
                mend="decode the boxes from the network's output without detach, or choose another objective",
            )
        iou, on, z = self._on(candidates, tracked(targets))
        shown = iou[on & (z.detach() >= _logit(threshold)) & (iou.detach() > self.below)]
        low = self.roof(threshold) - z[_highest(z.detach(), on, 1)]
        return torch.cat([self.strength * (shown - self.below), low[low > 0]])

    def height(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        iou, on, z = self._on(Candidates(candidates.boxes.detach(), candidates.logits.detach()), targets)
        least = _logit(threshold)
        place = _top(iou, on & (z >= least))[targets.valid]
        unseen = least - _top(z, on)[targets.valid]
        left = self.strength * (place - self.below).clamp(min=0) + unseen.clamp(min=0)
        return left.sum() / max(1, targets.count)

    def _on(self, candidates: Candidates, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """(N, A, B): overlap with each true box, whether it is the largest one, log-odds of that object's class."""
        iou = _ious(candidates.boxes, targets)
        held = iou.detach()
        on = (held > self.touch) & (held == held.amax(2, keepdim=True)) & targets.valid[:, None]
        z = candidates.logits.float().gather(2, targets.labels[:, None].expand(*iou.shape[:2], -1))
        return iou, on, z


@dataclass(frozen=True, slots=True, repr=False)
class Flood(Goal):
    """As many detections as possible: every candidate is raised, and those that are seen are spread.

    L = mean over all candidates of max(0, roof − max_c z_ic) + ``spread`` · mean IoU between the ``most`` highest of
    each image, so that the suppression of doubles has more to compare and throws away less.
    Height: mean over all candidates of max(0, roof − max_c z_ic), per image.

    Args:
        level: the score from which a candidate counts; ``None`` is the owner's threshold. What slows the suppression
            of doubles is whatever passes the detector's own, mostly lower, limit.
        spread: weight of the overlaps; with fixed boxes they have no gradient. most: see above.
    """

    level: float | None = None
    spread: float = 1.0
    most: int = 64

    refs: ClassVar[tuple[str, ...]] = ("NISTAML.014", "AML.T0029")

    def __post_init__(self) -> None:
        Goal.__post_init__(self)
        if self.level is not None and not 0 < self.level < 1:
            got = repr(self.level)
            raise AuditError("flood objective", expected="a level in (0, 1)", got=got, mend="give a score or nothing")

    def roof(self, threshold: float) -> float:
        """σ⁻¹(level) + margin."""
        return _logit(threshold if self.level is None else self.level) + self.margin

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        """The candidates that are still under the roof, of the images that carry a patch."""
        best, label = candidates.logits.detach().max(-1)
        image, candidate = ((best < self.roof(threshold)) & targets.valid.any(1)[:, None]).nonzero(as_tuple=True)
        return Selection(image, candidate, label[image, candidate])

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        worn = targets.valid.any(1)
        best = candidates.logits[worn].float().amax(-1)
        up = F.relu(self.roof(threshold) - best)
        n, a = best.shape
        k = min(self.most, a)
        if not n or k < 2 or not self.spread:
            return up.flatten()
        chosen = best.detach().topk(k, 1)[1]
        boxes = candidates.boxes[worn].float().gather(1, chosen[..., None].expand(n, k, 4))
        seen = (best.detach().gather(1, chosen) >= _logit(threshold if self.level is None else self.level)).float()
        overlap = ious(boxes, boxes) * seen[:, :, None] * seen[:, None]
        apart = 1 - torch.eye(k, device=overlap.device)
        both = (overlap * apart).sum((1, 2)) / (k * (k - 1))
        return (up + self.spread * both[:, None]).flatten()

    def height(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        worn = targets.valid.any(1)
        best = candidates.logits.detach()[worn].float().amax(-1)
        if not best.shape[1]:  # no candidate at all: all is left to do
            best = best.new_full((len(best), 1), LEAST)
        left = (self.roof(threshold) - best).clamp(min=0).mean(1)
        return left.sum() / max(1, targets.count)


GOALS: tuple[Goal, ...] = (Ghosts(), ClassChange(), BoxShift(), Flood())
"""The four with their default settings."""


def _ious(boxes: Tensor, targets: Targets) -> Tensor:
    """(N, A, B) overlap of candidates (N, A, 4) with the true boxes; 0 where there is none."""
    return ious(boxes, targets.boxes) * targets.valid[:, None]


def _highest(values: Tensor, on: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image, candidate and slot of the ``most`` highest values in each slot of ``on`` (N, A, B).

    Args:
        values: (N, A), or (N, A, B) where they differ between slots.
    """
    values = values if values.ndim == 3 else values[..., None]
    top, index = torch.where(on, values, -math.inf).topk(min(most, on.shape[1]), 1)
    image, rank, slot = top.ne(-math.inf).nonzero(as_tuple=True)
    return image, index[image, rank, slot], slot


def _top(values: Tensor, on: Tensor) -> Tensor:
    """(N, B) highest value in each slot; ``LEAST`` where the slot is empty."""
    values = values if values.ndim == 3 else values[..., None]
    if not on.shape[1]:
        return values.new_full((on.shape[0], on.shape[2]), LEAST)
    return torch.where(on, values, LEAST).amax(1).clamp(min=LEAST)


def _logit(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))
