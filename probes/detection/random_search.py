"""A patch by trial and error, for detectors that only answer: random squares, kept where the objects are found less.

After the square attack (Andriushchenko et al. 2020) and Sparse-RS (Croce et al. 2022), with one patch for all objects:
a proposal overwrites a random square of the patch with one colour, mostly a corner of the colour cube, and the squares
shrink as the queries are spent. The images that are asked change from round to round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.errors import AuditError
from probes.detection.queries import Questions, best_scores, log_odds, scores_under, wearing
from probes.detection.query_patch import QueryPatch, begin, stripes

__all__ = ["RandomSearchPatch", "best_scores", "log_odds", "scores_under", "search", "stripes"]

ROUNDS = 25
"""Proposals on one group of images before the search moves on to the next."""


def search(
    start: Tensor, loss: Callable[[Tensor, int], float], queries: int, stream: torch.Generator
) -> tuple[Tensor, list[float]]:
    """Random search over 8-bit patches.

    Args:
        start: uint8 (3, P, Q). loss: of a patch at a given round; the round changes every ``ROUNDS`` queries.
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
        candidate = proposal(best, query / max(1, queries), stream)
        value = loss(candidate, turn)
        if value < lowest:
            best, lowest = candidate, value
        curve.append(lowest)
    return best, curve


@dataclass(frozen=True, repr=False)
class RandomSearchPatch(QueryPatch):
    """A universal patch found by random changes that are kept where they help.

    Args:
        population: proposals that are asked about together, in one call as far as memory is bounded; the best of them
            is kept. Late in a search most proposals help nothing, and little is lost by asking about some at once.
    """

    population: int = 4

    kind: ClassVar[str] = "random search"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population < 1:
            raise AuditError(
                "population of a query attack",
                expected="at least 1",
                got=repr(self.population),
                mend="correct it in the probe",
            )

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"population": self.population}

    def seek(self, asked: Questions, stream: torch.Generator, tell: Callable[[], None]) -> None:
        groups = len(asked.craft.groups)
        best = begin(asked, self.shape, stream)
        turn = 0
        while asked.affords(2, asked.craft.group(turn % groups)):
            parts = asked.craft.group(turn % groups)
            (lowest,) = asked.losses([wearing(best)], parts)
            for _ in range(max(1, ROUNDS // self.population)):
                if asked.due:
                    asked.check(best)
                if not asked.affords(self.population, parts):
                    break
                done = asked.sent / asked.limit
                some = [proposal(best, done, stream) for _ in range(self.population)]
                values = asked.losses([wearing(p) for p in some], parts)
                first = min(range(len(some)), key=values.__getitem__)
                # Where only found or not found is told, most changes change nothing: standing still would be the end.
                if values[first] < lowest or (self.feedback == "decision" and values[first] == lowest):
                    best, lowest = some[first], values[first]
            turn += 1
            tell()
        asked.check(best)


def proposal(patch: Tensor, done: float, stream: torch.Generator) -> Tensor:
    """The patch with one random rectangle, or a stripe through all of it, in one colour; smaller with ``done``."""
    rows, columns = patch.shape[1:]
    share = 0.5 * (1 - done) ** 2 + 0.03
    height, width = (max(1, round(n * share)) for n in (rows, columns))
    y = int(torch.randint(rows - height + 1, (1,), generator=stream))
    x = int(torch.randint(columns - width + 1, (1,), generator=stream))
    kind = float(torch.rand((), generator=stream))
    down = slice(None) if kind < 0.1 else slice(y, y + height)
    across = slice(None) if 0.1 <= kind < 0.2 else slice(x, x + width)
    colour = torch.randint(0, 2, (3, 1, 1), generator=stream) * 255
    out = patch.clone()
    out[:, down, across] = colour.to(torch.uint8)
    return out
