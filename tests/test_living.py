"""The patch that must pass for alive as well."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from audit.comparison import Comparison
from audit.errors import AuditError, ModelError
from audit.execution import Execution
from probes.recognition.ensemble import Aimed
from probes.recognition.face_patch import FacePatch
from probes.recognition.living import LivingPatch, live_scores, scores
from probes.recognition.masks import FaceMask
from tests.face_attacks import Pooled, changed, craft, lfw, made_up, margins, real
from tests.kit import minifas

MASK = FaceMask("features")


class Reddish:
    """Alive is what is red: a live score that a recognizer's patch has no reason to heed."""

    def __init__(self, threshold=0.0):
        self.threshold = threshold

    def __call__(self, photographs):
        return 100 * (photographs[:, 0] - photographs[:, 2]).mean((1, 2))


def pooled(threshold=0.5):
    return Comparison("pooled", Pooled(threshold), True)


def test_scores_are_those_of_photographs_at_the_size_asked_for():
    class Sized(Reddish):
        face_size = (40, 50)

        def __call__(self, photographs):
            assert photographs.shape[2:] == (40, 50)
            return photographs.mean((1, 2, 3))

    images = made_up("dodge", 3).sources.images
    small = F.interpolate(images.float() / 255, size=(40, 50), mode="bilinear", antialias=True)
    assert torch.allclose(live_scores(Sized())(images), small.mean((1, 2, 3)), atol=1e-6)
    assert torch.equal(live_scores(Reddish())(images), Reddish()(images.float() / 255))
    assert len(live_scores(Reddish())(images[:0])) == 0


def test_liveness_is_one_more_model_whose_margin_counts():
    attacked = made_up("impersonate", 3)
    probe, detector = LivingPatch(mask=MASK, liveness=Reddish(2.0)), Reddish(2.0)
    plain = Aimed.at([pooled()], attacked, Execution())
    masks = MASK.photo_masks(attacked.sources.landmarks, attacked.sources.size)
    both = probe.aim(plain, attacked, masks, 0)
    x = attacked.sources.images.float() / 255
    found = both.margins(x)
    assert found.shape == (2, 3)
    assert torch.equal(found[0], plain.margins(x)[0])
    # of a clean photograph the live margin is 1 or −1 in its own unit
    assert found[1].tolist() == pytest.approx(torch.sign(detector(x) - 2.0).tolist(), abs=1e-4)
    assert torch.equal(both[torch.tensor([2])].margins(x[2:]), found[:, 2:])


def test_a_patch_wins_both_where_the_plain_one_wins_one():
    attacked = made_up("impersonate", 4)
    clean = Reddish()(attacked.sources.images.float() / 255)
    detector = Reddish(float(clean.max()) + 1.0)
    won = {}
    for probe in (FacePatch(mask=MASK), LivingPatch(mask=MASK, liveness=detector)):
        examples = craft(probe, pooled(0.4), attacked, steps=25)
        assert torch.equal(changed(examples, attacked), examples.masks)
        alike = margins(pooled(0.4), examples, attacked) >= 0
        alive = live_scores(detector)(examples.images) >= detector.threshold
        won[type(probe)] = (int(alike.sum()), int((alike & alive).sum()))
    assert won[FacePatch][0] >= 3
    assert won[FacePatch][1] < won[LivingPatch][1]


def test_a_detector_without_gradients_is_named():
    class Blind(Reddish):
        def __call__(self, photographs):
            return super().__call__(photographs.detach())

    with pytest.raises(ModelError, match="liveness"):
        craft(LivingPatch(mask=MASK, liveness=Blind()), pooled(), made_up("dodge", 2))


def test_a_recognizer_without_gradients_is_told_of_beside_a_detector_that_has_some():
    class Deaf(Pooled):
        def __call__(self, faces):
            return super().__call__((faces * 4).round() / 4)

    examples = craft(LivingPatch(mask=MASK, liveness=Reddish(90.0)), Comparison("deaf", Deaf(0.99), True),
                     made_up("impersonate", 2), steps=3)  # fmt: skip
    assert "gradient zero or not finite" in {d.name for d in examples.diagnostics if d.raised}


def test_options_and_specification():
    with pytest.raises(AuditError, match="weight"):
        LivingPatch(mask=MASK, liveness=Reddish(), weight=0.0)
    one, other = (LivingPatch(mask=MASK, liveness=Reddish(t)).spec() for t in (0.0, 1.0))
    assert one != other
    assert LivingPatch(MASK, liveness=Reddish()).spec() == one
    assert one["probe"] != FacePatch(mask=MASK).spec()["probe"]


@pytest.mark.slow
def test_a_real_recognizer_and_a_real_liveness_detector_are_won_together():
    attacked, detector = lfw("impersonate", 4), minifas("V2")
    won = {}
    for kind in (FacePatch, LivingPatch):
        options = {} if kind is FacePatch else {"liveness": detector}
        examples = craft(kind(mask=MASK, **options), real(), attacked, steps=12)
        live = live_scores(detector)(examples.images)
        if kind is FacePatch:
            # a detector so strict that few of the plain patches pass it
            detector.threshold = float(live.median()) + 0.3
        alike = margins(real(), examples, attacked) >= 0
        won[kind] = int((alike & (live >= detector.threshold)).sum())
        assert torch.allclose(live, scores(detector, examples.images.float() / 255), atol=1e-4)
    assert won[LivingPatch] > won[FacePatch]
