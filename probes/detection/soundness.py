"""The measurements behind the diagnostics of a trained patch, on a few craft images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audit.contracts import Candidates, WhiteBoxDetector
from audit.execution import Execution
from audit.record import Diagnostic
from probes import diagnostics
from probes.detection.controls import FacePatch, GreyPatch, NoisePatch
from probes.detection.craftset import CraftSet, Placed, height_under
from probes.detection.objectives import Objective, Targets, best_overlap
from probes.detection.patch import Patch
from probes.detection.random_search import best_scores, scores_under, search, stripes
from probes.geometry import COVER, uv_map
from probes.probe import generator

if TYPE_CHECKING:
    from probes.detection.universal import Course

STEP = 0.1 / 255
"""Small: over a whole grey level the scores of some detectors are anything but linear in a patch."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the checks run on: one group of craft images with candidates chosen once."""

    detector: WhiteBoxDetector
    parts: tuple[Placed, ...]
    objective: Objective
    execution: Execution

    def height(self, pixels: Tensor) -> float:
        """What is left to bring down under an 8-bit patch, per object of the sample."""
        return height_under(self.detector, self.parts, pixels, self.objective, self.execution)


def examine(
    detector: WhiteBoxDetector,
    objective: Objective,
    craft: CraftSet,
    patch: Patch,
    start: Tensor,
    course: Course,
    *,
    queries: int,
    seed: int,
    alone: bool = True,
) -> list[Diagnostic]:
    """All diagnostics of a trained patch.

    Args:
        patch: the one that was trained. start: uint8 pixels that it started from. course: what happened on the way.
        queries: for the search without gradients, at most. alone: whether it was trained on this detector alone; a
            patch against several gives way on each, and a search on one says nothing of it.
    """
    sample = Sample(detector, craft.group(craft.largest), objective, craft.execution)
    first, dead, images = _gradient(sample, start)
    second, *_ = _gradient(sample, start)
    found = [
        diagnostics.gradient_zero_steps(
            course.zero, course.broken, len(course.loss), settled=_settled(sample, course, patch, queries, seed)
        ),
        diagnostics.gradient_zero_images(dead, images),
        diagnostics.gradients_agree(_cosine(first, second)),
        diagnostics.gradient_predicts(_predicted(sample, start, first)),
        diagnostics.results_agree(_difference(sample, start)),
        diagnostics.candidates_match(max(_mismatch(sample, patch.pixels), _mismatch(sample, start))),
        diagnostics.loss_fell(course.height[0], min(course.height)),
        diagnostics.still_falling(course.checked, course.height),
    ]
    if alone:
        found.append(_without_gradients(sample, craft, patch, start, queries, seed))
    if objective.hides:
        found += [
            diagnostics.attacks_what_is_found(course.height[0], _found(sample, start)),
            diagnostics.unbounded_succeeds(_unbounded(sample, patch, craft, seed)),
        ]
    return diagnostics.excuse_silence(found, _response(sample, [patch.pixels, start, *_plain(patch)]))


def _on_boxes(candidates: Candidates, targets: Targets, least: float) -> tuple[Tensor, Tensor]:
    """Log-odds (G,) of all candidates with IoU > ``least`` on a true box, in its class; (G,) n·B + b of that box."""
    image = _images(candidates.boxes)
    overlap, which = best_overlap(candidates.boxes.detach().flatten(0, 1), targets.boxes, targets.valid, image)
    on = overlap > least
    image, which = image[on], which[on]
    z = candidates.logits.flatten(0, 1)[on].gather(1, targets.labels[image, which][:, None])[:, 0].float()
    return z, image * targets.boxes.shape[1] + which


def _evidence(candidates: Candidates, targets: Targets) -> tuple[Tensor, Tensor]:
    """How surely the boxes are found, Σ over boxes of log Σ exp of the candidates on it; (N,) which images count."""
    z, slot = _on_boxes(candidates, targets, 0.5)
    n, most = targets.valid.shape
    top = torch.full((n * most,), -math.inf, device=z.device).scatter_reduce(0, slot, z.detach(), "amax")
    total = torch.zeros(n * most, device=z.device).index_add(0, slot, (z - top[slot]).exp())
    some = total.detach() > 0
    evidence = (top[some] + total[some].log()).sum()
    return evidence, some.view(n, most).any(1)


