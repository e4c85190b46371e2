"""A patch by an evolution strategy, for detectors that only answer: a cloud of patches moves where objects are lost.

The patch is a coarse grid of colours, drawn large. A normal distribution over grids, with one width per value, is moved
by the ranks of its samples (separable natural evolution strategy, Wierstra et al. 2014; Schaul et al. 2011): ranks
alone count, so that steps, plateaus and jumps in what the detector tells do no harm. Samples come in mirrored pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.errors import AuditError
from probes.detection.patch import Patch
from probes.detection.queries import Questions, wearing
from probes.detection.query_patch import QueryPatch, begin

WIDTH = 1.0
"""First standard deviation of a value; a colour is (1 + tanh value) / 2, so that most samples are of strong colours."""
BEGIN = 0.5
"""How far from 0 a value begins: the colour of the start, but pale enough to be moved."""
BOUND = 2.0
"""Beyond ± this a mean is not moved: the colour would hardly change, and the way back only grow."""


def utilities(losses: Tensor) -> Tensor:
    """(n,) weights of samples by rank, best (lowest loss) first: max(0, ln(n/2 + 1) − ln rank), made to sum to 1, less
    1/n. Equal losses share the mean of their weights, so that a plateau moves nothing.
    """
    n = len(losses)
    raw = (math.log(n / 2 + 1) - torch.arange(1, n + 1, dtype=torch.float64).log()).clamp(min=0)
    by_rank = raw / raw.sum() - 1 / n
    below = (losses[None] < losses[:, None]).sum(1)
    same = (losses[None] == losses[:, None]).sum(1)
    total = F.pad(by_rank.cumsum(0), (1, 0))
    return (total[below + same] - total[below]) / same


@dataclass(slots=True)
class Cloud:
    """A normal distribution with independent values, moved by the ranks of its samples.

    Attributes:
        mean: (D,) float64, in ± ``BOUND``. width: (D,) standard deviations. rate: of the mean.
    """

    mean: Tensor
    width: Tensor
    stream: torch.Generator
    rate: float = 1.0
    _drawn: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def ask(self, population: int) -> Tensor:
        """(population, D) samples in mirrored pairs; population is even."""
        half = torch.randn(population // 2, len(self.mean), generator=self.stream, dtype=torch.float64)
        self._drawn = torch.cat([half, -half])
        return self.mean + self.width * self._drawn

    def tell(self, losses: Tensor) -> None:
        """Moves towards the samples last drawn that had low losses (population,)."""
        weight = utilities(losses.double())
        size = len(self.mean)
        learn = (3 + math.log(size)) / (5 * math.sqrt(size))
        self.mean = (self.mean + self.rate * self.width * (weight @ self._drawn)).clamp(-BOUND, BOUND)
        self.width = self.width * torch.exp(learn / 2 * (weight @ (self._drawn.square() - 1)))


@dataclass(frozen=True, repr=False)
class EvolutionPatch(QueryPatch):
    """A universal patch found by an evolution strategy over a coarse grid of colours.

    Args:
        population: patches per generation, even; asked about together, in one call as far as memory is bounded.
        cells: cells of the grid along the shorter side.
    """

    images: int = 4
    population: int = 12
    cells: int = 5

    kind: ClassVar[str] = "evolution strategy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population < 2 or self.population % 2 or self.cells < 1:
            raise AuditError(
                "evolution strategy",
                expected="an even population of at least 2 and at least one cell",
                got=f"population {self.population!r}, cells {self.cells!r}",
                mend="correct it in the probe",
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells, about square ones, never more than texels."""
        rows, columns = self.shape
        cell = min(rows, columns) / min(self.cells, rows, columns)
        return max(1, round(rows / cell)), max(1, round(columns / cell))

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"population": self.population, "cells": self.cells}

    def seek(self, asked: Questions, stream: torch.Generator, tell: Callable[[], None]) -> None:
        start = begin(asked, self.shape, stream)
        coarse = F.adaptive_avg_pool2d(start[None].double() / 255, self.grid).flatten()
        cloud = Cloud((2 * coarse - 1) * BEGIN, torch.full_like(coarse, WIDTH), stream)
        best, turn = start, 0
        while True:
            if asked.due:
                asked.check(best)
            parts = asked.craft.group(turn % len(asked.craft.groups))
            if not asked.affords(self.population, parts):
                break
            drawn = [self.drawn(x) for x in cloud.ask(self.population)]
            cloud.tell(torch.tensor(asked.losses([wearing(p) for p in drawn], parts)))
            best = self.drawn(cloud.mean)
            turn += 1
            tell()
        asked.check(best)

    def drawn(self, values: Tensor) -> Tensor:
        """uint8 (3, P, Q) of the flat values of a grid, any real numbers."""
        grid = (1 + values.tanh()).view(1, 3, *self.grid) / 2
        return Patch.rounded(F.interpolate(grid, size=self.shape, mode="bilinear", align_corners=False)[0])
