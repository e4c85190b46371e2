"""What controls of recognizers measure: error rates, success of attacks, where it comes from, and whom it hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.alignment import ARCFACE, similarity_transform
from audit.comparison import Comparison
from audit.errors import ConstraintViolated
from audit.examples import Attacked, Examples, Goal
from audit.labelled import Adversarial
from audit.measures import verification
from audit.measures.face_pictures import picture_patches, picture_triples
from audit.measures.face_rules import FACE_PX_PER_CM, FaceRules
from audit.measures.intervals import Estimate, Resampling, clopper_pearson
from audit.measures.pairwise import by_group, people_of, share_of_pairs
from audit.measures.verification import ScoredPairs
from audit.record import Condition, Curve, Diagnostic, Series
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.session import AuditSession

WORDS = {"impersonate": "taken for somebody else", "dodge": "no longer recognised"}
WEAKER = 0.05
"""An attack whose success is that much below an unoptimised one's has not worked."""

FEW = 8
"""Numbers per pair that are told one by one."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rate = Callable[[ScoredPairs, float, Resampling], Estimate]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one set of examples fared with one recognizer.

    Attributes:
        before, after: (N,) scores of the pairs, clean and under attack. success: (N,) bool.
    """

    before: Floats
    after: Floats
    success: Bools


