"""From candidates to detections: threshold, best few, non-maximum suppression per class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from audit.adapters.checks import refuse, unit
from audit.contracts import Detections


@dataclass(frozen=True, slots=True)
class Suppression:
    """How doubles are removed where the model leaves that to its owner.

    Attributes:
        score_floor: detections under this score are dropped; far below the owner's threshold, so that curves have
            their lower end.
        nms_iou: of two boxes of a class that overlap more than this, the better stays; 1 keeps all.
        top_k: at most so many candidates per image enter, the best ones.
        one_label: each candidate reports its best class only.
    """

    score_floor: float = 0.05
    nms_iou: float = 0.5
    top_k: int = 3000
    one_label: bool = False

    def __post_init__(self) -> None:
        unit("score_floor", self.score_floor)
        unit("nms_iou", self.nms_iou)
        if not isinstance(self.top_k, int) or self.top_k < 1:
            refuse("top_k", "a whole number from 1", repr(self.top_k), "say how many candidates per image enter NMS")

    def __call__(self, boxes: Tensor, logits: Tensor, keep: Tensor | None = None) -> list[Detections]:
        """Detections per image, best first.

        Args:
            boxes: (N, A, 4) xyxy. logits: (N, A, C) log-odds. keep: (N, A, C) bool, candidates that the model's own
                rule lets through (peaks of a heat-map).
        """
        scores = logits.float().sigmoid()
        passed = scores > self.score_floor
        if keep is not None:
            passed &= keep
        if self.one_label:
            best = torch.zeros_like(passed).scatter_(-1, scores.argmax(-1, keepdim=True), value=True)
            passed &= best
        return [self._one(b, s, p) for b, s, p in zip(boxes, scores, passed, strict=True)]

    def _one(self, boxes: Tensor, scores: Tensor, passed: Tensor) -> Detections:
        index, label = passed.nonzero(as_tuple=True)
        score = scores[index, label]
        if len(score) > self.top_k:
            score, best = score.topk(self.top_k)
            index, label = index[best], label[best]
        box = boxes[index].float()
        kept = batched_nms(box, score, label, self.nms_iou)
        return Detections(box[kept], score[kept], label[kept])


def clipped(found: Detections, height: int, width: int) -> Detections:
    """The detections with boxes cut off at the image's edge."""
    limit = found.boxes.new_tensor((width, height, width, height))
    return Detections(found.boxes.clamp(min=0).minimum(limit), found.scores, found.labels)
