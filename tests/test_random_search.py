"""The search by queries: it keeps its budget, never accepts a worse patch, and finds a planted weakness."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.budget import Budget
from audit.errors import AuditError
from audit.execution import Execution
from probes.detection import NoisePatch, RandomSearchPatch
from probes.detection.queries import best_scores
from probes.detection.random_search import ROUNDS, proposal, search, stripes
from tests import planted
from tests.kit import ultralight
from tests.lfw import lfw_scenes


def craft(detector, queries, seed=0, **options):
    budget = Budget("test", steps=0, batch=4, queries=queries, images=12, bootstrap=100)
    probe = RandomSearchPatch(**options)
    return probe.craft(detector, planted.scenes(4), execution=Execution(), budget=budget, seed=seed)


@pytest.mark.parametrize("options", [{}, {"population": 1}, {"feedback": "decision"}])
def test_finds_the_weakness_that_gradients_find(options):
    batch = Execution().batch(planted.scenes(6, seed=5).scenes)
    patch = craft(planted.QueryOnly(), 60, **options)
    found = best_scores(planted.Red()(patch.apply(batch.images, batch.boxes)), batch.boxes, batch.labels)
    assert float((found >= 0.5).float().mean()) < 0.2
    assert patch.history["success"][-1] == 1.0


@pytest.mark.parametrize("kind", [planted.Robust, planted.Blind])
def test_what_cannot_be_hidden_raises_no_flag(kind):
    scenes = planted.scenes(6, row=planted.ROW) if kind is planted.Blind else planted.scenes(6)
    budget = Budget("test", steps=0, batch=4, queries=60, images=12, bootstrap=100)
    patch = RandomSearchPatch().craft(kind(), scenes, execution=Execution(), budget=budget, seed=0)
    assert patch.history["success"][-1] < 0.5
    assert not [d.name for d in patch.diagnostics if d.raised and "unbounded" not in d.name]


def test_a_detector_that_answers_at_random_is_told():
    patch = craft(planted.Random(), 20)
    assert [d.raised for d in patch.diagnostics if d.name == "two runs agree"] == [True]


def test_loss_never_rises_on_the_same_images():
    goal = torch.zeros(3, 16, 16)
    start = stripes(16, torch.Generator().manual_seed(1))
    best, curve = search(start, lambda p, turn: float((p.float() - goal).mean()), 200, torch.Generator().manual_seed(2))
    assert all(b <= a for a, b in itertools.pairwise(curve))
    assert float((best.float() - goal).mean()) == curve[-1]
    assert curve[-1] < 0.2 * curve[0]


def test_a_new_round_asks_about_the_best_so_far_again():
    asked = []

    def loss(p, turn):
        asked.append((turn, p))
        return float(p.float().mean()) + 1000 * turn

    best, curve = search(stripes(8, torch.Generator()), loss, 2 * ROUNDS, torch.Generator().manual_seed(0))
    assert [turn for turn, _ in asked] == [0] * ROUNDS + [1] * ROUNDS
    assert curve[ROUNDS] == pytest.approx(curve[ROUNDS - 1] + 1000)
    assert float(best.float().mean()) + 1000 == pytest.approx(curve[-1])


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_proposal_is_one_rectangle_of_one_strong_colour(seed, rows, columns, done):
    grey = torch.full((3, rows, columns), 128, dtype=torch.uint8)
    changed = (out := proposal(grey, done, torch.Generator().manual_seed(seed))).ne(grey).any(0)
    ys, xs = changed.nonzero(as_tuple=True)
    height, width = int(ys.max() - ys.min()) + 1, int(xs.max() - xs.min()) + 1
    assert len(ys) == height * width
    colours = out[:, changed].unique(dim=1)
    assert colours.shape == (3, 1)
    assert set(colours.flatten().tolist()) <= {0, 255}
    share = 0.5 * (1 - done) ** 2 + 0.03
    assert height in (rows, max(1, round(rows * share)))
    assert width in (columns, max(1, round(columns * share)))
    assert bool((grey == 128).all()), "the patch handed in is left alone"


def test_the_seed_decides_all():
    assert craft(planted.QueryOnly(), 20, 1).identity == craft(planted.QueryOnly(), 20, 1).identity
    ends = [
        search(torch.full((3, 16, 16), 128, dtype=torch.uint8), lambda p, turn: float(p.float().mean()), 30, stream)[0]
        for stream in (torch.Generator().manual_seed(s) for s in (1, 1, 2))
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_wrong_options_are_refused():
    with pytest.raises(AuditError, match="population"):
        RandomSearchPatch(population=0)


class Closed:
    """A real detector behind an interface: nothing of it can be had but its answers."""

    def __init__(self, detector):
        self._ask, self.classes, self.score_threshold = detector.__call__, detector.classes, detector.score_threshold

    def __call__(self, images):
        return self._ask(images)


@pytest.mark.slow
@pytest.mark.kit
def test_beats_noise_on_a_real_detector_that_only_answers():
    detector = Closed(ultralight())
    scenes = lfw_scenes(80, 0)
    people = sorted({s.group for s in scenes})
    held = replace(scenes, scenes=tuple(s for s in scenes if s.group in people[::3]))
    seen = replace(scenes, scenes=tuple(s for s in scenes if s.group not in people[::3]))
    budget = Budget("test", steps=0, batch=8, queries=10**6, images=80, bootstrap=100)
    patch = RandomSearchPatch(max_images=1200).craft(detector, seen, execution=Execution(), budget=budget, seed=0)
    noise = NoisePatch().craft(detector, seen, execution=Execution(), budget=budget, seed=0)
    kept = []
    for worn in (patch, noise):
        scores = [
            best_scores(Execution().detect(detector, worn.apply(b.images, b.boxes)), b.boxes, b.labels)
            for b in Execution().batches(held, 8)
        ]
        kept.append(float((torch.cat(scores) >= 0.99).float().mean()))
    assert patch.origin["images_sent"] <= 1200
    assert kept[0] <= kept[1] - 0.1
