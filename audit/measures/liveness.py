"""What controls of liveness detectors measure: errors per species of attack and per domain, never pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from audit.image_model import ImageModel
from audit.measures import presentation
from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import extreme, numbered, stricter
from audit.measures.roc import auc, few_clusters, roc_figure
from audit.measures.scored import FEW_SOURCES, UNITS, Scored
from audit.record import Diagnostic, Measure
from audit.shifts import Shift
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.liveness_audit import LivenessAudit
    from audit.session import AuditSession

Progress = Callable[[float, str], None]


class LivenessMeasure:
    """Writes into the record of one control. Rates are of videos and photographs, not of frames."""

    def __init__(
        self, trial: Trial, session: AuditSession, data: LivenessAudit, progress: Progress | None = None
    ) -> None:
        self.trial, self.session, self.data, self.progress = trial, session, data, progress
        self.resampling = Resampling(seed=trial.seed, draws=session.budget.bootstrap, cluster="people")
        trial.access = "none"

    def separation(self, model: ImageModel) -> None:
        """Judge the AUC of live faces against attacks, whatever the threshold."""
        scored = self._scored(model)
        for unit in UNITS:
            s = scored.per(unit)
            e = auc(s.scores, s.positive, s.groups, self.resampling)
            if unit == "video":
                self._judge(e.measure("AUC, live against attack", unit="AUC"))
            self.trial.conditions.append(e.condition(f"per {unit}", "AUC"))
        videos = scored.videos
        few = few_clusters(videos.positive, numbered(videos.groups)[0], "people")
        if few:
            self.trial.undecided = f"{few[0].upper()}{few[1:]}."
        lines = {"all attacks": (scored.scores, scored.positive)}
        self.trial.curves.append(
            roc_figure(lines, "ROC per frame", x_label="attacks taken for live", y_label="live taken for live")
        )
        self._told(model, scored)

    def attacks_accepted(self, model: ImageModel) -> None:
        """Judge the APCER of the worst species at the owner's threshold."""
        found, scored = self._rates(model)
        self._judge(found.max_apcer.measure("APCER of the worst species", higher_is_better=False))
        if found.worst is not None:
            self.trial.details["worst species"] = found.worst
            if people(scored).get(found.worst, 0) < FEW_SOURCES:
                self.trial.undecided = f"{found.worst} was presented by one person: that tells nothing of others."
        self._species(scored)
        self._told(model, scored)

    def live_rejected(self, model: ImageModel) -> None:
        """Judge BPCER at the owner's threshold: live faces that are turned away."""
        found, scored = self._rates(model)
        self._judge(found.bpcer.measure("BPCER", higher_is_better=False))
        self._live(scored)
        self._told(model, scored)

    def average_error(self, model: ImageModel, shifts: Mapping[str, Shift | None]) -> None:
        """Judge the largest ACER over qualities at the owner's threshold."""
        rates: dict[str, Estimate] = {}
        scored = self._scored(model)
        for i, (name, shift) in enumerate(shifts.items()):
            found = presentation.presentation(self._scored(model, shift), model.threshold, self.resampling)
            rates[name] = found.acer
            self.trial.conditions += presentation.conditions(name, found)
            if self.progress is not None:
                self.progress((i + 1) / len(shifts), name)
        known = {n: e for n, e in rates.items() if e.value is not None}
        if known:
            worst = max(known, key=lambda n: (known[n].value or 0.0, n))
            wide = stricter(self.resampling, len(known))
            again = {
                n: presentation.presentation(self._scored(model, shifts[n]), model.threshold, wide).acer for n in known
            }
            e = extreme(known, again, highest=True)
            self._judge(e.measure("ACER, worst quality", higher_is_better=False))
            self.trial.details["worst quality"] = worst
        else:
            self.trial.undecided = "Not measured: there are no attacks, or nobody live."
        self._species(scored)
        self._live(scored)
        self._told(model, scored)

    def unseen_domains(self, model: ImageModel) -> None:
        """Judge the largest HTER over domains, each at the threshold that the other domains give."""
        scored = self._scored(model)
        domains = {c.id: c.domain for c in self.data.clips.clips}
        names = [domains[c] for c in scored.clips]
        if len(set(names)) < 2:
            self.trial.undecided = (
                f"Not measured: the data hold {len(set(names))} domain, and leaving one out takes two at least."
            )
            return
        found = presentation.leave_one_out(scored, names, self.resampling)
        rates = {n: u.hter for n, u in found.items()}
        wide = stricter(self.resampling, len(found))
        adjusted = {n: u.hter for n, u in presentation.leave_one_out(scored, names, wide).items()}
        e = presentation.highest(rates, adjusted)
        if e.value is None:
            self.trial.undecided = "Not measured: no domain has both attacks and live faces."
        else:
            self._judge(e.measure("HTER of the worst domain left out", higher_is_better=False))
        self.trial.grids.append(presentation.domain_grid(found))
        for name, u in found.items():
            seen = " (trained on)" if name in model.trained_on else ""
            self.trial.conditions.append(u.hter.condition(f"{name}{seen}", "HTER, domain left out"))
            if u.auc.value is not None:
                self.trial.conditions.append(u.auc.condition(f"{name}{seen}", "AUC, domain left out"))
        rows = list(zip(scored.groups, names, scored.positive.tolist(), strict=True))
        kinds = {(d, p): len({g for g, n, q in rows if (n, q) == (d, p)}) for d in found for p in (True, False)}
        short = [domain for (domain, _), count in kinds.items() if count < FEW_SOURCES]
        if short and not self.trial.undecided:
            where = ", ".join(dict.fromkeys(short))
            self.trial.undecided = f"Fewer than two live people, or two who attack, to decide on: {where}."
        self.trial.details["thresholds from the other domains"] = {n: u.threshold for n, u in found.items()}
        self._told(model, scored)

    # --- inside

    def _scored(self, model: ImageModel, shift: Shift | None = None) -> Scored:
        found = self.data.scored(model, self.data.clips, shift, self.session.options.seed)
        return Scored(found.scores, found.labels, found.clips, found.groups, found.method, log_odds=False)

    def _rates(self, model: ImageModel) -> tuple[presentation.Presentation, Scored]:
        scored = self._scored(model)
        found = presentation.presentation(scored, model.threshold, self.resampling)
        self.trial.conditions += presentation.conditions("at the owner's threshold", found)
        by_frame = presentation.presentation(scored, model.threshold, self.resampling, "frame")
        if len(scored) != len(scored.videos):
            self.trial.conditions += presentation.conditions("at the owner's threshold, per frame", by_frame)
        self._pictures(model, scored)
        return found, scored

    def _live(self, scored: Scored) -> None:
        if people(scored).get("", 0) < FEW_SOURCES and not self.trial.undecided:
            self.trial.undecided = "There is one live person, who tells nothing of others."

    def _species(self, scored: Scored) -> None:
        """A species that one person presented may be worse than it looks: no pass stands on it."""
        alone = [m for m, n in sorted(people(scored).items()) if m and n < FEW_SOURCES]
        self.trial.diagnostics.append(
            Diagnostic(
                name="species presented by one person",
                value=float(len(alone)),
                limit=0.0,
                raised=bool(alone),
                meaning=f"One person tells nothing of others ({', '.join(alone[:8]) or 'none'})",
            )
        )

    def _judge(self, measure: Measure) -> None:
        if measure.value is None:
            self.trial.undecided = f"Not measured: {measure.method}."
        else:
            self.trial.judge(measure)

    def _pictures(self, model: ImageModel, scored: Scored) -> None:
        """The attack that is most surely taken for live, and the live face that is least."""
        clips = {c.id: c for c in self.data.clips.clips}
        s = scored.videos
        words_of = {False: "The attack with the highest live score", True: "The live face with the lowest"}
        for positive, words in words_of.items():
            rows = np.flatnonzero(s.positive == positive)
            if not len(rows):
                continue
            at = int(rows[np.argmin(s.scores[rows]) if positive else np.argmax(s.scores[rows])])
            faces = self.data.faces(clips[s.clips[at]])
            if faces.frames:
                what = s.method[at] or self.data.whole.genuine
                said = "live" if s.scores[at] >= model.threshold else "an attack"
                score = f"score {s.scores[at]:.3g}, live from {model.threshold:g}"
                caption = f"{s.clips[at]} ({what}): taken for {said} ({score})"
                self.trial.evidence.append(self.session.evidence.picture(faces.frames[0], "photograph", caption, words))

    def _told(self, model: ImageModel, scored: Scored) -> None:
        self.data.tell_left_out(self.trial, self.data.clips)
        self.trial.details["says live from"] = model.threshold
        self.trial.details["videos and photographs"] = len(scored.videos)


def people(scored: Scored) -> dict[str, int]:
    """Species, or empty for live -> how many people."""
    groups: dict[str, set[str]] = {}
    for group, method in zip(scored.groups, scored.method, strict=True):
        groups.setdefault(method, set()).add(group)
    return {m: len(g) for m, g in groups.items()}