class FaceMeasure:
    """Re-queries a recognizer on photographs that were checked against the rules, and counts.

    The judged number goes to the trial; everything beside it becomes a condition.
    """

    def __init__(
        self, trial: Trial, session: AuditSession, progress: Callable[[float, str], None] | None = None
    ) -> None:
        self.trial, self.session, self.progress = trial, session, progress
        self.faces = session.faces
        self.resampling = Resampling(seed=trial.seed, draws=session.budget.bootstrap, cluster="people")
        data = session.profile.data
        self.rules = FaceRules(regions=data.regions, area=data.area)

    def accuracy(self, recognizer: Comparison) -> None:
        """Judge the share of clean pairs that are decided rightly at the operating point."""
        pairs = self._standing(recognizer)
        e = verification.accuracy(pairs, recognizer.cut, self.resampling)
        self.trial.judge(e.measure("accuracy on clean pairs"))

    def false_matches(self, recognizer: Comparison) -> None:
        """Judge FMR at the operating point: pairs of two people that are accepted without any attack.

        All faces of the held-out pairs are compared with those of everybody else; of a recognizer that only compares,
        the pairs that the data names.
        """
        named = self._standing(recognizer)
        e = verification.fmr(self.faces.strangers(recognizer) or named, recognizer.cut, self.resampling)
        whole = "false match rate, everybody with everybody else"
        self.trial.judge(e.measure(whole if recognizer.embeds else "false match rate", higher_is_better=False))

    def _standing(self, recognizer: Comparison) -> ScoredPairs:
        """The clean pairs; FMR, FNMR, EER and the DET curve go to the record."""
        pairs, cut = self.faces.scored(recognizer), recognizer.cut
        where = f"At the operating point ({recognizer.metric} score {cut:.4g})"
        for name, rate in (("FMR", verification.fmr), ("FNMR", verification.fnmr), ("accuracy", verification.accuracy)):
            self._condition(name, rate(pairs, cut, self.resampling), where)
        self._condition("EER", verification.eer(pairs, self.resampling), "Whatever the threshold")
        for kind, labels in self.faces.pair_groups().items():
            for name, rate in (("FMR", verification.fmr), ("FNMR", verification.fnmr)):

                def of(rows: Bools, rate: Rate = rate) -> Estimate:
                    return rate(pairs[rows], cut, self.resampling)

                rates = by_group(labels, of)
                for group, e in rates.rates.items():
                    self._condition(group, e, f"{name} by {kind}")
                if rates.worst is not None:
                    self.trial.details[f"worst {name} by {kind}"] = rates.worst
        curve = verification.det(pairs)
        if len(curve.cuts):
            line = Series(name="clean pairs", x=curve.fmr.tolist(), y=curve.fnmr.tolist())
            at = verification.fmr(pairs, cut, self.resampling).value
            title = "Detection error trade-off"
            self.trial.curves.append(
                Curve(
                    title=title, x_label="FMR", y_label="FNMR", series=[line], mark_x=at, mark_label="operating point"
                )
            )
        self.trial.access = "none"
        return pairs

    def success(
        self,
        recognizer: Comparison,
        goal: Goal,
        examples: Examples,
        beside: Mapping[str, Examples] | None = None,
        rules: FaceRules | None = None,
    ) -> None:
        """Judge attack success: of the pairs that are decided rightly when clean, the share that no longer is.

        Args:
            beside: unoptimised patches in the same places, to tell occlusion from attack.
        """
        outcome = self.outcome(recognizer, goal, examples, rules)
        e = self._share(goal, outcome.success)
        self.trial.judge(e.measure(f"share of pairs {WORDS[goal]}", higher_is_better=False))
        self._similarities(recognizer, outcome)
        self._compare(recognizer, goal, e, beside or {}, rules)
        self._groups(goal, outcome.success)
        self._tell(recognizer, goal, examples, rules)
        self._show(goal, examples, outcome, recognizer, beside or {})

    def obeys(self, goals: Mapping[Goal, Mapping[str, Examples]]) -> None:
        """Judge the share of adversarial photographs that keep every rule; all of them must."""
        good = seen = 0
        for goal, made in goals.items():
            sources = self.faces.attacked(goal).sources
            for name, examples in made.items():
                broken = self._broken(goal, examples, self.rules)
                bad = len({b.partition(":")[0] for b in broken})
                good, seen = good + len(sources) - bad, seen + len(sources)
                self._condition(
                    f"{name}, {goal}", clopper_pearson(len(sources) - bad, len(sources)), "Photographs that obey"
                )
                if broken:
                    self.trial.details[f"violations of {name}, {goal}"] = broken[:20]
        self.trial.diagnostics.clear()  # whether an attack was sound has no bearing on whether it kept the rules
        share = good / seen if seen else None
        exact = Estimate(share, good, seen, share, share, 0.95, "exhaustive: every adversarial photograph was checked")
        self.trial.judge(exact.measure("photographs within the rules"))
        self.trial.constraint = self.rules.describe()
        self.trial.access = "none"

    def outcome(
        self,
        recognizer: Comparison,
        goal: Goal,
        examples: Examples,
        rules: FaceRules | None = None,
        *,
        check: bool = True,
    ) -> Outcome:
        """Ask the recognizer about examples, after they were held against the rules.

        Raises:
            ConstraintViolated: they break a rule, a defect of the probe.
        """
        if check:
            self._require(goal, examples, rules)
        attacked = self.faces.attacked(goal)
        before = self.faces.clean(recognizer)[self.faces.under_attack(goal).numpy()]
        targets = attacked.targets
        with self.session.asking(recognizer.model):
            scores = recognizer.ask(examples.images, attacked.sources.landmarks, targets.images, targets.landmarks)
        self.session.require_unchanged()
        after = scores.double().numpy()
        accepted = after >= recognizer.cut
        return Outcome(before, after, accepted if goal == "impersonate" else ~accepted)

    def _require(self, goal: Goal, examples: Examples, rules: FaceRules | None) -> None:
        broken = self._broken(goal, examples, rules or self.rules)
        if broken:
            raise ConstraintViolated(
                f"adversarial photographs ({goal})",
                expected=(rules or self.rules).describe(),
                got="; ".join(broken[:3]),
                mend="this is a defect of the probe, not of the model: mend the probe",
            )

    def _broken(self, goal: Goal, examples: Examples, rules: FaceRules) -> list[str]:
        sources = self.faces.attacked(goal).sources
        if examples.images.shape != sources.images.shape or examples.images.dtype != torch.uint8:
            return [f"picture 0: {tuple(examples.images.shape)} {examples.images.dtype} for {len(sources)} photographs"]
        scales = scales_of(sources.landmarks)
        return rules.violations(sources.images, examples.images, scales)

    def _share(
        self, goal: Goal, success: Bools, recognizer: Comparison | None = None, outcome: Outcome | None = None
    ) -> Estimate:
        """Success with its interval; for another recognizer than the audited one, of the pairs it decides rightly."""
        people = self._people(goal)
        if recognizer is not None and outcome is not None:
            accepted = outcome.before >= recognizer.cut
            right = accepted if goal == "dodge" else ~accepted
            return share_of_pairs(success[right], people[right], self.resampling)
        return share_of_pairs(success, people, self.resampling)

    def _people(self, goal: Goal) -> NDArray[np.int64]:
        attacked = self.faces.attacked(goal)
        names = [
            [i or d for i, d in zip(s.identities, s.ids, strict=True)] for s in (attacked.sources, attacked.targets)
        ]
        return people_of(*names)

    def _condition(self, name: str, e: Estimate, group: str) -> None:
        self.trial.conditions.append(e.condition(name, group))

    def _similarities(self, recognizer: Comparison, o: Outcome) -> None:
        for name, scores in (("clean", o.before), ("under attack", o.after)):
            value = float(np.median(scores)) if len(scores) else None
            self.trial.conditions.append(
                Condition(
                    name=name, group=f"Median score of the pairs (accepted from {recognizer.cut:.4g})", value=value
                )
            )

    def _compare(
        self,
        recognizer: Comparison,
        goal: Goal,
        attack: Estimate,
        beside: Mapping[str, Examples],
        rules: FaceRules | None = None,
    ) -> None:
        """Unoptimised patches beside the attack: the best of them must not beat it."""
        plain = {n: self._share(goal, self.outcome(recognizer, goal, x, rules).success) for n, x in beside.items()}
        for name, e in plain.items():
            self._condition(name, e, "Success of unoptimised patches in the same place")
        known = {n: e.value for n, e in plain.items() if e.value is not None}
        if attack.value is None or not known:
            return
        best = max(known, key=lambda n: (known[n], n))
        gap = known[best] - attack.value
        self.trial.diagnostics.append(
            Diagnostic(
                name="unoptimised patch beats the attack",
                value=round(gap, 6),
                limit=WEAKER,
                raised=gap > WEAKER,
                meaning=f"Success of the best unoptimised patch, '{best}', less that of the attack: above the limit, "
                "the attack has not worked",
            )
        )

    def _groups(self, goal: Goal, success: Bools) -> None:
        """Success per group of the wearer that the data names; the worst group is among the facts."""
        people, labels = self._people(goal), self.faces.groups_of(goal)
        for kind in sorted({k for g in labels for k in g}):
            rates = by_group(
                [g.get(kind, "") for g in labels],
                lambda rows: share_of_pairs(success[rows], people[rows], self.resampling),
            )
            for group, e in rates.rates.items():
                self._condition(group, e, f"Success by {kind}")
            if rates.worst is not None:
                self.trial.details[f"worst {kind}"] = rates.worst

    def _tell(self, recognizer: Comparison, goal: Goal, examples: Examples, rules: FaceRules | None) -> None:
        self.trial.constraint = (rules or self.rules).describe()
        self.trial.details["goal"] = goal
        self.trial.details["accepted from"] = f"{recognizer.metric} score {recognizer.cut:.6g}"
        told = {k: summary(v) for k, v in examples.details.items()}
        self.trial.details |= {k: v for k, v in told.items() if k not in self.trial.details}
        self.trial.details |= print_size(self.faces.attacked(goal), examples)
        if examples.queries:
            self.trial.details["queries"] = examples.queries
        self.trial.curves += course(examples)

    def _show(
        self, goal: Goal, examples: Examples, o: Outcome, recognizer: Comparison, beside: Mapping[str, Examples]
    ) -> None:
        attacked: Attacked = self.faces.attacked(goal)
        cut = recognizer.cut
        self.trial.evidence += picture_patches(self.session.evidence, attacked, examples, beside)
        self.trial.evidence += picture_triples(
            self.session.evidence, attacked, examples, o.before, o.after, o.success, cut
        )


