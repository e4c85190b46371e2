"""The search by queries: it keeps its budget, never accepts a worse patch, and finds a planted weakness."""

from __future__ import annotations

import itertools

import pytest
import torch

from audit.budget import Budget
from audit.contracts import Detections
from audit.execution import Execution
from probes.detection import RandomSearchPatch
from probes.detection.random_search import best_scores, log_odds, search, stripes
from tests import planted


class Counted(planted.QueryOnly):
    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return super().__call__(images)


def craft(detector, queries, seed=0):
    budget = Budget("test", steps=0, batch=4, queries=queries, images=12, bootstrap=100)
    return RandomSearchPatch().craft(detector, planted.scenes(4), execution=Execution(), budget=budget, seed=seed)


@pytest.mark.parametrize("queries", [3, 40])
def test_asks_exactly_as_often_as_the_budget_says_and_records_each(queries):
    detector = Counted()
    patch = craft(detector, queries)
    assert detector.calls == queries + 3, (
        "the attack keeps to its budget; three more calls ask whether the answers are sound"
    )
    assert patch.history["query"] == [float(i + 1) for i in range(queries)]
    assert len(patch.history["loss"]) == queries


def test_finds_the_weakness_that_gradients_find():
    batch = Execution().batch(planted.scenes(6, seed=5).scenes)
    found = best_scores(
        planted.Red()(craft(planted.QueryOnly(), 60).apply(batch.images, batch.boxes)), batch.boxes, batch.labels
    )
    assert float((found >= 0.5).float().mean()) < 0.2


def test_loss_never_rises_on_the_same_images():
    goal = torch.zeros(3, 16, 16)
    start = stripes(16, torch.Generator().manual_seed(1))
    best, curve = search(start, lambda p, turn: float((p.float() - goal).mean()), 200, torch.Generator().manual_seed(2))
    assert all(b <= a for a, b in itertools.pairwise(curve))
    assert float((best.float() - goal).mean()) == curve[-1]
    assert curve[-1] < 0.2 * curve[0]


def test_the_seed_decides_all():
    assert craft(planted.QueryOnly(), 20, 1).identity == craft(planted.QueryOnly(), 20, 1).identity
    ends = [
        search(torch.full((3, 16, 16), 128, dtype=torch.uint8), lambda p, turn: float(p.float().mean()), 30, stream)[0]
        for stream in (torch.Generator().manual_seed(s) for s in (1, 1, 2))
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_best_scores_by_hand():
    found = Detections(
        torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 60, 60]]),
        torch.tensor([0.4, 0.7, 0.99, 0.8]),
        torch.tensor([0, 0, 1, 0]),
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 72]])
    assert best_scores([found], [boxes], [torch.tensor([0, 0])]).tolist() == pytest.approx([0.7, 0.0])
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert best_scores([none], [boxes], [torch.tensor([0, 0])]).tolist() == [0.0, 0.0]


def test_what_is_not_reported_counts_as_one_in_a_thousand():
    assert log_odds(torch.tensor([0.0])) == pytest.approx(log_odds(torch.tensor([1e-3])))
    assert log_odds(torch.tensor([0.5])) == pytest.approx(0.0)
    assert log_odds(torch.tensor([1.0])) < 20
