"""The extreme of several rates, with an interval for the extreme of the true ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.measures.intervals import Resampling, clopper_pearson
from audit.measures.rates import extreme, stricter

R = Resampling(seed=0)
counts = st.lists(st.tuples(st.integers(0, 20), st.integers(20, 40)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(counts, st.booleans())
def test_its_ends_are_those_of_the_rule(rows, highest):
    level = stricter(R, len(rows)).level
    assert level == pytest.approx(1 - 0.05 / len(rows))
    rates = {f"{i}": clopper_pearson(k, n) for i, (k, n) in enumerate(rows)}
    again = {f"{i}": clopper_pearson(k, n, level) for i, (k, n) in enumerate(rows)}
    e = extreme(rates, again, highest=highest)
    shares = [k / n for k, n in rows]
    if highest:
        assert e.value == max(shares)
        assert e.high == max(r.high for r in rates.values())
        assert e.low == pytest.approx(min(max(r.low for r in again.values()), e.value))
    else:
        assert e.value == min(shares)
        assert e.low == min(r.low for r in rates.values())
        assert e.high == pytest.approx(max(min(r.high for r in again.values()), e.value))
    # the same rates turned round give the same turned round
    turned = {n: clopper_pearson(r.n - r.k, r.n) for n, r in rates.items()}
    back = {n: clopper_pearson(r.n - r.k, r.n, level) for n, r in rates.items()}
    other = extreme(turned, back, highest=not highest)
    assert (1 - other.value, 1 - other.high, 1 - other.low) == pytest.approx((e.value, e.low, e.high))


def test_nothing_counted_is_nothing():
    none = {"a": clopper_pearson(0, 0)}
    e = extreme(none, none, highest=True)
    assert (e.value, e.n, e.low) == (None, 0, None)


@pytest.mark.parametrize("highest", [True, False])
def test_the_true_extreme_is_in_it_as_often_as_it_says(highest):
    rng = np.random.default_rng(0)
    true = np.array([0.3, 0.3, 0.32, 0.2]) if highest else np.array([0.7, 0.7, 0.68, 0.8])
    wanted, held = (true.max() if highest else true.min()), 0
    for _ in range(400):
        k = rng.binomial(60, true)
        rates = {str(i): clopper_pearson(int(x), 60) for i, x in enumerate(k)}
        again = {str(i): clopper_pearson(int(x), 60, stricter(R, 4).level) for i, x in enumerate(k)}
        e = extreme(rates, again, highest=highest)
        held += e.low <= wanted <= e.high
    assert held / 400 >= 0.95
