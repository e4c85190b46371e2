"""Which candidates each objective attacks, against loops in plain Python, and what its loss is."""

from __future__ import annotations

import math

import pytest
import torch

from audit.contracts import Candidates
from audit.errors import AuditError
from probes.detection.objectives import (
    OBJECTIVES,
    PatchCombination,
    PatchIoU,
    PatchScore,
    PatchScoreFocal,
    Targets,
)
from probes.geometry import Placement

PLACE = Placement("top", 0.5)
THRESHOLD = 0.5


def iou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = w * h
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


@pytest.fixture(scope="module")
def batch():
    """Three images with 2, 0 and 3 boxes, many candidates of three classes on, beside and far from them."""
    g = torch.Generator().manual_seed(0)
    lists = []
    for k in (2, 0, 3):
        corner = torch.rand(k, 2, generator=g) * 60
        lists.append(torch.cat([corner, corner + 15 + 25 * torch.rand(k, 2, generator=g)], 1))
    labels = [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.long), torch.tensor([2, 2, 0])]
    boxes = []
    for b in lists:
        near = [b, PLACE.squares(b)] * 12
        around = torch.cat(near) if len(b) else torch.zeros(0, 4)
        rest = torch.rand(80 - len(around), 2, generator=g) * 80
        every = torch.cat([around, torch.cat([rest, rest + 20], 1)])
        boxes.append(every + torch.randn(every.shape, generator=g) * 2)
    logits = torch.randn(3, 80, 3, generator=g) * 3
    return Candidates(torch.stack(boxes), logits), lists, labels


def targets(batch, classes=(0, 2)):
    return Targets.of(batch[1], batch[2], PLACE, classes)


def chosen(objective, batch, threshold=THRESHOLD):
    s = objective.select(batch[0], targets(batch), threshold)
    return set(zip(s.image.tolist(), s.candidate.tolist(), s.label.tolist(), strict=True))


def by_loops(batch, rule, floor, *, own_class=False):
    """(image, candidate, class) of all candidates that a rule(box, true boxes, patches) and the floor let through."""
    found, (candidates, lists, labels) = set(), batch
    for n in range(len(lists)):
        true, patches = lists[n].tolist(), PLACE.squares(lists[n]).tolist()
        for a in range(candidates.boxes.shape[1]):
            z = candidates.logits[n, a].tolist()
            label = max((0, 2), key=lambda c: z[c])
            if z[label] <= floor or not rule(candidates.boxes[n, a].tolist(), true, patches):
                continue
            if own_class:
                best = max(range(len(true)), key=lambda k: iou(candidates.boxes[n, a].tolist(), true[k]))
                label = int(labels[n][best])
            found.add((n, a, label))
    return found


def over(boxes, box, least):
    return any(iou(box, b) > least for b in boxes)


def test_patch_iou_takes_what_lies_on_true_boxes_in_their_class(batch):
    floor = PatchIoU().floor(THRESHOLD)
    expected = by_loops(batch, lambda box, true, _: over(true, box, 0.6), floor, own_class=True)
    assert len(expected) > 5
    assert chosen(PatchIoU(), batch) == expected
    paper = by_loops(batch, lambda box, true, _: over(true, box, 0.6), -math.inf, own_class=True)
    assert chosen(PatchIoU(surrogate="log-score"), batch) == paper
    assert len(paper) > len(expected)


def test_patch_score_takes_what_is_high_wherever_it_lies(batch):
    expected = by_loops(batch, lambda *_: True, PatchScore().floor(THRESHOLD))
    assert chosen(PatchScore(), batch) == expected == chosen(PatchScoreFocal(), batch)
    assert {n for n, _, _ in expected} == {0, 1, 2}


def test_combination_takes_what_lies_on_true_boxes_or_on_the_patch(batch):
    floor = PatchCombination().floor(THRESHOLD)
    expected = by_loops(batch, lambda box, true, patch: over(true, box, 0.3) or over(patch, box, 0.3), floor)
    alone = by_loops(batch, lambda box, true, _: over(true, box, 0.3), floor)
    assert chosen(PatchCombination(), batch) == expected
    assert alone < expected, "some lie on the patch only"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_floor_follows_the_owners_threshold(objective, batch):
    assert objective.floor(0.99) == pytest.approx(0.0), "the paper's δ − m = 0.5"
    assert objective.floor(0.3) == pytest.approx(math.log(0.3 / 0.7) - 2)
    assert chosen(objective, batch, 0.9) <= chosen(objective, batch, 0.1)


