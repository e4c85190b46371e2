"""What controls of forgery detectors measure without an adversary: cells over methods and qualities, false alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from audit.data.clips import GENUINE, Clip, Clips, evenly
from audit.image_model import ImageModel
from audit.measures.forgery_cells import (
    Cell,
    cell,
    conditions,
    confusion,
    drop,
    false_alarms,
    grid,
    misses,
    sources_diagnostic,
    worst,
)
from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import extreme, stricter
from audit.measures.roc import roc_figure
from audit.measures.scored import FEW_SOURCES, UNITS, Scored
from audit.record import Condition, Curve, Series, digest
from audit.shifts import Shift
from audit.trial import Trial

if TYPE_CHECKING:
    from audit.forgery_audit import ForgeryAudit
    from audit.session import AuditSession

Progress = Callable[[float, str], None]
OTHERS = 128
"""Faces of other sources that a generator may choose among."""
READ_BACK = 12
"""Frames of a clip whose quantiser is read back."""


class Forger(Protocol):
    """Makes fakes of real faces; see ``probes.forgery.forgers``."""

    @property
    def name(self) -> str: ...
    @property
    def imitates(self) -> str: ...
    @property
    def lacks(self) -> str: ...
    @property
    def refs(self) -> tuple[str, ...]: ...
    @property
    def needs_others(self) -> bool: ...
    def spec(self) -> dict[str, Any]: ...
    def forge(
        self,
        faces: Tensor,
        landmarks: Tensor | None,
        others: Tensor | None,
        other_landmarks: Tensor | None,
        *,
        ids: Sequence[str],
        seed: int,
    ) -> Tensor: ...


class ForensicMeasure:
    """Writes into the record of one control. Every AUC that is judged is one of videos, not of frames."""

    def __init__(
        self, trial: Trial, session: AuditSession, data: ForgeryAudit, progress: Progress | None = None
    ) -> None:
        self.trial, self.session, self.data, self.progress = trial, session, data, progress
        self.resampling = Resampling(seed=trial.seed, draws=session.budget.bootstrap, cluster="sources")
        trial.access = "none"

    def in_domain(self, model: ImageModel) -> None:
        """Judge the AUC on the methods that the detector was trained on, in the quality of the data."""
        name = " + ".join(self.data.seen)
        found = self._cell(model, self.data.of(*self.data.seen), None)
        self._judge({name: found}, "AUC per video, in domain")
        self.trial.conditions += conditions(name, found)
        self._curve(model, {name: found})
        if not self.data.declared_methods:
            self.trial.details["in domain"] = "the model file names no method of the data in `trained_on`: all count"
        self._told(self.data.of(*self.data.seen))

    def methods(self, models: Mapping[str, ImageModel]) -> None:
        """Judge the worst AUC over methods, each against the real clips; tabulate trained on × tested on."""
        subject = next(iter(models))
        # what the detector was trained on comes first: all else is read against it
        columns = sorted(self.data.clips.methods, key=lambda m: m not in self.data.seen)
        cells = {
            (self._row(n, m), column): self._cell(m, self.data.of(column), None)
            for n, m in models.items()
            for column in columns
        }
        own = {c: cells[self._row(subject, models[subject]), c] for c in columns}
        self._judge(own, "AUC per video, worst method")
        home = self._cell(models[subject], self.data.of(*self.data.seen), None)
        self._drops(home, own)
        for name, found in own.items():
            self.trial.conditions += conditions(name, found)
        marks = [(self._row(n, m), c) for n, m in models.items() for c in columns if c in m.trained_on]
        self._grids(cells, "Methods: trained on × tested on", "trained on", "tested on", marks)
        scored = self.data.scored(models[subject], self.data.clips)
        self.trial.grids.append(confusion(scored, models[subject].threshold, genuine=self.data.whole.genuine))
        for method, e in misses(scored, models[subject].threshold, self.resampling).items():
            self.trial.conditions.append(e.condition(method, "Fakes said to be real, per video"))
        self._curve(models[subject], own)
        self._told(self.data.clips)

    def qualities(self, models: Mapping[str, ImageModel], shifts: Mapping[str, Shift | None]) -> None:
        """Judge the worst AUC over qualities, on the methods that the detector was trained on; tabulate them."""
        subject = next(iter(models))
        clips = self.data.of(*self.data.seen)
        cells: dict[tuple[str, str], Cell] = {}
        for i, (name, shift) in enumerate(shifts.items()):
            for n, m in models.items():
                cells[self._row(n, m), name] = self._cell(m, clips, shift)
            self._step((i + 1) / len(shifts), name)
        row = self._row(subject, models[subject])
        own = {name: cells[row, name] for name in shifts}
        domains = self._domains(models[subject])
        self._judge({**own, **domains}, "AUC per video, worst quality")
        self._drops(own[next(iter(shifts))], own)
        for name, found in {**own, **domains}.items():
            self.trial.conditions += conditions(name, found)
        first = next(iter(shifts))
        marks = [
            (self._row(n, m), q) for n, m in models.items() for q in shifts
            if q in m.trained_on or (q == first and (n == subject or set(m.trained_on) & set(self.data.seen)))
        ]  # fmt: skip
        self._grids(cells, "Qualities: trained on × tested on", "trained on", "tested on", marks)
        self.trial.details["read back from the bits, first clip"] = self._read_back(shifts)
        self._show(shifts)
        self._curve(models[subject], own)
        self._told(clips)

    def shifted(self, model: ImageModel, shift: Shift) -> None:
        """Judge the AUC under one shift, on the methods that the detector was trained on."""
        clips = self.data.of(*self.data.seen)
        own = {"as it is": self._cell(model, clips, None), shift.name: self._cell(model, clips, shift)}
        self._judge({shift.name: own[shift.name]}, f"AUC per video, {shift.name}")
        self._drops(own["as it is"], {shift.name: own[shift.name]})
        for name, found in own.items():
            self.trial.conditions += conditions(name, found)
        self._alarms(model, {"as it is": None, shift.name: shift})
        self._show({"as it is": None, shift.name: shift})
        self.trial.protocol["shift"] = shift.spec()
        self._told(clips)

    def severities(self, model: ImageModel, shifts: Mapping[int, Shift], judged: int) -> None:
        """Judge the AUC at one severity of a corruption, and draw it over all of them."""
        clips = self.data.of(*self.data.seen)
        own = {"0": self._cell(model, clips, None)}
        for i, (severity, shift) in enumerate(shifts.items()):
            own[str(severity)] = self._cell(model, clips, shift)
            self._step((i + 1) / len(shifts), f"severity {severity}")
        self._judge({f"severity {judged}": own[str(judged)]}, f"AUC per video, severity {judged}")
        self._drops(own["0"], {f"severity {judged}": own[str(judged)]})
        lines = []
        for unit in reversed(UNITS):
            values = [c.video.auc.value if unit == "video" else c.frame.auc.value for c in own.values()]
            lines.append(Series(name=f"AUC per {unit}", x=[float(s) for s in own], y=values))
        self.trial.curves.append(
            Curve(title="AUC by severity", x_label="severity (0: as it is)", y_label="AUC", series=lines)
        )
        for name, found in own.items():
            self.trial.conditions += conditions(f"severity {name}", found)
        self._show({"as it is": None, **{s.name: s for s in shifts.values()}})
        self.trial.protocol["shift"] = [s.spec() for s in shifts.values()]
        self._told(clips)

    def false_alarms(self, model: ImageModel, shifts: Mapping[str, Shift | None]) -> None:
        """Judge the largest share of real videos that are called fake, over qualities."""
        found = self._alarms(model, shifts)
        known = {n: e for n, e in found.items() if e.value is not None}
        if not known:
            self.trial.undecided = "Not measured: no real video could be scored."
        else:
            name = max(known, key=lambda n: (known[n].value or 0.0, n))
            again = {n: self._alarm(model, shifts[n], stricter(self.resampling, len(known))) for n in known}
            e = extreme(known, again, highest=True)
            self.trial.judge(e.measure("real videos called fake, worst quality", higher_is_better=False))
            self.trial.details["worst cell"] = name
            if (
                len({c.group for c in self.data.clips.clips if not c.fake and c.id not in self.data.left_out})
                < FEW_SOURCES
            ):
                self.trial.undecided = "The real videos are of one source: they say nothing of others."
        self._show(shifts)
        self._told(self.data.clips.where(lambda c: not c.fake), compared=False)

    def confounded(self) -> None:
        """Judge how well compression alone tells real from fake: the largest AUC of one number of the files."""
        found = self.data.confounders(self.data.clips)
        if not found.contrasts:
            self.trial.undecided = "The files say nothing of how they were compressed."
        else:
            top = max(found.contrasts, key=lambda c: c.auc)
            exact = Estimate(
                top.auc, None, top.fakes + top.genuine, top.auc, top.auc, self.resampling.level,
                "exhaustive: the data at hand are described, every file was read",
            )  # fmt: skip
            self.trial.judge(exact.measure("AUC of compression alone", unit="AUC", higher_is_better=False))
            self.trial.details["largest"] = f"{top.quantity}, {top.method}"
        for c in found.contrasts:
            self.trial.conditions.append(Condition(name=c.method, group=f"AUC of {c.quantity}", value=c.auc))
        drawn = found.grid()
        self.trial.grids += [] if drawn is None else [drawn]
        self.trial.details["what compression says"] = list(found.sentences)
        self.trial.diagnostics += found.diagnostics

    def forged(self, model: ImageModel, forger: Forger) -> None:
        """Judge the AUC of fakes made of the real faces against those very faces."""
        real = self.data.clips.where(lambda c: not c.fake)
        faces = self.data.labelled(real)
        if forger.needs_others and len(set(faces.groups)) < 2:
            self.trial.undecided = "Not measured: this generator takes the faces of two sources at least."
            return
        made = torch.zeros_like(faces.images)
        for group in dict.fromkeys(faces.groups):
            mine = [i for i, g in enumerate(faces.groups) if g == group]
            rest = [i for i, g in enumerate(faces.groups) if g != group] if forger.needs_others else []
            chosen = np.random.default_rng(_number(self.trial.seed, group)).permutation(rest)[:OTHERS]
            others = faces.images[torch.from_numpy(np.sort(chosen).astype(np.int64))] if rest else None
            ids = [faces.ids[i] for i in mine]
            made[mine] = forger.forge(faces.images[mine], None, others, None, ids=ids, seed=self.trial.seed)
        with self.session.asking(model.model):
            scores = [model.ask(x) for x in (faces.images, made)]
        names = [f"{forger.name}: {c}" for c in faces.clips]
        both = Scored(
            np.concatenate(scores),
            np.concatenate([np.zeros(len(faces), dtype=np.int64), np.ones(len(faces), dtype=np.int64)]),
            (*faces.clips, *names),
            (*faces.groups, *faces.groups),
            (*[GENUINE] * len(faces), *[forger.name] * len(faces)),
        )
        found = cell(both, model.threshold, self.resampling)
        self._judge({forger.name: found}, f"AUC per video, {forger.name}")
        self.trial.conditions += conditions(forger.name, found)
        self.trial.details |= {"imitates": forger.imitates, "does not imitate": forger.lacks}
        self.trial.details["after"] = list(forger.refs)
        self.trial.protocol["forger"] = forger.spec()
        for i in evenly(len(faces), 3):
            case = f"{faces.ids[i]}"
            for role, x, s in (("clean", faces.images, scores[0]), ("forged", made, scores[1])):
                picture = np.ascontiguousarray(x[i].permute(1, 2, 0).numpy())
                self.trial.evidence.append(
                    self.session.evidence.picture(
                        picture, role, f"fake logit {s[i]:+.2f} (fake from {model.threshold:g})", case
                    )
                )
        self._told(real, compared=False)

    # --- inside

    def _cell(self, model: ImageModel, clips: Clips, shift: Shift | None) -> Cell:
        return cell(self.data.scored(model, clips, shift, self.session.options.seed), model.threshold, self.resampling)

    def _row(self, name: str, model: ImageModel) -> str:
        trained = ", ".join(model.trained_on)
        return f"{name} ({trained})" if trained else name

    def _judge(self, cells: Mapping[str, Cell], name: str) -> None:
        found = worst(cells)
        if found.auc.value is None:
            self.trial.undecided = "Not measured: no cell has both real and fake videos."
            return
        self.trial.judge(found.auc.measure(name, unit="AUC"))
        if found.name is not None:
            self.trial.details["worst cell"] = found.name
            self.trial.details["clips in the worst cell"] = {
                "fake": cells[found.name].video.fakes, "real": cells[found.name].video.reals
            }  # fmt: skip
        told = sources_diagnostic(cells)
        if told.raised:
            self.trial.diagnostics.append(told)
            self.trial.undecided = f"{told.meaning.rstrip('.')}."

    def _drops(self, home: Cell, cells: Mapping[str, Cell]) -> None:
        for name, found in cells.items():
            e = drop(home, found)
            if e.value is not None:
                self.trial.conditions.append(e.condition(name, "AUC per video: drop from the in-domain cell"))

    def _domains(self, model: ImageModel) -> dict[str, Cell]:
        """A cell for each domain with fakes of the seen methods, where the data bring several themselves."""
        names = sorted({c.domain for c in self.data.clips.clips if c.method in self.data.seen})
        if len(names) < 2:
            return {}
        seen = self.data.seen
        return {f"{d}, as the data have it": self._cell(model, self.data.of(*seen, domain=d), None) for d in names}

    def _grids(
        self,
        cells: Mapping[tuple[str, str], Cell],
        title: str,
        rows: str,
        columns: str,
        marks: Sequence[tuple[str, str]],
    ) -> None:
        kinds: tuple[tuple[Literal["auc", "accuracy"], str], ...] = (("auc", "AUC"), ("accuracy", "accuracy"))
        for what, words in kinds:
            for unit in reversed(UNITS):
                self.trial.grids.append(
                    grid(
                        cells, f"{title}, {words} per {unit}", row_label=rows, column_label=columns,
                        unit=unit, what=what, in_domain=marks,
                    )
                )  # fmt: skip

    def _alarm(self, model: ImageModel, shift: Shift | None, resampling: Resampling) -> Estimate:
        real = self.data.clips.where(lambda c: not c.fake)
        scored = self.data.scored(model, real, shift, self.session.options.seed)
        return false_alarms(scored, model.threshold, resampling)

    def _alarms(self, model: ImageModel, shifts: Mapping[str, Shift | None]) -> dict[str, Any]:
        real = self.data.clips.where(lambda c: not c.fake)
        found = {}
        for name, shift in shifts.items():
            scored = self.data.scored(model, real, shift, self.session.options.seed)
            found[name] = false_alarms(scored, model.threshold, self.resampling)
            for unit in reversed(UNITS):
                e = false_alarms(scored, model.threshold, self.resampling, unit)
                self.trial.conditions.append(e.condition(name, f"Real ones called fake, per {unit}"))
        return found

    def _curve(self, model: ImageModel, cells: Mapping[str, Cell]) -> None:
        lines = {n: (c.scored.scores, c.scored.positive) for n, c in cells.items() if c.frame.auc.value is not None}
        if lines:
            self.trial.curves.append(
                roc_figure(lines, "ROC per frame", x_label="real called fake", y_label="fake called fake")
            )
        self.trial.details["says fake from"] = model.threshold

    def _read_back(self, shifts: Mapping[str, Shift | None]) -> dict[str, Any]:
        """What encoders did to the first frames of the first clip, by their own bits."""
        usable = [c for c in self.data.clips.clips if c.id not in self.data.left_out]
        clip = next((c for c in usable if c.footage.fps), usable[0] if usable else None)
        if clip is None:
            return {}
        frames = clip.footage.read(list(range(min(clip.footage.count, READ_BACK))))
        told = {}
        for name, shift in shifts.items():
            look = getattr(shift, "read_back", None)
            if look is not None and frames:
                told[name] = look(frames if clip.footage.fps else frames[:1], clip.footage.fps)
        return told

    def _show(self, shifts: Mapping[str, Shift | None]) -> None:
        """One real and one fake face at each quality."""
        chosen: dict[bool, Clip] = {}
        for clip in self.data.of(*self.data.seen).clips:
            chosen.setdefault(clip.fake, clip)
        for fake, clip in sorted(chosen.items()):
            case = f"{'Fake' if fake else 'Real'}: {clip.id}"
            for name, shift in shifts.items():
                images, at = self.data.shown(clip, shift, self.session.options.seed, self.data.model.size)
                if len(at):
                    picture = np.ascontiguousarray(images[0].permute(1, 2, 0).numpy())
                    self.trial.evidence.append(self.session.evidence.picture(picture, "quality", name, case))

    def _told(self, used: Clips, *, compared: bool = True) -> None:
        """Clips left out stand beside every number, and beside an AUC whether compression tells the clips apart."""
        self.data.tell_left_out(self.trial, used)
        if compared:
            self.trial.diagnostics += self.data.confounders(used).diagnostics

    def _step(self, share: float, text: str) -> None:
        if self.progress is not None:
            self.progress(share, text)


def _number(seed: int, name: str) -> int:
    return int(digest([seed, name])[:15], 16)
