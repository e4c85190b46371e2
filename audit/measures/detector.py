"""What controls of detectors measure: clean performance, recall kept, ghosts on the patch, constraints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from audit.contracts import Detector, Perturbation
from audit.data.scenes import Scenes
from audit.measures.curves import BETAS, af_beta, average_precision, f_curve
from audit.measures.detection import SIZES, criterion_2, kept, kept_per_image, precision, recall
from audit.measures.evaluation import Evaluation, evaluate
from audit.measures.intervals import Estimate, Resampling, clopper_pearson
from audit.measures.picturing import picture_cases, picture_patches
from audit.record import Condition, Curve, Diagnostic, Series
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.session import AuditSession

FACE_MM = [150.0, 200.0]
"""Width and height of an adult's face as a box takes it in, in millimetres."""
SUBSETS = ("easy", "medium", "hard")
WEAKER = 0.05
"""A trained patch that keeps this much more recall than an unoptimised one has not been trained well."""


class DetectorMeasure:
    """Re-queries a detector on checked inputs and counts; never asks a probe about its success.

    The judged number goes to the trial; everything beside it becomes a condition.
    """

    def __init__(
        self, trial: Trial, session: AuditSession, progress: Callable[[float, str], None] | None = None
    ) -> None:
        self.trial, self.session, self.progress = trial, session, progress
        self.delta = session.profile.data.delta
        self.resampling = Resampling(seed=trial.seed, draws=session.budget.bootstrap, cluster="groups of images")

    def clean(self, detector: Detector, scenes: Scenes) -> None:
        """Judge recall on clean images at the owner's threshold."""
        clean = self._look(detector, scenes, None)
        t = detector.score_threshold
        self._judge("recall on clean images", recall(clean.matches, t, self.resampling))
        self._standing("clean", clean, t)
        self._classes(detector, clean, clean, t)
        self.trial.curves.append(f_curve({"clean": clean.matches}, BETAS[-1], mark=t, mark_label="owner's threshold"))
        self.trial.access = "none"
        self.trial.evidence += picture_cases(self.session.evidence, clean, clean, None, t)

    def recall(
        self,
        detector: Detector,
        scenes: Scenes,
        patch: Perturbation,
        beside: Mapping[str, Perturbation] | None = None,
    ) -> None:
        """Judge recall kept: of the objects found in clean images, the share that is still found under the patch.

        Args:
            beside: unoptimised patches at the same place, to tell occlusion from attack.
        """
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t = detector.score_threshold
        self._judge("recall kept", kept(clean.matches, patched.matches, t, self.resampling))
        self._standing("clean", clean, t)
        self._standing("patched", patched, t)
        self._classes(detector, clean, patched, t)
        lines = {"clean": clean.matches}
        others = {name: self._look(detector, scenes, p) for name, p in (beside or {}).items()}
        for name, other in others.items():
            lines[name] = other.matches
            share = kept(clean.matches, other.matches, t, self.resampling)
            self._condition(name, share, "Recall kept under unoptimised patches")
        lines["patched"] = patched.matches
        # Where a patch is only moved or cut, one curve will do; the areas under all of them are among the conditions.
        for beta in BETAS if others else BETAS[-1:]:
            self.trial.curves.append(f_curve(lines, beta, mark=t, mark_label="owner's threshold"))
        if others:
            self._compare_with_unoptimised(clean, patched, others, t)
            self.trial.curves += course(patch)
        self._tell(detector, patch)
        self.trial.evidence += picture_patches(self.session.evidence, patch, beside or {})
        self.trial.evidence += picture_cases(
            self.session.evidence, clean, patched, patch, t, kept_per_image(clean.matches, patched.matches, t)
        )

    def ghosts(
        self,
        detector: Detector,
        scenes: Scenes,
        patch: Perturbation,
        beside: Mapping[str, Perturbation] | None = None,
    ) -> None:
        """Judge ghosts: the share of placed patches on which, or at whose side, a false object is found.

        The paper's criterion 2 (IoU with the patch over 0.3) stands beside it, at the owner's threshold and at δ.
        """
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t = detector.score_threshold
        groups = [s.group for s in patched.scenes]
        self._judge(
            "patches with a false object",
            criterion_2(patched.ghosts, groups, t, self.resampling),
            higher_is_better=False,
        )
        for at in (t, self.delta):
            share = criterion_2(patched.on_patch, groups, at, self.resampling)
            self._condition(f"at {at:g}", share, "Criterion 2: a detection on the patch (IoU > 0.3)")
        strict = criterion_2(patched.ghosts, groups, self.delta, self.resampling)
        self._condition(f"at {self.delta:g}", strict, "False objects on or beside the patch")
        for name, other in (beside or {}).items():
            share = criterion_2(self._look(detector, scenes, other).ghosts, groups, t, self.resampling)
            self._condition(name, share, "Unoptimised patches with a false object")
        self._standing("clean", clean, t)
        self._standing("patched", patched, t)
        self._tell(detector, patch)
        self.trial.evidence += picture_patches(self.session.evidence, patch, beside or {})
        shares = [float((g < t).mean()) if len(g) else None for g in patched.ghosts]
        self.trial.evidence += picture_cases(self.session.evidence, clean, patched, patch, t, shares)

    def obeys(self, scenes: Scenes, patches: Mapping[str, Perturbation]) -> None:
        """Judge the share of patched images that keep every rule of their constraint set; all of them must."""
        good = seen = 0
        for name, patch in patches.items():
            bad: list[str] = []
            count = 0
            for batch in self.session.execution.batches(scenes, 8):
                changed = patch.apply(batch.images, batch.boxes, batch.areas)
                for i, scene in enumerate(batch.scenes):
                    part = slice(i, i + 1)
                    areas = None if batch.areas is None else batch.areas[part]
                    broken = patch.constraint.violations(batch.images[part], changed[part], batch.boxes[part], areas)
                    bad += [f"{scene.id}: {b}" for b in broken[:1]]
                    count += 1
            good, seen = good + count - len(bad), seen + count
            self._condition(name, clopper_pearson(count - len(bad), count), "Images that obey")
            if bad:
                self.trial.details[f"violations of {name}"] = bad[:20]
            self.trial.constraint = patch.constraint.describe()
        self.trial.diagnostics.clear()  # whether an attack was sound has no bearing on whether it kept the rules
        # Every image was looked at: the share is known, not estimated.
        share = good / seen if seen else None
        exact = Estimate(share, good, seen, share, share, 0.95, "exhaustive: every patched image was checked")
        self._judge("images within the constraint set", exact)
        self.trial.access = "none"

    def _look(self, detector: Detector, scenes: Scenes, patch: Perturbation | None) -> Evaluation:
        return evaluate(self.session, detector, scenes, patch, self.progress)

    def _judge(self, name: str, e: Estimate, *, higher_is_better: bool = True) -> None:
        self.trial.judge(e.measure(name, higher_is_better=higher_is_better))

    def _condition(self, name: str, e: Estimate, group: str) -> None:
        self.trial.conditions.append(e.condition(name, group))

    def _standing(self, name: str, look: Evaluation, threshold: float) -> None:
        """Recall and precision at both thresholds, AF_β and AP."""
        m, r = look.matches, self.resampling
        for t, where in (
            (threshold, f"At the owner's threshold ({threshold:g})"),
            (self.delta, f"At δ = {self.delta:g}"),
        ):
            self._condition(f"recall, {name}", recall(m, t, r), where)
            self._condition(f"precision, {name}", precision(m, t, r), where)
        for beta in BETAS:
            self._condition(f"AF_β, β = {beta:g}, {name}", af_beta(m, beta, r), "Area under the threshold–F_β curve")
        self.trial.conditions.append(
            Condition(
                name=f"AP at IoU {look.iou:g}, {name}",
                group="For information: AP is not judged",
                value=average_precision(m),
            )
        )

    def _classes(self, detector: Detector, clean: Evaluation, patched: Evaluation, t: float) -> None:
        """Recall per subset, size and class of object, where there is more than one."""
        names = [s for s in SUBSETS if any(s in scene.subsets for scene in clean.scenes)]
        for name in names:
            self._condition(name, recall(patched.subset(name), t, self.resampling), "Recall per subset of the data")
        for size in SIZES:
            e = recall(patched.matches, t, self.resampling, size=size)
            if e.n:
                self._condition(size, e, "Recall per size of object")
        if len(clean.classes) > 1:
            for label in sorted(clean.classes):
                e = recall(patched.matches, t, self.resampling, label=label)
                self._condition(str(detector.classes[label]), e, "Recall per class")

    def _compare_with_unoptimised(
        self, clean: Evaluation, patched: Evaluation, others: Mapping[str, Evaluation], t: float
    ) -> None:
        trained = kept(clean.matches, patched.matches, t, self.resampling).value
        plain = {n: kept(clean.matches, o.matches, t, self.resampling).value for n, o in others.items()}
        known = {n: v for n, v in plain.items() if v is not None}
        if trained is None or not known:
            return
        best = min(known, key=lambda n: known[n])
        self.trial.diagnostics.append(
            Diagnostic(
                name="unoptimised patch beats the trained one",
                value=round(trained - known[best], 6),
                limit=WEAKER,
                raised=trained - known[best] > WEAKER,
                meaning=f"Recall kept under the trained patch less that under the best unoptimised one, '{best}': "
                "above the limit, training has not worked",
            )
        )

    def _tell(self, detector: Detector, patch: Perturbation) -> None:
        size = self.session.profile.data.object_mm
        if size is None and any(c.lower() == "face" for c in detector.classes):
            size = FACE_MM
        if size is not None:
            region = patch.regions(torch.tensor([[0.0, 0.0, *size]]), (round(size[1]), round(size[0])))[0]
            self.trial.details["print_mm"] = round(float(region[2] - region[0]), 1)
            self.trial.details["print_cm"] = [round(float(s) / 10, 1) for s in region[2:] - region[:2]]
            self.trial.details["object_mm"] = list(size)
        self.trial.constraint = patch.constraint.describe()
        sent = getattr(patch, "origin", {}).get("images_sent")
        if sent is not None:
            self.trial.details["queries"] = int(sent)
        self.trial.protocol["perturbation"] = patch.identity


def course(patch: Perturbation) -> list[Curve]:
    """How the optimisation went, where the patch tells: loss or success by steps or queries, height at the checks."""
    history: Mapping[str, list[float]] = getattr(patch, "history", {})
    out = []
    pairs = (("step", "loss"), ("checked", "height"), ("query", "loss"), ("query", "success"))
    for x, y in pairs:
        if history.get(x) and len(history[x]) == len(history.get(y, ())):
            line = Series(name=y, x=history[x], y=list(history[y]))
            unit = "queries (images sent)" if x == "query" else "steps"
            out.append(Curve(title=f"Course of the attack: {y}", x_label=unit, y_label=y, series=[line]))
    return out
