"""Probes for detectors."""

from probes.detection.controls import CONTROLS, BlackPatch, FacePatch, GreyPatch, NoisePatch, PicturePatch
from probes.detection.evolution import EvolutionPatch
from probes.detection.masked import MaskedPatch
from probes.detection.objectives import (
    OBJECTIVES,
    Objective,
    PatchCombination,
    PatchIoU,
    PatchScore,
    PatchScoreFocal,
)
from probes.detection.patch import Patch
from probes.detection.published import PublishedPatch
from probes.detection.random_search import RandomSearchPatch
from probes.detection.scene_patch import COMBINATION, TEAMS, ScenePatch
from probes.detection.universal import UniversalPatch

__all__ = [
    "COMBINATION",
    "CONTROLS",
    "OBJECTIVES",
    "TEAMS",
    "BlackPatch",
    "EvolutionPatch",
    "FacePatch",
    "GreyPatch",
    "MaskedPatch",
    "NoisePatch",
    "Objective",
    "Patch",
    "PatchCombination",
    "PatchIoU",
    "PatchScore",
    "PatchScoreFocal",
    "PicturePatch",
    "PublishedPatch",
    "RandomSearchPatch",
    "ScenePatch",
    "UniversalPatch",
]
