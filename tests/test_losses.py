"""Total variation and non-printability, held against loops in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import AuditError
from probes.losses import non_printability, total_variation


def picture(seed, c, p, q):
    return torch.rand(c, p, q, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variation(p, root):
    total, (channels, rows, columns) = 0.0, p.shape
    for c in range(channels):
        for i in range(rows):
            for j in range(columns):
                down = p[c, i, j] - p[c, i + 1, j] if i + 1 < rows else 0.0
                right = p[c, i, j] - p[c, i, j + 1] if j + 1 < columns else 0.0
                total += math.hypot(down, right) if root else down**2 + right**2
    return total


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), c=st.integers(1, 3), p=st.integers(1, 7), q=st.integers(1, 7))
def test_total_variation_is_the_sum_of_the_paper(seed, c, p, q):
    patch = picture(seed, c, p, q)
    exact = variation(patch.numpy(), root=True)
    assert exact - 1e-6 * c * p * q - 1e-12 <= float(total_variation(patch)) <= exact + 1e-12
    assert float(total_variation(patch, mean=True)) == pytest.approx(float(total_variation(patch)) / (p * q))
    assert float(total_variation(patch, form="squared")) == pytest.approx(variation(patch.numpy(), root=False))


def test_total_variation_by_hand():
    """One texel of 1 in a corner of a 2×2 of zeros: its own two differences make √2; as last row and column, 1 + 1."""
    patch = torch.zeros(1, 2, 2)
    patch[0, 0, 0] = 1
    assert float(total_variation(patch)) == pytest.approx(math.sqrt(2), abs=4e-6)
    assert float(total_variation(patch.flip(1, 2))) == pytest.approx(2.0, abs=4e-6)
    assert float(total_variation(patch, form="squared")) == 2.0


def test_a_flat_patch_has_no_variation_and_a_finite_gradient():
    patch = torch.full((3, 9, 9), 0.4, requires_grad=True)
    value = total_variation(patch)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-10)
    assert torch.equal(patch.grad, torch.zeros_like(patch))


def test_gradients_agree_with_finite_differences():
    patch = picture(1, 3, 4, 5).requires_grad_()
    colours = picture(2, 1, 7, 3)[0]
    assert torch.autograd.gradcheck(total_variation, patch)
    assert torch.autograd.gradcheck(lambda p: total_variation(p, form="squared", mean=True), patch)
    assert torch.autograd.gradcheck(lambda p: non_printability(p, colours), patch)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), p=st.integers(1, 6), q=st.integers(1, 6), colours=st.integers(1, 40))
def test_non_printability_is_the_distance_to_the_nearest_colour(seed, p, q, colours):
    patch, inks = picture(seed, 3, p, q), picture(seed + 1, 1, colours, 3)[0]
    exact = sum(
        min(np.linalg.norm(patch[:, i, j].numpy() - ink) for ink in inks.numpy()) for i in range(p) for j in range(q)
    )
    assert exact - 1e-6 * p * q - 1e-12 <= float(non_printability(patch, inks)) <= exact + 1e-12
    assert float(non_printability(patch, inks, mean=True)) == pytest.approx(exact / (p * q), abs=1e-6)


def test_chunks_do_not_change_the_value(monkeypatch):
    patch, inks = picture(3, 3, 11, 13), picture(4, 1, 9, 3)[0]
    whole = non_printability(patch, inks)
    monkeypatch.setattr("probes.losses._CHUNK", 20)
    assert torch.equal(non_printability(patch, inks), whole)


def test_a_printable_patch_scores_nothing_and_keeps_still():
    inks = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.4, 0.6]])
    patch = inks[1][:, None, None].expand(3, 4, 4).clone().requires_grad_()
    value = non_printability(patch, inks)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-10)
    assert not patch.grad.any()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: total_variation(torch.zeros(4, 4)),
        lambda: total_variation(torch.zeros(3, 0, 4)),
        lambda: total_variation(torch.zeros(3, 4, 4), form="cubed"),
        lambda: non_printability(torch.zeros(1, 4, 4), torch.zeros(2, 3)),
        lambda: non_printability(torch.zeros(3, 4, 4), torch.zeros(0, 3)),
        lambda: non_printability(torch.zeros(3, 4, 4), torch.zeros(3, 2)),
    ],
    ids=["flat", "empty", "form", "grey", "no-colour", "two-channels"],
)
def test_a_wrong_shape_is_named(ask):
    with pytest.raises(AuditError, match="expected"):
        ask()