def _images(boxes: Tensor) -> Tensor:
    return torch.arange(boxes.shape[0], device=boxes.device).repeat_interleave(boxes.shape[1])


def _gradient(sample: Sample, pixels: Tensor) -> tuple[Tensor, int, int]:
    """Gradient (3, P, P) of the evidence for all boxes; images from which none came, of how many that should."""
    value = (pixels.to(sample.execution.device).float() / 255).requires_grad_()
    total, dead, count = torch.zeros_like(value), 0, 0
    for part in sample.parts:
        placed = part.where.place(part.images, value)
        images = placed.detach().requires_grad_()
        with sample.execution.autocast():
            candidates = sample.detector.candidates(images)
        evidence, asked = _evidence(candidates, part.targets)
        count += int(asked.sum())
        if not evidence.requires_grad:
            dead += int(asked.sum())
            continue
        (back,) = torch.autograd.grad(evidence, images, allow_unused=True)
        back = torch.zeros_like(images) if back is None else back
        dead += int((asked & ~_alive(back, part)).sum())
        (gradient,) = torch.autograd.grad(placed, value, back.nan_to_num(0.0, 0.0, 0.0))
        total = total + gradient
    return total, dead, count


def _alive(back: Tensor, part: Placed) -> Tensor:
    """(N,) whether a gradient that is finite and not zero reached the covered pixels of each image."""
    n, height, width = part.where.shape
    plane = height * width
    at = back.movedim(1, -1).reshape(n * plane, -1)[part.where.pixel]
    image = part.where.pixel // plane
    some = torch.zeros(n, dtype=torch.long, device=back.device).index_add(0, image, at.ne(0).any(1).long())
    broken = torch.zeros(n, dtype=torch.long, device=back.device).index_add(0, image, (~at.isfinite()).any(1).long())
    return (some > 0) & (broken == 0)


def _cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two gradients; NaN where one is zero or not finite."""
    a, b = a.flatten().double(), b.flatten().double()
    return float((a / a.norm()) @ (b / b.norm()))


def _predicted(sample: Sample, pixels: Tensor, gradient: Tensor) -> float:
    """Change of the evidence over one small step both ways along the gradient's sign, over the change foretold."""
    value = pixels.to(gradient.device).float() / 255
    way = gradient.sign() * STEP
    found = []
    for at in (value + way, value - way):
        total = 0.0
        with torch.no_grad():
            for part in sample.parts:
                with sample.execution.autocast():
                    candidates = sample.detector.candidates(part.where.place(part.images, at))
                total += float(_evidence(candidates, part.targets)[0])
        found.append(total)
    foretold = 2 * STEP * float(gradient.abs().sum())
    return (found[0] - found[1]) / foretold if foretold > 0 else math.nan


def _difference(sample: Sample, pixels: Tensor) -> float:
    """Largest difference of a candidate's score between two runs; 1 where the shapes differ."""
    value, worst = pixels.to(sample.execution.device).float() / 255, 0.0
    with torch.inference_mode():
        for part in sample.parts:
            images = part.where.place(part.images, value)
            with sample.execution.autocast():
                one, two = (sample.detector.candidates(images).logits.float().sigmoid() for _ in range(2))
            change = (one - two).abs().max() if one.shape == two.shape else one.new_tensor(1.0)
            if not bool(change.isfinite()):
                return 1.0
            worst = max(worst, float(change))
    return worst


def _found(sample: Sample, pixels: Tensor) -> float:
    """Share of the objects that are found under a patch at the owner's threshold."""
    scores = scores_under(sample.detector, sample.parts, pixels, sample.execution)
    return float((scores >= sample.detector.score_threshold).float().mean()) if len(scores) else 0.0


