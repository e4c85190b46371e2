"""An attack that only sees yes or no: is this the same person?

A patch in a mask has no distance to shrink, which attacks on decisions live by (Brendel et al. 2018; Cheng et al.
2019). So one is made: the photograph *outside* the mask is faded towards a donor's face, aligned alike, until the
answer is the attacker's. For a patch, the smallest fade t in [0, 1] with that answer is a smooth measure of how much it
lacks, found by bisection; a change of the patch that allows a smaller t is kept. At t = 0 nothing outside the mask is
changed and the photograph obeys the rules. What queries are left then go into a smaller patch: squares are given back
while the answer stays, as sparse attacks on decisions do (Vo et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from audit.budget import Budget
from audit.comparison import Comparison
from audit.errors import AuditError
from audit.examples import Attacked, Examples
from audit.execution import Execution
from probes.probe import Access, Progress
from probes.recognition.asking import POINTS, Asking, Curve, chunks, never_began, still_gaining
from probes.recognition.masks import Mask, wear
from probes.recognition.placing import Numbers
from probes.recognition.query import donors_of
from probes.recognition.squares import DRAWS, Places, propose, side, window

BISECTIONS = 5
"""Queries for the first fade; it is then known to 1/32."""
SMALLEST, LARGEST, FIRST = 0.01, 0.3, 0.1
"""Bounds of the share by which a proposal has to lower the fade, and where it begins."""
NOTHING = 0.01
"""A fade below this is tried as none at all."""
LATE_FALL = 0.02
"""Of the fade in the last tenth of the queries; less is no progress worth the name."""
BITE = 0.2
"""Share of a patch in the first square that is given back."""


@dataclass(frozen=True, repr=False)
class DecisionFace:
    """Search on decisions alone, one patch per pair.

    The patch starts as the donor's own part of the face: the target's where the attack impersonates, somebody else's
    from the background where it dodges.

    Args:
        mask: where the patch may be. queries: comparisons per pair at most; ``None`` takes the budget's.
        square: share of the mask's area that the first squares cover.
        shrink: queries per successful pair that go into a smaller patch, at most.
    """

    mask: Mask
    queries: int | None = None
    square: float = 0.4
    shrink: int = 60

    goal: ClassVar[str] = "Be taken for somebody else, or not be recognised, with a patch worn in the face"
    threat: ClassVar[str] = (
        "Somebody who may have photographs compared as often as the budget says and sees only whether they are "
        "accepted as one person; photographs of the target are public"
    )
    refs: ClassVar[tuple[str, ...]] = ("000 §4.1", "NISTAML.022", "AML.T0043.001")
    access: ClassVar[Access] = "query"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if (self.queries is not None and self.queries < 1) or not 0 < self.square <= 1 or self.shrink < 0:
            raise AuditError(
                "options of DecisionFace",
                expected="queries of at least 1, a square in (0, 1], shrink of at least 0",
                got=f"queries {self.queries}, square {self.square:g}, shrink {self.shrink}",
                mend="correct them in the probe",
            )

    @property
    def name(self) -> str:
        """A few words for the report."""
        return f"patch by queries for decisions, {self.mask}"

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
            "shrink": self.shrink,
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
        """The photograph of every pair with its patch, nothing outside the mask changed.

        History: ``queries`` and, after so many comparisons per pair, ``success`` (share of pairs without any fade)
        and ``fade`` (mean). Details: ``asked``, comparisons of each pair; ``area``, px changed in each photograph.
        """
        limit = (self.queries or budget.queries) // max(1, len(models))
        parts, hunts = list(chunks(attacked)), []
        for i, part in enumerate(parts):
            hunt = _Hunt(self, Asking(models, part, budget.batch), part, seed, execution.device)
            for turn in range(limit):
                if not hunt.turn(turn, limit):
                    break
                if progress:
                    progress((i + (turn + 1) / limit) / len(parts), self.name)
            hunt.end()
            hunts.append(hunt)
        if progress:
            progress(1.0, self.name)
        history = Curve.history([h.curve for h in hunts], len(attacked.sources), max(1, limit // POINTS), gauge="fade")
        gained = [1 - fade for fade in history["fade"]]
        fade, area = torch.cat([h.fade for h in hunts]), torch.cat([h.area for h in hunts])
        asked = torch.cat([h.asking.asked for h in hunts])
        failed = fade > 0
        open_pairs = bool(failed.any())
        return Examples(
            torch.cat([h.worn for h in hunts]),
            torch.cat([h.masks for h in hunts]),
            [
                still_gaining(history["queries"], gained, least=LATE_FALL, open_pairs=open_pairs),
                never_began(failed, fade >= 1),
            ],
            history,
            int(asked.max()) if len(asked) else 0,
            {
                "asked": asked.tolist(),
                "fade": fade.tolist(),
                "area": area.tolist(),
                "spec": self.spec(),
            },
        )


class _Hunt:
    """The state of some pairs; each turn asks at most once about every pair that is not done."""

    def __init__(
        self, options: DecisionFace, asking: Asking, attacked: Attacked, seed: int, device: torch.device
    ) -> None:
        self.options, self.asking = options, asking
        self.numbers = Numbers(seed, attacked.sources.ids, attacked.targets.ids)
        self.sources = attacked.sources.images.to(device)
        self.size = attacked.sources.size
        self.masks = options.mask.photo_masks(attacked.sources.landmarks, self.size).to(device)
        self.used = self.masks.clone()
        self.pieces = [max(1, _pieces(mask)) for mask in self.masks.cpu()]
        self.places = Places(self.masks)
        donors = donors_of(attacked, self.numbers)
        # Without anybody's face to lend, the fade goes to mid grey.
        self.donors = torch.full_like(self.sources, 128) if donors is None else donors.to(device)
        self.patches = self.donors.clone()
        n = len(self.sources)
        self.low, self.fade = torch.zeros(n), torch.ones(n)
        self.stride, self.bite = torch.full((n,), FIRST), torch.full((n,), BITE)
        self.shrunk = torch.zeros(n, dtype=torch.int64)
        self.worn, self.area = self.sources, self.masks.sum((1, 2))
        self.curve = Curve()

    def turn(self, turn: int, limit: int) -> bool:
        """Whether anything was left to ask about."""
        rows = torch.nonzero((self.fade > 0) | (self.shrunk < self.options.shrink))[:, 0]
        if not len(rows):
            return False
        hunts = self.fade[rows] > 0
        patches, used, fades = self._proposal(rows, hunts, turn, turn / limit)
        asks = torch.nonzero(hunts | self._keeps_rules(rows, used))[:, 0]
        yes = torch.zeros(len(rows), dtype=torch.bool)
        if len(asks):
            at = asks.to(used.device)
            images = self._images(rows[asks].to(used.device), patches[at], used[at], fades[asks])
            yes[asks] = self.asking.answers(images, rows[asks])
        self._learn(rows, hunts, yes, fades, turn)
        kept = rows[yes].to(used.device)
        self.patches[kept], self.used[kept] = patches[yes.to(used.device)], used[yes.to(used.device)]
        self.curve.add(float(self.asking.asked.max()), self.fade <= 0, self.fade)
        return True

    def end(self) -> None:
        """Keeps what is handed back, on the CPU, and lets go of the rest; ``worn`` changes nothing outside masks."""
        every = torch.arange(len(self.sources), device=self.sources.device)
        self.worn = self._images(every, self.patches, self.used, torch.zeros(len(every))).cpu()
        self.masks, self.area = self.masks.cpu(), self.used.sum((1, 2)).cpu()
        del self.sources, self.places, self.donors, self.patches, self.used
        self.asking.end()

    def _proposal(self, rows: Tensor, hunts: Tensor, turn: int, done: float) -> tuple[Tensor, Tensor, Tensor]:
        """Patches, what of the masks they use, and fades, to be asked about."""
        at = rows.to(self.sources.device)
        drawn = self.numbers.uniform(turn + 1, DRAWS, rows)
        y, x = self.places.draw(at, drawn[:, 9])
        if turn == 0:
            return self.patches[at], self.used[at], torch.zeros(len(rows))
        bisects = turn <= BISECTIONS
        fades = (self.low[rows] + self.fade[rows]) / 2 if bisects else self.fade[rows] * (1 - self.stride[rows])
        fades = torch.where(hunts & (fades >= NOTHING), fades, 0.0)
        seeks = hunts.to(at.device)
        patches = self.patches[at]
        if not bisects:
            square = window(y, x, side(self.places.area[at], self.options.square, done), self.size)
            patches = propose(patches, self.donors[at], square & (self.masks[at] & seeks[:, None, None]), drawn)
        area = self.used[at].sum((1, 2)) * self.bite[rows].to(at.device)
        taken = window(y, x, area.sqrt().round().clamp(min=1).long(), self.size) & ~seeks[:, None, None]
        return patches, self.used[at] & ~taken, fades

    def _keeps_rules(self, rows: Tensor, used: Tensor) -> Tensor:
        """(n,) bool: something is left, something is given back, and the rest is in no more pieces than the mask."""
        before, after = self.used[rows.to(used.device)].cpu(), used.cpu()
        smaller = (before & ~after).flatten(1).any(1) & after.flatten(1).any(1)
        few = [s and _pieces(m) <= self.pieces[row]
               for m, s, row in zip(after, smaller.tolist(), rows.tolist(), strict=True)]  # fmt: skip
        return torch.tensor(few, dtype=torch.bool)

    def _images(self, at: Tensor, patches: Tensor, used: Tensor, fades: Tensor) -> Tensor:
        sources, t = self.sources[at].float(), fades.to(at.device)[:, None, None, None]
        faded = (sources + t * (self.donors[at] - sources)).round().to(torch.uint8)
        return wear(faded, patches.float() / 255, used)

    def _learn(self, rows: Tensor, hunts: Tensor, yes: Tensor, fades: Tensor, turn: int) -> None:
        """From the answers: fades and strides of the pairs that hunt, bites of those that shrink."""
        hunting, won = rows[hunts], yes[hunts]
        self.fade[hunting[won]] = fades[hunts][won]
        if 0 < turn <= BISECTIONS:
            self.low[hunting[~won]] = fades[hunts][~won]
        elif turn:
            factor = torch.where(won, 1.5, 0.93)
            self.stride[hunting] = (self.stride[hunting] * factor).clamp(SMALLEST, LARGEST)
        shrinking = rows[~hunts]
        self.shrunk[shrinking] += 1
        self.bite[shrinking] = (self.bite[shrinking] * torch.where(yes[~hunts], 1.3, 0.85)).clamp(0.002, 0.5)


def _pieces(mask: Tensor) -> int:
    """Regions of a mask (H, W) on the CPU; neighbours at a corner are one."""
    return int(ndimage.label(mask.numpy(), np.ones((3, 3)))[1])
