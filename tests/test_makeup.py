"""Learned make-up: which models teach and which test, what the network paints, and whom it takes in."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from audit.comparison import Comparison
from audit.errors import AuditError, ModelError
from audit.execution import Execution
from audit.state import state_digest
from probes.recognition.canvas import Ascent
from probes.recognition.makeup import MakeupPatch, _drawn, _Lesson, draw_models, paint
from probes.recognition.masks import FaceMask
from tests.face_attacks import Pooled, changed, craft, lfw, made_up, margins, real

MASK = FaceMask("features")


class Counting(Pooled):
    """Notes whether it was asked with or without gradients."""

    def __init__(self, seed=0):
        super().__init__(0.9)
        self.weights = torch.randn(147, 32, generator=torch.Generator().manual_seed(seed))
        self.taught = 0

    def __call__(self, faces):
        self.taught += faces.requires_grad
        return super().__call__(faces)


def planted(count):
    return [Comparison(f"pooled {i}", Counting(i), True) for i in range(count)]


def test_the_model_that_teaches_never_tests():
    stream = torch.Generator().manual_seed(0)
    drawn = [draw_models(6, 3, stream) for _ in range(200)]
    assert all(first not in group and len(set(group)) == len(group) == 3 for first, group in drawn)
    assert {first for first, _ in drawn} == set(range(6))
    assert len({frozenset(group) for _, group in drawn}) == 20  # all groups of three of six
    assert draw_models(1, 4, stream) == (0, ())
    assert len(draw_models(3, 4, stream)[1]) == 2


def test_one_model_teaches_alone_and_several_test_in_turn():
    attacked = made_up("impersonate", 3)
    for count, group, expected in ((1, 4, 4), (3, 1, 8), (4, 2, 12)):
        models = planted(count)
        details = craft(MakeupPatch(MASK, group=group, batch=3), models, attacked, steps=4).details
        assert sum(m.model.taught for m in models) == expected
        assert details["training"].startswith("plain" if count == 1 else "one of")


def test_the_sum_of_both_gradients_is_learned_from():
    """The trial step of first order, by hand, is what the first step of training does."""
    attacked, models = made_up("impersonate", 3), planted(2)
    probe = MakeupPatch(MASK, extra=0, batch=3, steps=1, rate=0.1)
    lesson = _Lesson.of(probe, models, attacked, Execution(), 1)
    network = _drawn(torch.Generator().manual_seed(0))
    rows = torch.arange(3)
    slope = lesson.slope(network, rows, (0,))
    length = sum(float(g.square().sum()) for g in slope.values()) ** 0.5
    tried = {k: w + probe.trial * slope[k] / length for k, w in network.items()}
    judged = lesson.slope(tried, rows, (1,))
    before = lesson.aimed.margins(lesson.blend(network, rows, lesson.canvas(rows)))
    both = {k: network[k] + Ascent(0.002, 1).step(slope[k] + judged[k]) for k in network}
    after = lesson.aimed.margins(lesson.blend(both, rows, lesson.canvas(rows)))
    assert (after.mean(1) > before.mean(1)).all()
    assert any(not torch.allclose(slope[k], judged[k]) for k in network)


def test_paint_mixes_the_two_faces():
    network = {k: torch.zeros_like(w) for k, w in _drawn(torch.Generator().manual_seed(0)).items()}
    source, target = torch.rand(2, 2, 3, 112, 112)
    assert torch.allclose(paint(network, source, target), (source + target) / 2, atol=1e-6)
    network["up2 bias"] = torch.tensor([0.1, 0.0, -0.1, -50.0])
    expected = source + torch.tensor([0.1, 0.0, -0.1]).tanh()[:, None, None]
    assert torch.allclose(paint(network, source, target), expected, atol=1e-6)


def test_paint_fades_out_at_the_edge_of_its_mask():
    attacked = made_up("impersonate", 2)
    made = craft(MakeupPatch(MASK, steps=0), planted(1), attacked)
    assert torch.equal(changed(made, attacked), made.masks)
    change = (made.images.float() - attacked.sources.images).abs().mean(1)
    inner = -F.max_pool2d(-made.masks[:, None].float(), 7, 1, 3)[:, 0] > 0
    edge = made.masks & (F.max_pool2d((~made.masks)[:, None].float(), 3, 1, 1)[:, 0] > 0)
    assert change[edge].mean() < 0.5 * change[inner].mean()


def test_the_best_look_is_the_judged_models():
    class Contrary(Counting):
        """Never won, and by other looks than the first."""

        def __call__(self, faces):
            return super().__call__(1 - faces).sin()

    other = Contrary(7)
    other.threshold = 5.0
    attacked, models = made_up("impersonate", 4), [*planted(1), Comparison("contrary", other, True)]
    every, one = (craft(MakeupPatch(MASK, batch=4, extra=0, rate=0.1, judged=j), models, attacked, steps=8)
                  for j in (None, 1))  # fmt: skip
    alone = [margins(models[0], made, attacked) for made in (one, every)]
    assert (alone[0] >= alone[1] - 1e-6).all()
    assert (alone[0] > alone[1] + 1e-4).any()
    best = one.history["margin of the worst model, best so far"][-1]
    assert best == pytest.approx(float(alone[0].mean()), abs=1e-5)
    assert MakeupPatch(MASK, judged=1).spec() != MakeupPatch(MASK).spec()


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_training_beats_an_untrained_network_and_does_not_hang_on_the_batch(goal):
    attacked, models = made_up(goal, 4), planted(2)
    before = torch.get_rng_state()
    probe = MakeupPatch(MASK, batch=6, rate=0.02)
    made, again = (craft(probe, models, attacked, steps=8, batch=b) for b in (16, 1))
    control = craft(MakeupPatch(MASK, steps=0), models, attacked)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made.images, again.images)
    for model in models:
        assert margins(model, made, attacked).mean() > margins(model, control, attacked).mean() + 0.01
    assert torch.equal(changed(made, attacked), made.masks)
    json.dumps([MakeupPatch(MASK).spec(), made.details, made.history], allow_nan=False)


def test_the_look_of_the_face_is_weighed():
    attacked = made_up("impersonate", 4)
    loud, soft = (
        craft(MakeupPatch(MASK, attack=a, extra=0), planted(1), attacked, steps=10).images.float() for a in (14.0, 1e-3)
    )
    clean = attacked.sources.images.float()
    rough = [(x - clean).diff(dim=d).abs().mean() for x in (loud, soft) for d in (2, 3)]
    assert rough[0] > rough[2]
    assert rough[1] > rough[3]


def test_what_cannot_be_is_refused():
    with pytest.raises(ModelError, match="gradients"):
        craft(MakeupPatch(MASK), Comparison("dark", Pooled(), False), made_up("dodge", 2))
    for wrong in ({"extra": -1}, {"group": 0}, {"attack": 0.0}, {"rate": 0.0}, {"batch": 1}, {"judged": 0},
                  {"steps": -1}):  # fmt: skip
        with pytest.raises(AuditError, match="make-up patch"):
            MakeupPatch(MASK, **wrong)


@pytest.mark.slow
def test_make_up_takes_mobilefacenet_further_than_an_untrained_network_does():
    attacked = lfw("impersonate", 4)
    before = state_digest([real().model])
    made = craft(MakeupPatch(MASK, batch=4, extra=0, rate=0.02), real(), attacked, steps=12)
    control = craft(MakeupPatch(MASK, steps=0), real(), attacked)
    gain, plain = margins(real(), made, attacked), margins(real(), control, attacked)
    assert (gain > plain + 0.02).sum() >= 3
    assert gain.mean() > plain.mean() + 0.05
    assert state_digest([real().model]) == before
