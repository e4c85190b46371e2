"""An attack that only asks: squares of one colour set at random, kept where the score falls (Square Attack).

Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search", the L∞
variant: vertical stripes of ±ε first, then squares whose side shrinks on the paper's schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from audit.budget import Budget
from audit.errors import DataError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from audit.record import Diagnostic
from probes import diagnostics
from probes.forgery.additive import boxed, whole_levels
from probes.forgery.image_attack import require
from probes.forgery.image_rules import PixelBound
from probes.forgery.soundness import said
from probes.probe import Access, Progress, generator

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10 000 queries: after so many the share of the image that a square covers is halved (the paper's schedule)."""


@dataclass(frozen=True)
class SquareSearch:
    """Random search by squares, ``budget.queries`` questions per image or clip; what lowers the margin is kept.

    Attributes:
        epsilon: L∞ in [0, 1]. share: of the image that the first squares cover.
    """

    epsilon: float = 8 / 255
    share: float = 0.3

    goal: ClassVar[str] = "have a fake taken for real, or a real for fake, by asking alone"
    threat: ClassVar[str] = "May ask the model for its score of any image; knows nothing else of it."
    refs: ClassVar[tuple[str, ...]] = ("NISTAML.025", "AML.T0043.001")
    access: ClassVar[Access] = "query"

    def __post_init__(self) -> None:
        ok = whole_levels(self.epsilon) >= 1 >= self.epsilon and 0 < self.share <= 1
        expected = "1/255 <= ε <= 1, as images have whole levels, and 0 < share <= 1"
        require("square search", ok=ok, expected=expected, got=(self.epsilon, self.share))

    @property
    def name(self) -> str:
        return f"random squares by queries, ε = {255 * self.epsilon:g}/255"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside model, data, budget and seed, as JSON."""
        return {"probe": "square search", "epsilon": self.epsilon, "share": self.share}

    def rules(self) -> ImageRules:
        """The bound, checked by other code."""
        return PixelBound(self.epsilon)

    def side(self, query: int, queries: int, height: int, width: int) -> int:
        """Side in px of the squares of that query."""
        at = query * 10_000 / queries
        share: float = self.share / 2.0 ** sum(at > h for h in HALVINGS)
        return min(max(1, round(math.sqrt(share * height * width))), height, width)

    def craft(
        self,
        models: Sequence[ImageModel],
        attacked: Labelled,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Adversarial:
        """Changed images, the lowest margin of each that was seen; history ``margin``: what is left after each query.

        That is the mean over images, or clips, of max(m, 0), m the lowest margin so far.

        Raises:
            DataError: several models, or images that are no whole clips.
        """
        del execution
        if len(models) != 1 or len(attacked) % models[0].frames:
            raise DataError("square search", expected="one model and whole clips",
                            got=f"{len(models)} models, {len(attacked)} images", mend="ask one model")  # fmt: skip
        model, unit = models[0], models[0].frames
        images = attacked.images.clone()
        asked, left = 0, np.zeros(budget.queries + 1)
        clips = len(attacked) // unit
        for c in range(clips):
            part = slice(c * unit, (c + 1) * unit)
            images[part], course = self._search(model, attacked, part, budget.queries, seed)
            asked += len(course)
            # one that gave way is asked no more
            left += np.maximum(course + course[-1:] * (len(left) - len(course)), 0) / clips
            if progress is not None:
                progress((c + 1) / clips, self.name)
        mean = left.tolist() if clips else []
        details = {"queries": asked, "queries per image": round(asked / max(clips, 1), 1)}
        return Adversarial(images, {}, _health(mean) if mean else [], {"margin": mean}, details)

    def _search(
        self, model: ImageModel, attacked: Labelled, part: slice, queries: int, seed: int
    ) -> tuple[Tensor, list[float]]:
        """The best images, and the lowest margin so far after each question, that at the clean images first."""
        clean, label = attacked.images[part].float(), attacked.labels[part]
        stream = generator("square", seed, attacked.ids[part.start])
        most, (h, w) = whole_levels(self.epsilon), clean.shape[2:]

        def margin(levels: Tensor) -> float:
            outputs = torch.from_numpy(model.ask(levels.to(torch.uint8)))
            return float(np.mean(model.margin(outputs, label).numpy()))

        # all frames of a clip carry the same squares: what flickers is easily seen
        colours = torch.randint(0, 2, (1, 3, 1, w), generator=stream).float() * 2 - 1
        best, lowest = clean, margin(clean)
        course = [lowest]
        tried = boxed(clean + most * colours, clean, self.epsilon)
        for query in range(queries):
            if lowest < 0:
                break
            found = margin(tried)
            if found < lowest:
                best, lowest = tried, found
            course.append(lowest)
            side = self.side(query, queries, h, w)
            y = int(torch.randint(0, h - side + 1, (1,), generator=stream))
            x = int(torch.randint(0, w - side + 1, (1,), generator=stream))
            colour = torch.randint(0, 2, (1, 3, 1, 1), generator=stream).float() * 2 - 1
            at = (..., slice(y, y + side), slice(x, x + side))
            tried = best.clone()
            tried[at] = boxed(clean[at] + most * colour, clean[at], self.epsilon)
        return best.to(torch.uint8), course


def _health(left: list[float]) -> list[Diagnostic]:
    """Whether the search got anywhere, and whether more questions would have helped."""
    return [
        said(
            diagnostics.loss_fell(left[0], left[-1]),
            "The share of the way to a wrong decision that the search went, over all images; below the limit it found "
            "nothing, and says nothing of what a better one would find.",
        ),
        said(
            diagnostics.still_falling(range(len(left)), left),
            "The share of the whole fall of the margin that came in the last tenth of the queries; above the limit "
            "more queries would have attacked better.",
        ),
    ]
