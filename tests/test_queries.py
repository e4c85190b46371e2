"""What a query attack asks and counts: images sent, answers read, the curve, and nothing but ``__call__``."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from audit.budget import Budget
from audit.contracts import Detections
from audit.errors import AuditError
from audit.execution import Execution
from probes.detection.craftset import CraftSet
from probes.detection.evolution import EvolutionPatch
from probes.detection.queries import Questions, best_scores, images_of, log_odds, wearing
from probes.detection.query_patch import still_improving
from probes.detection.random_search import RandomSearchPatch
from probes.geometry import TOP, Placement, place, uv_map
from tests import planted

ATTACKS = [RandomSearchPatch(), EvolutionPatch()]


class OnlyCalled:
    """Answers, counts what it is sent, and fails the test when anything else is asked of it."""

    def __init__(self, detector=None):
        self.detector, self.images, self.calls, self.read = detector or planted.Red(), 0, 0, set()

    def __getattribute__(self, name):
        own = object.__getattribute__(self, "__dict__")
        if name in ("classes", "score_threshold"):
            own["read"].add(name)
            return getattr(own["detector"], name)
        if name in own or name in ("__class__", "__dict__"):
            return object.__getattribute__(self, name)
        raise AssertionError(f"the attack asked for {name}")

    def __call__(self, images):
        own = object.__getattribute__(self, "__dict__")
        own["images"] += len(images)
        own["calls"] += 1
        return own["detector"](images)


def budget(queries, batch=4):
    return Budget("test", steps=0, batch=batch, queries=queries, images=12, bootstrap=100)


def craft(probe, detector, queries=40, batch=4, seed=0, scenes=None):
    scenes = planted.scenes(6) if scenes is None else scenes
    return probe.craft(detector, scenes, execution=Execution(), budget=budget(queries, batch), seed=seed)


def craft_set(count=6, batch=4, scenes=None, wear=TOP):
    return CraftSet(planted.scenes(count) if scenes is None else scenes, wear, Execution(), batch=batch, seed=0)


def answer(rows):
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.tensor(scores), torch.tensor(labels).long()
    )


def test_best_scores_by_hand():
    found = answer([([0, 0, 10, 10], 0.4, 0), ([0, 0, 10, 8], 0.7, 0), ([0, 0, 10, 10], 0.99, 1)])
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 72]])
    assert best_scores([found], [boxes], [torch.tensor([0, 0])]).tolist() == pytest.approx([0.7, 0.0])
    assert best_scores([answer([])], [boxes], [torch.tensor([0, 0])]).tolist() == [0.0, 0.0]
    assert best_scores([], [], []).tolist() == []


def test_a_truck_that_is_found_as_a_car_is_found_where_both_are_attacked():
    truck, boxes = answer([([0, 0, 10, 10], 0.9, 2), ([0, 0, 10, 10], 0.95, 3)]), torch.tensor([[0.0, 0, 10, 10]])
    own = [torch.tensor([1])]
    assert best_scores([truck], [boxes], own).tolist() == [0.0]
    assert best_scores([truck], [boxes], own, [1, 2]).tolist() == pytest.approx([0.9])
    assert best_scores([truck], [boxes], [torch.tensor([3])], [1, 2]).tolist() == pytest.approx([0.95])


def test_log_odds_by_hand():
    assert log_odds(torch.tensor([0.5, 0.9])) == pytest.approx(math.log(9) / 2)
    for unreported in (0.0, 1e-3):
        assert log_odds(torch.tensor([unreported])) == pytest.approx(math.log(1 / 999), abs=1e-5)


def test_patches_asked_together_get_the_losses_that_they_get_alone():
    craft = craft_set(5, batch=3)
    parts = craft.group(0)
    stream = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 256, (3, 7, 5), generator=stream, dtype=torch.uint8) for _ in range(30)]
    together = Questions(planted.QueryOnly(), craft)
    losses = together.losses([wearing(p) for p in pixels], parts)
    batch = torch.cat([p.images for p in parts])
    where = uv_map([b for p in parts for b in p.boxes], TOP, planted.SIZE)
    labels = [label for p in parts for label in p.labels]
    for p, loss in zip(pixels, losses, strict=True):
        scores = best_scores(planted.Red()(place(batch, p.float() / 255, where)), [*parts[0].boxes], labels)
        assert loss == pytest.approx(log_odds(scores), abs=1e-4)
    assert together.sent == 30 * images_of(parts)
    assert together.calls < 30, "they shared calls"


def test_decision_reads_no_score_but_only_what_is_found():
    class Dimmed(planted.QueryOnly):
        """The same objects found, each with another score on the same side of the threshold."""

        def __call__(self, images):
            found = super().__call__(images)
            return [replace(d, scores=torch.where(d.scores >= 0.5, 0.55, 0.45)) for d in found]

    probe = RandomSearchPatch(feedback="decision")
    assert torch.equal(craft(probe, planted.QueryOnly()).pixels, craft(probe, Dimmed()).pixels)
    scored = [craft(RandomSearchPatch(), d).history["loss"] for d in (planted.QueryOnly(), Dimmed())]
    assert scored[0] != scored[1]


@pytest.mark.parametrize("feedback", ["scores", "decision"])
@pytest.mark.parametrize("probe", ATTACKS, ids=repr)
def test_nothing_but_call_is_used_and_every_image_is_counted(probe, feedback):
    detector = OnlyCalled()
    patch = craft(replace(probe, feedback=feedback), detector)
    assert detector.read <= {"classes", "score_threshold"}
    assert patch.origin["images_sent"] == detector.images
    assert patch.origin["calls"] == detector.calls
    assert patch.history["query"][-1] <= 40 * 4
    assert patch.history["call"][-1] <= patch.history["query"][-1]


@pytest.mark.parametrize("probe", ATTACKS, ids=repr)
@pytest.mark.parametrize(("most", "queries"), [(None, 5), (30, 1000), (42, 9), (200, 1000), (5000, 1), (5000, 60)])
def test_the_limit_holds_for_all_images_that_are_sent(probe, most, queries):
    detector = OnlyCalled()
    patch = craft(replace(probe, max_images=most), detector, queries)
    allowed = queries * 4
    search = detector.images - 3 * images_of(list(craft_set(6).sample(4)))  # the rest asks whether the attack was sound
    assert search <= allowed
    if most is not None:
        assert detector.images <= most
        if 100 < most < allowed:
            assert detector.images > most - 16 * 4, "and it is used"
    assert patch.origin["budget"] == [queries, 4]


@pytest.mark.parametrize("probe", ATTACKS, ids=repr)
def test_the_curve_is_of_the_same_images_and_says_what_is_found_no_more(probe):
    patch = craft(probe, planted.QueryOnly(), 120)
    h = patch.history
    assert len({len(h[k]) for k in ("query", "call", "loss", "success")}) == 1
    assert len(h["query"]) >= 8
    assert h["query"] == sorted(h["query"])
    parts = list(craft_set(6).sample(4))
    scores = []
    for part in parts:
        changed = patch.apply(part.images, part.boxes)
        scores.append(best_scores(planted.Red()(changed), part.boxes, part.labels))
    flat = torch.cat(scores)
    assert h["loss"] == sorted(h["loss"], reverse=True), "of the best patch until then"
    assert log_odds(flat) == pytest.approx(h["loss"][-1], abs=1e-4), "which is the result"
    assert float((flat < 0.5).float().mean()) == h["success"][-1]


def test_success_is_zero_where_nothing_was_found_to_begin_with():
    class Empty(planted.QueryOnly):
        def __call__(self, images):
            return [answer([]) for _ in images]

    patch = craft(RandomSearchPatch(), Empty())
    assert set(patch.history["success"]) == {0.0}
    assert not any(d.raised for d in patch.diagnostics)


@pytest.mark.parametrize("probe", ATTACKS, ids=repr)
def test_beats_noise_on_a_detector_that_only_answers(probe):
    patch = craft(replace(probe, max_images=600), planted.QueryOnly(), 1000)
    held = Execution().batch(planted.scenes(8, seed=9).scenes)
    noise = torch.randint(0, 256, (3, 48, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    kept = []
    for pixels in (patch.pixels, noise):
        where = uv_map(held.boxes, TOP, planted.SIZE)
        scores = best_scores(planted.Red()(place(held.images, pixels.float() / 255, where)), held.boxes, held.labels)
        kept.append(float((scores >= 0.5).float().mean()))
    assert kept[1] > 0.9
    assert kept[0] < 0.1


@pytest.mark.parametrize("probe", ATTACKS, ids=repr)
def test_texels_need_not_be_square_nor_the_wear_a_placement(probe):
    class Turned:
        """Any wear: here a placement under another name."""

        def __init__(self):
            self.inner = Placement("center", 0.4)

        def __str__(self):
            return "turned"

        def spec(self):
            return {"turned": True}

        def prepare(self, images, boxes, areas=None):
            return self.inner.prepare(images, boxes)

        def regions(self, boxes, areas=None):
            return self.inner.regions(boxes)

    patch = craft(replace(probe, placement=Turned(), size=(12, 30)), planted.QueryOnly(), 30)
    assert patch.pixels.shape == (3, 12, 30)
    assert patch.origin["placement"] == {"turned": True}
    assert patch.origin["size"] == [12, 30]
    assert patch.history["query"]
    batch = Execution().batch(planted.scenes(1).scenes)
    assert not torch.equal(patch.apply(batch.images, batch.boxes), batch.images)


def test_still_improving_by_hand():
    even = still_improving(list(range(11)), [10.0 - i for i in range(11)], 0.25)
    assert even.value == pytest.approx(0.1)
    assert not even.raised
    late = still_improving([0, 50, 90, 100], [8.0, 8.0, 7.0, 4.0], 0.25)
    assert late.value == pytest.approx(0.75)
    assert late.raised
    assert not still_improving([0, 50, 90, 100], [8.0, 8.0, 8.0, 7.9], 0.25).raised, "too little to speak of"
    assert still_improving([0, 100], [3.0, 3.0], 0.25).value == 0
    assert still_improving([0, 100], [3.0, 5.0], 0.25).value == 0


@pytest.mark.parametrize(
    "wrong",
    [{"feedback": "logits"}, {"size": 0}, {"size": (4, 0)}, {"max_images": 0}, {"images": 0}, {"population": 0}],
)
@pytest.mark.parametrize("kind", [RandomSearchPatch, EvolutionPatch])
def test_wrong_options_are_refused(kind, wrong):
    with pytest.raises(AuditError):
        kind(**wrong)


def test_limits_and_classes_that_make_no_sense_are_refused():
    with pytest.raises(AuditError, match="max_images"):
        craft(RandomSearchPatch(max_images=13), planted.QueryOnly())
    with pytest.raises(AuditError, match="attacked"):
        craft(RandomSearchPatch(attacked=("circle",)), planted.QueryOnly())
