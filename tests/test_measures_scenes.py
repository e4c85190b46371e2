"""Frames kept, other goals and tables of patch × model, against loops over what the detector says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from audit.artifacts import Artifacts
from audit.contracts import Detections
from audit.control import ControlSpec
from audit.evidence import EvidenceStore
from audit.execution import Execution
from audit.measures.intervals import Estimate
from audit.measures.scenes import SceneMeasure, _added
from audit.trial import Trial
from probes.areas import AreaPlacement
from probes.detection import GreyPatch, NoisePatch
from probes.detection.patch import Patch
from tests import planted
from tests.planted_goals import Colours, iou

AREA = AreaPlacement(0.4)


@pytest.fixture
def session(tmp_path):
    scenes = planted.scenes(10, seed=2).for_classes(Colours.classes, ["square"])
    return SimpleNamespace(
        execution=Execution(),
        artifacts=Artifacts(tmp_path / "cache", {"test": 1}),
        evidence=EvidenceStore(tmp_path / "out"),
        attacked=frozenset({0}),
        subject=SimpleNamespace(modules=[]),
        require_unchanged=lambda: None,
        told_of=lambda detector: None if isinstance(detector, Colours) else type(detector).__name__,
        profile=SimpleNamespace(data=SimpleNamespace(delta=0.9, match_iou=0.5, object_mm=None)),
        budget=SimpleNamespace(bootstrap=200),
        data=scenes,
    )


@pytest.fixture
def measure(session):
    spec = ControlSpec("T", "t", "f", "g", ("000",), "detector", "somebody", "nothing")
    trial = Trial("T", spec, None, None, "point", 3, "again", {})
    return SceneMeasure(trial, session)


def flat(rgb, placement=AREA):
    return Patch(torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 8, 8).contiguous(), placement, "flat")


CYAN, GREEN, RED = (0, 255, 255), (0, 255, 0), (255, 0, 0)


def answers(session, patch, detector=None):
    """Scene -> detections, asked one scene at a time."""
    out = {}
    for scene in session.data:
        batch = Execution().batch([scene])
        images = batch.images if patch is None else patch.apply(batch.images, batch.boxes, batch.areas)
        (out[scene.id],) = (detector or Colours())(images)
    return out


def is_found(d: Detections, scene):
    return any(0 in labels_at(d, box) for box in scene.boxes.tolist())


def labels_at(d, box):
    every = zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True)
    return [label for b, score, label in every if iou(b, box) >= 0.5 and score >= 0.5]


def condition(trial, name, group=None):
    return next(c for c in trial.conditions if c.name == name and group in (None, c.group))


def test_frames_kept_are_counted_as_by_hand(session, measure):
    patch = flat(CYAN)
    beside = {"grey": GreyPatch(AREA).craft(None, session.data, execution=None, budget=None, seed=0)}
    measure.frames(Colours(), session.data, patch, beside)
    clean, patched, grey = (answers(session, p) for p in (None, patch, beside["grey"]))
    scene = {s.id: s for s in session.data}
    ids = [i for i in clean if is_found(clean[i], scene[i])]
    m = measure.trial.measure
    assert (m.k, m.n) == (sum(is_found(patched[i], scene[i]) for i in ids), len(ids))
    assert condition(measure.trial, "grey").k == sum(is_found(grey[i], scene[i]) for i in ids)
    assert condition(measure.trial, "carrier found, clean").n == len(session.data)
    names = [d.name for d in measure.trial.diagnostics]
    assert "unoptimised patch beats the trained one" in names


def test_the_worst_patch_is_judged_and_all_are_tabulated(session, measure):
    patches = {"cyan": flat(CYAN), "red": flat(RED)}
    detectors = {"audited": Colours(), "other": planted.Robust()}
    measure.worst(detectors, session.data, patches, by="recall")
    (grid,) = measure.trial.grids
    assert grid.rows == ["cyan", "red"]
    assert grid.columns == ["audited", "other"]
    for r, patch in enumerate(patches.values()):
        for c, detector in enumerate(detectors.values()):
            clean, seen = answers(session, None, detector), answers(session, patch, detector)
            before = after = 0
            for scene in session.data:
                for box in scene.boxes.tolist():
                    on = [0 in labels_at(d, box) for d in (clean[scene.id], seen[scene.id])]
                    before += on[0]
                    after += all(on)
            assert grid.values[r][c] == pytest.approx(after / before)
    assert measure.trial.measure.value == min(row[0] for row in grid.values)
    assert measure.trial.details["worst_patch"] == "cyan"


def test_leave_one_out_rows_have_gaps_where_there_is_nothing_to_test(session, measure):
    detectors = {"audited": Colours(), "other": planted.Robust()}
    rows = {"all others": {"audited": flat(RED)}}
    measure.worst(detectors, session.data, {"cyan": flat(CYAN)}, rows)
    assert measure.trial.grids[0].values[1][1] is None
    assert measure.trial.details["worst_patch"] == "cyan"


def test_the_worst_cell_of_a_grid_is_judged_and_marked(session, measure):
    cells = [[flat(RED), flat(CYAN)], [flat(RED, AreaPlacement(0.1)), flat(CYAN, AreaPlacement(0.05))]]
    measure.grid(
        Colours(), session.data, cells, ["large", "small"], ["red", "cyan"], by="frames", title="t", labels=("a", "b")
    )
    (grid,) = measure.trial.grids
    assert measure.trial.measure.value == min(v for row in grid.values for v in row)
    assert list(grid.marks[0]) == [0, 1]
    assert measure.trial.details["worst_cell"] == "large, cyan"


def test_class_changes_are_judged(session, measure):
    patch = flat(GREEN)
    measure.class_changed(Colours(), session.data, patch, {"noise": NoisePatch(AREA).craft(
        None, session.data, execution=None, budget=None, seed=0)})  # fmt: skip
    clean, patched = answers(session, None), answers(session, patch)
    asked = wrong = 0
    for scene in session.data:
        for box in scene.boxes.tolist():
            before, after = labels_at(clean[scene.id], box), labels_at(patched[scene.id], box)
            if 0 in before:
                asked += 1
                wrong += bool(after) and 0 not in after
    m = measure.trial.measure
    assert (m.k, m.n) == (wrong, asked)
    assert wrong > 0
    assert m.higher_is_better is False


def test_ghosts_and_floods_are_judged(session, measure):
    measure.ghosts_made(Colours(), session.data, flat(RED), {})
    assert measure.trial.measure.name == "frames with a new false object"
    assert measure.trial.measure.n == len(session.data)


def test_added_boxes_are_a_share():
    def ratio(v):
        return Estimate(v, None, 4, v, v, 0.95, "m")

    assert _added(ratio(2.0)).value == pytest.approx(0.5)
    assert _added(ratio(0.5)).value == 0
    assert _added(ratio(0.0)).value == 0
    assert _added(Estimate(None, None, 0, None, None, 0.95, "m")).value is None


def test_flood_counts_every_box_over_the_threshold(session, measure):
    patch = flat(RED, AreaPlacement(1.0))
    measure.flooded(Colours(), session.data, patch, {})
    clean, patched = answers(session, None), answers(session, patch)
    before, after = (sum(int((d.scores >= 0.5).sum()) for d in a.values()) for a in (clean, patched))
    assert measure.trial.measure.value == pytest.approx(max(0.0, 1 - before / after))


def test_displaced_boxes_are_judged(session, measure):
    from tests.planted_goals import Sliding

    session.told_of = lambda detector: None
    measure.box_moved(Sliding(), session.data, flat(GREEN), {})
    m = measure.trial.measure
    assert m.name == "objects with a displaced box"
    assert m.n == sum(len(s.boxes) for s in session.data)
