"""The losses of the five teams of the driving competition (paper 000 §3.3), as objectives for a trained patch.

With z_ic the log-odds of class c at candidate i, S the attacked classes and f the floor (``Objective.floor``):

    TargetedClass   Σ_i −log softmax(z_i)_t   over candidates with max_c z_ic > f and argmax_c z_ic in S     (team 1)
    Objectness      Σ_i O_i                   over candidates with argmax_c z_ic in S                        (team 3)
    ClassMargin     max_{i, c in S} z_ic − max_{i, c not in S} z_ic                                          (team 4)
    MaxObjectness   max_i O_i                                                                                (team 5)
    Joint           Σ_k λ_k L_k over several detectors                                                       (team 2)

The teams' printability and smoothness terms belong to the patch, not to the candidates, and are not here. Where this
deviates: the contract shows no objectness of its own, so O_i = max_c z_ic, the highest class log-odds; all works on
log-odds where the teams took probabilities, whose gradient dies where a detector is sure; sums are divided by the
number of terms, which steps of fixed size do not feel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.contracts import Candidates
from audit.errors import AuditError
from probes.detection.choosing import fixed_loss, resolved, slots, whole, winners
from probes.detection.objectives import Objective, Selection, Targets


@dataclass(frozen=True, slots=True, repr=False)
class TargetedClass(Objective):
    """D10, first place: what is seen of the attacked classes S is to be taken for one fixed class t.

    L = mean of −log softmax(z_i)_t over the candidates with max_c z_ic > f (the paper's p_obj > α) whose predicted
    class argmax_c z_ic is in S without t. ``surrogate`` has no part in it and must be left as it is.

    Args:
        target: index of t; ``None`` is the first class that is not attacked. See ``choosing.target_for``.
        multi_label: for detectors that report every class over the threshold and not just a candidate's best: a
            candidate is attacked as long as any class of S is above f.

    The detector needs a class besides the attacked ones, else an ``AuditError`` is raised at the first step.
    """

    target: int | None = None
    multi_label: bool = False

    refs: ClassVar[tuple[str, ...]] = ("000 §3.3.1",)

    def __post_init__(self) -> None:
        Objective.__post_init__(self)
        fixed_loss(self)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        logits = candidates.logits.detach()
        t = resolved(self.target, logits.shape[2], targets.classes)
        attacked = targets.classes[targets.classes != t]
        return _attacked(logits, attacked, self.floor(threshold), multi_label=self.multi_label)

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        s = self.select(candidates, targets, threshold)
        t = resolved(self.target, candidates.logits.shape[2], targets.classes)
        z = candidates.logits[s.image, s.candidate].float()
        return F.cross_entropy(z, torch.full_like(s.label, t), reduction="none")

    def height(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        """Σ over the selected of how far the attacked class is above the floor or above the best class that is not
        attacked, whichever is less (``multi_label``: above the floor), per box: zero once none is seen as one of S.
        """
        s = self.select(candidates, targets, threshold)
        logits = candidates.logits.detach().float()
        t = resolved(self.target, logits.shape[2], targets.classes)
        z = s.of(logits)
        left = z - self.floor(threshold)
        if not self.multi_label:
            attacked = _mask(targets.classes, logits.shape[2])
            attacked[t] = False
            rest = logits[s.image, s.candidate].masked_fill(attacked, -math.inf).amax(1)
            left = torch.minimum(left, z - rest)
        return left.clamp(min=0).sum() / max(1, targets.count)


@dataclass(frozen=True, slots=True, repr=False)
class Objectness(Objective):
    """D12, third place: the objectness of every candidate whose best class is attacked, wherever it lies.

    L = mean of the surrogate of O_i over the candidates with argmax_c z_ic in S; ``hinge`` and ``softplus`` leave out
    those under the floor. As O_i is the best class's log-odds, this is ``PatchScore`` without the candidates that show
    another class more surely.

    Args:
        multi_label: as of ``TargetedClass``; O_i is then the best log-odds among S, and no candidate is left out.
    """

    multi_label: bool = False

    refs: ClassVar[tuple[str, ...]] = ("000 §3.3.3",)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        floor = -math.inf if whole(self) else self.floor(threshold)
        return _attacked(candidates.logits.detach(), targets.classes, floor, multi_label=self.multi_label)


@dataclass(frozen=True, slots=True, repr=False)
class MaxObjectness(Objective):
    """D14, fifth place, after Thys et al. (2019): only the highest candidate is pushed down.

    L = mean over the objects (``on_object``) or images of the surrogate of max_i O_i, before suppression of doubles.

    Args:
        on_object: one maximum per object, over the candidates that touch it (``choosing.TOUCH``). False is the
            paper's, one per image; where an image has several objects that brings down one of them at a time.
        any_class: O_i over all classes, the paper's objectness. Otherwise over the attacked ones, its class score: a
            patch can do nothing about a dog at the other end of the image.
    """

    on_object: bool = True
    any_class: bool = False

    refs: ClassVar[tuple[str, ...]] = ("000 §3.3.5",)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        logits = candidates.logits.detach()
        classes = torch.arange(logits.shape[2], device=logits.device) if self.any_class else targets.classes
        found = winners(logits, classes, slots(candidates, targets, on_object=self.on_object))
        return found if whole(self) else _above(found, found.of(logits) > self.floor(threshold))


@dataclass(frozen=True, slots=True, repr=False)
class ClassMargin(Objective):
    """D13, fourth place: the surest attacked class against the surest other class, before suppression of doubles.

    L = mean over the objects (``on_object``) or images of a − o with a = max_{i, c in S} z_ic, o = max_{i, c not in S}
    z_ic. ``hinge`` takes a − o as long as a is above the floor; ``logit`` always; ``softplus`` and ``log-score`` are
    taken of a − o. Where the detector has no other class, o is the floor.

    Args:
        on_object: a and o over the candidates that touch an object (``choosing.TOUCH``), one term per object. False is
            the paper's, one term per image.
    """

    on_object: bool = True

    refs: ClassVar[tuple[str, ...]] = ("000 §3.3.4",)

    def select(self, candidates: Candidates, targets: Targets, threshold: float) -> Selection:
        """The a of each object or image; its height is what stands of a above the floor.

        A high o alone hides nothing: a detector reports both.
        """
        return self._pairs(candidates, targets, threshold)[0]

    def each(self, candidates: Candidates, targets: Targets, threshold: float) -> Tensor:
        attacked, other = self._pairs(candidates, targets, threshold)
        a = attacked.of(candidates.logits).float()
        margin = a - (self.floor(threshold) if other is None else other.of(candidates.logits).float())
        if self.surrogate == "softplus":
            return F.softplus(margin)
        return F.logsigmoid(margin) if self.surrogate == "log-score" else margin

    def _pairs(self, candidates: Candidates, targets: Targets, threshold: float) -> tuple[Selection, Selection | None]:
        logits = candidates.logits.detach()
        on = slots(candidates, targets, on_object=self.on_object)
        attacked = winners(logits, targets.classes, on)
        keep = attacked.of(logits) > (-math.inf if whole(self) else self.floor(threshold))
        rest = (~_mask(targets.classes, logits.shape[2])).nonzero()[:, 0]
        other = _above(winners(logits, rest, on), keep) if len(rest) else None
        return _above(attacked, keep), other


CLASS_MARGIN = ClassMargin()

TEAM_OBJECTIVES: tuple[Objective, ...] = (TargetedClass(), Objectness(), CLASS_MARGIN, MaxObjectness())
"""The four that attack one detector, with their default settings."""


@dataclass(frozen=True, slots=True)
class Joint:
    """D11, second place: one patch against several detectors, L = Σ_k λ_k L_k.

    Args:
        fixed: the λ_k, each at least 0 and not all 0; empty is 1/K each.
        dynamic: λ_k ∝ λ_k · exp(r_k / τ) with r_k what is left to bring down of detector k, as a share of all that is
            left: the detector that holds out longest leads. They sum to one.
        temperature: τ.
    """

    fixed: tuple[float, ...] = ()
    dynamic: bool = False
    temperature: float = 0.25

    refs: ClassVar[tuple[str, ...]] = ("000 §3.3.2 eq. 10",)

    def __post_init__(self) -> None:
        usable = all(math.isfinite(w) and w >= 0 for w in self.fixed)
        if not usable or (self.fixed and not sum(self.fixed)) or not self.temperature > 0:
            raise AuditError(
                "joint attack",
                expected="weights of at least 0, one of them above it, and a temperature above 0",
                got=f"{self.fixed}, temperature {self.temperature!r}",
                mend="correct them",
            )

    def weights(self, heights: Sequence[float]) -> list[float]:
        """λ_k for detectors with these heights or losses: plain numbers, so no gradient goes through them.

        Under ``dynamic`` less than nothing counts as nothing left, and so does what is not finite: a detector whose
        scores are broken must not take the lead.

        Raises:
            AuditError: another number of detectors than of fixed weights.
        """
        if self.fixed and len(self.fixed) != len(heights):
            raise AuditError(
                "joint attack",
                expected=f"{len(self.fixed)} detectors, one for each weight",
                got=f"{len(heights)}",
                mend="give one weight per detector",
            )
        base = self.fixed or (1 / max(1, len(heights)),) * len(heights)
        if not self.dynamic:
            return list(base)
        left = [h if 0 < h < math.inf else 0.0 for h in heights]
        total = sum(left) or 1.0
        raised = [
            w * math.exp((h - max(left, default=0.0)) / total / self.temperature)
            for w, h in zip(base, left, strict=True)
        ]
        scale = sum(raised) or 1.0
        return [r / scale for r in raised]

    def loss(self, losses: Sequence[Tensor], heights: Sequence[float]) -> Tensor:
        """Σ_k λ_k L_k of the detectors' losses, scalars; K at least 1."""
        return torch.stack([w * v for w, v in zip(self.weights(heights), losses, strict=True)]).sum()


EQUAL = Joint()


def _attacked(logits: Tensor, classes: Tensor, floor: float, *, multi_label: bool) -> Selection:
    """Candidates with an attacked class above the floor that is also their best class, or any (``multi_label``)."""
    best, label = logits[..., classes].max(-1)
    keep = best > floor
    if not multi_label:
        keep &= best >= logits.amax(-1)
    image, candidate = keep.nonzero(as_tuple=True)
    return Selection(image, candidate, classes[label[image, candidate]])


def _above(s: Selection, keep: Tensor) -> Selection:
    return Selection(s.image[keep], s.candidate[keep], s.label[keep])


def _mask(classes: Tensor, count: int) -> Tensor:
    """(C,) bool, true at the classes."""
    held = torch.zeros(count, dtype=torch.bool, device=classes.device)
    held[classes] = True
    return held
