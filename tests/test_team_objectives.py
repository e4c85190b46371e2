"""The five teams' losses against loops in plain Python, and that each does to a detector what it says."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.budget import Budget
from audit.contracts import Candidates
from audit.data import open_scenes
from audit.errors import AuditError
from audit.execution import Execution
from audit.measures.detection import kept
from audit.measures.goals import class_kept
from audit.measures.intervals import Resampling
from audit.measures.matching import join, match_scene
from probes.detection import NoisePatch, UniversalPatch
from probes.detection.choosing import target_for, touching
from probes.detection.craftset import CraftSet
from probes.detection.objectives import Targets
from probes.detection.team_objectives import (
    TEAM_OBJECTIVES,
    ClassMargin,
    Joint,
    MaxObjectness,
    Objectness,
    TargetedClass,
)
from probes.geometry import Placement
from probes.optimisers import Descent
from tests import planted
from tests.kit import kit
from tests.planted_goals import PLACE, Colours, iou, random_batch, touches

THRESHOLD = 0.5
FLOOR = -2.0
"""σ⁻¹(0.5) − 2, the floor of all objectives at that threshold."""
S = (0, 2)
BUDGET = Budget("test", steps=40, batch=4, queries=4, images=12, bootstrap=100)


@pytest.fixture(scope="module", params=[0, 1, 2])
def batch(request):
    candidates, boxes, labels = random_batch(request.param)
    return candidates, Targets.of(boxes, labels, PLACE, S), boxes


def chosen(objective, batch):
    s = objective.select(batch[0], batch[1], THRESHOLD)
    return sorted(zip(s.image.tolist(), s.candidate.tolist(), s.label.tolist(), strict=True))


def value(objective, batch, threshold=THRESHOLD):
    return [float(getattr(objective, of)(batch[0], batch[1], threshold)) for of in ("loss", "height")]


def argmax_in(batch, classes, floor=FLOOR):
    """(image, candidate, class) of the candidates above the floor whose best class is among some."""
    out = []
    for n, rows in enumerate(batch[0].logits.tolist()):
        for a, z in enumerate(rows):
            best = max(range(len(z)), key=lambda c: z[c])
            if best in classes and z[best] > floor:
                out.append((n, a, best))
    return out


@pytest.mark.parametrize("target", [None, 1, 2, 3])
def test_targeted_class_is_cross_entropy_over_what_is_taken_for_the_attacked(batch, target):
    t, objective = 1 if target is None else target, TargetedClass(target=target)
    attacked = [c for c in S if c != t]
    expected = argmax_in(batch, attacked)
    assert len(expected) > 20
    assert chosen(objective, batch) == expected
    entropy = height = 0.0
    for n, a, c in expected:
        z = batch[0].logits[n, a].tolist()
        entropy += math.log(sum(math.exp(v - z[t]) for v in z))
        height += min(z[c] - FLOOR, z[c] - max(v for k, v in enumerate(z) if k not in attacked))
    assert value(objective, batch) == pytest.approx([entropy / len(expected), height / 5], rel=1e-4)


def test_several_labels_per_candidate_are_attacked_where_the_detector_reports_them(batch):
    every = []
    for n, rows in enumerate(batch[0].logits.tolist()):
        for a, z in enumerate(rows):
            best = max(S, key=lambda c: z[c])
            every += [(n, a, best)] if z[best] > FLOOR else []
    for objective in (TargetedClass(multi_label=True), Objectness(multi_label=True)):
        assert chosen(objective, batch) == every
        height = sum(float(batch[0].logits[i]) - FLOOR for i in every) / 5
        assert value(objective, batch)[1] == pytest.approx(height, rel=1e-4)
    assert len(every) > len(argmax_in(batch, S))


def test_objectness_is_that_of_candidates_whose_best_class_is_attacked(batch):
    expected = argmax_in(batch, S)
    assert chosen(Objectness(), batch) == expected
    z = [float(batch[0].logits[i]) for i in expected]
    mean = sum(v - FLOOR for v in z) / len(z)
    assert value(Objectness(), batch) == pytest.approx([mean, mean * len(z) / 5], rel=1e-4)
    whole = argmax_in(batch, S, -math.inf)
    total = sum(float(batch[0].logits[i]) for i in whole)
    assert value(Objectness(surrogate="logit"), batch)[0] == pytest.approx(total / len(whole), rel=1e-4)


def tops(batch, classes, *, on_object):
    """Per object, or image with objects, the highest log-odds among some classes."""
    out = []
    for n, boxes in enumerate(batch[2]):
        for box in boxes.tolist() if on_object else [None] * bool(len(boxes)):
            rows = zip(batch[0].boxes[n].tolist(), batch[0].logits[n].tolist(), strict=True)
            out.append(max(z[c] for b, z in rows for c in classes if box is None or touches(b, box)))
    return out


@pytest.mark.parametrize("on_object", [True, False])
@pytest.mark.parametrize("any_class", [True, False])
def test_max_objectness_is_the_highest_of_each_object_or_image(batch, on_object, any_class):
    expected = tops(batch, range(4) if any_class else S, on_object=on_object)
    assert len(expected) == (5 if on_object else 2)
    assert min(expected) > FLOOR
    total = sum(v - FLOOR for v in expected)
    found = value(MaxObjectness(on_object=on_object, any_class=any_class), batch)
    assert found == pytest.approx([total / len(expected), total / 5], rel=1e-4)


@pytest.mark.parametrize("on_object", [True, False])
@pytest.mark.parametrize(
    ("surrogate", "term"),
    [
        ("hinge", lambda m: m),
        ("logit", lambda m: m),
        ("softplus", lambda m: math.log1p(math.exp(m))),
        ("log-score", lambda m: -math.log1p(math.exp(-m))),
    ],
)
def test_class_margin_is_the_surest_attacked_less_the_surest_other(batch, on_object, surrogate, term):
    a, o = (tops(batch, c, on_object=on_object) for c in (S, (1, 3)))
    expected = sum(term(x - y) for x, y in zip(a, o, strict=True)) / len(a)
    loss, height = value(ClassMargin(on_object=on_object, surrogate=surrogate), batch)
    assert loss == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert height == pytest.approx(sum(v - FLOOR for v in a) / 5, rel=1e-4)


def test_class_margin_of_a_detector_with_one_class_is_measured_from_the_floor():
    candidates, boxes, labels = random_batch(3, classes=1)
    one = (candidates, Targets.of(boxes, [torch.zeros_like(x) for x in labels], PLACE, (0,)), boxes)
    expected = [v - FLOOR for v in tops(one, (0,), on_object=True)]
    assert value(ClassMargin(), one) == pytest.approx([sum(expected) / 5] * 2, rel=1e-4)


@pytest.mark.parametrize("objective", TEAM_OBJECTIVES, ids=repr)
def test_all_is_zero_once_nothing_attacked_is_seen_and_also_without_candidates(objective, batch):
    low = (Candidates(batch[0].boxes, torch.full_like(batch[0].logits, -50.0)), batch[1])
    none = (Candidates(batch[0].boxes[:, :0], batch[0].logits[:, :0]), batch[1])
    assert value(objective, low) == value(objective, none) == [0, 0]


def test_what_is_taken_for_the_target_is_done_with_though_it_is_seen(batch):
    logits = torch.full_like(batch[0].logits, 3.0)
    logits[..., 1] = 3.1
    sure = (Candidates(batch[0].boxes, logits), batch[1])
    assert value(TargetedClass(), sure) == [0, 0]
    assert value(TargetedClass(multi_label=True), sure)[1] > 1
    assert value(ClassMargin(), sure)[1] == pytest.approx(5.0), "a second label beside it hides nothing"


@pytest.mark.parametrize("objective", TEAM_OBJECTIVES, ids=repr)
def test_a_step_against_the_gradient_lowers_loss_and_height(objective, batch):
    logits = batch[0].logits.clone().requires_grad_()
    objective.loss(Candidates(batch[0].boxes, logits), batch[1], THRESHOLD).backward()
    lower = (Candidates(batch[0].boxes, (logits - 0.01 * logits.grad / logits.grad.norm()).detach()), batch[1])
    assert all(a < b for a, b in zip(value(objective, lower), value(objective, batch), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_touching_is_what_a_loop_says(seed):
    candidates, boxes, labels = random_batch(seed)
    t = Targets.of(boxes, labels, PLACE, S)
    on = touching(candidates.boxes, t.boxes, t.valid)
    for n, rows in enumerate(candidates.boxes.tolist()):
        for a, box in enumerate(rows):
            for k in range(3):
                assert bool(on[n, a, k]) == (k < len(boxes[n]) and touches(box, boxes[n][k].tolist()))


class TestTarget:
    def test_a_potted_plant_or_the_first_that_is_not_attacked(self):
        assert target_for(("car", "person", "pottedplant"), {0}) == 2
        assert target_for(("car", "person", "potted plant"), {0, 2}) == 1

    def test_none_left_is_refused(self):
        with pytest.raises(AuditError, match="not attacked"):
            target_for(("face",), {0})

    @pytest.mark.parametrize(("target", "classes"), [(None, (0, 1, 2, 3)), (9, S), (-1, S), (2, (2,))])
    def test_a_target_that_is_none_is_refused_at_the_first_step(self, batch, target, classes):
        t = Targets.of(batch[2], [torch.zeros(len(b), dtype=torch.long) for b in batch[2]], PLACE, classes)
        with pytest.raises(AuditError, match="another class"):
            TargetedClass(target=target).loss(batch[0], t, THRESHOLD)

    def test_a_surrogate_has_no_place_in_a_cross_entropy(self):
        with pytest.raises(AuditError, match="surrogate"):
            TargetedClass(surrogate="logit")


class TestJoint:
    def test_fixed_weights_are_as_given_and_equal_ones_without(self):
        assert Joint((2.0, 0.5)).weights([1.0, 9.0]) == [2.0, 0.5]
        assert Joint().weights([3.0, 0.0, 1.0, 4.0]) == [0.25] * 4
        loss = Joint((2.0, 0.5)).loss([torch.tensor(3.0), torch.tensor(4.0)], [1.0, 1.0])
        assert float(loss) == pytest.approx(8.0)

    def test_dynamic_weights_are_a_softmax_of_what_is_left(self):
        w = Joint(dynamic=True, temperature=0.5).weights([1.0, 3.0, 0.0])
        raw = [math.exp(s / 0.5) for s in (0.25, 0.75, 0.0)]
        assert w == pytest.approx([r / sum(raw) for r in raw])
        half = Joint((1.0, 0.0), dynamic=True).weights([1.0, 5.0])
        assert half == [1.0, 0.0], "a weight of nothing stays nothing"
        assert Joint(dynamic=True).weights([0.0, 0.0]) == [0.5, 0.5], "all are hidden"

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.floats(0.01, 10))
    def test_dynamic_weights_sum_to_one_and_follow_the_heights(self, heights, temperature):
        w = Joint(dynamic=True, temperature=temperature).weights(heights)
        assert sum(w) == pytest.approx(1)
        order = sorted(range(len(w)), key=lambda i: heights[i])
        assert all(w[a] <= w[b] + 1e-12 for a, b in pairwise(order))

    @pytest.mark.parametrize("arguments", [{"fixed": (-1.0, 2.0)}, {"fixed": (0.0,)}, {"temperature": 0.0}])
    def test_bad_settings_are_refused(self, arguments):
        with pytest.raises(AuditError):
            Joint(**arguments)

    @pytest.mark.parametrize("heights", [[1.0], [1.0, 2.0, 3.0]])
    def test_a_weight_too_many_or_too_few_is_refused(self, heights):
        with pytest.raises(AuditError, match="2 detectors"):
            Joint((1.0, 2.0)).weights(heights)

    @pytest.mark.parametrize("broken", [math.nan, math.inf, -3.0])
    def test_what_is_broken_or_done_with_does_not_lead(self, broken):
        joint = Joint(dynamic=True)
        assert joint.weights([broken, 2.0]) == joint.weights([0.0, 2.0])
        assert Joint((1.0, 2.0)).weights([broken, 2.0]) == [1.0, 2.0]


def answers(patch, detector, scenes):
    found = []
    for batch in Execution().batches(scenes, 8):
        found += detector(batch.images if patch is None else patch.apply(batch.images, batch.boxes))
    return found


@pytest.mark.parametrize("objective", TEAM_OBJECTIVES, ids=repr)
def test_hides_what_noise_leaves_in_sight(objective):
    probe = UniversalPatch(objective)
    held_out, how, found = planted.scenes(8, seed=5), Resampling(seed=0, draws=100), {}
    for name, maker in {"trained": probe, "noise": NoisePatch()}.items():
        patch = maker.craft(Colours(), planted.scenes(8), execution=Execution(), budget=BUDGET, seed=1)
        found[name] = answers(patch, Colours(), held_out)
    clean = answers(None, Colours(), held_out)
    shares = {}
    for name, seen in {"clean": clean, **found}.items():
        shares[name] = join([match_scene(d, s) for d, s in zip(seen, held_out, strict=True)])
    assert kept(shares["clean"], shares["trained"], THRESHOLD, how).value < 0.2
    assert kept(shares["clean"], shares["noise"], THRESHOLD, how).value > 0.9
    if isinstance(objective, TargetedClass):
        assert class_kept(clean, found["trained"], held_out, THRESHOLD, how).wrong.value > 0.8
        assert class_kept(clean, found["noise"], held_out, THRESHOLD, how).wrong.value == 0


@pytest.mark.slow
@pytest.mark.kit
@pytest.mark.parametrize("objective", [TargetedClass(target=58), ClassMargin()], ids=repr)
def test_lowers_the_log_odds_of_people_in_photographs(objective):
    import audit

    path = kit("coco_det_yolox_nano", "yolox_nano.onnx")
    detector = audit.adapters.onnx_detector(
        path, audit.adapters.Yolo(boxes="yolox", strides=(8, 16, 32)), classes=audit.adapters.COCO80,
        score_threshold=0.3, resize="letterbox-corner", channels="bgr", scale=255, one_label=True,
    )  # fmt: skip
    scenes = open_scenes(kit("coco128"), detector_classes=detector.classes).for_classes(detector.classes, ["person"])
    scenes = scenes.smaller_ignored(60)
    few = [i for i, s in enumerate(scenes) if int((~s.ignore).sum()) == 1][:4]
    scenes = type(scenes)(tuple(scenes[i] for i in few), scenes.classes, "four", "kit")
    place = Placement("center", 0.2**0.5)
    craft, probe = CraftSet(scenes, place, Execution(), batch=4, seed=0), UniversalPatch(objective, place)
    group = craft.group(0)
    descent = Descent(torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)), 10)

    def people():
        """Mean over the persons of the highest log-odds of a person on them."""
        best = []
        with torch.inference_mode():
            for part in group:
                seen = detector.candidates(part.where.place(part.images, descent.value))
                for boxes, z, true in zip(seen.boxes.tolist(), seen.logits[..., 0].tolist(), part.boxes, strict=True):
                    best += [max(v for b, v in zip(boxes, z, strict=True) if iou(b, t) > 0.5) for t in true.tolist()]
        assert len(best) == 4
        return sum(best) / 4

    before, height = people(), probe.height(detector, craft, (descent.value * 255).byte())
    for _ in range(10):
        descent.step(probe.gradient(detector, group, descent.value, craft.execution)[0])
    assert people() < before - 1
    assert probe.height(detector, craft, (descent.value * 255).byte()) < 0.7 * height
