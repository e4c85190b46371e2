"""The goals besides hiding: their losses against loops in plain Python, and that each brings about what it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.budget import Budget
from audit.contracts import Candidates
from audit.errors import AuditError, ModelError
from audit.execution import Execution
from audit.measures import goals as measures
from audit.measures.intervals import Resampling
from probes.detection import NoisePatch, UniversalPatch
from probes.detection.goals import GOALS, LEAST, BoxShift, ClassChange, Flood, Ghosts
from probes.detection.objectives import Targets
from probes.detection.team_objectives import TEAM_OBJECTIVES
from probes.geometry import Placement
from tests import planted
from tests.planted_goals import PLACE, Colours, Sliding, iou, random_batch, touches

THRESHOLD = 0.5
ROOF, FLOOR = 2.0, -2.0
"""σ⁻¹(0.5) ± 2."""
S = (0, 2)
HOW = Resampling(seed=0, draws=100)
BUDGET = Budget("test", steps=60, batch=4, queries=4, images=12, bootstrap=100)


@pytest.fixture(scope="module", params=[0, 1, 2])
def batch(request):
    candidates, boxes, labels = random_batch(request.param)
    return candidates, Targets.of(boxes, labels, PLACE, S), boxes, labels


def value(objective, batch):
    """Sum of the loss's terms, their number, and the height."""
    each = objective.each(batch[0], batch[1], THRESHOLD).detach()
    return [float(each.sum()), len(each), float(objective.height(batch[0], batch[1], THRESHOLD))]


def objects(batch):
    """(candidates' boxes, their log-odds, all boxes, this box, its label) of each object."""
    for n, (boxes, labels) in enumerate(zip(batch[2], batch[3], strict=True)):
        seen = batch[0].boxes[n].tolist(), batch[0].logits[n].tolist()
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            yield *seen, boxes.tolist(), box, label


def up(z):
    return max(0.0, ROOF - z)


def test_ghosts_raise_the_best_at_each_patch_that_are_on_no_object(batch):
    total, count, height = 0.0, 0, 0.0
    for boxes, logits, true, box, _ in objects(batch):
        patch = PLACE.squares(torch.tensor([box]))[0].tolist()
        z = [
            max(row[c] for c in S)
            for b, row in zip(boxes, logits, strict=True)
            if touches(b, patch) and all(iou(b, t) <= 0.3 for t in true)
        ]
        top = sorted(z, reverse=True)[:12]
        low = [z for z in top if z < ROOF]
        total, count = total + sum(map(up, low)), count + len(low)
        height += up(top[0]) if top else ROOF - LEAST
    assert count > 10
    assert value(Ghosts(most=12), batch) == pytest.approx([total, count, height / 5], rel=1e-4)


@pytest.mark.parametrize("target", [None, 1, 2])
def test_class_change_lowers_the_own_class_and_raises_another(batch, target):
    total, count, height = 0.0, 0, 0.0
    for boxes, logits, _, box, y in objects(batch):
        if y == target:
            continue
        rows = [row for b, row in zip(boxes, logits, strict=True) if iou(b, box) > 0.5]
        own = [row[y] for row in rows]
        other = [row[target] if target else max(v for c, v in enumerate(row) if c != y) for row in rows]
        down = [z - FLOOR for z in own if z > FLOOR]
        low = [z for z in sorted(other, reverse=True)[:5] if z < ROOF]
        total, count = total + sum(down) + sum(map(up, low)), count + len(down) + len(low)
        height += max(0.0, max(own) - FLOOR) + up(max(other))
    assert value(ClassChange(target=target), batch) == pytest.approx([total, count, height / 5], rel=1e-4)


def test_box_shift_pushes_off_what_is_seen_and_keeps_the_best_in_sight(batch):
    moving = Candidates(batch[0].boxes.clone().requires_grad_(), batch[0].logits)
    total, count, height = 0.0, 0, 0.0
    for boxes, logits, true, box, y in objects(batch):
        on = [
            (iou(b, box), row[y])
            for b, row in zip(boxes, logits, strict=True)
            if iou(b, box) > 0.1 and iou(b, box) == max(iou(b, t) for t in true)
        ]
        shown = [10 * (i - 0.4) for i, z in on if z >= 0 and i > 0.4]
        top = max(z for _, z in on)
        total, count = total + sum(shown) + up(top), count + len(shown) + (top < ROOF)
        height += max(shown, default=0.0) + max(0.0, -top)
    assert value(BoxShift(), (moving, *batch[1:])) == pytest.approx([total, count, height / 5], rel=1e-4)


