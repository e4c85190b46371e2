"""A patch by trial and error, for detectors that only answer: random squares, kept where the objects are found less.

After the square attack (Andriushchenko et al. 2020) and Sparse-RS (Croce et al. 2022), with one patch for all objects:
a proposal overwrites a random square of the patch with one colour from the corners of the colour cube, and the squares
shrink as the queries are spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.contracts import Detections, Detector
from audit.data.scenes import Scenes
from audit.execution import Execution
from audit.record import Diagnostic
from probes import diagnostics
from probes.detection.craftset import CraftSet, Placed
from probes.detection.patch import Patch
from probes.geometry import COVER, TOP, Placement, place, uv_map
from probes.probe import Access, Progress, frozen, generator

MATCH_IOU = 0.5
ROUNDS = 25
"""Queries on one group of images before the search moves on to the next."""


def best_scores(found: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """(ΣK,) score of the best detection of the right class on each box, IoU >= 0.5; 0 where there is none."""
    out = []
    for d, on_device, label in zip(found, boxes, labels, strict=True):
        box = on_device.cpu().float()
        low = torch.maximum(box[:, None, :2], d.boxes[None, :, :2])
        high = torch.minimum(box[:, None, 2:], d.boxes[None, :, 2:])
        inter = (high - low).clamp(min=0).prod(-1)
        area = (box[:, 2:] - box[:, :2]).prod(-1)[:, None] + (d.boxes[:, 2:] - d.boxes[:, :2]).clamp(min=0).prod(-1)
        on = (inter / (area - inter).clamp(min=1e-9) >= MATCH_IOU) & (label.cpu()[:, None] == d.labels)
        score = torch.where(on, d.scores.float(), torch.zeros(()))
        out.append(torch.cat([score, torch.zeros(len(box), 1)], 1).amax(1))
    return torch.cat(out) if out else torch.zeros(0)


def log_odds(scores: Tensor) -> float:
    """Mean log-odds of scores, each cut to [1e-3, 1 − 1e-6]: what is not reported counts as 1e-3."""
    return float(torch.logit(scores.double().clamp(1e-3, 1 - 1e-6)).mean()) if len(scores) else 0.0


def scores_under(detector: Detector, parts: Sequence[Placed], pixels: Tensor, execution: Execution) -> Tensor:
    """(ΣK,) scores with which the objects of some groups are found under an 8-bit patch: one query per part."""
    value = pixels.to(execution.device).float() / 255
    out = []
    for part in parts:
        with torch.no_grad():
            images = place(part.images, value, part.where)
        out.append(best_scores(execution.detect(detector, images), part.boxes, part.labels))
    return torch.cat(out) if out else torch.zeros(0)


def search(
    start: Tensor, loss: Callable[[Tensor, int], float], queries: int, stream: torch.Generator
) -> tuple[Tensor, list[float]]:
    """Random search over 8-bit patches.

    Args:
        start: uint8 (3, P, P). loss: of a patch at a given round; the round changes every ``ROUNDS`` queries.
        queries: how often ``loss`` may be asked.

    Returns:
        the best patch, and the best loss after each query (it may rise where a new round brings new images).
    """
    best, curve, lowest, turn = start, [], float("inf"), -1
    for query in range(queries):
        if query // ROUNDS != turn:
            turn = query // ROUNDS
            lowest = loss(best, turn)
            curve.append(lowest)
            continue
        proposal = _proposal(best, query / max(1, queries), stream)
        value = loss(proposal, turn)
        if value < lowest:
            best, lowest = proposal, value
        curve.append(lowest)
    return best, curve


@dataclass(frozen=True, repr=False)
class RandomSearchPatch:
    """A universal patch found by queries alone, ``budget.queries`` of them on ``budget.batch`` images each.

    A query is one call of the detector on one group of craft images; only final detections are read. The loss is the
    mean log-odds of the best score on each true box.
    """

    placement: Placement = TOP
    size: int = 48

    goal: ClassVar[str] = "Hide the object from the detector with one printed patch that works on every object"
    threat: ClassVar[str] = "Somebody who may ask the detector as often as the budget says, and sees boxes and scores"
    refs: ClassVar[tuple[str, ...]] = ("NISTAML.022", "AML.T0043.001")
    access: ClassVar[Access] = "query"
    load = staticmethod(Patch.load)

    @property
    def name(self) -> str:
        """A few words for the report."""
        return f"patch by random search, {self.placement}"

    def __repr__(self) -> str:
        return f"RandomSearchPatch({self.placement})"

    def spec(self) -> dict[str, Any]:
        """All that determines the patch beside model, data, budget and seed."""
        place = self.placement
        return {
            "probe": "RandomSearchPatch",
            "version": 1,
            "placement": [place.position, place.alpha, place.remove],
            "size": self.size,
        }

    def craft(
        self,
        detector: Detector,
        scenes: Scenes,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Patch:
        """The patch after ``budget.queries`` queries; its history holds the loss after each.

        Raises:
            DataError: no object to put a patch on.
        """
        craft = CraftSet(scenes, self.placement, execution, batch=budget.batch, seed=seed)
        stream = generator("random search", seed)

        def loss(pixels: Tensor, turn: int) -> float:
            if progress:
                progress(min(1.0, turn * ROUNDS / max(1, budget.queries)), self.name)
            group = craft.group(turn % len(craft.groups))
            return log_odds(scores_under(detector, group, pixels, execution))

        with frozen(detector):
            plain = starts(self.size, stream)[: max(1, budget.queries)]
            losses = [loss(p, 0) for p in plain]
            lowest = min(range(len(plain)), key=lambda i: losses[i])
            pixels, curve = search(plain[lowest], loss, budget.queries - len(plain), stream)
            curve = [min(losses[: i + 1]) for i in range(len(losses))] + curve
            health = _health(detector, craft, pixels)
        if progress:
            progress(1.0, self.name)
        return Patch(
            pixels,
            self.placement,
            self.name,
            self.spec() | {"seed": seed, "budget": [budget.queries, budget.batch]},
            diagnostics=health,
            history={"query": [float(i + 1) for i in range(len(curve))], "loss": curve},
        )


def _health(detector: Detector, craft: CraftSet, pixels: Tensor) -> list[Diagnostic]:
    """Whether the detector answers alike twice, and loses an object that is covered whole."""
    parts = craft.group(craft.largest)
    one, two = (scores_under(detector, parts, pixels, craft.execution) for _ in range(2))
    whole = []
    for part in parts:
        size = (part.images.shape[2], part.images.shape[3])
        whole.append(Placed(part.images, uv_map(part.boxes, COVER, size), part.targets, part.boxes, part.labels))
    covered = scores_under(detector, whole, torch.full_like(pixels, 128), craft.execution)
    found = float((covered >= detector.score_threshold).float().mean()) if len(covered) else 1.0
    difference = float((one - two).abs().max()) if len(one) else 0.0
    return [diagnostics.results_agree(difference), diagnostics.unbounded_succeeds(found)]


def starts(size: int, stream: torch.Generator) -> list[Tensor]:
    """Where a search may begin: stripes, and each corner of the colour cube as a plain patch."""
    corners = torch.tensor([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=torch.uint8)
    return [stripes(size, stream), *(c[:, None, None].expand(3, size, size).contiguous() for c in corners)]


def stripes(size: int, stream: torch.Generator) -> Tensor:
    """uint8 (3, size, size): columns in random corners of the colour cube, the square attack's start."""
    row = torch.randint(0, 2, (3, 1, size), generator=stream) * 255
    return row.expand(3, size, size).to(torch.uint8).contiguous()


def _proposal(patch: Tensor, done: float, stream: torch.Generator) -> Tensor:
    """The patch with one random square, or a stripe through all of it, in one colour."""
    size = patch.shape[1]
    side = max(1, round(size * (0.5 * (1 - done) ** 2 + 0.03)))
    y, x = (int(torch.randint(size - side + 1, (1,), generator=stream)) for _ in range(2))
    kind = float(torch.rand((), generator=stream))
    rows = slice(None) if kind < 0.1 else slice(y, y + side)
    columns = slice(None) if 0.1 <= kind < 0.2 else slice(x, x + side)
    colour = torch.randint(0, 2, (3, 1, 1), generator=stream) * 255
    out = patch.clone()
    out[:, rows, columns] = colour.to(torch.uint8)
    return out
