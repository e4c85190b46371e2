"""A patch on an area of a vehicle or a person, trained as the driving competition's teams did (paper 000 §3.3).

One probe with named options: an objective, what the print may look like, what happens between print and camera, and
which detectors are attacked together. ``TEAMS`` holds the five top submissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.data.scenes import Scenes
from audit.execution import Execution
from probes.areas import AREA, AreaMap
from probes.detection.craftset import CraftSet, Placed
from probes.detection.objectives import Objective, PatchCombination, PatchScore
from probes.detection.team_objectives import CLASS_MARGIN, MaxObjectness, Objectness, TargetedClass
from probes.detection.universal import UniversalPatch
from probes.losses import non_printability, total_variation
from probes.optimisers import STEPS, Steps
from probes.physical import EOT, GENTLE
from probes.printing import PRINTABLE
from probes.probe import digest, generator
from probes.wear import Wear


@dataclass(frozen=True, repr=False)
class ScenePatch(UniversalPatch):
    """A patch in perspective, optimised under drawn conditions: L = L_adv + tv·TV + nps·NPS (D10 to D15).

    TV and NPS are means over the texels; L_adv is the mean over what is attacked, in log-odds.

    Args:
        size: √(P·Q); the canvas has the placement's aspect. Too many texels get no gradient where they shrink, too few
            leave no room (paper 000 §3.3.2).
        realism: drawn anew at every step; ``None`` for none. tv, nps: weights. squares: whether TV is the sum of
            squares (D12). colours: (C, 3) printable colours in [0, 1]. both: both usual pre-processings (D13).
    """

    objective: Objective = CLASS_MARGIN
    placement: Wear = AREA
    size: int = 64
    realism: EOT | None = GENTLE
    tv: float = 0.0
    nps: float = 0.0
    squares: bool = False
    colours: Tensor = field(default_factory=lambda: PRINTABLE)
    both: bool = False

    goal: ClassVar[str] = "Hide a vehicle or a person from the detector with one print on a part of it"
    threat: ClassVar[str] = "Somebody who holds the model file and sticks a print on the object"
    refs: ClassVar[tuple[str, ...]] = ("000 §3.3", "NISTAML.022", "AML.T0043.000")

    @property
    def texels(self) -> tuple[int, int]:
        """(P, Q): about size² texels in the placement's aspect."""
        aspect = getattr(self.placement, "aspect", 1.0) ** 0.5
        return max(4, round(self.size / aspect)), max(4, round(self.size * aspect))

    def spec(self) -> dict[str, Any]:
        """All that determines the patch beside model, data, budget and seed."""
        return super().spec() | {
            "realism": None if self.realism is None else self.realism.spec(),
            "print": [self.tv, self.nps, self.squares, digest((self.colours * 255).round().to(torch.uint8))],
            "both": self.both,
        }

    def craft_set(self, scenes: Scenes, execution: Execution, *, batch: int, seed: int) -> CraftSet:
        """The craft images in groups; every view but the first under conditions of its own."""
        return CraftSet(scenes, self.placement, execution, batch=batch, seed=seed, realism=self.realism, both=self.both)

    def shown(self, group: tuple[Placed, ...], step: int, seed: int) -> tuple[Placed, ...]:
        """The group in the light and through the camera of that step; the places are those of the view."""
        if self.realism is None:
            return group
        out = []
        for i, part in enumerate(group):
            assert isinstance(part.where, AreaMap)
            draw = self.realism.draw(generator("realism", seed, step, i), part.targets.count, len(part.images))
            out.append(replace(part, where=part.where.redrawn(draw)))
        return tuple(out)

    def look(self, value: Tensor) -> Tensor:
        """Gradient of tv·TV + nps·NPS."""
        if not self.tv and not self.nps:
            return torch.zeros_like(value)
        value = value.detach().requires_grad_()
        look = value.new_zeros(())
        if self.tv:
            look = look + self.tv * total_variation(value, form="squared" if self.squares else "root", mean=True)
        if self.nps:
            look = look + self.nps * non_printability(value, self.colours.to(value), mean=True)
        return torch.autograd.grad(look, value)[0]


COMBINATION = ScenePatch(PatchCombination(), steps=STEPS)
"""What works best here: all candidates on object and print at once (the objective of paper 002, §4.2)."""

BANDS = replace(COMBINATION, size=71)
"""The same for ``probes.layouts.bands``, with the texels of its canvas: 100 rows of 50."""

TEAMS: Mapping[str, ScenePatch] = {
    "targeted-class": ScenePatch(TargetedClass(), tv=0.1, steps=Steps("adam", rate=0.03)),
    "joint": ScenePatch(PatchScore(), tv=0.1, nps=0.05, steps=Steps("adam", rate=0.03)),
    "objectness": ScenePatch(Objectness(), tv=0.1, nps=0.05, squares=True, steps=STEPS),
    "class-margin": ScenePatch(CLASS_MARGIN, both=True, steps=STEPS),
    "max-objectness": ScenePatch(MaxObjectness(), tv=0.1, nps=0.05, steps=Steps("adam", rate=0.03)),
}
"""The five top teams by what they attack: BJTU-ADaM, XJTU Vanish, YouOnlyAttackOnce, XJTU-AISEC, CETC-NHY.

XJTU Vanish attack several detectors together: give ``joint`` an ensemble where there are surrogates.
"""
