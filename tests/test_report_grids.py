"""Grids in the report: every number, readable by eye, by ear and on paper; and what is said of a print beside it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import record as r
from reports import grids, html
from tests import sample_record
from tests.page import numbers, parse
from tests.test_report_access import contrast, variables

MODELS = ["ssd", "retinanet", "the audited model"]


def transfer(**more):
    return r.Grid(
        **{
            "title": "Transfer of patches",
            "row_label": "Patch made on",
            "column_label": "Recall kept by",
            "rows": MODELS,
            "columns": MODELS,
            "values": [[0.05, 0.41, 0.62], [0.38, 0.0, None], [0.0002, 0.9, 1.0]],
            "marks": [(0, 0), (1, 1), (2, 2)],
            "mark_label": "the model that the patch was made on",
            "note": "Share of the objects found clean that is still found.",
            **more,
        }
    )


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """The page of one control with those grids, and with more details."""
    folder = tmp_path_factory.mktemp("report")
    report = sample_record.build(folder)
    control = next(c for c in report.controls if c.id == "DET-PATCH-WB")

    def render(*of, details=None):
        changed = control.model_copy(update={"grids": list(of), "details": {**control.details, **(details or {})}})
        return html.render(report.model_copy(update={"controls": [changed]}), folder)

    return render


def tables(page):
    return [t for t in page.all("table") if t.has_class("grid-table")]


def test_a_grid_is_a_table_with_a_name_for_every_row_and_column(page_of):
    page = parse(page_of(transfer()))
    (table,) = tables(page)
    assert table.one("caption").text == (
        "Higher is better. ◆ marks the model that the patch was made on. – means not measured"
    )
    first, second = table.one("thead").all("tr")
    assert [(h.text, h.attrs["scope"]) for h in first.all("th")] == [
        ("Patch made on", "col"),
        ("Recall kept by", "colgroup"),
    ]
    assert first.all("th")[0].attrs["rowspan"] == "2"
    assert first.all("th")[1].attrs["colspan"] == "3"
    assert [(h.text, h.attrs["scope"]) for h in second.all("th")] == [(m, "col") for m in MODELS]
    rows = table.one("tbody").all("tr")
    assert [(row.one("th").text, row.one("th").attrs["scope"]) for row in rows] == [(m, "row") for m in MODELS]
    assert [[c.text for c in row.all("td")] for row in rows] == [
        ["◆ 0.050", "0.410", "0.620"],
        ["0.380", "◆ 0.000", "–"],
        ["< 0.001", "0.900", "◆ 1.000"],
    ]
    assert "Transfer of patches" in [h.text for h in page.all("h4")]
    assert "Share of the objects found clean that is still found." in page.text


def test_shade_goes_with_the_number_and_no_shade_without_one(page_of):
    (table,) = tables(parse(page_of(transfer())))
    shades = [re.findall(r"\bt(\d)\b", c.attrs["class"]) for c in table.all("td")]
    assert shades == [["0"], ["2"], ["3"], ["2"], ["0"], [], ["0"], ["5"], ["5"]]


def test_wide_grids_scroll_in_a_box_of_their_own_and_shrink_on_paper(page_of):
    text = page_of(transfer(columns=[f"c{i}" for i in range(40)], values=[[0.5] * 40] * 3, marks=[]))
    page = parse(text)
    boxes = [n for n in page.with_class("scroll") if any(t.has_class("grid-table") for t in n.all("table"))]
    assert len(boxes) == 1
    css = "".join(page.one("style").children)
    paper = css.partition("@media print")[2]
    assert re.search(r"\.grid-table \{[^}]*table-layout: fixed; width: 100%", paper)
    assert "print-color-adjust: exact" in paper


def test_ink_is_readable_on_every_shade(page_of):
    css = "".join(parse(page_of(transfer())).one("style").children)
    shades = re.findall(r"\.t(\d) \{ background: (#[0-9a-f]{6}); \}", css)
    assert [int(i) for i, _ in shades] == list(range(grids.LEVELS))
    colours = variables(css)
    assert all(contrast(colours["ink"], shade) >= 4.5 for _, shade in shades)
    # each shade is darker than the one before, so that the order also survives grey print
    lightness = [contrast(shade, "#000000") for _, shade in shades]
    assert lightness == sorted(lightness, reverse=True)
    assert all(a / b > 1.05 for a, b in pairwise(lightness))


def test_another_unit_is_shaded_over_its_own_range(page_of):
    grid = transfer(
        unit="mm", higher_is_better=False, values=[[-20.0, 0.25, 100.0], [40.0, 60.0, 80.0]], rows=["a", "b"], marks=[]
    )
    page = parse(page_of(grid))
    (table,) = tables(page)
    assert table.one("caption").text == "Lower is better; in mm"
    assert [c.text for c in table.all("td")] == ["−20.0", "0.2", "100.0", "40.0", "60.0", "80.0"]
    assert [c.attrs["class"] for c in table.all("td")] == [f"num t{i}" for i in (0, 1, 5, 3, 4, 5)]
    (legend,) = page.with_class("shades")
    assert [s.text for s in legend.all("span")] == [
        "−20 to 0", "0 to 20", "20 to 40", "40 to 60", "60 to 80", "80 to 100",
    ]  # fmt: skip


def test_no_scale_where_all_is_alike_or_nothing_is_known(page_of):
    alike = transfer(unit="score", values=[[3.0] * 3] * 3, marks=[])
    empty = transfer(values=[[None] * 3] * 3, marks=[])
    none = transfer(rows=[], columns=[], values=[], marks=[])
    page = parse(page_of(alike, empty, none))
    first, second, third = tables(page)
    assert {c.text for c in first.all("td")} == {"3"}
    assert {c.text for c in second.all("td")} == {"–"}
    assert third.all("td") == []
    assert page.with_class("shades") == []
    assert not any(re.search(r"\bt\d\b", c.attrs["class"]) for t in (first, second) for c in t.all("td"))


def test_names_of_strangers_stay_text(page_of):
    bad = sample_record.HOSTILE
    text = page_of(
        transfer(
            title=bad, row_label=bad, column_label=bad, rows=[bad] * 3, columns=[bad] * 3, note=bad, mark_label=bad
        ),
    )
    page = parse(text)
    assert page.all("script") == []
    assert "\u202e" not in text
    assert "49gpj" not in text
    # no style of its own: the page's policy knows one style sheet only
    assert all("style" not in n.attrs for t in tables(page) for n in t.walk())


cell = st.none() | st.floats(0, 1) | st.floats(-1e7, 1e7)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(cell, max_size=4), max_size=4),
    names=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    marks=st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 5)), max_size=3),
    unit=st.sampled_from(["share", "mm"]),
)
def test_no_number_is_lost_or_invented(values, names, marks, unit):
    """Also where a record's rows are of different length, or its names do not fit."""
    grid = transfer(
        rows=[f"r{i}" for i in range(names[0])],
        columns=[f"c{i}" for i in range(names[1])],
        values=values,
        marks=marks,
        unit=unit,
    )
    table = grids.grid_table(grid)
    assert all(len(cells) == len(table.columns) for _, cells in table.rows)
    assert len(table.rows) == max(len(values), names[0])
    known = [(i, j, v) for i, row in enumerate(values) for j, v in enumerate(row) if v is not None]
    shown = {(i, j): c for i, (_, row) in enumerate(table.rows) for j, c in enumerate(row) if c.text != grids.NOTHING}
    assert set(shown) == {(i, j) for i, j, _ in known}
    for i, j, v in known:
        (text,) = numbers(shown[i, j].text)
        biggest = max(abs(x) for _, _, x in known)
        assert abs(text - v) <= max(0.00101, 0.006 * abs(v), 0.00051 * biggest), (shown[i, j].text, v)
    assert {(i, j) for i, (_, row) in enumerate(table.rows) for j, c in enumerate(row) if c.marked} <= set(marks)
    by_value = sorted((v, shown[i, j].level) for i, j, v in known if shown[i, j].level is not None)
    assert [s for _, s in by_value] == sorted(s for _, s in by_value), "a larger number is never lighter"


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"print_mm": 87.0}, "Print size 87 mm wide, shown at that size when printed at 100 % (128 × 128 px)."),
        (
            {"print_cm": [120.0, 54.19], "print_dpi": 59.055, "queries": 20000},
            (
                "Print size 120 × 54.19 cm at 59.1 dots per inch, shown at 150 mm (128 × 128 px). "
                "Found with 20 000 queries of the model."
            ),
        ),
        ({"print_cm": 9, "queries": 1}, "Print size 9 cm wide, shown at that size"),
        ({"print_cm": [-3, "x"], "print_mm": None, "queries": True}, "Shown 80 mm wide; no print size recorded"),
        ({"print_cm": [1, 2, 3], "print_mm": 10, "print_dpi": "many"}, "Print size 10 mm wide, shown at that size"),
    ],
)
def test_a_print_is_described_in_words(page_of, details, words):
    page = parse(page_of(details=details))
    captions = [f.text.replace("\u202f", " ") for f in page.all("figcaption")]
    (said,) = [c for c in captions if words in c]
    assert ("Found with" in said) == (type(details.get("queries")) is int)
    assert "1 queries" not in said
