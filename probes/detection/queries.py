"""Attacking a detector that only answers: what is asked of it, what counts as an answer, and how often it was asked.

A query is one image sent to the detector. Nothing but ``__call__`` is used, and only final detections are read: boxes
with scores, or no more than whether each object is still found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from audit.contracts import Detections, Detector
from audit.execution import Execution
from probes.detection.craftset import CraftSet, Placed

Feedback = Literal["scores", "decision"]
Look = Callable[[Placed], Tensor]
"""What is sent of a part: its images (N, 3, H, W) in [0, 1], changed or not."""

MATCH_IOU = 0.5
CHECKS = 8
"""Points of the curve; a check asks one group again, so that they can be compared."""
CHECK_IMAGES = (4, 16)
"""Least and most images of a check; all checks together take at most about a tenth of the limit."""
AFTER = 3
"""Looks at the images of the checks that tell, when the search is over, whether it was sound."""
STACK_IMAGES = 64
STACK_BYTES = 128 * 1024**2
"""Several patches go into one call up to this many images and bytes; one patch on one group always does."""


def best_scores(
    found: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor], attacked: Sequence[int] = ()
) -> Tensor:
    """(ΣK,) score of the best detection of the right class on each box, IoU >= 0.5; 0 where there is none.

    Args:
        attacked: classes that count as right for every object: a truck that is found as a car is found.
    """
    out = []
    also = torch.tensor(list(attacked), dtype=torch.long)
    for d, on_device, label in zip(found, boxes, labels, strict=True):
        box = on_device.cpu().float()
        low = torch.maximum(box[:, None, :2], d.boxes[None, :, :2])
        high = torch.minimum(box[:, None, 2:], d.boxes[None, :, 2:])
        inter = (high - low).clamp(min=0).prod(-1)
        area = (box[:, 2:] - box[:, :2]).prod(-1)[:, None] + (d.boxes[:, 2:] - d.boxes[:, :2]).clamp(min=0).prod(-1)
        right = (label.cpu()[:, None] == d.labels) | torch.isin(d.labels, also)
        on = (inter / (area - inter).clamp(min=1e-9) >= MATCH_IOU) & right
        score = torch.where(on, d.scores.float(), torch.zeros(()))
        out.append(torch.cat([score, torch.zeros(len(box), 1)], 1).amax(1))
    return torch.cat(out) if out else torch.zeros(0)


def log_odds(scores: Tensor) -> float:
    """Mean log-odds of scores, each cut to [1e-3, 1 − 1e-6]: what is not reported counts as 1e-3."""
    return float(torch.logit(scores.double().clamp(1e-3, 1 - 1e-6)).mean()) if len(scores) else 0.0


def scores_under(detector: Detector, parts: Sequence[Placed], pixels: Tensor, execution: Execution) -> Tensor:
    """(ΣK,) scores with which the objects of some groups are found under an 8-bit patch: one call per part."""
    look = wearing(pixels)
    found = [best_scores(execution.detect(detector, look(part)), part.boxes, part.labels) for part in parts]
    return torch.cat(found) if found else torch.zeros(0)


def wearing(pixels: Tensor) -> Look:
    """The images of a part with an 8-bit patch (3, P, Q) on every object."""

    def look(part: Placed) -> Tensor:
        with torch.no_grad():
            return part.where.place(part.images, pixels.to(part.images.device).float() / 255)

    return look


@dataclass(eq=False)
class Questions:
    """A detector with a limit on the images that it may be sent, and the curve of what came of them.

    Attributes:
        attacked: see :func:`best_scores`. limit: images that may be sent by the search and its checks.
        ceiling: images that may be sent in all, with ``AFTER`` more looks at the images of the checks; ``None`` for no
            such limit. points: of the curve; 0 for none.
        sent: images sent so far. calls: calls of the detector so far.
        history: ``query`` (images sent), ``call``, ``loss`` and ``success`` of the best patch until each check, on the
            same images: success is the share of the objects found without a patch that are found no more.
    """

    detector: Detector
    craft: CraftSet
    feedback: Feedback = "scores"
    attacked: Sequence[int] = ()
    limit: int = 5000
    ceiling: int | None = None
    points: int = CHECKS
    sent: int = 0
    calls: int = 0
    history: dict[str, list[float]] = field(
        default_factory=lambda: {"query": [], "call": [], "loss": [], "success": []}
    )
    best: Tensor | None = None
    _there: Tensor | None = None

    def __post_init__(self) -> None:
        least, most = CHECK_IMAGES
        allowed = self.limit if self.ceiling is None else min(self.limit, self.ceiling)
        self.checked = tuple(self.craft.sample(max(least, min(most, allowed // (10 * CHECKS)))))
        self._check = images_of(self.checked)
        if self.ceiling is not None:
            self.limit = min(self.limit, self.ceiling - AFTER * self._check)
        if self.limit < 4 * self._check:
            self.points = 0

    @property
    def kept_back(self) -> int:
        """Images that the last check will need; the first check also asks without a patch."""
        return self._check * (2 if self._there is None else 1) if self.points else 0

    def affords(self, patches: int, parts: Sequence[Placed]) -> bool:
        """Whether so many patches on those images leave enough for the last check."""
        return self.sent + patches * images_of(parts) + self.kept_back <= self.limit

    def scores(self, looks: Sequence[Look], parts: Sequence[Placed]) -> Tensor:
        """(n, ΣK) best score on each object of the parts, per look; looks share calls as far as memory is bounded."""
        columns = []
        for part in parts:
            each = max(1, min(STACK_IMAGES // len(part.images), STACK_BYTES // part.images.nbytes))
            rows: list[Tensor] = []
            for i in range(0, len(looks), each):
                some = looks[i : i + each]
                images = torch.cat([look(part) for look in some])
                found = self.craft.execution.detect(self.detector, images)
                self.sent += len(images)
                self.calls += 1
                flat = best_scores(found, part.boxes * len(some), part.labels * len(some), self.attacked)
                rows.append(flat.view(len(some), -1))
            columns.append(torch.cat(rows))
        return torch.cat(columns, 1)

    def losses(self, looks: Sequence[Look], parts: Sequence[Placed]) -> list[float]:
        """Per look, the mean log-odds of the best score on each object; or the share of the objects still found."""
        return [self._loss(row) for row in self.scores(looks, parts)] if looks else []

    def check(self, pixels: Tensor) -> None:
        """One more point of the curve; the patch is kept where none before it did better."""
        if not self.points:
            self.best = pixels
            return
        if self._there is None:
            self._there = self._found(self.scores([lambda part: part.images], self.checked)[0])
        scores = self.scores([wearing(pixels)], self.checked)[0]
        loss, gone = self._loss(scores), ~self._found(scores)[self._there]
        success = float(gone.float().mean()) if len(gone) else 0.0
        if self.best is None or loss <= self.history["loss"][-1]:
            self.best = pixels
        else:
            loss, success = self.history["loss"][-1], self.history["success"][-1]
        for name, value in (("query", self.sent), ("call", self.calls), ("loss", loss), ("success", success)):
            self.history[name].append(float(value))

    @property
    def due(self) -> bool:
        """Whether the next check is due, with enough left for it and the last one."""
        if not self.points or self.sent < len(self.history["query"]) * self.limit / self.points:
            return False
        return self.sent + self.kept_back + self._check <= self.limit

    def _found(self, scores: Tensor) -> Tensor:
        return scores >= self.detector.score_threshold

    def _loss(self, scores: Tensor) -> float:
        if self.feedback == "scores":
            return log_odds(scores)
        return float(self._found(scores).float().mean()) if len(scores) else 0.0


def images_of(parts: Sequence[Placed]) -> int:
    """Images of some parts together."""
    return sum(len(part.images) for part in parts)
