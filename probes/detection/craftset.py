"""The craft split, made ready for the steps of an optimiser: batched, placed and targeted once, then only reused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.contracts import Areas, WhiteBoxDetector
from audit.data.scenes import Scene, Scenes
from audit.execution import Execution
from probes.areas import AreaPlacement
from probes.detection.objectives import Objective, Targets
from probes.detection.views import VIEWS, squared, view
from probes.physical import EOT
from probes.probe import generator, with_objects
from probes.wear import Wear, Worn

KEEP_BYTES = 2 * 1024**3
"""Decoded batches are kept between steps up to this size; beyond it they are decoded again."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Images of one size with everything about them that no step changes."""

    images: Tensor
    where: Worn
    targets: Targets
    boxes: list[Tensor]
    labels: list[Tensor]
    areas: list[Areas] | None = None


class CraftSet:
    """Scenes in the groups that one step works on.

    A group has ``batch`` images (the last one may have fewer). Images of one size run together; where sizes differ a
    group runs in several parts, so that a step always sees as many images, whatever their sizes.

    Args:
        scenes: the craft split; images without an object are left out, there is nowhere to put a patch.
        seed: decides which images share a group, and the order of the groups in each epoch.
        realism: what is drawn for each object in every view but the first.
        both: views also come as a square, stretched or with a border, as the two usual pre-processings make them.
    """

    def __init__(
        self,
        scenes: Scenes,
        placement: Wear,
        execution: Execution,
        *,
        batch: int,
        seed: int,
        realism: EOT | None = None,
        both: bool = False,
    ) -> None:
        self.scenes = with_objects(scenes)
        self.placement, self.execution, self.seed = placement, execution, seed
        self.realism, self.both = realism, both
        self.stream = generator("craft set", seed)
        self.classes = sorted({int(c) for s in self.scenes for c in s.labels[~s.ignore]} | set(scenes.targets))
        self.groups = self._grouped(batch)
        self._ready: dict[tuple[int, int], tuple[Placed, ...]] = {}
        self._kept = 0

    @property
    def largest(self) -> int:
        """Index of the group with most images."""
        return max(range(len(self.groups)), key=lambda i: len(self.groups[i]))

    def steps(self, count: int) -> Iterator[tuple[Placed, ...]]:
        """``count`` groups, each epoch in a new order."""
        order: list[int] = []
        for step in range(count):
            if not order:
                order = torch.randperm(len(self.groups), generator=self.stream).tolist()
            yield self.group(order.pop(), step // len(self.groups) % VIEWS)

    def group(self, index: int, variant: int = 0) -> tuple[Placed, ...]:
        """The parts of one group; variant 0 shows the images as they are, others as ``views`` changes them."""
        if (index, variant) in self._ready:
            return self._ready[index, variant]
        parts: dict[tuple[int, int], list[Scene]] = defaultdict(list)
        for scene in self.groups[index]:
            parts[scene.size].append(scene)
        stream = generator("view", self.seed, index, variant) if variant else None
        # Kept beyond the call that asks first, which may be a measuring one whose tensors autograd refuses.
        with torch.inference_mode(False), torch.no_grad():
            ready = tuple(self._placed(part, stream, variant) for part in parts.values())
        size = sum(part.images.nbytes for part in ready)
        if self._kept + size <= KEEP_BYTES:
            self._ready[index, variant] = ready
            self._kept += size
        return ready

    def sample(self, images: int) -> Iterator[Placed]:
        """Parts of the first groups with at least ``images`` images (all, if there are fewer): always the same."""
        seen = 0
        for index in range(len(self.groups)):
            if seen >= images:
                return
            yield from self.group(index)
            seen += len(self.groups[index])

    def _placed(self, scenes: Sequence[Scene], stream: torch.Generator | None, variant: int) -> Placed:
        batch = self.execution.batch(scenes)
        images, boxes, worn, areas = batch.images, batch.boxes, batch.boxes, batch.areas
        if stream is not None:
            images, boxes, worn, areas = view(images, boxes, stream, areas)
        if self.both and variant % 3:
            images, boxes, worn, areas = squared(images, boxes, worn, areas, stretch=variant % 3 == 1)
        where = self._where(images, worn, areas, stream)
        targets = Targets.of(boxes, batch.labels, self.placement, self.classes, worn=worn, areas=areas)
        return Placed(images, where, targets, boxes, batch.labels, areas)

    def _where(
        self, images: Tensor, worn: list[Tensor], areas: list[Areas] | None, stream: torch.Generator | None
    ) -> Worn:
        if self.realism is None or stream is None or not isinstance(self.placement, AreaPlacement):
            return self.placement.prepare(images, worn, areas)
        draw = self.realism.draw(stream, sum(len(b) for b in worn), len(images))
        return self.placement.prepare(images, worn, areas, draw)

    def _grouped(self, batch: int) -> list[list[Scene]]:
        """Full groups of one size first, the rest mixed; then in a random order."""
        sizes: dict[tuple[int, int], list[Scene]] = defaultdict(list)
        for scene in sorted(self.scenes, key=lambda s: s.id):
            sizes[scene.size].append(scene)
        groups: list[list[Scene]] = []
        rest: list[Scene] = []
        for _, bucket in sorted(sizes.items()):
            mixed = [bucket[i] for i in torch.randperm(len(bucket), generator=self.stream)]
            whole = len(mixed) // batch * batch
            groups += [mixed[i : i + batch] for i in range(0, whole, batch)]
            rest += mixed[whole:]
        groups += [rest[i : i + batch] for i in range(0, len(rest), batch)]
        return [groups[i] for i in torch.randperm(len(groups), generator=self.stream)]


def height_under(
    detector: WhiteBoxDetector, parts: Iterable[Placed], pixels: Tensor, objective: Objective, execution: Execution
) -> float:
    """What an objective has left to bring down under an 8-bit patch (3, P, P), per object; no gradient is taken."""
    value = pixels.to(execution.device).float() / 255
    total, count = 0.0, 0
    with torch.inference_mode():
        for part in parts:
            with execution.autocast():
                candidates = detector.candidates(part.where.place(part.images, value))
            height = objective.height(candidates, part.targets, detector.score_threshold)
            total, count = total + float(height) * part.targets.count, count + part.targets.count
    return total / max(1, count)
