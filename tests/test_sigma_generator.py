"""Generators of σ maps: what they are given, what they learn, and that a seed decides it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from audit.budget import Budget
from audit.errors import AuditError, ModelError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Labelled
from probes.forgery.combined import CombinedAttack
from probes.forgery.plain_blur import FixedBlur
from probes.forgery.sigma_generator import Generator, SigmaGenerator
from tests import kit

BUDGET = Budget("smoke", steps=25, batch=8, queries=0, images=100, bootstrap=10)
SIDE = 24


class RoughLeft(torch.nn.Module):
    """Says fake where the left half is rougher than the right: an even blur does not change that."""

    face_size, threshold = (SIDE, SIDE), 0.0

    def forward(self, faces):
        rough = (faces[..., 1:] - faces[..., :-1]).abs().mean((1, 2))
        return 6 * torch.log((rough[:, : SIDE // 2].mean(1) + 1e-3) / (rough[:, SIDE // 2 :].mean(1) + 1e-3) / 1.4)


class Clips(torch.nn.Module):
    """The same, of two frames."""

    face_size, threshold, clip_frames = (SIDE, SIDE), 0.0, 2

    def forward(self, clips):
        return RoughLeft()(clips.flatten(0, 1)).reshape(-1, 2).mean(1)


def model(net=None, white_box=True):
    return ImageModel("rough left", net or RoughLeft(), "forgery", white_box)


def faces(n, seed):
    """Even and odd: real (rough all over) and fake (rougher on the left)."""
    stream = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 3, SIDE, SIDE, generator=stream)
    labels = torch.arange(n) % 2
    size = torch.full((n, 1, 1, SIDE), 10.0)
    size[labels == 1, ..., : SIDE // 2] = 25.0
    images = (128 + size * noise).round().clamp(0, 255).to(torch.uint8)
    names = tuple(f"{seed}/{i}" for i in range(n))
    return Labelled(images, labels, names, names, names)


def craft(probe, attacked, net=None, budget=BUDGET, seed=0):
    return probe.craft([net or model()], attacked, execution=Execution(), budget=budget, seed=seed)


def fakes(labelled):
    return labelled[labelled.labels == 1]


@pytest.mark.parametrize("two", [False, True])
def test_what_was_learnt_holds_on_images_never_seen(two):
    train, held = faces(24, 1), fakes(faces(16, 2))
    probe = SigmaGenerator(two=two, mean=1.0, blocks=1, train=train)
    made = craft(probe, held)
    assert probe.rules().violations(held.images, made) == []
    assert made.maps["sigma"].mean((1, 2)).max() <= 1.0001
    plain = craft(FixedBlur(1.0), held)
    right = {k: (model().ask(x) >= 0).mean() for k, x in (("clean", held.images), ("plain", plain.images))}
    assert right["clean"] == 1
    assert (model().ask(made.images) >= 0).mean() <= right["plain"] - 0.5
    losses = made.history["loss of the generator"]
    assert len(losses) == 25
    assert np.mean(losses[-5:]) > 2 * np.mean(losses[:3])
    assert made.details["trained on"] == 24


def test_the_seed_decides_and_the_batch_does_not():
    train, held = faces(8, 1), faces(5, 2)
    probe = SigmaGenerator(blocks=1, steps=3, train=train)
    state = torch.random.get_rng_state()
    one = craft(probe, held)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.images, craft(probe, held).images)
    assert not torch.equal(one.maps["sigma"], craft(probe, held, seed=1).maps["sigma"])
    trained = probe.fit([model()], train, execution=Execution(), budget=BUDGET, seed=0)
    each = craft(trained, held, budget=replace(BUDGET, batch=1))
    torch.testing.assert_close(each.maps["sigma"], one.maps["sigma"], rtol=1e-4, atol=1e-5)


def test_each_label_has_its_own_generator():
    train = faces(8, 1)
    trained = SigmaGenerator(two=True, blocks=0, steps=4).fit(
        [model()], train, execution=Execution(), budget=BUDGET, seed=0
    )
    levels = train.images[:2].float()
    with torch.no_grad():
        as_real, as_fake = (trained.field(levels, torch.full((2,), y)) for y in (0, 1))
        assert not torch.allclose(as_real, as_fake)
        mixed = trained.field(levels, torch.tensor([1, 0]))
    torch.testing.assert_close(mixed, torch.stack([as_fake[0], as_real[1]]))
    # a generator that sees no image of its label does not learn
    only = SigmaGenerator(two=True, blocks=0, steps=4).fit(
        [model()], fakes(train), execution=Execution(), budget=BUDGET, seed=0
    )
    fresh = SigmaGenerator(two=True, blocks=0, steps=0).fit(
        [model()], fakes(train), execution=Execution(), budget=BUDGET, seed=0
    )
    with torch.no_grad():
        same, moved = (torch.equal(only.nets[y](levels), fresh.nets[y](levels)) for y in (0, 1))
    assert (same, moved) == (True, False)


def test_it_starts_at_the_start_and_stays_in_its_range():
    held = faces(3, 2)
    made = craft(SigmaGenerator(start=0.8, ratio=4.0, steps=0, blocks=1), held)
    assert ((made.maps["sigma"] > 0.5) & (made.maps["sigma"] < 1.3)).all()
    probe = SigmaGenerator(start=0.8, ratio=4.0, blocks=1, rate=0.1, steps=10)
    made = craft(probe, held)
    assert probe.rules().violations(held.images, made) == []
    assert float(made.maps["sigma"].min()) >= 0.2 - 1e-6
    assert float(made.maps["sigma"].max()) <= 3.2 + 1e-5


@pytest.mark.parametrize("size", [(24, 24), (17, 22), (33, 9)])
def test_maps_have_the_size_of_the_images(size):
    net = Generator(4, 2, torch.Generator().manual_seed(0))
    found = net(torch.rand(2, 3, *size))
    assert found.shape == (2, *size)
    assert float(found.detach().abs().max()) < 0.9
    # an image's map does not depend on the others
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(net(x)[1:], net(x[1:]))


def test_clips_stay_whole():
    held = faces(8, 3)
    made = craft(SigmaGenerator(blocks=0, steps=2, train=held), held, model(Clips()), replace(BUDGET, batch=3))
    assert made.images.shape == held.images.shape


def test_the_record_names_what_it_was_trained_on():
    one, two = faces(4, 1), faces(4, 2)
    specs = [SigmaGenerator(train=t).spec()["train"] for t in (None, one, two)]
    assert specs == [None, one.digest, two.digest]
    with pytest.raises(AuditError, match="ratio > 1"):
        SigmaGenerator(ratio=1.0)
    with pytest.raises(ModelError, match="white-box"):
        craft(SigmaGenerator(), one, model(white_box=False))


def test_first_the_generators_then_fgsm():
    train, held = faces(24, 1), fakes(faces(8, 2))
    blur = SigmaGenerator(two=True, blocks=1, steps=8, mean=0.7, train=train)
    probe = CombinedAttack(blur)
    made, alone = craft(probe, held), craft(blur, held)
    assert int((made.images.int() - alone.images.int()).abs().max()) == 8
    assert probe.rules().violations(held.images, made) == []
    assert probe.spec()["blur"]["train"] == train.digest
    assert model().ask(made.images).mean() < model().ask(alone.images).mean()
    assert len(made.history["loss of the generator, blur"]) == 8


@pytest.mark.kit
@pytest.mark.slow
def test_a_generator_misleads_a_real_detector():
    """Trained on some fakes, used on others of the same video: further down than plain blur of the same mean σ."""
    detector, all_faces = kit.mesonet_model("Meso4_F2F"), kit.forgery_faces()
    found = detector.ask(all_faces.images) > 0
    rows = [i for i in range(len(all_faces)) if all_faces.labels[i] == 1 and found[i]]
    train, held = all_faces[rows[::2]], all_faces[rows[1::2]]
    probe = SigmaGenerator(mean=1.0, steps=10, train=train)
    made = craft(probe, held, detector, replace(BUDGET, batch=4))
    plain = craft(FixedBlur(1.0), held)
    assert probe.rules().violations(held.images, made) == []
    assert detector.ask(made.images).mean() < detector.ask(plain.images).mean() - 0.5