def test_flood_raises_all_and_spreads_what_is_seen(batch):
    total = height = 0.0
    for n in (0, 2):
        best = [max(row) for row in batch[0].logits[n].tolist()]
        order = sorted(range(60), key=lambda a: -best[a])[:10]
        boxes = batch[0].boxes[n].tolist()
        seen = [a for a in order if best[a] >= 0]
        overlap = sum(iou(boxes[a], boxes[b]) for a in seen for b in seen if a != b) / 90
        total += sum(map(up, best)) + 60 * overlap
        height += sum(map(up, best)) / 60
    assert value(Flood(most=10), batch) == pytest.approx([total, 120, height / 5], rel=1e-4)
    lower = Flood(level=0.1)
    assert lower.roof(THRESHOLD) == pytest.approx(Flood().roof(0.1))
    assert value(lower, batch)[2] < height / 5


@pytest.mark.parametrize("objective", GOALS, ids=repr)
def test_without_candidates_all_is_left_to_do(objective, batch):
    none = Candidates(batch[0].boxes[:, :0], batch[0].logits[:, :0])
    total, count, height = value(objective, (none, batch[1]))
    assert (total, count) == (0, 0)
    assert height > 5


TRUE = torch.tensor([[10.0, 30, 50, 70], [110, 30, 150, 70]])
BESIDE = torch.tensor([[20.0, 5, 40, 40], [120, 5, 140, 40]])
"""On the upper rim of the patches, which are (20, 30, 40, 50) and 100 px further."""
OFF = TRUE + torch.tensor([20.0, 0, 20, 0])


@pytest.mark.parametrize(
    ("objective", "boxes", "goal"),
    [
        (Ghosts(), BESIDE, [9.0, -9, -9]),
        (ClassChange(), TRUE, [-9.0, -9, 9]),
        (ClassChange(target=2), TRUE, [-9.0, -9, 9]),
        (BoxShift(), OFF, [9.0, -9, -9]),
        (Flood(), TRUE, [-9.0, 9, -9]),
    ],
    ids=["ghosts", "another class", "a certain class", "displaced", "flood"],
)
def test_a_goal_that_is_reached_has_no_height_and_less_has(objective, boxes, goal):
    t = Targets.of([TRUE], [torch.zeros(2, dtype=torch.long)], PLACE, (0,))

    def height(boxes, rows):
        return float(objective.height(Candidates(boxes[None], torch.tensor([rows])), t, THRESHOLD))

    assert height(boxes, [goal, goal]) == 0
    assert height(boxes, [goal, [-9.0] * 3]) > 2, "one of two"
    if not isinstance(objective, Flood):
        there = BESIDE if boxes is TRUE else TRUE
        assert height(there, [goal, goal]) > 5, "at the wrong place"
    if isinstance(objective, ClassChange):
        assert height(boxes, [goal, [9.0, -9, 9]]) > 5, "its own class is seen besides"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(GOALS))
def test_a_step_against_the_gradient_lowers_what_is_lost(seed, objective):
    candidates, boxes, labels = random_batch(seed)
    t = Targets.of(boxes, labels, PLACE, S)
    free = [candidates.boxes.clone().requires_grad_(), candidates.logits.clone().requires_grad_()]
    before = objective.each(Candidates(*free), t, THRESHOLD).sum()
    assert float(objective.height(Candidates(*free), t, THRESHOLD)) >= 0
    grads = torch.autograd.grad(before, free, allow_unused=True)
    assert any(g is not None and bool(g.any()) for g in grads)
    moved = [v if g is None else (v - 1e-3 * g / g.norm().clamp(min=1e-9)) for v, g in zip(free, grads, strict=True)]
    assert float(objective.each(Candidates(*moved), t, THRESHOLD).sum().detach()) < float(before.detach())


