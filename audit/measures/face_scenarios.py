"""What controls of recognizers measure beyond one attack on one model: tables, areas, looks, searches, liveness."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from audit.comparison import Comparison
from audit.examples import Examples, Goal
from audit.measures.face_rules import FaceRules
from audit.measures.faces import WORDS, FaceMeasure, Floats, Outcome
from audit.measures.identification import NOT_ENROLLED, Identified, identified
from audit.measures.intervals import Estimate, clopper_pearson
from audit.measures.pairwise import share_of_pairs
from audit.record import Curve, Diagnostic, Grid, Series

ALIVE = 0.8
"""Share of clean photographs that a liveness detector has to let pass before its word counts."""


class FaceScenarios(FaceMeasure):
    """Adds to the measures of a recognizer those about several attacks, recognizers, looks or people at once."""

    def worst(
        self,
        recognizers: Mapping[str, Comparison],
        goal: Goal,
        made: Mapping[str, Examples | Mapping[str, Examples]],
        *,
        title: str,
        row_label: str,
        beside: Mapping[str, Examples] | None = None,
    ) -> None:
        """Judge the most successful of several attacks on the first recognizer, and tabulate attack × recognizer.

        Args:
            made: name -> examples for all recognizers, or -> recognizer -> examples where they differ (leave one out).
        """
        subject = next(iter(recognizers))
        table = {n: m if isinstance(m, Mapping) else dict.fromkeys(recognizers, m) for n, m in made.items()}
        found: dict[str, dict[str, Estimate]] = {}
        outcomes: dict[str, Outcome] = {}
        for i, (name, cells) in enumerate(table.items()):
            found[name] = {}
            for column, examples in cells.items():
                outcome = self.outcome(recognizers[column], goal, examples)
                found[name][column] = self._share(goal, outcome.success, recognizers[column], outcome)
                if column == subject:
                    outcomes[name] = outcome
            if self.progress is not None:
                self.progress((i + 1) / len(table), f"{title}: {name}")
        worst = max(outcomes, key=lambda n: (found[n][subject].value or 0.0, n))
        examples = table[worst][subject]
        e = found[worst][subject]
        self.trial.judge(e.measure(f"share of pairs {WORDS[goal]}, worst attack", higher_is_better=False))
        self.trial.details["worst_attack"] = worst
        for name in outcomes:
            self._condition(name, found[name][subject], "Success against the audited recognizer, per attack")
        self._compare(recognizers[subject], goal, e, beside or {})
        values = [[found[r][c].value if c in found[r] else None for c in recognizers] for r in found]
        self.trial.grids.append(
            Grid(
                title=title,
                row_label=row_label,
                column_label="tested on",
                rows=list(found),
                columns=list(recognizers),
                values=values,
                higher_is_better=False,
                note="Pairs that the recognizer of the column decides wrongly when clean are left out of its cells.",
            )
        )
        self._similarities(recognizers[subject], outcomes[worst])
        self._tell(recognizers[subject], goal, examples, None)
        self._show(goal, examples, outcomes[worst], recognizers[subject], beside or {})

    def ladder(self, recognizer: Comparison, goal: Goal, steps: Mapping[float, Examples], judged: float) -> None:
        """Judge success at one area of a ladder of areas, and draw it over all of them."""
        values: list[float | None] = []
        for i, (area, examples) in enumerate(steps.items()):
            rules = FaceRules(regions=self.rules.regions, area=area)
            outcome = self.outcome(recognizer, goal, examples, rules)
            e = self._share(goal, outcome.success)
            values.append(e.value)
            self._condition(f"{area:.0%} of the face", e, "Success by the area of the patch")
            if area == judged:
                name = f"share of pairs {WORDS[goal]}, patch of {area:.0%} of the face"
                self.trial.judge(e.measure(name, higher_is_better=False))
                self._similarities(recognizer, outcome)
                self._tell(recognizer, goal, examples, rules)
                self._show(goal, examples, outcome, recognizer, {})
            if self.progress is not None:
                self.progress((i + 1) / len(steps), f"area {area:.0%}")
        line = Series(name="success", x=[100 * a for a in steps], y=values)
        self.trial.curves.append(
            Curve(
                title="Success by area",
                x_label="area of the patch, % of the aligned face",
                y_label="share of pairs",
                series=[line],
                mark_x=100 * self.rules.area,
                mark_label="the competition's limit",
            )
        )

    def looks(
        self,
        recognizer: Comparison,
        goal: Goal,
        looks: Mapping[str, Examples],
        examples: Examples,
        clean: Mapping[str, Examples],
    ) -> None:
        """Judge success in all looks of a worn patch together; the worst look stands beside it.

        A look counts where the clean photograph, seen in the same way, is decided rightly: what light and blur do
        alone is not the patch's.

        Args:
            clean: name of a look -> the clean photographs in it.
            looks: name -> the examples as a camera sees them: outside the rules of a still picture by nature, since
            light and blur change the whole of it. examples: as they were made, held against the rules.
        """
        self._require(goal, examples, None)
        each = {n: self.outcome(recognizer, goal, x, check=False) for n, x in looks.items()}
        right = {n: ~self.outcome(recognizer, goal, clean[n], check=False).success for n in each}
        success = np.concatenate([o.success[right[n]] for n, o in each.items()])
        people = np.concatenate([self._people(goal)[right[n]] for n in each])
        e = share_of_pairs(success, people, self.resampling)
        self.trial.judge(e.measure(f"share of looks in which a pair is {WORDS[goal]}", higher_is_better=False))
        everybody = self._people(goal)
        for name, o in each.items():
            rows = right[name]
            self._condition(name, share_of_pairs(o.success[rows], everybody[rows], self.resampling), "Success by look")
            lost = share_of_pairs(~rows, everybody, self.resampling)
            self._condition(name, lost, f"Clean photographs {WORDS[goal]} in this look")
        still = self.outcome(recognizer, goal, examples)
        self._condition("as made", self._share(goal, still.success), "Success by look")
        self._similarities(recognizer, still)
        self._tell(recognizer, goal, examples, None)
        self._show(goal, examples, still, recognizer, {})

    def living(self, recognizer: Comparison, live: Callable[[Tensor], Tensor], goal: Goal,
               made: Mapping[str, Examples], threshold: float) -> None:  # fmt: skip
        """Judge the share of pairs where an attack succeeds and passes liveness as well: the worst attack's.

        Counted are pairs whose clean photograph passes for alive; a detector that lets few of them pass has no say.

        Args:
            live: photographs (N, 3, H, W) uint8 to live scores (N,). made: name -> examples.
        """
        attacked = self.faces.attacked(goal)
        clean = live(attacked.sources.images).cpu().numpy() >= threshold
        self._condition("clean photographs", clopper_pearson(int(clean.sum()), len(clean)), "Passes liveness")
        best: tuple[float, str] | None = None
        found = {}
        for name, examples in made.items():
            outcome = self.outcome(recognizer, goal, examples)
            passes = live(examples.images).cpu().numpy() >= threshold
            both = outcome.success & passes
            self._condition(name, clopper_pearson(int(passes.sum()), len(passes)), "Passes liveness")
            self._condition(name, self._share(goal, outcome.success), f"Is {WORDS[goal]}")
            share = share_of_pairs(both[clean], self._people(goal)[clean], self.resampling)
            found[name] = (share, outcome, examples, both)
            self._condition(name, found[name][0], "Both")
            value = found[name][0].value or 0.0
            best = max(best or (value, name), (value, name))
        assert best is not None
        e, outcome, examples, both = found[best[1]]
        self.trial.judge(e.measure(f"share of pairs {WORDS[goal]} that also pass liveness", higher_is_better=False))
        self.trial.details["worst_attack"] = best[1]
        alive = float(clean.mean()) if len(clean) else None
        self.trial.diagnostics.append(
            Diagnostic(
                name="clean photographs pass liveness",
                value=alive,
                limit=ALIVE,
                raised=alive is None or alive < ALIVE,
                meaning="Share of the clean photographs that the liveness detector takes for alive: below the limit, "
                "what it rejects under attack it would have rejected anyway",
            )
        )
        self._tell(recognizer, goal, examples, None)
        self._show(goal, examples, Outcome(outcome.before, outcome.after, both), recognizer, {})

    def search(self, recognizer: Comparison, goal: Goal, examples: Examples) -> None:
        """Judge 1:N: enrolled people no longer found (dodge), strangers now accepted (impersonate).

        The gallery holds one photograph of everybody of the held-out side; a stranger's own is left out. All that are
        searched for count: a gallery that lets strangers in when clean is none to rely on. What it does with them
        clean stands beside.
        """
        self._require(goal, examples, None)
        attacked = self.faces.attacked(goal)
        gallery = self.faces.gallery(attacked.sources.ids if goal == "dodge" else ())
        if not len(gallery):
            nothing = Estimate(None, None, 0, None, None, 0.95, "the data names nobody who could be enrolled")
            self.trial.judge(nothing.measure("share of searches gone wrong", higher_is_better=False))
            return
        own = {name: i for i, name in enumerate(gallery.identities)}
        truth = np.array([own.get(name, NOT_ENROLLED) for name in attacked.sources.identities])
        with self.session.asking(recognizer.model):
            entries = recognizer.embeddings(gallery.images, gallery.landmarks)
            looks = {
                name: recognizer.embeddings(images, attacked.sources.landmarks)
                for name, images in (("clean", attacked.sources.images), ("patched", examples.images))
            }
        self.session.require_unchanged()
        found: dict[str, Identified] = {}
        best: dict[str, Floats] = {}
        for name, look in looks.items():
            scores = torch.stack([recognizer.between(look, g.expand_as(look)) for g in entries], 1).double().numpy()
            if goal == "impersonate":
                rows = np.flatnonzero(truth != NOT_ENROLLED)
                scores[rows, truth[rows]] = -1e9
                found[name] = identified(scores, np.full(len(truth), NOT_ENROLLED), recognizer.cut)
            else:
                found[name] = identified(scores, truth, recognizer.cut)
            best[name] = scores.max(1)
        # Who has no other photograph is not enrolled, and cannot be hidden.
        counted = truth != NOT_ENROLLED if goal == "dodge" else np.ones(len(truth), dtype=bool)
        wrong = {n: (~f.found if goal == "dodge" else f.accepted) & counted for n, f in found.items()}
        people = self._people(goal)
        what = "enrolled people hidden from a search" if goal == "dodge" else "strangers accepted as somebody enrolled"
        e = share_of_pairs(wrong["patched"][counted], people[counted], self.resampling)
        self.trial.judge(e.measure(f"share of {what}", higher_is_better=False))
        for name, misses in wrong.items():
            share = share_of_pairs(misses[counted], people[counted], self.resampling)
            self._condition(f"{what}, {name}", share, "Search of the gallery")
        self.trial.details["enrolled"] = len(gallery)
        self._tell(recognizer, goal, examples, None)
        self._show(goal, examples, Outcome(best["clean"], best["patched"], wrong["patched"]), recognizer, {})