def _response(sample: Sample, patches: Sequence[Tensor]) -> float:
    """Largest change of a candidate's log-odds between patches; infinite where candidates come and go."""
    worst = 0.0
    with torch.inference_mode():
        for part in sample.parts:
            seen: list[Tensor] = []
            for pixels in patches:
                value = pixels.to(sample.execution.device).float() / 255
                with sample.execution.autocast():
                    seen.append(sample.detector.candidates(part.where.place(part.images, value)).logits.float())
            if any(s.shape != seen[0].shape for s in seen):
                return math.inf
            change = (torch.stack(seen[1:]) - seen[0]).abs().max()
            if not bool(change.isfinite()):  # max() of Python would pass over a NaN
                return math.inf
            worst = max(worst, float(change))
    return worst


def _plain(patch: Patch) -> list[Tensor]:
    """Black, white and grey of the patch's size."""
    return [torch.full_like(patch.pixels, level) for level in (0, 128, 255)]


def _settled(sample: Sample, course: Course, patch: Patch, queries: int, seed: int) -> bool:
    """Whether random changes of the trained patch find nothing better; asked only where gradients were zero."""
    if not course.zero or not queries:
        return False

    _, curve = search(
        patch.pixels, lambda pixels, _: sample.height(pixels), queries, generator("soundness settled", seed)
    )
    return curve[0] - min(curve) <= diagnostics.SETTLED * curve[0]


def _without_gradients(
    sample: Sample, craft: CraftSet, patch: Patch, start: Tensor, queries: int, seed: int
) -> Diagnostic:
    """The trained patch against unoptimised ones and a short random search, by the same height on the same images."""
    size = patch.pixels.shape[1]
    others = {
        "noise": NoisePatch(size=size).pixels(craft.scenes, seed),
        "grey": GreyPatch(size=size).pixels(craft.scenes, seed),
        "real object": FacePatch(size=size).pixels(craft.scenes, seed),
        "stripes": stripes(size, generator("soundness", seed)),
        "its start": start,
    }
    heights = {name: sample.height(pixels) for name, pixels in others.items()}
    if queries:
        best = min(others, key=lambda name: heights[name])
        stream = generator("soundness search", seed)
        _, curve = search(others[best], lambda pixels, _: sample.height(pixels), queries, stream)
        heights["random search"] = min(curve)
    return diagnostics.query_wins(sample.height(patch.pixels), heights)


def _mismatch(sample: Sample, pixels: Tensor) -> float:
    """Share of the objects that the detector finds although no candidate on them reaches its threshold."""
    value, wrong, count = pixels.to(sample.execution.device).float() / 255, 0, 0
    threshold = sample.detector.score_threshold
    for part in sample.parts:
        with torch.inference_mode():
            images = part.where.place(part.images, value)
            with sample.execution.autocast():
                candidates = sample.detector.candidates(images)
            # Detections may be clipped to the image, candidates need not be: hence the looser match.
            z, slot = _on_boxes(candidates, part.targets, 0.4)
        top = torch.full((part.targets.valid.numel(),), -math.inf, device=z.device).scatter_reduce(0, slot, z, "amax")
        shown = top.view_as(part.targets.valid)[part.targets.valid].sigmoid().cpu()
        found = best_scores(sample.execution.detect(sample.detector, images), part.boxes, part.labels)
        wrong += int(((found >= threshold) & (shown < threshold - diagnostics.SAME_RESULT)).sum())
        count += len(found)
    return wrong / max(1, count)


def _unbounded(sample: Sample, patch: Patch, craft: CraftSet, seed: int) -> float:
    """Lowest share of objects found with the trained, a grey or a noise patch over the whole of each."""
    parts = []
    for part in sample.parts:
        size = (part.images.shape[2], part.images.shape[3])
        parts.append(Placed(part.images, uv_map(part.boxes, COVER, size), part.targets, part.boxes, part.labels))
    lowest = 1.0
    side = patch.pixels.shape[1]
    for pixels in (
        patch.pixels,
        GreyPatch(size=side).pixels(craft.scenes, seed),
        NoisePatch(size=side).pixels(craft.scenes, seed),
    ):
        scores = scores_under(sample.detector, parts, pixels, sample.execution)
        lowest = min(lowest, float((scores >= sample.detector.score_threshold).float().mean()))
        if lowest <= diagnostics.UNBOUNDED:
            break
    return lowest
