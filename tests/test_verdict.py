from hypothesis import given
from hypothesis import strategies as st

from audit.record import Control, Diagnostic, Limit, Measure, summarise, worst
from audit.verdict import decide

share = st.floats(0, 1)


def number(value, low, high):
    return Measure(name="recall kept", k=1, n=10, value=value, low=low, high=high, method="test")


def limit(op, value):
    return Limit(op=op, value=value, rationale="test")


RAISED = Diagnostic(name="gradient", value=0.0, limit=0.1, raised=True, meaning="The gradient is zero.")


@given(st.lists(share, min_size=3, max_size=3).map(sorted), share, st.sampled_from(["min", "max"]))
def test_interval_rule_is_what_the_intervals_position_says(numbers, bound, op):
    low, value, high = numbers
    verdict, reason = decide(number(value, low, high), limit(op, bound))
    good = low >= bound if op == "min" else high <= bound
    bad = high < bound if op == "min" else low > bound
    assert verdict == ("pass" if good else "fail" if bad else "inconclusive")
    assert f"{bound:.3f}" in reason


@given(st.lists(share, min_size=3, max_size=3).map(sorted), share, st.sampled_from(["min", "max"]))
def test_point_rule_looks_at_the_value_alone(numbers, bound, op):
    low, value, high = numbers
    verdict, _ = decide(number(value, low, high), limit(op, bound), rule="point")
    assert verdict == ("pass" if (value >= bound if op == "min" else value <= bound) else "fail")


@given(st.lists(share, min_size=3, max_size=3).map(sorted), share, st.sampled_from(["min", "max"]))
def test_a_raised_diagnostic_never_leaves_a_pass_and_never_helps(numbers, bound, op):
    low, value, high = numbers
    without, _ = decide(number(value, low, high), limit(op, bound))
    verdict, reason = decide(number(value, low, high), limit(op, bound), [RAISED])
    assert verdict == ("inconclusive" if without == "pass" else without)
    assert without != "pass" or "gradient is zero" in reason


def test_nothing_measured_is_never_a_pass():
    empty = Measure(name="recall kept", k=0, n=0, value=None, method="test")
    assert decide(empty, limit("min", 0.0))[0] == "inconclusive"
    assert decide(None, limit("min", 0.0))[0] == "inconclusive"
    assert decide(number(1.0, 1.0, 1.0), None)[0] == "inconclusive"


def row(verdict):
    return Control(id=verdict, title="t", goal="g", failure="f", task="detector", verdict=verdict, reason="r")


def test_the_run_is_its_worst_control():
    assert worst([row("pass"), row("fail")], complete=True) == "fail"
    assert worst([row("pass"), row("error")], complete=True) == "inconclusive"
    assert worst([row("pass"), row("inconclusive")], complete=True) == "inconclusive"
    assert worst([row("pass"), row("not_applicable")], complete=True) == "pass"
    assert worst([row("pass"), row("waived")], complete=True) == "pass"
    assert worst([row("pass")], complete=False) == "inconclusive"
    assert worst([row("fail")], complete=False) == "fail"
    assert worst([], complete=True) == "inconclusive"
    assert worst([row("not_applicable")], complete=True) == "inconclusive"


def test_every_verdict_is_counted():
    counts = summarise([row("pass"), row("pass"), row("fail")])
    assert counts["pass"] == 2
    assert counts["fail"] == 1
    assert counts["not_run"] == 0
