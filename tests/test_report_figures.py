"""Figures: what is drawn stands where its axis says, and each figure tells its numbers."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import record as r
from reports import axes, curves, figures, html, words
from tests import sample_record
from tests.page import Node, close_to_one, numbers, parse

share = st.floats(0, 1, allow_nan=False)
anything = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3))


def draw(macro: str, *args: object) -> Node:
    env = html._environment()
    return parse(str(getattr(env.get_template("figures.jinja").make_module(), macro)(*args))).all("svg")[0]


def scale(svg: Node, axis: str = "x") -> tuple[float, float]:
    """(slope, intercept) of value over px, from the tick labels as a reader sees them, heights from the grid."""
    ticks = [t for t in svg.all("text", class_="tick") if (t.attrs["text-anchor"] == "middle") == (axis == "x")]
    px = [float(t.attrs["x"]) for t in ticks]
    if axis == "y":
        px = [path_start(g)[1] for g in svg.all("path", class_="grid")]
    value = [numbers(t.text)[0] for t in ticks]
    slope = (value[-1] - value[0]) / (px[-1] - px[0])
    return slope, value[0] - slope * px[0]


def path_start(node: Node) -> tuple[float, float]:
    x, y = re.match(r"M(-?[\d.]+)[ ,](-?[\d.]+)", node.attrs["d"]).groups()
    return float(x), float(y)


@settings(max_examples=60, deadline=None)
@given(value=share, spread=st.tuples(share, share), limit=share, op=st.sampled_from(["min", "max"]))
def test_strip_stands_where_its_ticks_say(value, spread, limit, op):
    low, high = value * spread[0], value + (1 - value) * spread[1]
    svg = draw(
        "strip",
        figures.strip(r.Measure(name="m", value=value, low=low, high=high), r.Limit(op=op, value=limit, rationale="")),
        "pass",
    )
    slope, start = scale(svg)
    px_tolerance = 0.02 * abs(slope)

    def there(x):
        return slope * x + start

    (point,) = svg.all("path", class_="point")
    assert there(path_start(point)[0]) == pytest.approx(value, abs=px_tolerance)
    (line,) = svg.all("path", class_="limit")
    assert there(path_start(line)[0]) == pytest.approx(limit, abs=px_tolerance)
    caps = sorted(there(path_start(c)[0]) for c in svg.all("path", class_="cap"))
    if caps:
        assert caps == pytest.approx(sorted([low, high]), abs=px_tolerance)
    (good,) = svg.all("rect", class_="good")
    edges = sorted(there(float(good.attrs["x"]) + w) for w in (0, float(good.attrs["width"])))
    assert edges == pytest.approx(sorted([limit, 1.0 if op == "min" else 0.0]), abs=2 * px_tolerance)


@settings(max_examples=60, deadline=None)
@given(value=share, low=share, high=share, limit=share)
def test_value_label_is_inside_and_off_the_limit(value, low, high, limit):
    low, value, high = sorted([low, value, high])
    s = figures.strip(
        r.Measure(name="m", value=value, low=low, high=high), r.Limit(op="min", value=limit, rationale="")
    )
    assert s.label is not None
    length = 8.2 * len(s.value_text)
    left = s.label.x - {"start": 0, "middle": 0.5, "end": 1}[s.label.anchor] * length
    assert left >= 0
    assert left + length <= s.width
    assert not left < s.limit < left + length


def test_shares_are_never_magnified_and_units_have_their_own_axis():
    near = figures.strip(
        r.Measure(name="m", value=0.98, low=0.97, high=0.99), r.Limit(op="min", value=0.97, rationale="")
    )
    assert (near.axis.low, near.axis.high) == (0.0, 1.0)
    far = figures.strip(r.Measure(name="m", unit="px", value=31.5, low=20, high=55), None)
    assert far.axis.low <= 20
    assert 55 <= far.axis.high <= 80


@given(st.lists(anything, min_size=1, max_size=8))
def test_axis_holds_its_values_and_has_round_ticks(values):
    ax = axes.axis(values, 10, 500)
    assert ax.low <= min(values) + 1e-9 * abs(ax.low)
    assert ax.high >= max(values) - 1e-9 * abs(ax.high)
    assert 2 <= len(ax.ticks) <= 7
    assert ax.ticks[0].at == 10
    assert ax.ticks[-1].at == 500
    gaps = [b.at - a.at for a, b in pairwise(ax.ticks)]
    assert max(gaps) - min(gaps) <= 0.021
    labels = [t.text for t in ax.ticks]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("values", [[], [None], [5.0], [0.0], [1e-9, 2e-9], [-3.0, -3.0], [1e7, 3e7]])
def test_axis_of_few_or_odd_values(values):
    ax = axes.axis(values, 0, 100)
    assert ax.low < ax.high
    assert len(ax.ticks) >= 2


# --- curves ------------------------------------------------------------------------------------------------------


def _curve(**more):
    xs = [-2.0, -1.0, 0.0, 1.0, 2.5]
    series = [
        r.Series(name="a", x=xs, y=[0.9, 0.8, None, 0.3, 0.1]),
        r.Series(name="b", x=xs, y=[1.0, 0.95, 0.9, 0.6, 0.55]),
    ]
    return r.Curve(title="T", x_label="threshold", y_label="F", series=series, **more)


def test_curve_points_stand_where_the_ticks_say_and_gaps_are_gaps():
    curve = _curve(mark_x=0.5, mark_label="owner's threshold")
    svg = draw("plot", curves.plot(curve), curve)
    (mx, bx), (my, by) = scale(svg), scale(svg, "y")
    for series, group in zip(curve.series, svg.all("g"), strict=True):
        (line,) = group.all("path", class_="line")
        runs = [run for run in line.attrs["d"].split("M") if run]
        drawn = [[tuple(map(float, p.split())) for p in run.split("L")] for run in runs]
        assert len(drawn) == (2 if None in series.y else 1)
        points = [(mx * x + bx, my * y + by) for run in drawn for x, y in run]
        expected = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
        for (x, y), (ex, ey) in zip(points, expected, strict=True):
            assert x == pytest.approx(ex, abs=0.02)
            assert y == pytest.approx(ey, abs=0.002)
    (mark,) = svg.all("path", class_="limit")
    assert mx * path_start(mark)[0] + bx == pytest.approx(0.5, abs=0.02)
    assert "owner's threshold" in svg.text


def test_series_differ_by_dash_and_shape_and_are_labelled_at_the_end():
    series = [r.Series(name=f"series {i}", x=[0.0, 1.0], y=[0.5, 0.001 * i]) for i in range(9)]
    curve = r.Curve(title="T", x_label="x", y_label="y", series=series)
    p = curves.plot(curve)
    assert len({(ln.style, ln.dash) for ln in p.lines}) == 9
    assert len({(ln.style, ln.shape) for ln in p.lines}) == 9
    assert len({ln.dash for ln in p.lines[:6]}) == len({ln.shape for ln in p.lines[:6]}) == 6
    heights = sorted(ln.label_y for ln in p.lines)
    assert all(b - a >= 16.99 for a, b in pairwise(heights))
    assert heights[0] >= 0
    assert heights[-1] <= p.height
    svg = draw("plot", p, curve)
    assert [t.text for t in svg.all("text", class_="end")] == [s.name for s in series]


def test_curve_table_keeps_first_last_and_the_point_nearest_the_mark():
    xs = [i / 10 for i in range(100)]
    curve = r.Curve(
        title="T", x_label="x", y_label="y", series=[r.Series(name="a", x=xs, y=[x * x for x in xs])], mark_x=3.34
    )
    table = curves.curve_table(curve)
    shown = dict(table.rows)
    assert {0.0, 9.9, 3.3} <= set(shown)
    assert len(shown) <= 12
    assert table.points == 100
    assert all(y == x * x for x, y in shown.items())


def test_curve_table_of_series_with_their_own_x():
    curve = r.Curve(
        title="T",
        x_label="x",
        y_label="y",
        series=[r.Series(name="a", x=[1, 2], y=[3, 4]), r.Series(name="b", x=[5, 6, 7], y=[8, 9, None])],
    )
    table = curves.curve_table(curve)
    assert table.heads == ("x", "a", "x", "b")
    assert table.rows == ((1, 3, 5, 8), (2, 4, 6, 9), (None, None, 7, None))
    assert table.x_columns == (0, 2)


# --- titles ------------------------------------------------------------------------------------------------------


def test_every_figure_of_the_page_tells_its_numbers(tmp_path):
    report = sample_record.build(tmp_path)
    page = parse(html.render(report, tmp_path))
    for svg in page.all("svg"):
        if svg.attrs.get("aria-hidden") == "true":
            continue
        assert svg.attrs["role"] == "img"
        assert svg.children[1].tag == "title" or svg.children[0].tag == "title"
    ordered = words.worst_first(report.controls)
    for i, c in enumerate(ordered, 1):
        titles = ["".join(t.children) for t in page.by_id(f"control-{i}").all("title")]
        if c.measure:
            seen = numbers(titles[0])
            for v in (c.measure.value, c.measure.low, c.measure.high, c.limit.value, c.measure.k, c.measure.n):
                assert close_to_one(v, seen), (c.id, v, titles[0])
        for condition in c.conditions:
            (title,) = [t for t in titles if t.startswith(words.visible(condition.name) + ":")]
            for v in (condition.value, condition.low, condition.high, condition.k, condition.n):
                assert v is None or close_to_one(v, numbers(title))
        for curve in c.curves:
            (title,) = [t for t in titles if t.startswith(curve.title)]
            for s in curve.series:
                ys = [y for y in s.y if y is not None]
                assert s.name in title
                assert close_to_one(max(ys), numbers(title))
                assert close_to_one(min(ys), numbers(title))


# --- words -------------------------------------------------------------------------------------------------------


@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_number_says_the_value_to_three_digits(value):
    (said,) = numbers(words.number(value))
    assert said == pytest.approx(value, rel=0.006, abs=0.0005001 if abs(value) >= 0.001 else 1e-300)


@given(share, share)
def test_a_value_never_reads_like_the_limit_it_misses(value, limit):
    if abs(value - limit) > 1e-6:
        assert words.beside(value, limit) != words.number(limit)


def test_words_of_the_unknown():
    assert words.number(None) == words.small_share(None) == words.seconds(None) == words.short(None) == "—"
    assert words.interval(None, None) == ""
    assert words.interval(0.2, None) == "[0.200, —]"
    assert words.count(None, 5) == "5"
    assert words.count(3, 5) == "3 of 5"
    assert words.number(True) == "yes"
    assert [words.seconds(s) for s in (3.44, 412.7, 4320)] == ["3.4 s", "6 min 53 s", "1 h 12 min"]
    assert words.small_share(0.0001) == "< 0.001"


@pytest.mark.parametrize("bad", ["\u202e", "\u2066", "\u200b", "\x1b", "\0", "\x9b", "\ufeff", "\u2028"])
def test_deceptive_characters_become_visible(bad):
    assert words.visible(f"a{bad}b") == f"a\\u{ord(bad):04x}b"


@pytest.mark.parametrize("good", ["Ångström α ≥ 5", "顔", "👩\u200d🚀", "line\nline\ttab"])
def test_ordinary_text_of_any_language_stays(good):
    assert words.visible(good) == good
