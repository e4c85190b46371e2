"""Cells of the matrices of forgery detectors against counts by hand, and what they must refuse to say."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from audit.measures.forgery_cells import (
    Cell,
    Level,
    Scored,
    cell,
    conditions,
    confusion,
    drop,
    false_alarms,
    few_sources,
    grid,
    misses,
    sources_diagnostic,
    worst,
)
from audit.measures.intervals import Resampling, cluster_bootstrap
from audit.measures.roc import EqualError, auc
from audit.record import Limit
from audit.verdict import decide

R = Resampling(seed=0, draws=300, cluster="sources")
METHODS = ("Deepfakes", "FaceSwap")


def drawn(seed=0, sources=20, frames=4, apart=2.0, methods=METHODS, threshold_shift=0.0, fakes=1.0):
    """Per source one real video and one of each method (of a share of the sources), frames that agree in part."""
    rng = np.random.default_rng(seed)
    rows = []
    for s in range(sources):
        common = rng.normal()
        for m in ("", *methods):
            if m and s >= fakes * sources:
                continue
            own = common + rng.normal() + (apart if m else 0.0) + threshold_shift
            rows += [(own + rng.normal(), int(bool(m)), f"{m or 'real'}_{s:02}", f"s{s}", m) for _ in range(frames)]
    order = rng.permutation(len(rows))
    scores, labels, clips, groups, method = zip(*(rows[i] for i in order), strict=True)
    return Scored(np.array(scores), np.array(labels), clips, groups, method)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def by_video(s):
    """Name -> (label, mean probability, group, method), by a plain loop."""
    found = {}
    for score, label, clip, group, method in zip(
        s.scores.tolist(), s.labels.tolist(), s.clips, s.groups, s.method, strict=True
    ):
        found.setdefault(clip, (label, [], group, method))[1].append(sigmoid(score))
    return {c: (y, sum(p) / len(p), g, m) for c, (y, p, g, m) in sorted(found.items())}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-1.0, 0.0, 0.7]))
def test_a_cell_is_what_a_loop_counts(seed, threshold):
    s = drawn(seed, sources=6, frames=3)
    c = cell(s, threshold, Resampling(seed=0, draws=100))
    videos = by_video(s)
    labels, means = [v[0] for v in videos.values()], [v[1] for v in videos.values()]
    said = [p >= sigmoid(threshold) for p in means]
    assert c.video.auc.value == pytest.approx(roc_auc_score(labels, means))
    assert c.frame.auc.value == pytest.approx(roc_auc_score(s.labels, s.scores))
    assert (c.video.accuracy.k, c.video.accuracy.n) == (sum(a == b for a, b in zip(said, labels, strict=True)), 18)
    assert (c.frame.accuracy.k, c.frame.accuracy.n) == (int(((s.scores >= threshold) == s.labels).sum()), 54)
    assert c.video.balanced.value == pytest.approx(balanced_accuracy_score(labels, said))
    assert c.frame.balanced.value == pytest.approx(balanced_accuracy_score(s.labels, s.scores >= threshold))
    assert (c.video.fakes, c.video.reals, c.frame.fakes, c.frame.reals, c.groups) == (12, 6, 36, 18, 6)
    assert c.few_sources == ""
    real = [a for a, b in zip(said, labels, strict=True) if b == 0]
    alarms = false_alarms(s, threshold, R)
    assert (alarms.k, alarms.n) == (sum(real), 6)
    for name, e in misses(s, threshold, R).items():
        own = [sigmoid(threshold) > v[1] for v in videos.values() if v[3] == name]
        assert (e.k, e.n) == (sum(own), len(own))
    assert list(misses(s, threshold, R)) == list(METHODS)


def test_intervals_are_over_sources():
    s = drawn(3, sources=30, frames=5)
    said = s.scores >= 0
    cluster = np.unique(s.groups, return_inverse=True)[1]
    k = [int((said == s.positive)[cluster == c].sum()) for c in range(30)]
    expected = cluster_bootstrap(k, [15] * 30, seed=0, draws=300, cluster="sources")
    assert cell(s, 0.0, R).frame.accuracy == expected
    alarm = false_alarms(s, 0.0, R, "frame")
    k = [int((said & ~s.positive)[cluster == c].sum()) for c in range(30)]
    assert alarm == cluster_bootstrap(k, [5] * 30, seed=0, draws=300, cluster="sources")


def test_accuracy_is_withheld_where_a_class_is_rare():
    few = drawn(1, sources=30, methods=("DFD",), fakes=0.2)  # 6 of 36 videos
    c = cell(few, 0.0, R)
    for level in (c.video, c.frame):
        assert (level.accuracy.value, level.accuracy.low) == (None, None)
        assert "withheld: only 16.7% are fake" in level.accuracy.method
        assert level.balanced.value is not None
        assert level.auc.value is not None
    level = cell(drawn(1, sources=32, methods=("DFD",), fakes=0.25), 0.0, R).video  # 8 of 40: just a fifth
    assert level.accuracy.n == 40
    many = cell(drawn(1, sources=10, methods=tuple("abcdef")), 0.0, R).video.accuracy
    assert "are real" in many.method


def test_a_single_class_has_no_auc_and_says_so():
    s = drawn(2)
    c = cell(s.where(~s.positive), 0.0, R)
    assert c.few_sources == "one class only: no AUC"
    assert (c.video.auc.value, c.video.eer.rate.value, c.video.balanced.value, c.video.accuracy.value) == (None,) * 4
    assert few_sources(s.where(s.scores > 99)) == "nothing was scored"
    assert cell(s.where(s.scores > 99), 0.0, R).video.auc.value is None


@pytest.mark.parametrize("frames", [2, 400])
def test_one_video_a_class_is_inconclusive_however_many_frames(frames):
    s = drawn(4, sources=1, frames=frames, methods=("Deepfakes",), apart=9.0)
    c = cell(s, 4.5, R)
    assert c.frame.auc.value > 0.95
    assert c.frame.auc.low is None
    assert c.few_sources == "1 fake and 1 real videos, of 1 and 1 sources: it takes two of each, however many frames"
    flag = sources_diagnostic({"Deepfakes": c})
    limit = Limit(op="min", value=0.6, rationale="x")
    for rule in ("interval", "point"):
        assert decide(worst({"a": c}).auc.measure("AUC"), limit, [flag], rule)[0] == "inconclusive"
    two_videos = replace_groups(drawn(4, sources=2, methods=("Deepfakes",)), "one source")
    assert "2 fake and 2 real videos, of 1 and 1 sources" in few_sources(two_videos)
    fine = sources_diagnostic({"a": cell(drawn(5), 0.0, R)})
    assert (fine.raised, fine.value) == (False, 0)
    assert sources_diagnostic({}).raised


def replace_groups(s, name):
    return replace(s, groups=(name,) * len(s))


def test_the_video_score_is_the_mean_of_probabilities_not_of_logits():
    s = Scored(
        np.array([-1.0, -1, 9, 0.0, 0, 0]),
        np.array([1, 1, 1, 0, 0, 0]),
        tuple("aaabbb"),
        tuple("xxxyyy"),
        ("m",) * 3 + ("",) * 3,
    )
    mean = (2 * sigmoid(-1) + sigmoid(9)) / 3
    assert s.videos.scores == pytest.approx([mean, 0.5])
    assert s.said(0.0).tolist() == [mean >= 0.5, True]
    assert mean > 0.5  # two frames of three say real, and so does the median
    assert s.said(0.0, "frame").tolist() == [False, False, True, True, True, True]
    plain = replace(s, log_odds=False)
    assert plain.videos.scores == pytest.approx([7 / 3, 0])
    assert plain.said(2.5).tolist() == [False, False]
    assert (s.videos.clips, s.videos.groups, s.videos.method) == (("a", "b"), ("x", "y"), ("m", ""))


@given(st.floats(-30, 30), st.integers(1, 50))
def test_a_video_all_at_the_threshold_is_said_to_be_fake(threshold, frames):
    s = Scored(
        np.full(frames, threshold), np.ones(frames, dtype=int), ("a",) * frames, ("g",) * frames, ("m",) * frames
    )
    assert s.said(threshold).all()
    assert s.said(threshold, "frame").all()


def test_the_worst_cell_answers_for_all_of_them():
    cells = {n: cell(drawn(i, apart=a), 0.0, R) for i, (n, a) in enumerate({"c": 3.0, "b": 0.5, "a": 2.0}.items())}
    found = worst(cells)
    assert found.name == "b"
    own = {n: c.video.auc for n, c in cells.items()}
    assert found.auc.value == own["b"].value == min(e.value for e in own.values())
    assert found.auc.low == min(e.low for e in own.values())
    assert found.auc.high > own["b"].high  # to be the worst of three is no surprise
    assert worst({"b": cells["b"]}).auc.high == own["b"].high
    assert worst(cells, "frame").auc.value == cells["b"].frame.auc.value


def test_a_cell_without_an_interval_keeps_the_worst_from_passing_not_from_failing():
    good, lone = cell(drawn(1, apart=9.0), 0.0, R), cell(drawn(2, sources=1, apart=9.0), 0.0, R)
    bad = cell(drawn(3, apart=-9.0), 0.0, R)
    limit = Limit(op="min", value=0.6, rationale="x")
    assert decide(worst({"good": good}).auc.measure("AUC"), limit)[0] == "pass"
    assert decide(worst({"good": good, "lone": lone}).auc.measure("AUC"), limit)[0] == "inconclusive"
    assert decide(worst({"bad": bad, "lone": lone}).auc.measure("AUC"), limit)[0] == "fail"
    assert worst({"lone": lone}).auc.low is None
    s = drawn(1)
    single = cell(s.where(s.positive), 0.0, R)
    assert worst({"good": good, "single": single}).name == "good"
    assert (worst({"single": single}).name, worst({}).auc.value) == (None, None)


@pytest.mark.slow
def test_the_worst_of_equal_cells_is_rarely_called_worse_than_it_is():
    """Eight cells of one true AUC: the upper end of the worst is under it in some 1 of 40 runs, not in one of six."""
    truth = 0.9213503964748575  # Φ(2 / √2) for scores of unit variance
    below, naive, runs = 0, 0, 60
    for run in range(runs):
        rng = np.random.default_rng(run)
        cells = {}
        for name in "abcdefgh":
            names = tuple(map(str, range(80)))
            labels = np.arange(80) % 2
            s = Scored(rng.normal(size=80) + 2 * labels, labels, names, names, names, log_odds=False)
            r = Resampling(seed=run, draws=100)
            e = auc(s.scores, s.positive, s.groups, r)
            level = Level(e, EqualError(e, None), e, e, 40, 40)  # the AUC alone matters here
            cells[name] = Cell(level, level, 80, "", s, r)
        below += worst(cells).auc.high < truth
        naive += min(c.video.auc.high for c in cells.values()) < truth
    assert below <= 3, below
    assert naive >= 6, naive


def test_a_drop_is_positive_where_the_other_cell_is_worse():
    seen, unseen = cell(drawn(5, sources=40, apart=3.0), 0.0, R), cell(drawn(5, sources=40, apart=1.0), 0.0, R)
    e = drop(seen, unseen)
    assert e.value == pytest.approx(seen.video.auc.value - unseen.video.auc.value)
    assert 0 < e.low < e.value < e.high
    assert drop(seen, seen).value == 0


def test_the_confusion_has_a_row_for_each_method_and_the_real_ones():
    s = drawn(6)
    g = confusion(s, 0.5, "frame")
    assert g.rows == ["real (80)", "Deepfakes (80)", "FaceSwap (80)"]
    assert g.columns == ["real", "fake"]
    for row, name in zip(g.values, ("", *METHODS), strict=True):
        own = [x >= 0.5 for x, m in zip(s.scores.tolist(), s.method, strict=True) if m == name]
        assert row == [pytest.approx(1 - sum(own) / 80), pytest.approx(sum(own) / 80)]
    assert g.marks == [(0, 0), (1, 1), (2, 1)]
    assert confusion(s.where(s.positive), 0.5).values[0] == [None, None]


def test_the_grid_tells_why_a_cell_is_empty_and_marks_the_domain():
    s = drawn(7)
    cells = {("c23", m): cell(s.where((np.array(s.method) == m) | ~s.positive), 0.0, R) for m in METHODS}
    cells["c40", "Deepfakes"] = cell(s.where(s.positive), 0.0, R)
    g = grid(cells, "t", row_label="quality", column_label="method", in_domain=[("c23", "Deepfakes")])
    assert (g.rows, g.columns, g.marks) == (["c23", "c40"], list(METHODS), [(0, 0)])
    assert g.values == [[cells["c23", m].video.auc.value for m in METHODS], [None, None]]
    assert g.note == "c40 × Deepfakes: one class only: no AUC."
    twice = {(q, m): cells["c40", "Deepfakes"] for q in ("c23", "c40") for m in METHODS}
    assert grid(twice, "t", row_label="q", column_label="m").note == "Every cell: one class only: no AUC."
    twice["c23", "FaceSwap"] = twice["c40", "FaceSwap"] = cells["c23", "FaceSwap"]
    assert grid(twice, "t", row_label="q", column_label="m").note == "Deepfakes: one class only: no AUC."
    accuracies = grid(cells, "t", row_label="quality", column_label="method", what="accuracy", unit="frame")
    assert accuracies.values[0] == [cells["c23", m].frame.accuracy.value for m in METHODS]
    assert grid(cells, "t", row_label="q", column_label="m", what="eer").higher_is_better is False
    rows = conditions("c23", cells["c23", "Deepfakes"])
    assert len({r.group for r in rows}) == len(rows) == 8
    assert {r.name for r in rows} == {"c23"}
    assert len(conditions("none", cells["c40", "Deepfakes"])) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"scores": np.array([0.0, np.nan, 1])},
        {"labels": np.array([0, 1, 2])},
        {"clips": ("a", "b")},
        {"clips": ("a", "a", "b")},
        {"groups": ("x", "y", "z"), "clips": ("a", "b", "b")},
    ],
)
def test_impossible_scores_are_refused(change):
    good = {
        "scores": np.zeros(3),
        "labels": np.array([0, 1, 1]),
        "clips": ("a", "b", "b"),
        "groups": ("x", "y", "y"),
        "method": ("", "m", "m"),
    }
    Scored(**good)
    with pytest.raises(ValueError, match="expected"):
        Scored(**good | change)
