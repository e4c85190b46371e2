"""MI, TI, DI, SI and S²I, each against its formula computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from audit.errors import AuditError
from probes.recognition.transforms import DI, MI, S2I, SI, TI, Pipeline, dct, idct, transform


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_the_dct_is_scipys(h, w, seed):
    x = np.random.default_rng(seed).standard_normal((2, 3, h, w))
    ours = dct(torch.from_numpy(x))
    assert np.allclose(ours.numpy(), scipy.fft.dctn(x, axes=(2, 3), norm="ortho"), atol=1e-10)
    assert np.allclose(idct(ours).numpy(), x, atol=1e-10)


def test_momentum_is_dongs():
    gradients = np.random.default_rng(0).standard_normal((4, 2, 3, 5, 6))
    g, expected = torch.zeros(2, 3, 5, 6, dtype=torch.float64), np.zeros((2, 3, 5, 6))
    for gradient in gradients:
        g = MI(0.7)(torch.from_numpy(gradient), g)
        # ‖·‖₁ up to the number of values, which is the same at every step
        expected = 0.7 * expected + gradient / np.abs(gradient).mean((1, 2, 3), keepdims=True)
    assert np.allclose(g.numpy(), expected)


def test_a_zero_gradient_leaves_the_momentum_finite():
    assert torch.equal(MI()(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_translation_invariance_is_a_gaussian_filter(radius):
    x = np.random.default_rng(1).standard_normal((2, 3, 20, 17))
    sigma = radius / np.sqrt(3)
    expected = scipy.ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="constant", radius=(0, 0, radius, radius))
    assert np.allclose(TI(radius)(torch.from_numpy(x)).numpy(), expected, atol=1e-12)


def test_input_diversity_shrinks_and_pads():
    x = torch.rand(2, 3, 20, 30, generator=stream(5))
    sizes, places = set(), set()
    for seed in range(40):
        y = DI(p=1.0, smallest=0.7)(x, 0, stream(seed))
        assert y.shape == x.shape
        filled = y.sum((0, 1)) > 0
        rows, columns = (torch.nonzero(filled.any(axis))[:, 0] for axis in (1, 0))
        top, left, h, w = int(rows[0]), int(columns[0]), len(rows), len(columns)
        sizes.add((h, w))
        places.add((top, left))
        small = F.interpolate(x, size=(h, w), mode="bilinear", align_corners=False)
        assert torch.equal(y[..., top : top + h, left : left + w], small)
        assert bool((F.pad(small, (left, 30 - w - left, top, 20 - h - top)) == y).all())
    assert min(sizes) == (14, 21)
    assert len(sizes) > 4
    assert len(places) > 10


def test_input_diversity_comes_with_its_probability():
    x = torch.rand(1, 3, 16, 16)
    unchanged = sum(DI(p=0.3, smallest=0.5)(x, 0, stream(s)) is x for s in range(400))
    assert 0.6 < unchanged / 400 < 0.8


def test_scale_invariance_halves():
    x = torch.rand(1, 3, 4, 4)
    for i in range(7):
        assert torch.equal(SI(5)(x, i, stream()), x / 2 ** (i % 5))


def test_spectrum_simulation_is_longs():
    x = torch.rand(2, 3, 14, 12, dtype=torch.float64)
    ours = S2I(noise=0.1, spread=0.5)(x, 0, stream(9)).numpy()
    draws = stream(9)
    noise = 0.1 * torch.randn((3, 14, 12), generator=draws).numpy()
    mask = 1 + 0.5 * (2 * torch.rand((3, 14, 12), generator=draws).numpy() - 1)
    spectrum = scipy.fft.dctn(x.numpy() + noise, axes=(2, 3), norm="ortho") * mask
    assert np.allclose(ours, scipy.fft.idctn(spectrum, axes=(2, 3), norm="ortho"), atol=1e-6)
    assert 0.5 <= mask.min() <= mask.max() <= 1.5
    assert np.allclose(S2I(noise=0, spread=0)(x, 0, stream()).numpy(), x.numpy())


def test_a_pipeline_averages_over_its_copies_once():
    assert Pipeline((SI(5), S2I(3), MI(), DI())).copies == 5
    assert Pipeline((MI(), TI())).copies == 1


def test_the_order_matters_and_is_kept():
    x, draws = torch.rand(1, 3, 8, 8), 4
    a, b = Pipeline((SI(2), S2I())), Pipeline((S2I(), SI(2)))
    direct = S2I()(SI(2)(x, 1, stream()), 1, stream(draws))
    assert torch.equal(a.seen(x, 1, stream(draws)), direct)
    assert not torch.equal(b.seen(x, 1, stream(draws)), direct)
    g = torch.rand(1, 3, 8, 8)
    first, _ = Pipeline((TI(), MI())).direction(g, torch.zeros_like(g))
    assert torch.allclose(first, MI()(TI()(g), torch.zeros_like(g)))
    second, memory = Pipeline((MI(), TI())).direction(g, torch.zeros_like(g))
    assert torch.allclose(second, TI()(MI()(g, torch.zeros_like(g))))
    assert torch.allclose(memory, MI()(g, torch.zeros_like(g)))


def test_a_random_order_is_drawn_anew_and_comes_back_with_its_seed():
    pipeline = Pipeline.of(("mi", "ti", "di", "si", "s2i"), "random")
    orders = [tuple(t.name for t in pipeline.ordered(stream(s)).transforms) for s in range(30)]
    assert len(set(orders)) > 20
    assert all(sorted(o) == sorted(("mi", "ti", "di", "si", "s2i")) for o in orders)
    assert orders == [tuple(t.name for t in pipeline.ordered(stream(s)).transforms) for s in range(30)]
    fixed = Pipeline.of(("mi", "ti"), "fixed")
    assert fixed.ordered(stream()) is fixed


@pytest.mark.parametrize(
    "make",
    [
        lambda: transform("fgsm"),
        lambda: Pipeline.of(("mi", "mi"), "fixed"),
        lambda: Pipeline.of(("mi",), "shuffled"),
    ],
    ids=["name", "twice", "order"],
)
def test_what_is_not_there_is_said(make):
    with pytest.raises(AuditError, match=r"expected .* got"):
        make()
