"""What controls of scene patches measure: frames found, other goals of an attacker, and tables of patch × model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from audit.contracts import Detector, Perturbation
from audit.data.scenes import Scenes
from audit.measures.detection import kept
from audit.measures.detector import DetectorMeasure, course
from audit.measures.driving import carriers_found, frames_found, frames_kept
from audit.measures.evaluation import Evaluation
from audit.measures.goals import box_shift, class_kept, flood, ghosts_anywhere
from audit.measures.intervals import Estimate
from audit.measures.picturing import picture_cases, picture_patches
from audit.record import Grid


class SceneMeasure(DetectorMeasure):
    """Adds to the measures of a detector those that ask about whole frames, other goals, and other detectors."""

    def frames(
        self,
        detector: Detector,
        scenes: Scenes,
        patch: Perturbation,
        beside: Mapping[str, Perturbation] | None = None,
    ) -> None:
        """Judge frames kept: of the frames where a carrier of the print is found clean, the share where one still is.

        Found is found as whatever attacked class: a lorry that is seen as a car is seen. Beside it stand the share of
        frames as the driving competition counts them, with any detection of an attacked class anywhere (paper 000 §3.1;
        bystanders without a print keep it up), and recall kept, object by object and class by class.

        Args:
            beside: unoptimised patches at the same place, to tell occlusion from attack.
        """
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t = detector.score_threshold
        self._judge("frames kept", self._frames(clean, patched, t))
        self._condition("recall kept", kept(clean.matches, patched.matches, t, self.resampling), "Object by object")
        for name, look in (("clean", clean), ("patched", patched)):
            self._condition(f"carrier found, {name}", self._share_of_frames(look, t), "Of all frames with an object")
            anything = frames_found(look.found, look.scenes, look.classes, t, look.iou)[_with_object(look)]
            share = frames_kept(np.ones_like(anything), anything, _groups(look), self.resampling)
            self._condition(f"any attacked class found anywhere, {name}", share, "Of all frames with an object")
        others = {name: self._look(detector, scenes, p) for name, p in (beside or {}).items()}
        for name, other in others.items():
            self._condition(name, self._frames(clean, other, t), "Frames kept under unoptimised patches")
        if others:
            self._compare_with_unoptimised(clean, patched, others, t)
            self.trial.curves += course(patch)
        self._standing("clean", clean, t)
        self._standing("patched", patched, t)
        self._classes(detector, clean, patched, t)
        self._show(detector, clean, patched, patch, beside or {})

    def worst(
        self,
        detectors: Mapping[str, Detector],
        scenes: Scenes,
        patches: Mapping[str, Perturbation],
        rows: Mapping[str, Mapping[str, Perturbation]] | None = None,
        *,
        by: str = "frames",
        title: str = "Frames kept",
        row_label: str = "patch made on",
        beside: Mapping[str, Perturbation] | None = None,
    ) -> None:
        """Judge what the worst of several patches leaves of the first detector, and tabulate patch × detector.

        Args:
            detectors: name -> detector; the first is the audited one. patches: name -> a patch for all columns.
            rows: row -> column -> patch, for rows whose patch depends on the column (leave one out). Its entry for
            the audited detector is judged too. by: ``frames`` kept, or ``recall`` kept.
        """
        subject = next(iter(detectors))
        table: dict[str, dict[str, Perturbation]] = {n: dict.fromkeys(detectors, p) for n, p in patches.items()}
        table |= {name: dict(cells) for name, cells in (rows or {}).items()}
        found: dict[str, dict[str, Estimate]] = {}
        for i, (name, cells) in enumerate(table.items()):
            found[name] = {c: self._kept(detectors[c], scenes, p, by) for c, p in cells.items()}
            if self.progress is not None:
                self.progress((i + 1) / len(table), f"{title}: {name}")
        judged = {n: r[subject] for n, r in found.items() if subject in r and r[subject].value is not None}
        if not judged:
            self._judge(f"{by} kept", Estimate(None, None, 0, None, None, 0.95, "nothing was found clean"))
            return
        worst = min(judged, key=lambda n: (judged[n].value, n))
        self._judge(f"{by} kept under the worst patch", judged[worst])
        self.trial.details["worst_patch"] = worst
        for name, e in judged.items():
            self._condition(name, e, f"{by.capitalize()} kept by the audited detector, per patch")
        for name, other in (beside or {}).items():
            e = self._kept(detectors[subject], scenes, other, by)
            self._condition(name, e, f"{by.capitalize()} kept under unoptimised patches")
        grid = [[found[r][c].value if c in found[r] else None for c in detectors] for r in found]
        self.trial.grids.append(
            Grid(
                title=title,
                row_label=row_label,
                column_label="tested on",
                rows=list(found),
                columns=list(detectors),
                values=grid,
            )
        )
        patch = table[worst][subject]
        detector = detectors[subject]
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        self._show(detector, clean, patched, patch, beside or {})

    def grid(
        self,
        detector: Detector,
        scenes: Scenes,
        cells: Sequence[Sequence[Perturbation]],
        rows: Sequence[str],
        columns: Sequence[str],
        *,
        by: str,
        title: str,
        labels: tuple[str, str],
    ) -> None:
        """Judge the worst cell of a table of one patch's placements, as scale × place (paper 002, Tables 5 and 6)."""
        found: list[list[Estimate]] = []
        for i, line in enumerate(cells):
            found.append([self._kept(detector, scenes, p, by) for p in line])
            if self.progress is not None:
                self.progress((i + 1) / len(cells), f"{title}: {rows[i]}")
        known = [(e.value, i, j) for i, line in enumerate(found) for j, e in enumerate(line) if e.value is not None]
        if not known:
            self._judge(f"{by} kept", Estimate(None, None, 0, None, None, 0.95, "nothing was found clean"))
            return
        _, i, j = min(known)
        self._judge(f"{by} kept in the worst cell", found[i][j])
        self.trial.details["worst_cell"] = f"{rows[i]}, {columns[j]}"
        values = [[e.value for e in line] for line in found]
        grid = Grid(
            title=title,
            row_label=labels[0],
            column_label=labels[1],
            rows=list(rows),
            columns=list(columns),
            values=values,
            marks=[(i, j)],
            mark_label="the worst cell, which is judged",
        )
        self.trial.grids.append(grid)
        patch = cells[i][j]
        self._show(detector, self._look(detector, scenes, None), self._look(detector, scenes, patch), patch, {})

    def ghosts_made(
        self, detector: Detector, scenes: Scenes, patch: Perturbation, beside: Mapping[str, Perturbation]
    ) -> None:
        """Judge the share of frames in which a false object appears that was not there clean, wherever it lies."""
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t = detector.score_threshold

        def share(look: Evaluation) -> Estimate:
            kinds = self.session.attacked
            return ghosts_anywhere(look.found, look.scenes, clean.found, t, self.resampling, classes=kinds)

        self._judge("frames with a new false object", share(patched), higher_is_better=False)
        for name, other in beside.items():
            self._condition(name, share(self._look(detector, scenes, other)), "The same under unoptimised patches")
        self._goal(detector, clean, patched, patch, beside)

    def class_changed(
        self, detector: Detector, scenes: Scenes, patch: Perturbation, beside: Mapping[str, Perturbation]
    ) -> None:
        """Judge the share of the objects found clean that are now found as something that is not under attack.

        A lorry that is taken for a car is still given way to; one that is taken for a bed is not.
        """
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t, kinds = detector.score_threshold, self.session.attacked
        told = class_kept(clean.found, patched.found, clean.scenes, t, self.resampling, classes=kinds, same=kinds)
        self._judge("objects found as another class", told.wrong, higher_is_better=False)
        self._condition("found in their class", told.right, "Of the objects found clean")
        self._condition("not found at all", told.lost, "Of the objects found clean")
        for name, other in beside.items():
            look = self._look(detector, scenes, other)
            e = class_kept(clean.found, look.found, clean.scenes, t, self.resampling, classes=kinds, same=kinds).wrong
            self._condition(name, e, "The same under unoptimised patches")
        self._goal(detector, clean, patched, patch, beside)

    def box_moved(
        self, detector: Detector, scenes: Scenes, patch: Perturbation, beside: Mapping[str, Perturbation]
    ) -> None:
        """Judge the share of the objects found clean whose box no longer sits on them (IoU under the match's)."""
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t, kinds = detector.score_threshold, self.session.attacked
        told = box_shift(clean.found, patched.found, clean.scenes, t, self.resampling, classes=kinds)
        self._judge("objects with a displaced box", told.displaced, higher_is_better=False)
        self._condition("without a box", told.lost, "Of the objects found clean")
        self._condition("mean IoU, clean", told.before, "How well boxes sit")
        self._condition("mean IoU, patched", told.after, "How well boxes sit")
        for name, other in beside.items():
            look = self._look(detector, scenes, other)
            e = box_shift(clean.found, look.found, clean.scenes, t, self.resampling, classes=kinds).displaced
            self._condition(name, e, "The same under unoptimised patches")
        self._goal(detector, clean, patched, patch, beside)

    def flooded(
        self, detector: Detector, scenes: Scenes, patch: Perturbation, beside: Mapping[str, Perturbation]
    ) -> None:
        """Judge the share of a frame's boxes that the patch adds: 1 − before/after, 0 where there are no more.

        Boxes are counted at the owner's threshold, of every class; each costs whoever has to track or sort it.
        """
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t = detector.score_threshold
        told = flood(clean.found, patched.found, clean.scenes, t, self.resampling)
        self._judge("share of the boxes that the patch adds", _added(told.ratio), higher_is_better=False)
        self._condition("boxes per frame, clean", told.before, "How many boxes")
        self._condition("boxes per frame, patched", told.after, "How many boxes")
        self.trial.details["most_boxes"] = {"clean": told.worst_before, "patched": told.worst_after}
        self.trial.details["comparisons_of_suppression"] = told.work
        for name, other in beside.items():
            look = self._look(detector, scenes, other)
            e = flood(clean.found, look.found, clean.scenes, t, self.resampling).ratio
            self._condition(name, _added(e), "The same under unoptimised patches")
        self._goal(detector, clean, patched, patch, beside)

    def _kept(self, detector: Detector, scenes: Scenes, patch: Perturbation, by: str) -> Estimate:
        """What a detector keeps at its own threshold of what it found clean."""
        clean, patched = self._look(detector, scenes, None), self._look(detector, scenes, patch)
        t = detector.score_threshold
        if by == "recall":
            return kept(clean.matches, patched.matches, t, self.resampling)
        return self._frames(clean, patched, t)

    def _frames(self, clean: Evaluation, patched: Evaluation, threshold: float) -> Estimate:
        before, after, groups = self._found(clean, threshold), self._found(patched, threshold), _groups(clean)
        return frames_kept(before, after, groups, self.resampling)

    def _share_of_frames(self, look: Evaluation, threshold: float) -> Estimate:
        found = self._found(look, threshold)
        return frames_kept(np.ones_like(found), found, _groups(look), self.resampling)

    def _found(self, look: Evaluation, threshold: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Per frame that has an object which counts, whether such an object is found in it."""
        found = carriers_found(look.found, look.scenes, look.classes, threshold, look.iou)
        return np.asarray(found[_with_object(look)], dtype=np.bool_)

    def _goal(
        self,
        detector: Detector,
        clean: Evaluation,
        patched: Evaluation,
        patch: Perturbation,
        beside: Mapping[str, Perturbation],
    ) -> None:
        self.trial.curves += course(patch)
        self._show(detector, clean, patched, patch, beside)

    def _show(
        self,
        detector: Detector,
        clean: Evaluation,
        patched: Evaluation,
        patch: Perturbation,
        beside: Mapping[str, Perturbation],
    ) -> None:
        store, t = self.session.evidence, detector.score_threshold
        self._tell(detector, patch)
        self.trial.evidence += picture_patches(store, patch, beside)
        shares = [None if not m.objects else float(m.found(t)[~m.truth_ignored].mean()) for m in patched.per_scene]
        self.trial.evidence += picture_cases(store, clean, patched, patch, t, shares)


def _with_object(look: Evaluation) -> list[bool]:
    return [bool((~s.ignore).any()) for s in look.scenes]


def _groups(look: Evaluation) -> list[str]:
    return [s.group for s, held in zip(look.scenes, _with_object(look), strict=True) if held]


def _added(ratio: Estimate) -> Estimate:
    """1 − 1/ratio, a share; 0 where the ratio is at most 1. The interval's ends go the same way."""

    def share(value: float | None) -> float | None:
        return None if value is None else max(0.0, 1 - 1 / value) if value > 0 else 0.0

    return replace(ratio, value=share(ratio.value), low=share(ratio.low), high=share(ratio.high))
