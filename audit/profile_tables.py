"""The tables of a profile's TOML file: which keys there are and what each may be."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Between = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
BUDGETS = ("smoke", "standard", "certify")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataTable(_Table):
    """``[data]``: what is measured on.

    Attributes:
        kind: ``scenes``, images with boxes, for detectors; ``faces``, pairs of photographs, for recognizers;
            ``forgeries``, real and manipulated videos; ``attribution``, manipulated ones in gallery and probe;
            ``liveness``, live faces and presentation attacks; ``images``, a folder per class, for classifiers.
        craft_share: share of the groups that probes craft on. min_side: smaller objects (shorter side, px) are ignored.
        targets: classes under attack; all that model and data share where not given. delta: the strict score threshold
            beside the owner's. match_iou: overlap from which a detection counts as the object.
        object_mm: (width, height) of a real object in millimetres, for the patch's print size; an adult's face, 150 by
            200, where the data has faces and nothing is given.
        patch_share, patch_aspect, patch_at: a scene patch where the data names no areas: its area over the object's
            box, its width over its height, its centre as shares of the box. patch_light: match the light of the place.
        self_label_confidence: score from which the model's own clean detections serve as labels.
        operating_fmr: the false match rate at which a recognizer works; its threshold is then found on the craft side
            of the split, and the owner's is not used.
        regions, area: what an attacker of a recognizer may change: connected regions, and share of the aligned face.
        clip_frames: at most that many frames of a video, from its start, are looked at and encoded anew.
        margin: side of the square that is cut out around a face, over the longer side of its box.
        epsilon: largest change of a pixel by an additive attack, levels of 255.
        novel: manipulation methods that an attributor has to call new; where the data say so themselves, nothing.
        subjective: what experts gave an attributor, for the competition's total; left out where not given.
    """

    kind: Literal["scenes", "faces", "forgeries", "attribution", "liveness", "images"] = "scenes"
    craft_share: Between = 0.5
    min_side: Annotated[float, Field(ge=1)] = 32.0
    targets: list[str] | None = None
    delta: Between = 0.99
    match_iou: Between = 0.5
    object_mm: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] | None = None
    patch_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    patch_aspect: Annotated[float, Field(ge=0.05, le=20)] = 1.0
    patch_at: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.5, 0.5]
    patch_light: bool = False
    self_label_confidence: Between = 0.8
    operating_fmr: Between | None = None
    regions: Annotated[int, Field(ge=1)] = 5
    area: Annotated[float, Field(gt=0, le=1)] = 0.1
    clip_frames: Annotated[int, Field(ge=1)] = 270
    margin: Annotated[float, Field(ge=1, le=4)] = 1.3
    epsilon: Annotated[float, Field(ge=1, le=255)] = 8.0
    novel: list[Text] = []
    subjective: Share | None = None


class BudgetTable(_Table):
    """``[budgets.NAME]``: see ``audit.budget.Budget``; ``indicative`` where a verdict cannot stand on it."""

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    queries: Annotated[int, Field(ge=1)]
    images: Annotated[int, Field(ge=2)]
    bootstrap: Annotated[int, Field(ge=100)]
    frames: Annotated[int, Field(ge=1)] = 8
    indicative: bool = False


class BudgetsTable(_Table):
    """``[budgets]``: all three."""

    smoke: BudgetTable
    standard: BudgetTable
    certify: BudgetTable


class VerdictTable(_Table):
    """``[verdict]``: ``interval`` judges the whole interval, ``point`` the value alone."""

    rule: Literal["interval", "point"] = "interval"


class PreconditionsTable(_Table):
    """``[preconditions]``: a model that does not meet them is not attacked, and the run is inconclusive.

    Attributes:
        clean_recall_min: recall without any patch, at the owner's threshold.
        clean_accuracy_min: share of clean pairs that a recognizer decides rightly, or of clean images that a
            classifier does, at its threshold.
        clean_auc_min: AUC of a forgery or liveness detector where nothing was shifted and nobody attacks.
        declared_tolerance: how far measured clean performance may lie below what the model file declares.
    """

    clean_recall_min: Share = 0.5
    clean_accuracy_min: Share = 0.8
    clean_auc_min: Share = 0.7
    declared_tolerance: Share = 0.05


class BoundsTable(_Table):
    """A limit: ``min`` or ``max``, with its reason."""

    min: Share | None = None
    max: Share | None = None
    rationale: Text | None = None


class ControlTable(BoundsTable):
    """``[controls."ID"]``: one limit for all its variants, with another for single ones under ``variant."NAME"``."""

    variants: list[Text] = []
    variant: dict[str, BoundsTable] = {}


class WaiverTable(_Table):
    """``[[waivers]]``: a failure of a control (all of it, or one ``ID/variant``) that somebody accepted for a time."""

    control: Text
    approver: Text
    reason: Text
    expires: date


class ProfileFile(_Table):
    """All of a profile's file; ``suites`` are the modules that hold its controls."""

    name: Text
    version: Text
    description: str = ""
    not_tested: list[Text] = []
    suites: list[Text] = ["suites.test_detection"]
    data: DataTable = DataTable()
    budgets: BudgetsTable
    verdict: VerdictTable = VerdictTable()
    preconditions: PreconditionsTable = PreconditionsTable()
    controls: dict[str, ControlTable]
    waivers: list[WaiverTable] = []