@pytest.mark.parametrize("objective", [*GOALS, *TEAM_OBJECTIVES], ids=repr)
def test_targets_made_in_inference_mode_do_not_stop_the_gradient(objective):
    candidates, boxes, labels = random_batch()
    with torch.inference_mode():
        made = Targets.of(boxes, labels, PLACE, S)
    grads = []
    for t in (made, Targets.of(boxes, labels, PLACE, S)):
        free = candidates.boxes.clone().requires_grad_(), candidates.logits.clone().requires_grad_()
        objective.loss(Candidates(*free), t, THRESHOLD).backward()
        grads.append([torch.zeros(()) if v.grad is None else v.grad for v in free])
    assert any(bool(g.any()) for g in grads[0])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_an_object_hidden_has_not_been_displaced(batch):
    hidden = Candidates(batch[0].boxes, torch.full_like(batch[0].logits, -9.0))
    assert float(BoxShift().height(hidden, batch[1], THRESHOLD)) == pytest.approx(9)


def test_fixed_boxes_are_refused_where_boxes_are_to_move(batch):
    fixed = Candidates(batch[0].boxes, batch[0].logits.clone().requires_grad_())
    with pytest.raises(ModelError, match="boxes"):
        BoxShift().each(fixed, batch[1], THRESHOLD)


def test_settings_that_make_no_sense_are_refused(batch):
    one = Candidates(batch[0].boxes, batch[0].logits[..., :1])
    t = Targets.of(batch[2], [torch.zeros_like(x) for x in batch[3]], PLACE, (0,))
    with pytest.raises(AuditError, match="class"):
        ClassChange().each(one, t, THRESHOLD)
    with pytest.raises(AuditError, match="class"):
        ClassChange(target=7).each(batch[0], batch[1], THRESHOLD)
    with pytest.raises(AuditError, match="level"):
        Flood(level=1.5)
    with pytest.raises(AuditError, match="surrogate"):
        Ghosts(surrogate="logit")


def reached(objective, detector, placement):
    """What the goal's own measure says of the trained patch and of noise, on scenes never seen."""
    held_out, out = planted.scenes(8, seed=5), {}
    noise = NoisePatch(placement=placement)
    for name, maker in {"trained": UniversalPatch(objective, placement), "noise": noise}.items():
        patch = maker.craft(detector, planted.scenes(8), execution=Execution(), budget=BUDGET, seed=1)
        clean, found, over = [], [], []
        for batch in Execution().batches(held_out, 8):
            changed = patch.apply(batch.images, batch.boxes)
            clean += detector(batch.images)
            found += detector(changed)
            over += (detector.candidates(changed).logits.amax(-1) >= 0).sum(1).tolist()
        out[name] = clean, found, held_out, over
    return out["trained"], out["noise"]


def test_ghosts_appear_where_noise_brings_none():
    for (clean, found, scenes, _), well in zip(
        reached(Ghosts(), planted.Red(), Placement("top", 1.0)), (lambda v: v > 0.8, lambda v: v == 0), strict=True
    ):
        assert well(measures.ghosts_anywhere(found, scenes, clean, THRESHOLD, HOW).value)


def test_squares_are_taken_for_plants_where_noise_leaves_them_squares():
    trained, noise = (
        measures.class_kept(*r[:3], THRESHOLD, HOW) for r in reached(ClassChange(target=1), Colours(), PLACE)
    )
    assert trained.wrong.value > 0.8
    assert (noise.right.value, noise.wrong.value) == (1, 0)


def test_boxes_slide_off_their_squares_where_noise_leaves_them():
    trained, noise = (measures.box_shift(*r[:3], THRESHOLD, HOW) for r in reached(BoxShift(), Sliding(), PLACE))
    assert trained.displaced.value > 0.8
    assert trained.after.value < 0.5 < 0.9 < trained.before.value
    assert (noise.displaced.value, noise.lost.value) == (0, 0)


def test_detections_and_candidates_multiply_where_noise_leaves_their_number():
    (clean, found, scenes, over), (_, plain, _, usual) = reached(Flood(), planted.Red(), Placement("top", 1.0))
    assert measures.flood(clean, found, scenes, THRESHOLD, HOW).ratio.value > 1.5
    assert measures.flood(clean, plain, scenes, THRESHOLD, HOW).ratio.value <= 1
    groups = [s.group for s in scenes]
    shares = [measures.candidate_share(o, [165] * 8, groups, HOW).value for o in (over, usual)]
    assert shares[0] > 2 * shares[1]
