"""One audit in one process: the subject, its data, the profile and everything that is computed once and shared."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import cv2
import torch

from audit import data as datasets
from audit.artifacts import Artifacts, code_digest
from audit.budget import Budget
from audit.checks import check
from audit.contracts import Detector
from audit.control import ControlSpec, base, variant
from audit.data.scenes import Scenes
from audit.errors import DataError, ModelError
from audit.evidence import EvidenceStore
from audit.execution import Execution, keep_memory
from audit.face_audit import FaceAudit
from audit.materials import MATERIALS, Material
from audit.measures.detection import precision, recall
from audit.measures.evaluation import evaluate
from audit.measures.intervals import Resampling
from audit.options import Options
from audit.other_models import says
from audit.profile import Profile
from audit.profile import load as load_profile
from audit.record import Data, Diagnostic, Precondition, Unreadable, digest
from audit.state import frozen, modules_of
from audit.subject import Subject, find_device
from audit.subject import load as load_subject
from audit.surrogates import Surrogate, surrogates_of
from audit.surroundings import output_folder, pictures_of, versions
from audit.tiny import tiny_images
from audit.trial import Trial


@dataclass(frozen=True)
class Split:
    """The scenes that a probe crafts on, and those that a measure looks at; no group is in both."""

    craft: Scenes
    held_out: Scenes


class AuditSession:
    """Loads and validates everything at once, before anything long starts.

    Raises:
        AuditError: the first thing that is wrong, in one sentence.
    """

    def __init__(self, options: Options) -> None:
        assert options.model is not None
        self.folder = output_folder(options.report)
        profile = load_profile(options.profile) if options.profile else None
        device = find_device(options.device)
        torch.set_num_threads(options.threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        cv2.setNumThreads(options.threads)
        keep_memory()
        self.execution = Execution(device, options.precision, options.threads)
        self.subject: Subject = load_subject(options.model, device)
        # Who names no profile gets that of the model's task; the report names it as if it had been given.
        self.options = replace(options, profile=options.profile or usual_profile(self.subject))
        self.profile: Profile = profile or load_profile(self.options.profile)
        self.budget: Budget = self.profile.budget(options.budget)
        self.facts: list[Precondition] = check(self.subject)
        self.state_before = self.subject.state_digest()
        self.artifacts = Artifacts(
            Path(options.cache) if options.cache else None,
            {
                "code": code_digest(),
                "model": [f.sha256 for f in self.subject.files],
                "state": self.state_before,
                "device": str(device.type),
                "precision": options.precision,
                "threads": options.threads,
                "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
                "packages": versions(),
                "behaviour": self._behaviour(),
            },
        )
        self.evidence = EvidenceStore(self.folder)
        # What is wrong must not be found out an hour later.
        if self.has_scenes:
            _ = self.scenes, self.surrogates, self.published
        if self.material is not None:
            self.material.prepare()

    @property
    def has_scenes(self) -> bool:
        """Whether a detector is audited on images with boxes."""
        return self.profile.data.kind == "scenes" and "detector" in self.subject.tasks

    @cached_property
    def material(self) -> Material | None:
        """What the controls share that are about anything but a detector; ``None`` where there are no such."""
        maker = MATERIALS.get(self.profile.data.kind)
        return maker(self) if maker is not None and maker.task in self.subject.tasks else None

    @property
    def faces(self) -> FaceAudit:
        """What the controls of a recognizer share."""
        assert isinstance(self.material, FaceAudit)
        return self.material

    def _behaviour(self) -> str:
        """Digest of what the models say of the tiny batch: weights may sit where no digest reaches them."""
        parts: list[object] = []
        for task, thing in sorted(self.subject.tasks.items()):
            parts.append([task, list(getattr(thing, "classes", ())), float(getattr(thing, "score_threshold", 0.0))])
            with frozen(self.subject.modules):
                if task == "detector":
                    found = self.execution.detect(thing, tiny_images((256, 320), self.execution.device))
                    # Rounded: two processes on a GPU may differ in the last bits.
                    parts.append([[(d.scores * 1e3).round().tolist(), d.boxes.round().tolist()] for d in found])
                else:
                    parts.append(says(task, thing, self.execution.device))
        return digest(parts)

    @cached_property
    def surrogates(self) -> dict[str, Surrogate]:
        """Other detectors that an attacker may hold, by name; empty where none are given."""
        if not self.has_scenes:
            return {}
        return surrogates_of(self.subject, self.options.surrogates, self.execution.device)

    @cached_property
    def published(self) -> dict[str, Path]:
        """Pictures of --audit-patches by name."""
        return pictures_of(self.options.patches)

    def told_of(self, detector: Detector) -> str | None:
        """Digest of a surrogate; ``None`` for the audited detector, whose digest is part of every key."""
        return next((s.digest for s in self.surrogates.values() if s.detector is detector), None)

    @property
    def attacked(self) -> frozenset[int]:
        """The labels that count: those of the profile, else of all the data, not of the sample that the budget took."""
        return frozenset(self._all_scenes.targets) or frozenset(
            x for s in self._all_scenes for x in s.labels[~s.ignore].tolist()
        )

    def doubts(self, *, of_gradients: bool, task: str = "") -> list[Diagnostic]:
        """Facts of the tiny batch on which no pass can stand, as raised diagnostics; of one task, or of all."""
        return [
            Diagnostic(name=f.name, value=f.value, limit=None, raised=True, meaning=f"{f.name}: {f.meaning}")
            for f in self.facts
            if not f.ok and ("gradient" in f.name) is of_gradients and not f.name.startswith("clean ")
            if f.name.startswith(task)
        ]

    @contextmanager
    def asking(self, *things: object) -> Iterator[None]:
        """While models are asked: their weights as they are, at the precision of the run."""
        with frozen([*self.subject.modules, *modules_of(*things)]), self.execution.autocast():
            yield

    def require_unchanged(self) -> None:
        """Raises:
        ModelError: weights, buffers or modes are no longer those of the model that was given.
        """
        if not self.model_unchanged:
            raise ModelError(
                f"model of {self.subject.path}",
                expected="weights, buffers and modes to stay as they are",
                got="others than before the audit",
                mend="keep the model from updating itself when it is called",
            )

    @property
    def indicative(self) -> bool:
        """Whether the budget is too small for a verdict that stands: the point estimate decides."""
        return self.profile.indicative(self.options.budget)

    @cached_property
    def _all_scenes(self) -> Scenes:
        detector = self.subject.tasks["detector"]
        classes = list(detector.classes)
        if self.options.data is not None:
            scenes = datasets.open_scenes(self.options.data, detector_classes=classes)
        elif self.subject.data_fn is not None:
            scenes = self.subject.data_fn(Path.cwd())
            if not isinstance(scenes, Scenes):
                raise DataError(
                    f"data(root) of {self.subject.path}",
                    expected="audit.data.Scenes",
                    got=type(scenes).__name__,
                    mend="return what audit.data.open_scenes or a reader of audit.data gives",
                )
        elif any(c.lower() == "face" for c in classes):
            scenes = datasets.starter()
        else:
            raise DataError(
                "--audit-data",
                expected=f"images with boxes of {', '.join(classes[:3])}{' …' if len(classes) > 3 else ''}",
                got="nothing",
                mend=f"give a data set with --audit-data PATH ({datasets.FORMATS})",
            )
        settings = self.profile.data
        if scenes.labelled_by == "self" and scenes.objects == 0:
            with frozen(self.subject.modules):
                scenes = datasets.self_label(
                    scenes,
                    lambda images: self.execution.detect(detector, images.to(self.execution.device)),
                    classes,
                    settings.self_label_confidence,
                )
        return scenes.for_classes(classes, settings.targets).smaller_ignored(settings.min_side)

    @cached_property
    def scenes(self) -> Split:
        """The detector's data, split by group and cut to the budget."""
        share = self.profile.data.craft_share
        craft, held_out = self._all_scenes.split(share)
        limit = self.budget.images
        parts = {"craft": craft.sample(max(1, round(limit * share)), self.options.seed)}
        parts["held_out"] = held_out.sample(max(1, limit - round(limit * share)), self.options.seed)
        for name, part in parts.items():
            if part.objects == 0:
                raise DataError(
                    f"data {part.name}",
                    expected="objects on both sides of the split",
                    got=f"none of at least {self.profile.data.min_side:g} px among the {len(part)} {name} images",
                    mend="add images, or lower `min_side` in the profile",
                )
        return Split(**parts)

    def clean_recall(self, detector: Detector) -> float | None:
        """Recall of any detector on the clean craft scenes, at its own threshold."""
        found = evaluate(self, detector, self.scenes.craft)
        return recall(found.matches, detector.score_threshold, Resampling(seed=0, draws=100)).value

    def why_not_attacked(self, detector: Detector) -> str:
        """Why this detector is not attacked, as a sentence; empty where its clean performance is as it should be.

        Recall on the held-out scenes without any patch, at the owner's threshold, must reach the profile's
        ``clean_recall_min``, and recall and precision what the model file declares, less ``declared_tolerance``.
        """
        rules = self.profile.preconditions
        clean = evaluate(self, detector, self.scenes.held_out)
        resampling = Resampling(seed=seed_of("clean", self.options.seed), draws=100)
        threshold = detector.score_threshold
        seen = {
            "recall": recall(clean.matches, threshold, resampling).value,
            "precision": precision(clean.matches, threshold, resampling).value,
        }
        declared = {k: v for k, v in self.subject.declared.items() if k in seen}
        floors = {f"clean {k}, declared": (k, v - rules.declared_tolerance) for k, v in declared.items()}
        floors["clean recall"] = ("recall", rules.clean_recall_min)
        reasons = []
        for name, (kind, floor) in floors.items():
            value = seen[kind]
            ok = value is not None and value >= floor
            said = f"clean {kind} is {'unknown' if value is None else f'{value:.3f}'}, expected at least {floor:.3f}"
            self.fact(Precondition(name=name, ok=ok, value=value, expected=f"at least {floor:.3f}", meaning=said))
            reasons += [] if ok else [said]
        if not reasons:
            return ""
        return f"Not attacked: {'; '.join(reasons)}. Check labels, boxes, classes and pre-processing in the model file."

    def fact(self, fact: Precondition) -> None:
        """Keep a precondition for the report; a later one of the same name takes its place."""
        self.facts = [f for f in self.facts if f.name != fact.name] + [fact]

    def data_records(self) -> list[Data]:
        """The data as the report tells of it."""
        if self.material is not None:
            return self.material.data_records()
        if not self.has_scenes:
            return []
        whole, split = self._all_scenes, self.scenes
        return [
            Data(
                name=whole.name,
                source=whole.source,
                labelled_by=whole.labelled_by,
                licence=whole.licence,
                digest=whole.digest,
                images=len(whole),
                objects=whole.objects,
                craft_images=len(split.craft),
                held_out_images=len(split.held_out),
                chosen=f"split by hash of the group; at most {self.budget.images} images by seed {self.options.seed}",
                unreadable=[Unreadable(name=u.name, reason=u.reason) for u in whole.unreadable],
                notes=list(whole.notes),
            )
        ]

    @cached_property
    def key(self) -> str:
        """Digest of everything that decides the numbers of this run; an interrupted run is taken up on this key."""
        return digest(
            {
                "context": self.artifacts.context,
                "profile": self.profile.sha256,
                "budget": self.options.budget,
                "seed": self.options.seed,
                "data": [d.digest for d in self.data_records()],
                "surrogates": self._surrogate_digests(),
                "patches": {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in self.published.items()},
            }
        )

    def _surrogate_digests(self) -> dict[str, str]:
        if self.material is not None:
            return self.material.surrogate_digests()
        return {name: s.digest for name, s in self.surrogates.items()}

    def trial(self, id: str, spec: ControlSpec) -> Trial:
        """A fresh trial of one control."""
        return Trial(
            id=id,
            spec=spec,
            limit=self.profile.limit(id),
            waiver=self.profile.waiver(id, date.today()),  # noqa: DTZ011 waivers expire by the local calendar
            rule=self.profile.rule(self.options.budget),
            seed=seed_of(id, self.options.seed),
            reproduce=self.reproduce(id),
            protocol={"key": self.key, "control": base(id), "variant": variant(id)},
            diagnostics=self.doubts(of_gradients=False, task="" if self.material is None else f"{spec.task}:"),
        )

    def reproduce(self, id: str) -> str:
        """The command that measures one control again, from nothing and into a folder of its own."""
        o = self.options
        words: dict[str, object] = {"model": o.model, "control": id, "budget": o.budget, "seed": o.seed}
        words |= {"profile": o.profile, "data": o.data}
        words |= {"device": None if o.device == "auto" else o.device}
        words |= {"precision": None if o.precision == "float32" else o.precision}
        words |= {"threads": None if o.threads == 1 else o.threads}
        # Beside the report under review, and without what this run keeps: a number that is read back proves nothing.
        words |= {"report": "audit-again", "cache": "audit-again/cache"}
        given = [f"--audit-{name}={value}" for name, value in words.items() if value is not None]
        given += [f"--audit-surrogates={file}" for file in o.surrogates] + [f"--audit-patches={p}" for p in o.patches]
        return shlex.join(["pytest", "suites/", *given])

    @property
    def model_unchanged(self) -> bool:
        """Whether weights, buffers and modes are what they were before the audit."""
        return self.subject.state_digest() == self.state_before


PROFILES = {
    "detector": "detection",
    "recognizer": "recognition",
    "forgery": "forensics",
    "attributor": "attribution",
    "liveness": "liveness",
    "classifier": "classification",
}
"""The built-in profile for each task; of several tasks, the first here counts."""


def usual_profile(subject: Subject) -> str:
    """The built-in profile for a model file's first task."""
    return next((PROFILES[task] for task in PROFILES if task in subject.tasks), "detection")


def seed_of(id: str, seed: int) -> int:
    """The seed of a control: sha256 of run seed and id, so that order, workers and selection do not matter."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{id}".encode()).digest()[:8], "big") >> 1
