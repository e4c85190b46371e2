"""The detector's contract on a tiny batch."""

from __future__ import annotations

import torch
from torch import Tensor

from audit.checks.common import ARITHMETIC, JITTER, Looker, apart, gradient_facts
from audit.contracts import Candidates, Detections
from audit.record import Precondition
from audit.tasks import told
from audit.tiny import LYING, STANDING, tiny_images

_STRAY = 0.02
"""Share of detections that may differ between two equal calls: suppression flips a few weak ones on some devices."""
_OUTSIDE = 0.75
"""Share of box centres outside the image from which boxes are taken for boxes of some other image size."""

_ENOUGH = 8
"""Boxes below which their centres say nothing."""
_STRONGEST = 300
"""Detections per image that are compared, the strongest ones; there may be thousands of weak ones."""


def check_detector(look: Looker) -> list[Precondition]:
    """Facts on a detector; raises ``ModelError`` where it breaks its contract."""
    pictures = tiny_images(LYING, look.device)
    standing = tiny_images(STANDING, look.device)[:1]
    facts: list[Precondition] = []
    if hasattr(look.thing, "candidates"):
        facts += _check_candidates(look, pictures, standing)
    found = _detections(look, pictures)
    _detections(look, standing)
    facts.append(_repeats(look, found, _detections(look, pictures)))
    facts.append(_looks(look, found))
    facts.append(_alone(look, found, _detections(look, pictures[:1])))
    return facts


def _detections(look: Looker, images: Tensor) -> list[Detections]:
    found = look.call(look.thing, images)
    if not isinstance(found, list | tuple) or len(found) != len(images):
        raise look.wrong(
            f"a list of {len(images)} Detections, one per image",
            told(found),
            "return one audit.contracts.Detections(boxes, scores, labels) per image",
        )
    return [_one(look, one, (images.shape[2], images.shape[3])) for one in found]


def _one(look: Looker, one: object, size: tuple[int, int]) -> Detections:
    absent = [a for a in ("boxes", "scores", "labels") if not isinstance(getattr(one, a, None), Tensor)]
    if absent:
        raise look.wrong(
            "Detections with tensors boxes, scores and labels",
            f"{told(one)} without {', '.join(absent)}",
            "return audit.contracts.Detections, or wrap a torchvision model with audit.adapters.torchvision_detector",
        )
    boxes = look.tensor(one.boxes, "boxes", (None, 4), "(K, 4)")  # type: ignore[attr-defined]
    scores = look.tensor(one.scores, "scores", (len(boxes),), f"({len(boxes)},), one per box")  # type: ignore[attr-defined]
    labels: Tensor = one.labels  # type: ignore[attr-defined]
    if labels.shape != scores.shape or labels.is_floating_point() or labels.dtype == torch.bool:
        raise look.wrong(f"labels as whole numbers ({len(boxes)},)", f"{told(labels)}, {labels.dtype}", "use .long()")
    look.finite(boxes, "boxes")
    look.finite(scores, "scores")
    if len(boxes):
        _in_order(look, boxes)
        _in_pixels(look, boxes, size, "boxes")
        low, high = float(scores.min()), float(scores.max())
        if low < 0 or high > 1:
            raise look.wrong(
                "scores in [0, 1]", f"{low:.3g} to {high:.3g}", "return probabilities: torch.sigmoid(logits)"
            )
        count = len(look.thing.classes)
        if int(labels.min()) < 0 or int(labels.max()) >= count:
            raise look.wrong(
                f"labels from 0 to {count - 1}, as indices into `classes`",
                f"{int(labels.min())} to {int(labels.max())}",
                "list every class, or subtract 1 where label 0 is the background",
            )
    return Detections(boxes.float().cpu(), scores.float().cpu(), labels.cpu())


def _in_order(look: Looker, boxes: Tensor) -> None:
    bad = (boxes[:, 2:] < boxes[:, :2]).any(1)
    if bad.any():
        first = [round(float(v), 2) for v in boxes[bad][0]]
        raise look.wrong(
            "boxes as x1, y1, x2, y2 with x1 <= x2 and y1 <= y2",
            f"{first} ({int(bad.sum())} of {len(boxes)} out of order)",
            "convert from centre and size: torchvision.ops.box_convert(boxes, 'cxcywh', 'xyxy')",
        )


def _in_pixels(look: Looker, boxes: Tensor, size: tuple[int, int], name: str) -> None:
    height, width = size
    reach = float(boxes.abs().max())
    if 0 < reach <= 1.5:
        raise look.wrong(
            f"{name} in pixels of the image ({width} x {height})",
            f"coordinates of at most {reach:.2f}, as shares of the image",
            "multiply x by the width and y by the height",
        )
    x, y = (boxes[..., 0] + boxes[..., 2]) / 2, (boxes[..., 1] + boxes[..., 3]) / 2
    outside = float(((x < 0) | (x > width) | (y < 0) | (y > height)).float().mean())
    if len(boxes) >= _ENOUGH and outside > _OUTSIDE:
        raise look.wrong(
            f"{name} in pixels of the image ({width} x {height})",
            f"{outside:.0%} of their centres outside it",
            "scale them back from the model's own input size to the image's",
        )


