"""Error rates of liveness detectors against counts of five lines, on drawn scores and on the kit's models."""

from __future__ import annotations

import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from audit.measures.intervals import Resampling, clopper_pearson, cluster_bootstrap
from audit.measures.presentation import conditions, domain_grid, highest, leave_one_out, presentation, unseen
from audit.measures.roc import equal_error
from audit.measures.scored import Scored
from tests.kit import kit, minifas

R = Resampling(seed=0, draws=300, cluster="people")
SPECIES = ("print", "screen", "mask")


def drawn(seed=0, people=12, frames=3, apart=1.5, domains=("a", "b", "c"), places=None):
    """Per domain and person a live video and one of each species; masks are the hardest."""
    rng = np.random.default_rng(seed)
    rows = []
    for d in domains:
        for p in range(people):
            for m in ("", *SPECIES):
                own = rng.normal() + (apart if not m else apart / 2 if m == "mask" else 0.0) + 0.3 * (d == "b")
                rows += [(own + rng.normal(), int(not m), f"{d}{p}{m}", f"{d}{p}", m, d) for _ in range(frames)]
    scores, labels, clips, groups, method, domain = zip(*rows, strict=True)
    scores = np.array(scores) if places is None else np.array(scores).round(places)
    return Scored(scores, np.array(labels), clips, groups, method), domain


def counted(scores, labels, species, t):
    """ISO/IEC 30107-3 in five lines."""
    live, attack = scores >= t, labels == 0
    apcer = {str(s): np.mean(live[attack & (species == s)]) for s in np.unique(species[attack])}
    bpcer = np.mean(~live[~attack])
    far, acer = np.mean(live[attack]), (max(apcer.values()) + bpcer) / 2
    return apcer, bpcer, acer, (far + bpcer) / 2


def cut_of(scores, labels):
    """The threshold where FAR and FRR are nearest, by trying each gap between scores from the highest down."""
    s = np.unique(scores)
    cuts = [np.nextafter(s[-1], np.inf), *((s[1:] + s[:-1]) / 2)[::-1], s[0]]
    errors = [(np.mean(scores[labels == 0] >= t), np.mean(scores[labels == 1] < t)) for t in cuts]
    return cuts[
        min(range(len(cuts)), key=lambda i: (round(abs(errors[i][0] - errors[i][1]), 12), round(sum(errors[i]), 12)))
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0]), st.sampled_from([-0.5, 0.0, 1.0]))
def test_rates_are_those_of_five_lines(seed, places, threshold):
    s, _ = drawn(seed, people=4, places=places)
    r = Resampling(seed=0, draws=100)
    means = [np.mean(s.scores[np.array(s.clips) == c]) for c in sorted(set(s.clips))]
    facts = dict(zip(s.clips, zip(s.labels, s.method, strict=True), strict=True))
    labels, species = (np.array(x) for x in zip(*(facts[c] for c in sorted(set(s.clips))), strict=True))
    for unit, rows in (
        ("frame", (s.scores, s.labels, np.array(s.method))),
        ("video", (np.array(means), labels, species)),
    ):
        apcer, bpcer, acer, _ = counted(*rows, threshold)
        found = presentation(s, threshold, r, unit)
        assert {k: e.value for k, e in found.apcer.items()} == pytest.approx(apcer)
        assert (found.bpcer.value, found.acer.value) == (pytest.approx(bpcer), pytest.approx(acer))
        assert found.max_apcer.value == pytest.approx(max(apcer.values()))
        assert apcer[found.worst] == pytest.approx(max(apcer.values()))
        for e in (*found.apcer.values(), found.bpcer, found.acer, found.max_apcer):
            assert 0 <= e.low <= e.value <= e.high <= 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0]))
