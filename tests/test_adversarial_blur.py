"""Adversarial blur: eq. 6 of paper 003 by hand, its bounds, and its effect on real detectors beside plain blur."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch.nn import functional as F

from audit.budget import Budget
from audit.errors import AuditError, DataError, ModelError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, Labelled
from probes.forgery.additive import FGSM, PGD
from probes.forgery.adversarial_blur import AdversarialBlur, bounded, cells
from probes.forgery.combined import CombinedAttack
from probes.forgery.flow import SpatialFlow
from probes.forgery.plain_blur import FixedBlur, MatchedBlur
from probes.forgery.sigma_generator import SigmaGenerator
from tests import kit
from tests.planted_forgery import Fine, Level, fake, surface
from tests.test_blur_field import pixel_by_pixel

SMALL = Budget("smoke", steps=4, batch=8, queries=0, images=100, bootstrap=10)


class Linear(torch.nn.Module):
    """Σ w·x as a forgery detector."""

    face_size, threshold = (8, 9), 0.3

    def __init__(self, seed=0):
        super().__init__()
        self.weight = torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(seed)) * 0.05

    def forward(self, faces):
        return (faces * self.weight).sum((1, 2, 3))


class Sharpness(torch.nn.Module):
    """Says fake where neighbours differ: what blur takes away."""

    face_size, threshold = (16, 16), 0.0

    def forward(self, faces):
        return 40 * (faces[..., 1:] - faces[..., :-1]).abs().mean((1, 2, 3)) - 3


class Classes(torch.nn.Module):
    """Three classes by the sharpness of the three thirds of an image."""

    input_size = face_size = (16, 16)

    def forward(self, images):
        rough = (images[..., 1:] - images[..., :-1]).abs().mean((1, 3))
        return torch.stack([rough[:, a : a + 5].mean(1) for a in (0, 5, 10)], 1) * 40


def model(net, task="forgery", white_box=True):
    return ImageModel(type(net).__name__, net, task, white_box)


def pictures(n=5, size=(8, 9), seed=0, label=None):
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, *size), generator=stream, dtype=torch.uint8)
    labels = torch.arange(n) % 2 if label is None else torch.full((n,), label)
    names = tuple(f"v{i}" for i in range(n))
    return Labelled(images, labels, names, names, names)


def craft(probe, nets, images, budget=SMALL, seed=0):
    return probe.craft(nets, images, execution=Execution(), budget=budget, seed=seed)


def by_hand(images, labels, sigma, net, epsilon, of, k):
    """σ + ε ∇_σ L with the blur's derivative by central differences: a pixel's own σ moves that pixel alone."""
    clean = images.double().numpy()
    w = net.weight.double().numpy()
    value = 1 / sigma if of == "inverse" else sigma
    back = (lambda t: 1 / t) if of == "inverse" else (lambda t: t)
    levels = np.rint(pixel_by_pixel(clean, sigma, k, literal=False))
    sign = 2 * labels.numpy() - 1
    margin = sign * ((levels / 255 * w).sum((1, 2, 3)) - net.threshold)
    by_score = -sign / (1 + np.exp(margin))
    h = 1e-5
    up, down = (pixel_by_pixel(clean, back(value + s * h), k, literal=False) for s in (1, -1))
    gradient = by_score[:, None, None] * ((up - down) / (2 * h) / 255 * w).sum(1)
    return back(value + epsilon * gradient)


@pytest.mark.parametrize("of", ["sigma", "inverse"])
@pytest.mark.parametrize(("k", "start"), [(3, 1.0), (9, 0.7), (5, 2.0)])
def test_one_step_is_eq_6(of, k, start):
    images, net = pictures(), Linear()
    # so large a step that it can be told from none
    probe = AdversarialBlur(kernel=k, start=start, epsilon=10.0, steps=1, of=of)
    made = craft(probe, [model(net)], images)
    expected = by_hand(images.images, images.labels, np.full((5, 8, 9), start), net, 10.0, of, k)
    assert np.abs(made.maps["sigma"].numpy() - expected).max() < 1e-4
    assert np.abs(expected - start).max() > 0.02
    assert probe.rules().violations(images.images, made) == []
    wide = pixel_by_pixel(images.images.double().numpy(), expected, k, literal=False)
    assert np.abs(made.images.numpy() - wide).max() < 0.51


def test_many_steps_repeat_it():
    images, net = pictures(3), Linear(1)
    sigma = np.full((3, 8, 9), 1.0)
    for _ in range(2):
        sigma = by_hand(images.images, images.labels, sigma, net, 5.0, "sigma", 5)
    made = craft(AdversarialBlur(kernel=5, epsilon=5.0, steps=2), [model(net)], images)
    # the best step is kept, which is the last where the loss rises with each
    rising = np.diff(made.history["loss"]) > 0
    assert rising.all()
    near = np.abs(made.maps["sigma"].numpy() - sigma).max((1, 2)) < 1e-3
    assert near.sum() >= 2


class Blind(torch.nn.Module):
    """Differentiable, and the same for any image."""

    face_size, threshold = (8, 9), 0.0

    def forward(self, faces):
        return 0 * faces.sum((1, 2, 3)) + 1


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["sigma", "inverse"]), st.sampled_from(["literal", "normalised"]),
    st.lists(st.floats(0.02, 100), min_size=3, max_size=3).map(sorted),
)  # fmt: skip
def test_a_gradient_of_zero_moves_nothing_whatever_the_limits(of, step, limits):
    low, start, high = limits
    probe = AdversarialBlur(3, start, 0.5, 2, of, step, limits=(low, high))
    made = craft(probe, [model(Blind())], pictures(1))
    assert np.allclose(made.maps["sigma"].numpy(), start, rtol=1e-5)
    assert probe.rules().violations(pictures(1).images, made) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([None, 0.3, 1.0]), st.sampled_from([(0.0, 100.0), (0.2, 3.0)]))
def test_what_is_searched_without_gradients_is_strong_and_within_the_rules(seed, mean, limits):
    clean = pictures(2, (40, 24), seed=seed % 100).images
    probe = AdversarialBlur(5, mean=mean, limits=limits)
    stream, again = (torch.Generator().manual_seed(seed) for _ in range(2))
    found = probe.guess(clean.float(), clean.float(), stream)
    coarse = cells(clean.float(), 8.0, again)
    assert set(coarse.unique().tolist()) <= {0.0, 8.0}
    sigma = bounded(coarse, mean, limits)
    assert probe.rules().violations(clean, Adversarial(found.to(torch.uint8), {"sigma": sigma})) == []
    if mean is None:
        assert set(sigma.unique().tolist()) <= {np.float32(limits[0]), np.float32(min(8.0, limits[1]))}


@pytest.mark.parametrize("step", ["literal", "normalised"])
@pytest.mark.parametrize("of", ["sigma", "inverse"])
def test_the_batch_decides_nothing(step, of):
    images, net = pictures(5, (16, 16)), [model(Sharpness())]
    probe = AdversarialBlur(epsilon=0.5, steps=3, step=step, of=of, mean=1.0)
    one, all = (craft(probe, net, images, replace(SMALL, batch=b)) for b in (1, 5))
    assert torch.equal(one.images, all.images)
    assert torch.equal(one.maps["sigma"], all.maps["sigma"])
    assert probe.rules().violations(images.images, one) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 3), st.sampled_from([0.0, 0.05]), st.sampled_from([1.0, 100.0]))
def test_the_nearest_map_within_the_bounds(seed, mean, low, high):
    sigma = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(seed)) * 3
    found = bounded(sigma, mean, (low, high)).double().numpy()
    for one, s in zip(found, sigma.double().numpy(), strict=True):
        # the nearest point of a box under a bound of the sum is the map, less one number, cut to the box
        def over(by, s=s):
            return np.clip(s - by, low, high).mean() - mean

        by = brentq(over, 0, 40, xtol=1e-12) if over(0) > 0 else 0.0
        assert np.abs(one - np.clip(s - by, low, high)).max() < 1e-4
        assert one.mean() <= mean * (1 + 1e-5)


@pytest.mark.parametrize("of", ["sigma", "inverse"])
def test_what_eq_6_starts_from_is_never_its_result(of):
    """Even where the step, far too long, overshoots to a lower loss: the paper hands out what is after the step."""

    class Valley(Sharpness):
        """The least fake a little blurrier than at the start, and the more fake the farther from there."""

        def forward(self, faces):
            return (super().forward(faces) - lowest).square()

    images = pictures(1, (16, 16), label=1)
    start = craft(FixedBlur(1.0), [], images)
    lowest = float(model(Sharpness()).ask(start.images).min()) - 0.1
    net = Valley()
    made = craft(AdversarialBlur(start=1.0, epsilon=1e4, steps=1, of=of), [model(net)], images)
    before, after = (model(net).loss(a.images.float() / 255, images.labels) for a in (start, made))
    assert bool((after < before).all())
    assert bool((made.images != start.images).flatten(1).any(1).all())
    assert bool(((made.maps["sigma"] - 1).abs().amax((1, 2)) > 0.1).all())


def test_real_and_fake_are_both_attacked():
    net = Sharpness()
    stream = torch.Generator().manual_seed(0)
    rough = torch.randint(60, 200, (3, 3, 16, 16), generator=stream, dtype=torch.uint8)
    made = craft(AdversarialBlur(epsilon=1.0, steps=6, step="normalised"), [model(net)],
                 replace(pictures(3, (16, 16), label=1), images=rough))  # fmt: skip
    assert (model(net).ask(rough) > 0).all()
    assert (model(net).ask(made.images) < 0).all()
    # a real one that starts out too blurred to look fake: the loss is climbed by blurring less
    probe = AdversarialBlur(epsilon=2.0, steps=6, step="normalised", start=2.0)
    real = replace(pictures(3, (16, 16), label=0), images=rough)
    made = craft(probe, [model(net)], real)
    start = craft(FixedBlur(2.0), [model(net)], real)
    assert (model(net).ask(made.images) > model(net).ask(start.images) + 1).all()
    assert made.details["mean sigma"] == pytest.approx(made.maps["sigma"].mean((1, 2)).tolist(), abs=1e-3)


def test_classifiers_and_ensembles():
    images = pictures(4, (16, 16))
    nets = [model(Classes(), "classifier")]
    labels = torch.from_numpy(nets[0].ask(images.images).argmax(1))
    made = craft(AdversarialBlur(5, epsilon=1.0, step="normalised"), nets, replace(images, labels=labels))
    after = nets[0].ask(made.images)
    assert (after.argmax(1) != labels.numpy()).all()
    with pytest.raises(ModelError, match="white-box"):
        craft(AdversarialBlur(), [model(Sharpness(), white_box=False)], images)


def test_what_cannot_be_is_refused():
    for wrong in (
        {"kernel": 4},
        {"start": -1.0},
        {"start": 200.0},
        {"epsilon": -1.0},
        {"limits": (0.5, 2.0), "mean": 0.1},
    ):
        with pytest.raises(AuditError):
            AdversarialBlur(**wrong)
    with pytest.raises(DataError, match="one for each"):
        craft(MatchedBlur((1.0,)), [model(Sharpness())], pictures(2, (16, 16)))


def test_spec_tells_which_form_the_kernel_has():
    assert AdversarialBlur().spec()["kernel sums to"] == "one"
    assert "eq. 4" in AdversarialBlur(literal=True).spec()["kernel sums to"]
    made = craft(AdversarialBlur(start=3.0, literal=True, steps=1), [model(Sharpness())], pictures(2, (16, 16)))
    assert AdversarialBlur(start=3.0, literal=True, steps=1).rules().violations(
        pictures(2, (16, 16)).images, made) == []  # fmt: skip


def test_the_plain_blur_of_an_image_is_bounded_by_its_own_mean():
    images, probe = pictures(2, (16, 16)), MatchedBlur((0.2, 3.0))
    made = craft(FixedBlur(3.0), [], images)
    (found,) = probe.rules().violations(images.images, made)
    assert found.startswith("image 0: a mean σ of 3 px, at most 0.2")


def test_plain_blur_of_the_same_mean_is_the_strongest_of_its_shares():
    images, net = pictures(4, (16, 16), label=1), model(Sharpness())
    probe = MatchedBlur((1.2, 1.6, 2.0, 2.4))
    made = craft(probe, [net], images)
    assert probe.rules().violations(images.images, made) == []
    # this detector is misled the more, the more is blurred: all of the mean is used
    assert made.details["mean sigma"] == [1.2, 1.6, 2.0, 2.4]
    for i, sigma in enumerate(probe.means):
        assert torch.equal(made.images[i], craft(FixedBlur(sigma), [net], images).images[i])
    # and a real one is misled the less
    assert craft(probe, [net], replace(images, labels=images.labels * 0)).details["mean sigma"] == [0.3, 0.4, 0.5, 0.6]


def test_first_blurred_then_added_to():
    images, net = pictures(4, (16, 16), label=1), model(Sharpness())
    blur = AdversarialBlur(epsilon=0.3, steps=2, step="normalised", mean=0.6)
    probe = CombinedAttack(blur, FGSM(4 / 255))
    made, alone = craft(probe, [net], images), craft(blur, [net], images)
    assert torch.equal(made.maps["sigma"], alone.maps["sigma"])
    change = (made.images.int() - alone.images.int()).abs()
    assert int(change.max()) == 4
    assert probe.rules().violations(images.images, made) == []
    assert len(blur.rules().violations(images.images, made)) == 4
    assert net.ask(made.images).mean() < net.ask(alone.images).mean()
    assert [d.name for d in made.diagnostics] == [
        *(f"{d.name}, blur" for d in alone.diagnostics),
        *(d.name for d in craft(FGSM(4 / 255), [net], replace(images, images=alone.images)).diagnostics),
    ]
    with pytest.raises(AuditError, match="linf"):
        CombinedAttack(blur, PGD(norm="l2"))


# whether what a model withstood counts


class Shaded(Fine):
    """Fine without a gradient, but for a little of the mean: what hides its gradient and looks sound."""

    def __call__(self, faces):
        return super().__call__(faces).detach() + 0.3 * (faces.mean((1, 2, 3)) - 0.5)


class HalfMasked(Fine):
    """The same with so much of the mean that FGSM finds its way."""

    def __call__(self, faces):
        return super().__call__(faces).detach() + 40 * (faces.mean((1, 2, 3)) - 0.4)


class Cells(Fine):
    """Waves of 6 px, of the other sign in every second cell of 8 px: to blur half of it tells."""

    def __call__(self, faces):
        y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
        cell = (1 - 2 * ((x // 8 + y // 8) % 2)) * torch.sin(2 * torch.pi * x / 6)
        return 25 + 16 * 255 * (faces * cell.to(faces)).mean((1, 2, 3))


def fakes(method):
    """Eight; ``cells`` has waves of 6 px."""
    wave = 10 * np.sin(2 * np.pi * np.arange(64) / 6)[:, None]
    made = [surface(i) + wave if method == "cells" else fake(surface(i), method) for i in range(8)]
    images = [torch.from_numpy(p.round().clip(0, 255).astype(np.uint8)).permute(2, 0, 1) for p in made]
    names = tuple(f"{i}" for i in range(8))
    return Labelled(torch.stack(images), torch.ones(8, dtype=torch.int64), names, names, names)


STRONG = AdversarialBlur(step="normalised", epsilon=0.5, mean=1.0)
FALL, SEARCH = "loss fell", "attack without gradients beats white-box"


def health(probe, net, images, steps=10, queries=24):
    budget = replace(SMALL, steps=steps, queries=queries)
    made = craft(probe, [model(net)], images, budget)
    fooled = int((model(net).ask(made.images) < net.threshold).sum())
    return fooled, {d.name: d for d in made.diagnostics}


@pytest.mark.parametrize("probe", [PGD(), FGSM()])
def test_an_attack_on_every_pixel_has_no_excuse(probe):
    fooled, found = health(probe, Shaded(), fakes("grid"))
    assert fooled == 0
    assert [n for n, d in found.items() if d.raised] == [FALL]


def test_a_blur_that_goes_nowhere_has_no_excuse():
    for net, method in ((Cells(), "cells"), (Level(), "dark")):
        fooled, found = health(AdversarialBlur(steps=1), net, fakes(method))
        assert fooled == 0
        assert found[FALL].raised
        assert "the model that holds" not in found[FALL].meaning
    # what one step did not find is there to be found: by many, and by chance
    fooled, found = health(AdversarialBlur(steps=1), Cells(), fakes("cells"))
    assert found[SEARCH].raised
    fooled, found = health(STRONG, Cells(), fakes("cells"))
    assert fooled == 8
    assert not any(d.raised for d in found.values())


@pytest.mark.parametrize("probe", [STRONG, SpatialFlow(), SigmaGenerator(width=4, blocks=1, rate=0.05)])
def test_a_model_that_rightly_does_not_feel_it_is_told_so(probe):
    fooled, found = health(probe, Level(), fakes("dark"))
    assert fooled == 0
    assert [n for n, d in found.items() if d.raised] == []
    fell = found[FALL]
    if isinstance(probe, AdversarialBlur):
        assert fell.value < fell.limit
        assert "the model that holds" in fell.meaning
    # not without having been searched
    _, found = health(probe, Level(), fakes("dark"), queries=0)
    assert found[FALL].raised == (found[FALL].value < found[FALL].limit)


def test_what_was_wrong_with_the_blur_is_told_of_both():
    probe = CombinedAttack(AdversarialBlur(steps=1, start=0.01), FGSM())
    fooled, found = health(probe, HalfMasked(), fakes("grid"))
    _, alone = health(probe.blur, HalfMasked(), fakes("grid"))
    assert fooled == 0
    wrong = {f"{n}, blur" for n, d in alone.items() if d.raised}
    assert wrong
    assert wrong <= {n for n, d in found.items() if d.raised}


@pytest.mark.kit
@pytest.mark.parametrize("which", ["Meso4_DF", "MesoInception_DF", "Meso4_F2F"])
def test_adversarial_blur_beats_the_strongest_plain_blur_of_its_mean_sigma(which):
    """Issue 5: on real detectors, accuracy on fakes falls further than under any plain Gaussian of the same mean σ."""
    detector, faces = kit.mesonet_model(which), kit.forgery_faces()
    found = detector.ask(faces.images) > 0
    rows = [i for i in range(len(faces)) if faces.labels[i] == 1 and found[i]]
    fakes = faces[rows[:: max(1, len(rows) // 5)]]
    assert len(fakes) >= 5
    probe = AdversarialBlur(epsilon=1.0, steps=4, step="normalised", mean=1.0)
    made = craft(probe, [detector], fakes)
    assert probe.rules().violations(fakes.images, made) == []
    assert max(made.details["mean sigma"]) <= 1.0001
    plain = craft(MatchedBlur.of(made), [detector], fakes)
    right = {k: (detector.ask(a.images) > 0).mean() for k, a in (("adversarial", made), ("plain", plain))}
    assert right["adversarial"] <= right["plain"] - 0.5, right
    assert F.softplus(torch.from_numpy(-detector.ask(plain.images))).mean() < made.history["loss"][-1]
