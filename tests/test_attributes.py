"""Attributes changed through a generator: the ones that matter, within reach, and what is seen of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from audit.alignment import ARCFACE
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError, ModelError
from audit.examples import Attacked
from probes.recognition.attributes import AttributePatch, stealth, visibility
from probes.recognition.eigenfaces import Eigenfaces
from probes.recognition.masks import WHOLE, FaceMask
from tests.face_attacks import Pooled, changed, craft, lfw, made_up, margins, portraits, real

MASK = FaceMask("features")


def planted():
    return Comparison("pooled", Pooled(0.9), True)


class Recording:
    """A linear generator with few named directions, which keeps the codes that it is asked for."""

    def __init__(self, directions=6):
        self.faces = Eigenfaces.fit(portraits(30, 3), components=20)
        self.latent = self.faces.latent
        self.directions = torch.randn(directions, self.latent, generator=torch.Generator().manual_seed(2))
        self.names = [f"trait {i}" for i in range(directions)]
        self.asked = []

    def __call__(self, codes):
        self.asked.append(codes.detach().clone())
        return self.faces(codes)

    def strengths(self):
        """(calls, N, directions) how far along each direction every call went from the first of the attack."""
        codes = torch.stack(self.asked[1:])  # the first holds the generator to its contract
        return (codes - codes[0]) @ torch.linalg.pinv(self.directions)


def chips(n, seed=0):
    """Aligned faces as photographs, of which everything is seen pixel by pixel."""
    low = portraits(n, seed, size=(112, 112))
    return Portraits(low.images, ARCFACE.repeat(n, 1, 1), low.ids, low.identities)


def test_visibility_is_scikit_images():
    stream = torch.Generator().manual_seed(0)
    a = torch.rand(3, 3, 40, 50, generator=stream)
    b = (a + 0.2 * torch.randn(a.shape, generator=stream)).clamp(0, 1)
    for one, other, seen in zip(a, b, visibility(a, b), strict=True):
        ssim = structural_similarity(one.numpy(), other.numpy(), channel_axis=0, data_range=1)
        assert float(seen) == pytest.approx((1 - ssim) / 2 + float((one - other).square().mean().sqrt()), abs=1e-3)
    assert visibility(a, a).abs().max() < 1e-5


def test_only_the_steepest_attributes_move():
    attacked = Attacked("impersonate", chips(3), chips(3, 1), portraits(4))
    generator, model = Recording(), planted()
    craft(AttributePatch(MASK, generator=generator, chosen=2, balance=0.0), model, attacked, steps=1)
    moved = generator.strengths()[-1]
    delta = torch.zeros(3, 6, requires_grad=True)
    x, codes = attacked.sources.images.float() / 255, generator.asked[1]
    change = generator.faces(codes + delta @ generator.directions) - generator.faces(codes)
    masks = MASK.photo_masks(attacked.sources.landmarks, (112, 112))[:, None]
    targets = model.embed(attacked.targets.images.float() / 255)
    slope = torch.autograd.grad((model.embed((x + change * masks).clamp(0, 1)) * targets).sum(), delta)[0]
    steepest = slope.abs().topk(2, dim=1).indices
    assert torch.equal((moved.abs() > 1e-3).sum(1), torch.full((3,), 2))
    assert torch.equal(moved.abs().topk(2, dim=1).indices.sort(1).values, steepest.sort(1).values)
    assert torch.equal(moved.gather(1, steepest).sign(), slope.gather(1, steepest).sign())


def test_attributes_stay_within_reach():
    attacked, generator = made_up("dodge", 3), Recording()
    probe = AttributePatch(MASK, generator=generator, chosen=6, reach=0.5, rate=1.0)
    told = craft(probe, planted(), attacked, steps=6).details["most chosen attributes, share of the steps"]
    assert generator.strengths().abs().max() == pytest.approx(0.5, abs=1e-3)
    assert set(told) <= set(generator.names)
    assert set(told.values()) == {1.0}


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_found_attributes_beat_random_ones_and_do_not_hang_on_the_batch(goal):
    sources, model = portraits(5), planted()
    targets = portraits(5, 100) if goal == "impersonate" else replace(sources, images=sources.images.roll(8, 3))
    attacked = Attacked(goal, sources, targets, portraits(12, 200))
    control = craft(AttributePatch(MASK, chosen=4, start="random", steps=0), model, attacked)
    start = craft(AttributePatch(MASK, chosen=4, steps=0), model, attacked)
    probe = AttributePatch(MASK, chosen=4, rate=1.0)
    whole, parts = (craft(probe, model, attacked, steps=8, batch=b) for b in (16, 2))
    assert torch.equal(whole.images, parts.images)
    assert torch.equal(changed(whole, attacked), whole.masks)
    gain = margins(model, whole, attacked)
    assert (gain > margins(model, start, attacked) + 1e-3).all()
    assert gain.mean() > margins(model, control, attacked).mean()
    json.dumps([AttributePatch(MASK).spec(), whole.details], allow_nan=False)


def test_stealth_is_weighed_and_told():
    attacked, model = Attacked("impersonate", chips(4), chips(4, 1), portraits(12)), planted()
    bold, shy = (craft(AttributePatch(WHOLE, balance=b), model, attacked, steps=12) for b in (0.0, 5.0))
    for made in (bold, shy):
        each = list(zip(attacked.sources.images.numpy(), made.images.numpy(), strict=True))
        psnr = [peak_signal_noise_ratio(a, b) for a, b in each]
        ssim = [structural_similarity(a, b, channel_axis=0) for a, b in each]
        assert made.details["PSNR in dB, mean and least"] == pytest.approx([np.mean(psnr), min(psnr)])
        assert made.details["SSIM, mean and least"] == pytest.approx([np.mean(ssim), min(ssim)])
        assert stealth(attacked.sources, made.images)[0] == pytest.approx(psnr)
        many = stealth(attacked.sources[[0, 1] * 40], made.images[[0, 1] * 40])
        assert many[0] == pytest.approx(psnr[:2] * 40)
        assert many[1] == pytest.approx(ssim[:2] * 40)
    assert shy.details["PSNR in dB, mean and least"][0] > bold.details["PSNR in dB, mean and least"][0] + 1
    assert margins(model, shy, attacked).mean() < margins(model, bold, attacked).mean()


def test_axes_serve_where_no_direction_is_named():
    generator = Recording()
    del generator.directions, generator.names
    told = craft(AttributePatch(MASK, generator=generator, chosen=1), planted(), made_up("dodge", 2), steps=2).details
    assert all(name.startswith("direction ") for name in told["most chosen attributes, share of the steps"])


def test_what_cannot_be_is_refused():
    with pytest.raises(ModelError, match="gradients"):
        craft(AttributePatch(MASK), Comparison("dark", Pooled(), False), made_up("dodge", 2))
    for wrong in ({"chosen": 0}, {"balance": -1.0}, {"reach": 0.0}, {"rate": 0.0}, {"start": "end"}, {"steps": -1}):
        with pytest.raises(AuditError, match="attribute patch"):
            AttributePatch(MASK, **wrong)


@pytest.mark.slow
def test_changed_attributes_take_mobilefacenet_further_than_random_ones_do():
    attacked = lfw("impersonate", 4)
    made = craft(AttributePatch(MASK, rate=0.8), real(), attacked, steps=8)
    control = craft(AttributePatch(MASK, start="random", steps=0), real(), attacked)
    gain, plain = margins(real(), made, attacked), margins(real(), control, attacked)
    assert (gain > plain + 0.05).all()
    assert made.details["SSIM, mean and least"][0] > control.details["SSIM, mean and least"][0]
