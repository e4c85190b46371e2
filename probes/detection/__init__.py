"""Probes for detectors."""

from probes.detection.controls import CONTROLS, FacePatch, GreyPatch, NoisePatch, PicturePatch
from probes.detection.objectives import (
    OBJECTIVES,
    Objective,
    PatchCombination,
    PatchIoU,
    PatchScore,
    PatchScoreFocal,
)
from probes.detection.patch import Patch
from probes.detection.random_search import RandomSearchPatch
from probes.detection.universal import UniversalPatch

__all__ = [
    "CONTROLS",
    "OBJECTIVES",
    "FacePatch",
    "GreyPatch",
    "NoisePatch",
    "Objective",
    "Patch",
    "PatchCombination",
    "PatchIoU",
    "PatchScore",
    "PatchScoreFocal",
    "PicturePatch",
    "RandomSearchPatch",
    "UniversalPatch",
]
