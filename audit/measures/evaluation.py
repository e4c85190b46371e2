"""A detector's word on scenes, clean or under a perturbation: asked once, kept by content digest, checked first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audit.contracts import Areas, Detections, Detector, Perturbation
from audit.data.scenes import Scene, Scenes
from audit.errors import ConstraintViolated
from audit.execution import Batch
from audit.measures.detection import ghost_scores, patch_scores
from audit.measures.matching import Floats, Matches, join, match_scene
from audit.state import frozen, modules_of

if TYPE_CHECKING:
    from audit.session import AuditSession

BATCH = 8


@dataclass(frozen=True)
class Evaluation:
    """What a detector found in each scene.

    Attributes:
        scenes: in order of id. found: per scene. regions: per scene, (K, 4) xyxy px of the placed perturbation; empty
            where the scenes are clean.
    """

    scenes: tuple[Scene, ...]
    found: tuple[Detections, ...]
    regions: tuple[Tensor, ...]
    classes: frozenset[int]
    iou: float

    @cached_property
    def per_scene(self) -> list[Matches]:
        """Matches of each scene."""
        return [
            match_scene(d, s, classes=self.classes, iou=self.iou) for s, d in zip(self.scenes, self.found, strict=True)
        ]

    @cached_property
    def matches(self) -> Matches:
        """Matches of all scenes in one table."""
        return join(self.per_scene)

    def subset(self, name: str) -> Matches:
        """Matches where only the objects of one subset count."""
        pairs = zip(self.scenes, self.found, strict=True)
        return join([match_scene(d, s, subset=name, classes=self.classes, iou=self.iou) for s, d in pairs])

    @cached_property
    def on_patch(self) -> list[Floats]:
        """Per scene the best score of a detection that sits on each patch (the paper's criterion 2)."""
        rows = zip(self.per_scene, self.regions, self.scenes, strict=True)
        return [patch_scores(m, r, s.size) for m, r, s in rows]

    @cached_property
    def ghosts(self) -> list[Floats]:
        """Per scene the best score of a false object of any class on or beside each patch."""
        rows = zip(self.scenes, self.found, self.regions, strict=True)
        return [ghost_scores(match_scene(d, s, iou=self.iou), r, s.size) for s, d, r in rows]


def evaluate(
    session: AuditSession,
    detector: Detector,
    scenes: Scenes,
    perturbation: Perturbation | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Evaluation:
    """Ask the detector about every scene; what was asked before is read from the artifacts.

    Every perturbed batch is held against the constraint set before the detector sees it.

    Raises:
        ConstraintViolated: the perturbation left its constraint set, a defect of the probe.
    """

    def build(folder: Path) -> None:
        with frozen(session.subject.modules), frozen(modules_of(detector)):
            ask(folder)
        session.require_unchanged()  # the answers of a changed model must not be kept as those of the one given

    def ask(folder: Path) -> None:
        rows: dict[str, dict[str, Tensor]] = {}
        for batch in session.execution.batches(scenes, BATCH):
            images = batch.images
            if perturbation is not None:
                images = perturbation.apply(batch.images, batch.boxes, batch.areas)
                require(perturbation, batch, images)
            areas: Sequence[Areas | None] = batch.areas or [None] * len(batch.scenes)
            for scene, boxes, area, d in zip(
                batch.scenes, batch.boxes, areas, session.execution.detect(detector, images), strict=True
            ):
                regions = torch.zeros(0, 4)
                if perturbation is not None:
                    regions = perturbation.regions(boxes, scene.size, area)
                rows[scene.id] = {"boxes": d.boxes, "scores": d.scores, "labels": d.labels, "regions": regions.cpu()}
            if progress is not None:
                progress(len(rows) / len(scenes), "measuring")
        torch.save(rows, folder / "detections.pt")

    key = {"data": scenes.digest, "perturbation": None if perturbation is None else perturbation.identity}
    other = session.told_of(detector)
    key |= {} if other is None else {"detector": other}
    folder = session.artifacts.folder("detections", key, build)
    rows = torch.load(folder / "detections.pt", weights_only=True)
    ordered = tuple(sorted(scenes, key=lambda s: s.id))
    return Evaluation(
        scenes=ordered,
        found=tuple(Detections(rows[s.id]["boxes"], rows[s.id]["scores"], rows[s.id]["labels"]) for s in ordered),
        regions=tuple(rows[s.id]["regions"] for s in ordered),
        classes=session.attacked,
        iou=session.profile.data.match_iou,
    )


def require(perturbation: Perturbation, batch: Batch, changed: Tensor) -> None:
    """Hold a perturbed batch against the constraint set.

    Raises:
        ConstraintViolated: with the first rule that is broken.
    """
    broken = perturbation.constraint.violations(batch.images, changed, batch.boxes, batch.areas)
    if broken:
        raise ConstraintViolated(
            f"images {', '.join(s.id for s in batch.scenes)} under {perturbation!r}",
            expected=perturbation.constraint.describe(),
            got="; ".join(broken[:3]),
            mend="this is a defect of the probe, not of the model: mend the probe",
        )
