"""What controls of attributors measure: retrieval by method, methods that the gallery does not hold, the total."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audit.measures import novelty, retrieval
from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import extreme, numbered, stricter
from audit.measures.roc import few_clusters, roc_figure
from audit.record import Diagnostic
from audit.shifts import Shift
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.attribution_audit import AttributionAudit, Features
    from audit.session import AuditSession

Progress = Callable[[float, str], None]
SCORES = ("knn", "cluster", "lof", "entropy", "fused")
FUSED = ("knn", "cluster", "lof")


class AttributionMeasure:
    """Writes into the record of one control. Each face is a probe or an entry of the gallery; sources go together."""

    def __init__(
        self, trial: Trial, session: AuditSession, data: AttributionAudit, progress: Progress | None = None
    ) -> None:
        self.trial, self.session, self.data, self.progress = trial, session, data, progress
        self.resampling = Resampling(seed=trial.seed, draws=session.budget.bootstrap, cluster="sources")
        trial.access = "none"

    def retrieval(self, shifts: Mapping[str, Shift | None]) -> None:
        """Judge the lowest precision@5 over what was done to the probes, of probes whose method the gallery holds."""
        gallery = self.data.features(self.data.sides.gallery)
        rates: dict[str, Estimate] = {}
        for i, (name, shift) in enumerate(shifts.items()):
            e = rates[name] = self._precision(gallery, self._probes(shift), name, details=i == 0)
            self.trial.conditions.append(e.condition(name, "precision@5"))
            if self.progress is not None:
                self.progress((i + 1) / len(shifts), name)
        known = {n: e for n, e in rates.items() if e.value is not None}
        if not known:
            self.trial.undecided = self.trial.undecided or "Not measured: no probe of a method that the gallery holds."
            return
        worst = min(known, key=lambda n: (known[n].value or 0.0, n))
        wide = stricter(self.resampling, len(known))
        again = {n: self._plain_precision(gallery, self._probes(shifts[n]), wide) for n in known}
        e = extreme(known, again, highest=False)
        self.trial.judge(e.measure("precision@5" if len(shifts) == 1 else "precision@5, worst post-processing"))
        self.trial.details["worst"] = worst
        self._told(gallery)

    def novelty(self, score: str) -> None:
        """Judge the AUC of telling probes of new methods from the others by one of ``SCORES``."""
        gallery, probes = self.data.features(self.data.sides.gallery), self._probes(None)
        new = novelty.is_new(probes.methods, gallery.methods)
        e, values = self._novelty(score, gallery, probes)
        if e.value is None:
            self.trial.undecided = "Not measured: the data hold no probes of new methods, or none of known ones."
            return
        self.trial.judge(e.measure(f"AUC of new methods, {score}", unit="AUC"))
        self._few_new(probes, new)
        lines = {score: (values, new)}
        self.trial.curves.append(
            roc_figure(lines, "ROC", x_label="known methods called new", y_label="new methods called new")
        )
        self._told(gallery)

    def total(self) -> None:
        """Judge 0.6 · precision@5 + 0.3 · AUC, and 0.1 · what experts gave where the profile says it."""
        gallery, probes = self.data.features(self.data.sides.gallery), self._probes(None)
        p = self._precision(gallery, probes, "as they are", details=False)
        auc, _ = self._novelty("fused", gallery, probes)
        found = retrieval.total(p, auc, self.session.profile.data.subjective)
        self.trial.conditions += [p.condition("precision@5", "Parts of the total")]
        if found.estimate.value is None:
            self.trial.undecided = f"Not measured: {found.estimate.method}."
            return
        self._few_new(probes, novelty.is_new(probes.methods, gallery.methods))
        self.trial.conditions.append(auc.condition("AUC of new methods, fused", "Parts of the total"))
        name = "0.6 precision@5 + 0.3 AUC" + (" + 0.1 subjective" if found.complete else "")
        self.trial.judge(found.estimate.measure(name, unit="points"))
        self.trial.details |= {"subjective part": found.note or "given", "at most": found.most}
        self._told(gallery)

    # --- inside

    def _probes(self, shift: Shift | None) -> Features:
        return self.data.features(self.data.sides.probe, shift, self.session.options.seed)

    def _precision(self, gallery: Features, probes: Features, name: str, *, details: bool) -> Estimate:
        known = probes.where(~novelty.is_new(probes.methods, gallery.methods))
        if not len(known.rows) or len(gallery.rows) < retrieval.K:
            self.trial.undecided = (
                f"Not measured: {len(known.rows)} probes of known methods, {len(gallery.rows)} in the gallery."
            )
            return Estimate(None, None, 0, None, None, self.resampling.level, "nothing to compare")
        found = retrieval.top_k(known.rows, gallery.rows)
        e = retrieval.precision(found, known.methods, gallery.methods, known.groups, self.resampling)
        each_method = retrieval.per_method(found, known.methods, gallery.methods, known.groups, self.resampling)
        for method, each in each_method.items():
            self.trial.conditions.append(each.condition(method, f"precision@5 by method, {name}"))
        if details:
            self.trial.grids.append(retrieval.confusion(found, known.methods, gallery.methods))
            self.trial.grids.append(retrieval.similarities(gallery.rows, gallery.methods))
        if len(set(known.groups)) < 2:
            self.trial.undecided = "The probes are of one source: they tell nothing of others."
        return e

    @staticmethod
    def _plain_precision(gallery: Features, probes: Features, resampling: Resampling) -> Estimate:
        known = probes.where(~novelty.is_new(probes.methods, gallery.methods))
        found = retrieval.top_k(known.rows, gallery.rows)
        return retrieval.precision(found, known.methods, gallery.methods, known.groups, resampling)

    def _few_new(self, probes: Features, new: NDArray[np.bool_]) -> None:
        """No AUC of new methods stands on one clip or one source of either kind."""
        clips, groups = (numbered(names)[0] for names in (probes.clips, probes.groups))
        few = few_clusters(new, clips, "clips") or few_clusters(new, groups, "sources")
        if few:
            self.trial.undecided = f"{few[0].upper()}{few[1:]}."

    def _novelty(self, score: str, gallery: Features, probes: Features) -> tuple[Estimate, NDArray[np.float64]]:
        new = novelty.is_new(probes.methods, gallery.methods)
        wanted = FUSED if score == "fused" else (score,)
        values = {name: self._score(name, gallery, probes) for name in wanted}
        fused = novelty.fuse(values) if score == "fused" else values[score]
        if score == "fused":
            for name, v in values.items():
                e = novelty.novelty_auc(v, new, probes.groups, self.resampling)
                if e.value is not None:
                    self.trial.conditions.append(e.condition(name, "AUC of new methods, per score"))
        return novelty.novelty_auc(fused, new, probes.groups, self.resampling), fused

    def _score(self, name: str, gallery: Features, probes: Features) -> NDArray[np.float64]:
        seed, n = self.trial.seed % 2**32, len(gallery.rows)
        if name == "knn":
            return novelty.neighbours(probes.rows, gallery.rows, k=min(novelty.NEIGHBOURS, n))
        if name == "lof":
            return novelty.outlier_factor(probes.rows, gallery.rows, seed=seed)
        if name == "entropy":
            found = novelty.entropy(probes.rows, gallery.rows, seed=seed)
            self.trial.details |= {"similarity below 1/e": found.folded, "similarity not above 0": found.undefined}
            return found.score
        # twice as many clusters as the gallery has methods; among the probes there may be one method more
        methods = len(set(gallery.methods))
        p, g = min(len(probes.rows), 2 * methods + 2), min(n, 2 * methods)
        self.trial.details |= {"clusters of the gallery": g, "clusters of the probes": p}
        return novelty.clusters(probes.rows, gallery.rows, probe_clusters=p, gallery_clusters=g, seed=seed)

    def _told(self, gallery: Features) -> None:
        sides = self.data.sides
        self.data.tell_left_out(self.trial, self.data.clips)
        self.trial.details |= {"new methods": list(sides.novel), "methods of the gallery": sorted(set(gallery.methods)),
                               "sources on both sides": len(sides.shared)}  # fmt: skip
        self.trial.diagnostics.append(
            Diagnostic(
                name="sources on both sides",
                value=float(len(sides.shared)),
                limit=0.0,
                raised=bool(sides.shared),
                meaning="Sources that are in the gallery and among the probes: where there are any, likeness of the "
                "face may be taken for likeness of the method",
            )
        )