def test_a_domain_is_judged_at_the_threshold_of_the_others(seed, places):
    s, domains = drawn(seed, people=4, places=places)
    domain = np.array(domains)
    found = leave_one_out(s, domains, Resampling(seed=0, draws=100), "frame")
    assert list(found) == ["a", "b", "c"]
    for d, u in found.items():
        own = domain == d
        t = cut_of(s.scores[~own], s.labels[~own])
        assert u.threshold == pytest.approx(t)
        apcer, bpcer, acer, hter = counted(s.scores[own], s.labels[own], np.array(s.method)[own], t)
        assert (u.hter.value, u.frr.value) == (pytest.approx(hter), pytest.approx(bpcer))
        assert u.far.value == pytest.approx(2 * hter - bpcer)
        assert u.auc.value == pytest.approx(roc_auc_score(s.labels[own], s.scores[own]))
        assert u.presentation.acer.value == pytest.approx(acer)
        assert u.presentation.max_apcer.value == pytest.approx(max(apcer.values()))
        assert (u.videos, u.groups) == (16, 4)


def test_the_judged_domain_has_no_say_in_its_threshold():
    s, domains = drawn(1)
    there = leave_one_out(s, domains, R)["a"]
    moved = replace(s, scores=s.scores + 50.0 * (np.array(domains) == "a"))
    now = leave_one_out(moved, domains, R)["a"]
    assert now.threshold == there.threshold
    assert (now.far.value, now.frr.value, now.hter.value) == (1, 0, 0.5)
    assert now.auc.value == there.auc.value
    own = equal_error(s.videos.scores, s.videos.positive, s.videos.groups, R)
    assert there.threshold != own.threshold


def test_species_are_never_pooled():
    """One species of ten attacks gets through whole; among a thousand others it would hardly show."""
    n = [10, 990, 100]
    s = Scored(
        np.repeat([1.0, -1, 1], n), np.repeat([0, 0, 1], n), tuple(map(str, range(1100))), tuple(map(str, range(1100))),
        ("mask",) * 10 + ("print",) * 990 + ("",) * 100,
    )  # fmt: skip
    found = presentation(s, 0.0, R)
    assert (found.worst, found.max_apcer.value, found.acer.value) == ("mask", 1, 0.5)
    assert (found.max_apcer.k, found.max_apcer.n) == (10, 10)
    assert found.max_apcer.low == pytest.approx(clopper_pearson(10, 10, 0.975).low)  # the best of two tries
    assert found.max_apcer.high == 1
    assert (found.apcer["print"].value, found.bpcer.value) == (0, 0)
    assert found.acer.low == pytest.approx((found.max_apcer.low + found.bpcer.low) / 2)
    assert found.acer.high == pytest.approx((found.max_apcer.high + found.bpcer.high) / 2)


def test_a_small_species_keeps_the_highest_rate_open_above():
    rates = {"a": clopper_pearson(5, 100), "b": clopper_pearson(0, 4)}
    wide = {"a": clopper_pearson(5, 100, 0.975), "b": clopper_pearson(0, 4, 0.975)}
    e = highest(rates, wide)
    assert (e.value, e.low, e.high) == (0.05, wide["a"].low, rates["b"].high)
    assert highest({}, {}).value is None


def test_the_interval_of_the_highest_holds_the_true_one():
    rng = np.random.default_rng(3)
    true, runs, held = np.array([0.1, 0.3, 0.3, 0.28]), 400, 0
    for _ in range(runs):
        k = rng.binomial(60, true)
        rates, wide = ({str(i): clopper_pearson(int(x), 60, v) for i, x in enumerate(k)} for v in (0.95, 0.9875))
        e = highest(rates, wide)
        held += e.low <= 0.3 <= e.high
    assert held / runs >= 0.94


def test_intervals_are_over_people():
    s, _ = drawn(2, people=15, frames=6, domains=("a",))
    found = presentation(s, 0.8, R, "frame")
    who = np.unique(s.groups, return_inverse=True)[1]
    k = [int((s.scores[(who == p) & s.positive] < 0.8).sum()) for p in range(15)]
    assert found.bpcer == cluster_bootstrap(k, [6] * 15, seed=0, draws=300, cluster="people")
    hter = unseen(s, s, R, "frame").hter
    frames = tuple(map(str, range(len(s))))
    every = unseen(s, replace(s, groups=frames, clips=frames), R, "frame").hter
    assert every.value == hter.value
    assert hter.high - hter.low > 1.2 * (every.high - every.low)  # frames of one person agree


