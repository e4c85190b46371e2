"""Which candidates belong to which object, the highest of them, and which class they shall be mistaken for."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from audit.contracts import Candidates
from audit.errors import AuditError
from probes.detection.objectives import Objective, Selection, Targets

TOUCH = 0.1
"""A candidate belongs to an object where their IoU is greater, or where its middle lies in the object's box."""

HARMLESS = "potted plant"


def target_for(classes: Sequence[str], attacked: Collection[int]) -> int:
    """A class to mistake the attacked ones for: a potted plant if the detector knows it, else the first not attacked.

    Raises:
        AuditError: every class is attacked.
    """
    free = [i for i in range(len(classes)) if i not in attacked]
    if not free:
        raise _no_target(f"{len(classes)}, all attacked")
    plain = [c.lower().replace(" ", "").replace("_", "").replace("-", "") for c in classes]
    return next((i for i in free if plain[i] == HARMLESS.replace(" ", "")), free[0])


def resolved(target: int | None, count: int, attacked: Tensor) -> int:
    """The target class: the one given, or the first of ``count`` that is not attacked.

    Raises:
        AuditError: there is none, no attacked class but the target is left, or no class has that index.
    """
    held = set(attacked.tolist())
    if target is None:
        return target_for([""] * count, held)
    if not 0 <= target < count or held <= {target}:
        raise _no_target(f"target {target} of {count}, attacked {sorted(held)}")
    return target


def touching(boxes: Tensor, regions: Tensor, valid: Tensor) -> Tensor:
    """(N, A, B) bool: candidates (N, A, 4) that belong to regions (N, B, 4), both xyxy px, in the sense of ``TOUCH``.

    Args:
        valid: (N, B), which regions there are; the others are touched by nothing.
    """
    x, y = ((boxes[:, :, None, :2] + boxes[:, :, None, 2:]) / 2).unbind(-1)
    u1, v1, u2, v2 = regions[:, None].unbind(-1)
    inside = (x > u1) & (x < u2) & (y > v1) & (y < v2)
    return ((ious(boxes, regions) > TOUCH) | inside) & valid[:, None]


def ious(first: Tensor, second: Tensor) -> Tensor:
    """(N, A, B) IoU of (N, A, 4) with (N, B, 4) boxes xyxy, differentiable in both."""
    x1, y1, x2, y2 = first[:, :, None].float().unbind(-1)
    u1, v1, u2, v2 = second[:, None].unbind(-1)
    both = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    both = both * (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    areas = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0) + (u2 - u1).clamp(min=0) * (v2 - v1).clamp(min=0)
    return both / (areas - both).clamp(min=1e-9)


def slots(candidates: Candidates, targets: Targets, *, on_object: bool) -> Tensor:
    """(N, A, B) bool, the candidates of each object; or (N, A, 1), all of each image that has an object."""
    if on_object:
        return touching(candidates.boxes.detach(), targets.boxes, targets.valid)
    return targets.valid.any(1)[:, None, None].expand(*candidates.boxes.shape[:2], 1)


def winners(logits: Tensor, classes: Tensor, on: Tensor) -> Selection:
    """The highest of the classes (T,) among (N, A, C) in each slot of ``on`` (N, A, B) that has a candidate."""
    if not logits.shape[1]:
        none = torch.zeros(0, dtype=torch.long, device=logits.device)
        return Selection(none, none, none)
    best, label = logits[..., classes].max(-1)
    _, candidate = torch.where(on, best[..., None], -math.inf).max(1)
    image, slot = on.any(1).nonzero(as_tuple=True)
    chosen = candidate[image, slot]
    return Selection(image, chosen, classes[label[image, chosen]])


def tracked(targets: Targets) -> Targets:
    """Targets that gradients may be taken beside: those made in inference mode may not be kept for a backward pass."""
    if not targets.boxes.is_inference() or torch.is_inference_mode_enabled():
        return targets
    return replace(
        targets,
        boxes=targets.boxes.clone(),
        patches=targets.patches.clone(),
        labels=targets.labels.clone(),
        valid=targets.valid.clone(),
        classes=targets.classes.clone(),
    )


def whole(objective: Objective) -> bool:
    """Whether the surrogate asks for candidates under the floor too."""
    return objective.surrogate in ("logit", "log-score")


def fixed_loss(objective: Objective) -> None:
    """For objectives with a loss of their own.

    Raises:
        AuditError: a surrogate was named all the same.
    """
    if objective.surrogate != "hinge":
        raise AuditError(
            f"objective {objective.name}",
            expected="no surrogate, as it has a loss of its own",
            got=repr(objective.surrogate),
            mend="leave `surrogate` out",
        )


def _no_target(got: str) -> AuditError:
    return AuditError(
        "attack towards another class",
        expected="a detector with a class that is not attacked, to mistake the attacked ones for",
        got=got,
        mend="name another target class, or choose an objective that hides",
    )
