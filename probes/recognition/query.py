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
from audit.examples import Attacked, Examples
from audit.execution import Execution
from probes.probe import Access, Progress
from probes.recognition.asking import POINTS, Asking, Curve, chunks, never_began, still_gaining
from probes.recognition.masks import Mask, wear
from probes.recognition.placing import Numbers, onto, to_bytes
from probes.recognition.squares import DRAWS, Places, propose, side, window

LENT, STARTS = 3, 6
"""What is tried first: three donor's parts, and three drawings of stripes."""
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
        limit = (self.queries or budget.queries) // max(1, len(models))
        parts, searches = list(chunks(attacked)), []
        for i, part in enumerate(parts):
            search = _Search(self, Asking(models, part, budget.batch), part, seed, execution.device)
            for turn in range(limit):
                if not search.turn(turn, limit):
                    break
                if progress:
                    progress((i + (turn + 1) / limit) / len(parts), self.name)
            search.end()
            searches.append(search)
        if progress:
            progress(1.0, self.name)
        history = Curve.history(
            [s.curve for s in searches], len(attacked.sources), max(1, limit // POINTS), gauge="margin"
        )
        failed = torch.cat([~s.asking.succeeds(s.margin) for s in searches])
        still = torch.cat([~(s.margin - s.first > MOVED) for s in searches])
        open_pairs = bool(failed.any())
        asked = torch.cat([s.asking.asked for s in searches])
        return Examples(
            torch.cat([s.best for s in searches]),
            torch.cat([s.masks for s in searches]),
            [
                still_gaining(history["queries"], history["margin"], least=LATE_RISE, open_pairs=open_pairs),
                never_began(failed, still),
            ],
            history,
            int(asked.max()) if len(asked) else 0,
            {"asked": asked.tolist(), "spec": self.spec()},
        )


class _Search:
    """The state of some pairs; each turn asks once about every pair that is not done."""

    def __init__(self, options: QueryFace, asking: Asking, attacked: Attacked, seed: int, device: torch.device) -> None:
        self.options, self.asking, self.size = options, asking, attacked.sources.size
        self.numbers = Numbers(seed, attacked.sources.ids, attacked.targets.ids)
        self.sources = attacked.sources.images.to(device)
        self.masks = options.mask.photo_masks(attacked.sources.landmarks, self.size).to(device)
        self.places = Places(self.masks)
        self.lent = [donors_of(attacked, self.numbers, which) for which in range(LENT)]
        self.donors = None if self.lent[0] is None else self.lent[0].to(device)
        self.best, self.margin = self.sources.clone(), torch.full((len(self.sources),), -torch.inf)
        self.first = self.margin
        self.curve = Curve()

    def turn(self, turn: int, limit: int) -> bool:
        """Whether anything was left to ask about."""
        beyond, margin = self.options.beyond, self.margin
        rows = torch.nonzero(margin < beyond if beyond > 0 else ~self.asking.succeeds(margin))[:, 0]
        if not len(rows):
            return False
        at = rows.to(self.sources.device)
        part = self.lent[turn] if turn < LENT else None
        if part is not None:
            patches = part.to(at.device)[at]
        elif turn < STARTS:
            patches = stripes(turn, self.places, self.sources.shape, self.numbers, at)
        else:
            patches = self._proposal(rows, at, turn, turn / limit)
        images = wear(self.sources[at], patches.float() / 255, self.masks[at])
        found = self.asking.margins(images, rows)
        better = found > margin[rows]
        here = better.to(at.device)
        self.best[at[here]] = images[here]
        margin[rows[better]] = found[better]
        if part is not None and self.donors is not None:
            self.donors[at[here]] = part.to(at.device)[at[here]]
        if not turn:
            self.first = margin.clone()
        self.curve.add((turn + 1) * len(self.asking.models), self.asking.succeeds(margin), margin)
        return True

    def end(self) -> None:
        """Keeps what is handed back, on the CPU, and lets go of the rest."""
        self.best, self.masks = self.best.cpu(), self.masks.cpu()
        del self.sources, self.places, self.lent, self.donors
        self.asking.end()

    def _proposal(self, rows: Tensor, at: Tensor, turn: int, done: float) -> Tensor:
        drawn = self.numbers.uniform(turn, DRAWS, rows)
        y, x = self.places.draw(at, drawn[:, 9])
        square = window(y, x, side(self.places.area[at], self.options.square, done), self.size)
        return propose(self.best[at], None if self.donors is None else self.donors[at], square & self.masks[at], drawn)


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
