"""The blur with a σ of its own at every pixel, against eq. 4 and 5 of paper 003 written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from audit.errors import AuditError
from audit.labelled import Adversarial
from probes.forgery.blur_field import RingSums, blurred, taps
from probes.forgery.blur_rules import BlurRules


def pixel_by_pixel(images, sigma, k, literal):
    """Eq. 4 and 5 as they stand, one pixel and one tap at a time."""
    n, c, h, w = images.shape
    r, out = k // 2, np.zeros(images.shape)
    for i, y, x in np.ndindex(n, h, w):
        s, value, total = sigma[i, y, x], np.zeros(c), 0.0
        for u in range(-r, r + 1):
            for v in range(-r, r + 1):
                g = np.exp(-(u * u + v * v) / (2 * s * s)) / (2 * np.pi * s * s)
                value += g * images[i, :, min(max(y + u, 0), h - 1), min(max(x + v, 0), w - 1)]
                total += g
        out[i, :, y, x] = value if literal else value / total
    return out


def drawn(seed, n=2, h=9, w=11, low=0.15, high=20.0, dtype=torch.float32):
    stream = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, h, w, generator=stream, dtype=dtype)
    log = torch.rand(n, h, w, generator=stream, dtype=dtype) * np.log(high / low)
    return images, low * log.exp()


@pytest.mark.parametrize("k", [3, 5, 7, 9])
@pytest.mark.parametrize("literal", [False, True])
def test_eq_4_and_5_pixel_by_pixel(k, literal):
    images, sigma = drawn(k, h=6, w=7)
    expected = pixel_by_pixel(images.double().numpy(), sigma.double().numpy(), k, literal)
    scale = max(1.0, np.abs(expected).max())
    for field, of in ((sigma, "sigma"), (1 / sigma, "inverse")):
        found = blurred(images, field, k, of, literal=literal).numpy()
        assert np.abs(found - expected).max() < 1e-5 * scale


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([3, 5, 7, 9]), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_any_size_even_under_the_kernel(seed, k, h, w, inverse):
    images, sigma = drawn(seed, 1, h, w)
    expected = pixel_by_pixel(images.double().numpy(), sigma.double().numpy(), k, literal=False)
    field, of = (1 / sigma, "inverse") if inverse else (sigma, "sigma")
    assert np.abs(blurred(images, field, k, of).numpy() - expected).max() < 1e-5


def test_one_sigma_everywhere_is_scipy_s_gaussian():
    images, _ = drawn(0, 1, 40, 33)
    found = blurred(images, torch.full((1, 40, 33), 1.3), 9)
    expected = ndimage.gaussian_filter(images[0].double().numpy(), (0, 1.3, 1.3), radius=(0, 4, 4), mode="nearest")
    assert np.abs(found[0].numpy() - expected).max() < 1e-5


def test_blocks_of_pixels_and_of_images_meet_without_a_seam():
    """Larger than what is worked on at a time, and many small images at a time."""
    images, sigma = drawn(1, 1, 200, 211, 0.3, 3.0)
    whole = blurred(images, sigma)
    for y, x in ((4, 4), (80, 120), (150, 180)):
        # a crop with the kernel's radius around it, so that its inside sees the same pixels
        crop = (..., slice(y - 4, y + 24), slice(x - 4, x + 24))
        inside = whole[:, :, y : y + 20, x : x + 20]
        torch.testing.assert_close(blurred(images[crop], sigma[crop])[:, :, 4:24, 4:24], inside)
    images, sigma = drawn(2, 700, 8, 8)
    each = torch.cat([blurred(images[i : i + 1], sigma[i : i + 1]) for i in (0, 255, 256, 699)])
    torch.testing.assert_close(blurred(images, sigma)[[0, 255, 256, 699]], each, rtol=0, atol=0)


@pytest.mark.parametrize("of", ["sigma", "inverse"])
@pytest.mark.parametrize("literal", [False, True])
def test_gradients_are_finite_differences(of, literal):
    images, sigma = drawn(3, 2, 5, 6, 0.4, 3.0, torch.float64)
    field = sigma if of == "sigma" else 1 / sigma
    inputs = (images.requires_grad_(), field.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, f: blurred(x, f, 5, of, literal=literal), inputs)
    assert torch.autograd.gradcheck(lambda f: blurred(images.detach(), f, 9, of, literal=literal), (inputs[1],))


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.01, 0.07, 0.1, 0.13])
def test_no_blur_leaves_the_image_bit_by_bit(value):
    images, _ = drawn(4)
    images[:, :, :3] = 0
    field = torch.full((2, 9, 11), value, requires_grad=True)
    found = blurred(images, field)
    assert torch.equal(found, images)
    found.square().sum().backward()
    assert torch.equal(field.grad, torch.zeros_like(field))


@pytest.mark.parametrize(("value", "of"), [(torch.inf, "sigma"), (1e30, "sigma"), (0.0, "inverse")])
def test_endless_sigma_is_the_mean_of_the_square(value, of):
    images, _ = drawn(5)
    field = torch.full((2, 9, 11), value, requires_grad=True)
    found = blurred(images, field, 5, of)
    expected = ndimage.uniform_filter(images.double().numpy(), (0, 0, 5, 5), mode="nearest")
    assert np.abs(found.detach().numpy() - expected).max() < 1e-5
    found.square().sum().backward()
    assert torch.equal(field.grad, torch.zeros_like(field))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1e6) | st.sampled_from([0.0, 1e-30, 1e30, float("inf")]), st.booleans(), st.booleans())
def test_nothing_is_ever_not_a_number(value, inverse, literal):
    images, _ = drawn(6, 1, 6, 6)
    field = torch.full((1, 6, 6), value, requires_grad=True)
    found = blurred(images.requires_grad_(), field, 7, "inverse" if inverse else "sigma", literal=literal)
    to_images, to_field = torch.autograd.grad(found.square().sum(), (images, field))
    assert bool(found.isfinite().all() and to_images.isfinite().all() and to_field.isfinite().all())


def test_the_literal_form_darkens_what_the_normalised_one_does_not():
    white = torch.ones(1, 3, 12, 12)
    field = torch.full((1, 12, 12), 10.0)
    torch.testing.assert_close(blurred(white, field), white)
    # 81 taps of about 1/(2π·100) each
    assert 0.11 < float(blurred(white, field, literal=True).mean()) < 0.13


def test_the_rings_of_nine():
    t = taps(9)
    assert len(t.distances) + 1 == 15, "with the centre"
    assert sum(t.counts) == 80
    images, _ = drawn(7)
    assert RingSums.of(images).rings.shape == (2, 14, 3, 9, 11)
    with pytest.raises(AuditError, match="odd"):
        taps(4)


def rule_case():
    stream = torch.Generator().manual_seed(8)
    clean = torch.randint(0, 256, (2, 3, 14, 10), generator=stream, dtype=torch.uint8)
    sigma = torch.rand(2, 14, 10, generator=stream) * 2
    return clean, sigma, blurred(clean.float(), sigma).round().to(torch.uint8)


def test_the_bound_of_the_mean_is_that_of_each_image():
    clean, sigma, images = rule_case()
    made, means = Adversarial(images, {"sigma": sigma}), sigma.double().mean((1, 2)).tolist()
    largest = max(means)

    def broken(mean):
        return [f[:7] for f in BlurRules(9, mean=mean).violations(clean, made)]

    assert broken(largest) == []
    assert broken(largest / 1.01) == [f"image {means.index(largest)}"], "one hundredth over is over"
    assert broken(tuple(means)) == []
    assert broken((means[0], means[1] / 1.01)) == ["image 1"]
    assert broken((means[0] / 1.01, 5.0)) == ["image 0"]
    assert len(BlurRules(9, mean=(5.0,)).violations(clean, made)) == 1, "a bound for each"
    assert "1.5 px" in BlurRules(9, mean=(0.5, 1.5)).describe()


def test_the_rules_take_what_was_blurred_and_nothing_else():
    clean, sigma, images = rule_case()
    mean = float(sigma.mean((1, 2)).max())
    assert BlurRules(9, (0, 2), mean).violations(clean, Adversarial(images, {"sigma": sigma})) == []
    other = images.clone()
    other[1, 0, 5, 5] = other[1, 0, 5, 5] + (2 if other[1, 0, 5, 5] < 250 else -2)
    (found,) = BlurRules(9).violations(clean, Adversarial(other, {"sigma": sigma}))
    assert found.startswith("image 1: ")
    assert BlurRules(9, epsilon=2 / 255).violations(clean, Adversarial(other, {"sigma": sigma})) == []
    assert len(BlurRules(7).violations(clean, Adversarial(images, {"sigma": sigma}))) == 2
    assert len(BlurRules(9, mean=mean * 0.5).violations(clean, Adversarial(images, {"sigma": sigma}))) == 2
    assert len(BlurRules(9, limits=(0, 1)).violations(clean, Adversarial(images, {"sigma": sigma}))) == 2
    assert len(BlurRules(9, limits=(0.5, 2)).violations(clean, Adversarial(images, {"sigma": sigma}))) == 2
    assert len(BlurRules(9, literal=True).violations(clean, Adversarial(images, {"sigma": sigma}))) == 2
    assert len(BlurRules(9).violations(clean, Adversarial(images))) == 1
    assert len(BlurRules(9).violations(clean, Adversarial(images.float(), {"sigma": sigma}))) == 1
    sigma[0, 0, 0] = torch.nan
    assert len(BlurRules(9).violations(clean, Adversarial(images, {"sigma": sigma}))) == 1
