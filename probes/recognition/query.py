"""An attack that only sees how alike two faces are found: random squares, kept where the score moves the right way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.comparison import Comparison
from audit.errors import AuditError
from audit.execution import Execution
from probes.probe import Access, Progress
from probes.recognition.asking import Asking, never_began, still_gaining
from probes.recognition.examples import Attacked, Examples
from probes.recognition.masks import Mask, wear
from probes.recognition.placing import Numbers, onto, to_bytes
from probes.recognition.squares import DRAWS, Places, propose, side, window

LENT, STARTS = 3, 6
"""What is tried first: three donor's parts, and three drawings of stripes."""
POINTS = 100
"""Of the curve of success against queries."""
MOVED = 1e-6
"""Of the margin beyond the first; less is none."""
LATE_RISE = 0.02
"""Of the margin in the last tenth of the queries; less is no progress worth the name."""


@dataclass(frozen=True, repr=False)
class QueryFace:
    """Random search on similarity scores, one patch per pair.

    Starts from the best of vertical stripes and of a donor's own part of the face, pasted where the mask is: the
    target's where the attack impersonates, somebody else's from the background where it dodges. Then squares of the
    patch are changed, at first large ones, and a change is kept where the margin of the model that is least fooled
    grows. A pair is done, and asked no further, once its margin is ``beyond``.

    Args:
        mask: where the patch may be. queries: comparisons per pair at most; ``None`` takes the budget's.
        square: share of the mask's area that the first squares cover. beyond: margin at which a pair is done.
    """

    mask: Mask
    queries: int | None = None
    square: float = 0.4
    beyond: float = 0.01

    goal: ClassVar[str] = "Be taken for somebody else, or not be recognised, with a patch worn in the face"
    threat: ClassVar[str] = (
        "Somebody who may compare photographs as often as the budget says and sees the similarity scores; photographs "
        "of the target are public, gradients and embeddings are not seen"
    )
    refs: ClassVar[tuple[str, ...]] = ("000 §4.1", "NISTAML.022", "AML.T0043.001")
    access: ClassVar[Access] = "query"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if (self.queries is not None and self.queries < 1) or not 0 < self.square <= 1 or not self.beyond >= 0:
            raise AuditError(
                "options of QueryFace",
                expected="queries of at least 1, a square in (0, 1], beyond of at least 0",
                got=f"queries {self.queries}, square {self.square:g}, beyond {self.beyond:g}",
                mend="correct them in the probe",
            )

    @property
    def name(self) -> str:
        """A few words for the report."""
        return f"patch by queries for scores, {self.mask}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mask})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, pairs, budget and seed, as JSON."""
        return {
            "probe": type(self).__name__,
            "version": self.version,
            "mask": self.mask.spec(),
            "queries": self.queries,
            "square": self.square,
            "beyond": self.beyond,
        }

    def craft(
        self,
        models: Sequence[Comparison],
        attacked: Attacked,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Examples:
        """The best 8-bit photograph seen of every pair.

        History: ``queries`` and, after so many comparisons per pair, ``success`` (share of pairs) and ``margin``
        (mean). Details: ``asked``, comparisons of each pair.
        """
        device = execution.device
        limit = (self.queries or budget.queries) // max(1, len(models))
        asking = Asking(models, attacked, budget.batch)
        numbers = Numbers(seed, attacked.sources.ids, attacked.targets.ids)
        sources = attacked.sources.images.to(device)
        masks = self.mask.photo_masks(attacked.sources.landmarks, attacked.sources.size).to(device)
        places = Places(masks)
        lent = [donors_of(attacked, numbers, which) for which in range(LENT)]
        donors = None if lent[0] is None else lent[0].to(device)
        count = len(sources)
        every = torch.arange(count)
        best, margin = sources.clone(), torch.full((count,), -torch.inf)
        first = margin
        curve = _Curve(limit, len(models))
        for turn in range(limit):
            open_ = every[margin < self.beyond] if self.beyond > 0 else every[~asking.succeeds(margin)]
            if not len(open_):
                break
            at = open_.to(device)
            if turn < STARTS:
                part = lent[turn] if turn < LENT else None
                patches = stripes(turn, places, sources.shape, numbers, at) if part is None else part.to(device)[at]
            else:
                drawn = numbers.uniform(turn, DRAWS, open_)
                y, x = places.draw(at, drawn[:, 9])
                square = window(y, x, side(places.area[at], self.square, turn / limit), attacked.sources.size)
                patches = propose(best[at], None if donors is None else donors[at], square & masks[at], drawn)
            images = wear(sources[at], patches.float() / 255, masks[at])
            found = asking.margins(images, open_)
            better = found > margin[open_]
            best[at[better.to(device)]] = images[better.to(device)]
            margin[open_[better]] = found[better]
            if turn < STARTS and part is not None and donors is not None:
                donors[at[better.to(device)]] = part.to(device)[at[better.to(device)]]
            first = first if turn else margin.clone()
            curve.add(turn, margin, asking.succeeds(margin))
            if progress:
                progress((turn + 1) / limit, self.name)
        if progress:
            progress(1.0, self.name)
        curve.close(margin, asking.succeeds(margin))
        failed = ~asking.succeeds(margin)
        rising = still_gaining(
            curve.history["queries"], curve.history["margin"], least=LATE_RISE, open_pairs=bool(failed.any())
        )
        return Examples(
            best.cpu(),
            masks.cpu(),
            [rising, never_began(failed, ~(margin - first > MOVED))],
            curve.history,
            int(asking.asked.max()) if count else 0,
            {"asked": asking.asked.tolist(), "spec": self.spec()},
        )


def donors_of(attacked: Attacked, numbers: Numbers, which: int = 0) -> Tensor | None:
    """uint8 (N, 3, H, W): faces that lend their parts, laid onto the sources.

    Where the attack impersonates, the targets: as they are (``which`` 0), with more contrast (1), darker (2). Where it
    dodges, portraits of the background, drawn anew for each ``which``; ``None`` where there is none.
    """
    lent, contrast, lift = attacked.targets, *((1.0, 0.0), (1.8, 0.0), (1.0, -48.0))[which]
    if attacked.goal == "dodge":
        if not len(attacked.background):
            return None
        drawn = numbers.uniform(0, LENT)[:, which]
        lent, contrast, lift = attacked.background[(drawn * len(attacked.background)).long()], 1.0, 0.0
    laid = onto(lent.images.float() / 255, lent.landmarks, attacked.sources.landmarks, attacked.sources.size)
    return to_bytes((laid - 0.5) * contrast + 0.5 + lift / 255)


def stripes(turn: int, places: Places, shape: Sequence[int], numbers: Numbers, rows: Tensor) -> Tensor:
    """uint8 (n, 3, H, W): vertical stripes in corners of the colour cube.

    As wide as a square of a hundredth of the mask, at least two pixels.
    """
    height, width = int(shape[2]), int(shape[3])
    drawn = numbers.uniform(turn, 3 * width, rows.cpu()).to(rows.device)
    broad = (places.area[rows].float() / 100).sqrt().round().clamp(min=2).long()
    stripe = torch.arange(width, device=rows.device)[None] // broad[:, None]
    channel = torch.arange(3, device=rows.device)[None, :, None]
    colour = drawn.gather(1, (3 * stripe[:, None] + channel).flatten(1)).view(len(rows), 3, 1, width)
    return torch.where(colour < 0.5, 0, 255).to(torch.uint8).expand(-1, -1, height, -1)


class _Curve:
    """Success against queries."""

    def __init__(self, limit: int, each: int) -> None:
        self._every, self._each = max(1, limit // POINTS), each
        self.history: dict[str, list[float]] = {"queries": [], "success": [], "margin": []}
        self._last = -1

    def add(self, turn: int, margin: Tensor, success: Tensor) -> None:
        self._last = turn
        if turn % self._every == 0:
            self._note(turn, margin, success)

    def close(self, margin: Tensor, success: Tensor) -> None:
        if self._last >= 0 and self._last % self._every:
            self._note(self._last, margin, success)

    def _note(self, turn: int, margin: Tensor, success: Tensor) -> None:
        self.history["queries"].append(float((turn + 1) * self._each))
        self.history["success"].append(float(success.float().mean()))
        self.history["margin"].append(float(margin.mean()))
