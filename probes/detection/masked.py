"""First where, then what: a mask found by trial in black, and inside it any attack (paper 000 §3.3.4, D13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from audit.budget import Budget
from audit.contracts import Detector
from audit.data.scenes import Scenes
from audit.errors import AuditError
from audit.execution import Execution
from probes.areas import AreaPlacement
from probes.detection.craftset import CraftSet
from probes.detection.masks import MaskSearch
from probes.detection.patch import Patch
from probes.detection.query_patch import QueryPatch
from probes.detection.universal import UniversalPatch
from probes.probe import Access, Progress

GRID = 32
"""Masks are searched on about this many squares along √(area)."""
SEARCH = 0.2
"""Share of the progress that the search for the mask takes."""


@dataclass(frozen=True, repr=False)
class MaskedPatch:
    """A patch in at most ``max_regions`` pieces of together at most ``max_area`` of the canvas.

    Args:
        inner: the attack inside the mask; its placement must be an ``AreaPlacement``.
        max_area: share of the canvas. max_regions: connected regions (8 neighbours); the competition allows five.
        candidates: masks per round; of rounds there are as many as the budget's queries allow, at most ``rounds``.
    """

    inner: UniversalPatch | QueryPatch
    max_area: float = 0.5
    max_regions: int = 5
    candidates: int = 24
    rounds: int = 12

    goal: ClassVar[str] = "Hide the object with a few spots instead of a whole print"
    refs: ClassVar[tuple[str, ...]] = ("000 §3.3.4", "NISTAML.022", "AML.T0043.000")
    load = staticmethod(Patch.load)

    def __post_init__(self) -> None:
        if not isinstance(self.inner.placement, AreaPlacement):
            raise AuditError(
                "masked patch",
                expected="an attack whose placement is an AreaPlacement",
                got=type(self.inner.placement).__name__,
                mend="place it on an area",
            )

    @property
    def name(self) -> str:
        """A few words for the report."""
        return f"in at most {self.max_regions} spots: {self.inner.name}"

    @property
    def threat(self) -> str:
        """Who does this; where the spots are is found by asking the model."""
        return self.inner.threat

    @property
    def access(self) -> Access:
        """What the attack inside the mask needs."""
        return self.inner.access

    def __repr__(self) -> str:
        return f"MaskedPatch({self.inner!r}, area={self.max_area:g}, regions={self.max_regions})"

    def _attacked(self, detector: Detector) -> tuple[int, ...]:
        names = self.inner.attacked if isinstance(self.inner, QueryPatch) else ()
        return tuple(list(detector.classes).index(c) for c in names)

    def spec(self) -> dict[str, Any]:
        """All that determines the patch beside model, data, budget and seed."""
        rules = [self.max_area, self.max_regions, self.candidates, self.rounds]
        return {"probe": "MaskedPatch", "version": 1, "rules": rules, "inner": self.inner.spec()}

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
        """The mask that hides most in black, then the attack inside it.

        Raises:
            ModelError, DataError, AuditError: as the attack's own ``craft`` and ``MaskSearch.search``.
        """
        placement = self.inner.placement
        assert isinstance(placement, AreaPlacement)
        if progress:
            progress(0.0, f"{self.name}: searching for the spots")
        side = placement.aspect**0.5
        craft = CraftSet(scenes, placement, execution, batch=budget.batch, seed=seed)
        search = MaskSearch(
            placement,
            size=(max(4, round(GRID / side)), max(4, round(GRID * side))),
            max_area=self.max_area,
            max_regions=self.max_regions,
            candidates=self.candidates,
            rounds=max(2, min(self.rounds, budget.queries // self.candidates)),
            attacked=self._attacked(detector),
        )
        found = search.search(detector, craft, seed=seed)
        sent = int(found.history["query"][-1])
        inner = replace(self.inner, placement=placement.with_mask(found.mask))
        if isinstance(inner, QueryPatch) and inner.max_images is not None:
            inner = replace(inner, max_images=max(1, inner.max_images - sent))  # one ceiling for both searches

        def later(share: float, text: str) -> None:
            if progress:
                progress(SEARCH + (1 - SEARCH) * share, text)

        patch: Patch = inner.craft(detector, scenes, execution=execution, budget=budget, seed=seed, progress=later)
        mask = {"area": found.area, "regions": found.regions, "loss": found.loss, "images": sent}
        spent = {"images_sent": sent + int(patch.origin.get("images_sent", 0))}
        origin = dict(patch.origin) | self.spec() | spent | {"seed": seed, "mask": mask}
        return replace(patch, name=self.name, origin=origin)
