"""Log-odds against sixty-digit arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audit.adapters import logodds

NUMBER = st.floats(-80, 80, width=32)


def close(found: float, exact: Decimal) -> bool:
    return math.isclose(found, float(exact), rel_tol=2e-6, abs_tol=2e-5)


def product(a: float, b: float) -> Decimal:
    return 1 / ((1 + (-Decimal(a)).exp()) * (1 + (-Decimal(b)).exp()))


def odds(p: Decimal) -> Decimal:
    return (p / (1 - p)).ln()


@given(st.lists(NUMBER, min_size=2, max_size=7))
def test_softmax(logits):
    found = logodds.from_softmax(torch.tensor(logits))
    with localcontext() as context:
        context.prec = 200
        powers = [Decimal(x).exp() for x in logits]
        for i, own in enumerate(powers):
            assert close(float(found[i]), (own / (sum(powers) - own)).ln())


@given(NUMBER, NUMBER)
def test_product(a, b):
    with localcontext() as context:
        context.prec = 200
        assert close(float(logodds.from_product(torch.tensor(a), torch.tensor(b))), odds(product(a, b)))


@given(NUMBER, NUMBER)
def test_root_product(a, b):
    with localcontext() as context:
        context.prec = 200
        assert close(float(logodds.from_root_product(torch.tensor(a), torch.tensor(b))), odds(product(a, b).sqrt()))


@given(st.floats(-80, -(2.0**-100), width=32))
def test_log_probability(log_p):
    with localcontext() as context:
        context.prec = 200
        assert close(float(logodds.from_log_probability(torch.tensor(log_p))), odds(Decimal(log_p).exp()))


@given(st.floats(2.0**-90, 1 - 2.0**-24, width=32))
def test_probability(p):
    with localcontext() as context:
        context.prec = 200
        assert close(float(logodds.from_probability(torch.tensor(p))), odds(Decimal(p)))


def test_a_probability_that_saturated_stays_finite():
    found = logodds.from_probability(torch.tensor([0.0, 1.0]))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found[0] < -60
    assert found[1] > 16


def test_along_any_dimension():
    x = torch.randn((2, 5, 3), generator=torch.Generator().manual_seed(0))
    along = logodds.from_softmax(x, dim=1)
    torch.testing.assert_close(along, logodds.from_softmax(x.transpose(1, 2)).transpose(1, 2))


def test_a_tie_for_the_best_is_even_odds():
    torch.testing.assert_close(logodds.from_softmax(torch.full((3,), 7.0)), torch.full((3,), -math.log(2)))
    torch.testing.assert_close(logodds.from_softmax(torch.tensor([50.0, 50.0, -50.0]))[:2], torch.zeros(2))


@pytest.mark.parametrize(
    "function",
    [
        logodds.from_softmax,
        lambda x: logodds.from_softmax(x[:, :2]),
        lambda x: logodds.from_product(x[:, :1], x[:, 1:]),
        lambda x: logodds.from_root_product(x[:, :1], x[:, 1:]),
        lambda x: logodds.from_log_probability(-x.exp()),
    ],
    ids=["softmax", "softmax of two", "product", "root product", "log probability"],
)
def test_gradients_are_those_of_the_values(function):
    x = torch.randn((6, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    assert torch.autograd.gradcheck(function, x.requires_grad_())


@pytest.mark.parametrize("size", [30.0, 60.0, 300.0])
def test_a_gradient_is_left_where_the_probability_is_one(size):
    x = torch.tensor([size, -size, -size], requires_grad=True)
    assert float(torch.softmax(x.detach(), 0)[0]) == 1
    (gradient,) = torch.autograd.grad(logodds.from_softmax(x)[0], x)
    torch.testing.assert_close(gradient, torch.tensor([1.0, -0.5, -0.5]))


@pytest.mark.parametrize("size", [30.0, 60.0, 80.0])
@pytest.mark.parametrize("function", [logodds.from_product, logodds.from_root_product])
def test_a_gradient_is_left_where_the_product_is_one(function, size):
    a = torch.tensor([size, size], requires_grad=True)
    (gradient,) = torch.autograd.grad(function(a[0], a[1]), a)
    torch.testing.assert_close(gradient, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("function", [logodds.from_product, logodds.from_root_product])
def test_beyond_every_float_it_stays_finite(function):
    a = torch.tensor([300.0, 300.0, -300.0], requires_grad=True)
    found = function(a, a.detach())
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found.isfinite().all()
    assert gradient.isfinite().all()
    assert found[0] > 80
    assert found[2] < -200