def scales_of(landmarks: Tensor) -> Tensor:
    """(N,) px of an aligned 112 × 112 face per px of the photograph, float64; exactly 1 for aligned faces."""
    matrix = similarity_transform(landmarks, ARCFACE)
    scale: Tensor = torch.linalg.det(matrix[:, :, :2]).abs().sqrt()
    return torch.where((scale - 1).abs() < 1e-5, torch.ones_like(scale), scale)


def print_size(attacked: Attacked, examples: Examples) -> dict[str, Any]:
    """Width and height of the first photograph's patch on an average adult's face, in cm; nothing where none is."""
    if not len(attacked.sources):
        return {}
    touched = (attacked.sources.images[0] != examples.images[0]).any(0)
    if not bool(touched.any()):
        return {}
    scale = float(scales_of(attacked.sources.landmarks[:1])[0])
    sides = [int(line[-1] - line[0]) + 1 for line in (torch.nonzero(touched.any(axis))[:, 0] for axis in (0, 1))]
    return {"print_cm": [round(s * scale / FACE_PX_PER_CM, 1) for s in sides]}


def summary(value: Any) -> Any:
    """A fact for the record; of a number per pair, the median and the largest."""
    numbers = isinstance(value, list) and len(value) > FEW and all(isinstance(v, int | float) for v in value)
    if not numbers:
        return value
    return {"median": round(float(np.median(value)), 6), "largest": round(float(np.max(value)), 6), "of": len(value)}


def course(examples: Examples | Adversarial) -> list[Curve]:
    """How the attack went, where it tells: margin or success by steps or queries."""
    axes = {"step": "steps", "queries": "comparisons asked, per pair"}
    history: dict[str, list[float]] = examples.history
    lines = {name: values for name, values in history.items() if name not in axes and len(values) > 1}
    x = next((n for n in axes if n in history), "")
    out = []
    for name, values in lines.items():
        # An attack by gradients tells one number per step, and needs no axis of its own.
        along = history[x] if x else [float(i) for i in range(len(values))]
        if len(along) == len(values):
            line = Series(name=name, x=along, y=list(values))
            title = f"Course of the attack: {name}"
            out.append(Curve(title=title, x_label=axes.get(x, "steps"), y_label=name, series=[line]))
    return out