def _repeats(look: Looker, first: list[Detections], second: list[Detections]) -> Precondition:
    strays = _strays(first, second)
    if strays > _STRAY:
        raise look.wrong(
            "the same detections for the same images",
            f"{strays:.0%} of them different in a second call",
            "take the randomness out: eval(), no dropout, a fixed seed inside the call",
        )
    return look.fact(
        "same images, same detections",
        True,
        strays,
        f"at most {_STRAY}",
        "share of detections without a twin in a second call on the tiny batch",
    )


def _looks(look: Looker, found: list[Detections]) -> Precondition:
    count = sum(len(f.boxes) for f in found)
    same = all(_strays([found[0]], [other]) == 0 for other in found[1:])
    if count and same:
        raise look.wrong(
            "detections that depend on the image",
            f"the same {len(found[0].boxes)} for a photograph, noise, a gradient and grey",
            "use the images that are handed in, not a stored picture or result",
        )
    return look.fact(
        "detections on the tiny batch",
        True,
        float(count),
        "",
        "detections in a photograph, noise, a gradient and grey"
        + ("" if count else ": none, so whether they depend on the image could not be seen here"),
    )


def _alone(look: Looker, together: list[Detections], alone: list[Detections]) -> Precondition:
    strays = _strays(together[:1], alone)
    return look.fact(
        "an image alone gives what it gives in a batch",
        strays <= _STRAY,
        strays,
        f"at most {_STRAY}",
        "share of detections of the photograph without a twin when it is handed in alone; otherwise results depend on "
        "how images are batched",
    )


def _strays(first: list[Detections], second: list[Detections]) -> float:
    """Share of the strongest detections without a twin in the other: label, box to a pixel, score to 0.01."""
    lost = total = 0
    for a, b in zip(first, second, strict=True):
        for left, right in ((a, b), (b, a)):
            some, other = _strongest(left, _STRONGEST), _strongest(right, 2 * _STRONGEST)
            total += len(some.boxes)
            if not len(some.boxes) or not len(other.boxes):
                lost += len(some.boxes)
                continue
            twin = (some.boxes[:, None] - other.boxes[None]).abs().amax(-1) <= 1
            twin &= (some.scores[:, None] - other.scores[None]).abs() <= 0.01
            twin &= some.labels[:, None] == other.labels[None]
            lost += int((~twin.any(1)).sum())
    return lost / total if total else 0.0


def _strongest(found: Detections, count: int) -> Detections:
    keep = found.scores.argsort(descending=True, stable=True)[:count]
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])


def _check_candidates(look: Looker, pictures: Tensor, standing: Tensor) -> list[Precondition]:
    first = _candidates(look, pictures)
    second = _candidates(look, pictures)
    _candidates(look, standing)
    if first.logits.shape != second.logits.shape:
        jitter = float("inf")
    else:
        jitter = max(apart(first.logits, second.logits), apart(first.boxes, second.boxes))
    if jitter > JITTER:
        raise look.wrong(
            "the same candidates for the same images",
            f"a relative difference of {jitter:.2g} in a second call",
            "take the randomness out: eval(), no dropout, no sampled proposals, a fixed seed inside the call",
        )
    one = first.logits[:1].expand_as(first.logits), first.boxes[:1].expand_as(first.boxes)
    if max(apart(first.logits, one[0]), apart(first.boxes, one[1])) <= 1e-6:
        raise look.wrong(
            "candidates that depend on the image",
            "the same for a photograph, noise, a gradient and grey",
            "use the images that are handed in, not a stored picture or result",
        )
    facts = [
        look.fact(
            "same images, same candidates",
            jitter <= ARITHMETIC,
            jitter,
            f"at most {ARITHMETIC}",
            "largest relative difference between two calls on the tiny batch",
        )
    ]
    return facts + gradient_facts(look, lambda images: look.thing.candidates(images).logits, pictures[:2])


def _candidates(look: Looker, images: Tensor) -> Candidates:
    out = look.call(look.thing.candidates, images, gradient=True)
    boxes, logits = getattr(out, "boxes", None), getattr(out, "logits", None)
    if not isinstance(boxes, Tensor) or not isinstance(logits, Tensor):
        raise look.wrong(
            "candidates(images) as audit.contracts.Candidates(boxes, logits)",
            told(out),
            "return one for the whole batch",
        )
    n, k = len(images), len(look.thing.classes)
    boxes = look.tensor(boxes, "candidate boxes", (n, None, 4), f"({n}, A, 4)")
    words = f"({n}, {boxes.shape[1]}, {k}), one per box and class"
    logits = look.tensor(logits, "candidate logits", (n, boxes.shape[1], k), words)
    if boxes.shape[1] == 0:
        raise look.wrong("candidates before suppression", "none at all", "hand on every anchor or cell of the model")
    look.finite(boxes, "candidate boxes")
    look.finite(logits, "candidate logits")
    if not logits.requires_grad:
        raise look.wrong(
            "candidates that are differentiable in the images",
            "logits without gradient",
            "remove no_grad(), detach() and numpy from the way, or leave `candidates` out to be attacked by queries",
        )
    low, high = float(logits.detach().min()), float(logits.detach().max())
    if logits.numel() >= 16 and low >= 0 and high <= 1 and high > low:
        raise look.wrong(
            "candidate logits as log-odds",
            f"values from {low:.3g} to {high:.3g}, as probabilities are",
            "hand on the model's own logits, before the sigmoid or softmax",
        )
    _in_pixels(look, boxes.detach().flatten(0, 1), (images.shape[2], images.shape[3]), "candidate boxes")
    return Candidates(boxes.detach(), logits.detach())