@pytest.mark.parametrize(
    ("surrogate", "value"),
    [
        ("hinge", lambda z, f: max(0.0, z - f)),
        ("softplus", lambda z, f: -math.log(1 - 1 / (1 + math.exp(-z)))),
        ("logit", lambda z, f: z),
        ("log-score", lambda z, f: math.log(1 / (1 + math.exp(-z)))),
    ],
)
def test_loss_is_the_mean_over_the_chosen(surrogate, value, batch):
    objective = PatchScore(surrogate=surrogate)
    z = [float(batch[0].logits[i]) for i in sorted(chosen(objective, batch))]
    expected = sum(value(v, objective.floor(THRESHOLD)) for v in z) / len(z)
    assert float(objective.loss(batch[0], targets(batch), THRESHOLD)) == pytest.approx(expected, rel=1e-5)


def test_focal_weights_by_the_score_without_a_gradient_through_the_weight(batch):
    logits = batch[0].logits.clone().requires_grad_()
    objective = PatchScoreFocal(surrogate="log-score")
    loss = objective.loss(Candidates(batch[0].boxes, logits), targets(batch), THRESHOLD)
    loss.backward()
    picked = sorted(chosen(objective, batch))
    s = torch.stack([batch[0].logits[i] for i in picked]).sigmoid()
    assert float(loss.detach()) == pytest.approx(float((s**2 * s.log()).mean()), rel=1e-5), "eq. 2 of the paper, γ = 2"
    slope = torch.stack([logits.grad[i] for i in picked])
    assert slope.tolist() == pytest.approx((s**2 * (1 - s) / len(s)).tolist(), rel=1e-4, abs=1e-7)


def test_hinge_still_pushes_where_the_papers_score_has_no_gradient_left(batch):
    sure = Candidates(batch[0].boxes, torch.full_like(batch[0].logits, 25.0))
    slopes = {}
    for surrogate in ("hinge", "log-score"):
        logits = sure.logits.clone().requires_grad_()
        PatchScore(surrogate=surrogate).loss(Candidates(sure.boxes, logits), targets(batch), THRESHOLD).backward()
        slopes[surrogate] = float(logits.grad.abs().sum())
    assert slopes["log-score"] < 1e-9
    assert slopes["hinge"] == pytest.approx(1.0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_nothing_to_attack_is_a_loss_of_zero(objective, batch):
    low = Candidates(batch[0].boxes, torch.full_like(batch[0].logits, -50.0))
    assert float(objective.loss(low, targets(batch), THRESHOLD)) == 0
    assert float(objective.height(low, targets(batch), THRESHOLD)) == 0


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_height_is_what_stands_above_the_floor_per_box(objective, batch):
    floor = objective.floor(THRESHOLD)
    expected = sum(max(0.0, float(batch[0].logits[i]) - floor) for i in chosen(objective, batch)) / 5
    assert float(objective.height(batch[0], targets(batch), THRESHOLD)) == pytest.approx(expected, rel=1e-5)


def test_a_class_that_is_not_attacked_does_not_count(batch):
    logits = torch.full_like(batch[0].logits, -20.0)
    logits[..., 1] = 20.0
    sure = Candidates(batch[0].boxes, logits)
    assert all(float(o.loss(sure, targets(batch), THRESHOLD)) == 0 for o in OBJECTIVES)


def test_patches_of_targets_may_lie_beside_their_place(batch):
    worn = [b + 3 for b in batch[1]]
    t = Targets.of(batch[1], batch[2], PLACE, (0,), worn=worn)
    assert torch.equal(t.boxes[t.valid], torch.cat(batch[1]))
    assert torch.allclose(t.patches[t.valid], PLACE.squares(torch.cat(worn)))
    assert t.count == 5


def test_repr_is_short_and_shows_what_differs():
    assert repr(PatchIoU()) == "PatchIoU"
    assert (
        repr(PatchCombination(iou_patch=0.2, surrogate="logit")) == "PatchCombination(surrogate='logit', iou_patch=0.2)"
    )


@pytest.mark.parametrize("arguments", [{"surrogate": "cross-entropy"}, {"score": 1.5}])
def test_bad_settings_are_refused(arguments):
    with pytest.raises(AuditError):
        PatchIoU(**arguments)