def test_a_class_that_is_missing_is_none_never_zero():
    s, domains = drawn(4)
    live, attacks = s.where(s.positive), s.where(~s.positive)
    found = presentation(live, 0.0, R)
    assert (found.worst, found.max_apcer.value, found.acer.value, dict(found.apcer)) == (None, None, None, {})
    assert found.bpcer.value is not None
    found = presentation(attacks, 0.0, R)
    assert (found.bpcer.value, found.acer.value) == (None, None)
    assert "nobody live" in found.acer.method
    nothing = unseen(live, s, R)
    assert (nothing.threshold, nothing.hter.value, nothing.presentation) == (None, None, None)
    assert "one class only" in nothing.hter.method
    assert nothing.auc.value is not None
    half = unseen(s, attacks, R)
    assert (half.hter.value, half.frr.value, half.auc.value) == (None, None, None)
    assert half.far.value is not None
    table = domain_grid({"x": nothing, "y": half})
    assert table.values == [
        [None, None, None, 1 - nothing.auc.value, None],
        [None, half.far.value, None, None, half.presentation.max_apcer.value],
    ]
    assert "x: the development domains hold one class only" in table.note
    with pytest.raises(ValueError, match="at least two domains"):
        leave_one_out(s, ["a"] * len(s), R)
    with pytest.raises(ValueError, match="a domain for each"):
        leave_one_out(s, domains[:-1], R)
    with pytest.raises(ValueError, match="one for each clip"):
        leave_one_out(s, ["z", *domains[1:]], R)


def test_rates_go_into_the_record():
    s, domains = drawn(5)
    rows = conditions("videos", presentation(s, 0.5, R))
    assert [(r.name, r.group) for r in rows] == [
        ("mask", "APCER, videos"), ("print", "APCER, videos"), ("screen", "APCER, videos"),
        ("BPCER", "videos"), ("highest APCER", "videos"), ("ACER", "videos"),
    ]  # fmt: skip
    table = domain_grid(leave_one_out(s, domains, R))
    assert (table.rows, table.higher_is_better) == (["a", "b", "c"], False)
    assert all(0 <= v <= 1 for row in table.values for v in row)


@pytest.mark.kit
@pytest.mark.parametrize("which", ["V2", "V1SE", "both"])
def test_the_kits_detectors_on_the_kits_photographs(which):
    folder = kit("spoof_images")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = []
    for r in rows:
        image = cv2.cvtColor(cv2.imread(str(folder / r["file"])), cv2.COLOR_BGR2RGB)
        images.append(cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA))
    photographs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        scores = minifas(which)(photographs).double().numpy()
    labels = np.array([int(r["spoof"] == "0") for r in rows])
    species = np.array(["" if r["spoof"] == "0" else r["kind"].partition(" (")[0] for r in rows])
    domain = np.array([r["file"].partition("_")[0] for r in rows])
    names = tuple(r["file"] for r in rows)
    s = Scored(scores, labels, names, names, tuple(species.tolist()))
    apcer, bpcer, acer, _ = counted(scores, labels, species, 0.0)
    found = presentation(s, 0.0, R)
    assert {k: e.value for k, e in found.apcer.items()} == pytest.approx(apcer)
    assert [found.bpcer.value, found.acer.value] == pytest.approx([bpcer, acer])
    assert len(apcer) >= 6
    for d, u in leave_one_out(s, domain.tolist(), R).items():
        own = domain == d
        t = cut_of(scores[~own], labels[~own])
        if len(set(labels[own].tolist())) == 1:
            assert u.hter.value is None
            continue
        assert u.hter.value == pytest.approx(counted(scores[own], labels[own], species[own], t)[3])
