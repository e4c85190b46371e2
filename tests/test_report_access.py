"""Accessibility, as far as a machine can check it: contrast, headings, names, tables, links that lead somewhere."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from audit import record as r
from reports import html
from tests import sample_record
from tests.page import Node, parse


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Node:
    folder = tmp_path_factory.mktemp("report")
    return parse(html.render(sample_record.build(folder, indicative=True), folder))


@pytest.fixture(scope="module")
def css(page) -> str:
    return "".join(page.one("style").children)


def luminance(colour: str) -> float:
    """WCAG 2.2 relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def variables(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css.partition("}")[0]))


def test_contrast_function_knows_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_colours_have_contrast_on_every_ground(css):
    colours = variables(css)
    grounds = [v for k, v in colours.items() if k.endswith("-tint") or k in {"paper", "faint", "good"}]
    assert len(grounds) == 7 + 3
    for name in ("ink", "soft", "link"):
        for ground in grounds:
            assert contrast(colours[name], ground) >= 4.5, (name, ground)
    for verdict in r.ORDER:
        assert contrast(colours[verdict], colours["paper"]) >= 4.5
        for other in r.ORDER:
            assert contrast(colours[verdict], colours[f"{other}-tint"]) >= 4.5, (verdict, other)
    assert contrast(colours["inconclusive"], colours["paper"]) >= 4.5


def test_series_colours_are_readable_as_text_and_as_lines(css):
    series = re.findall(r"\.s\d \{ --tone: (#[0-9a-f]{6})", css)
    assert len(series) == 6
    assert all(contrast(c, "#ffffff") >= 4.5 for c in series)


def test_no_text_colour_escapes_the_checked_ones(css):
    """Every ``color`` and SVG text ``fill`` is a checked variable or inherited."""
    for value in re.findall(r"(?<![-\w])color: ([^;}]+)", css.partition("@page")[0]):
        assert re.fullmatch(r"var\(--(ink|soft|link|tone|fail|inconclusive|waived)\)|inherit|currentColor", value), (
            value
        )


def test_language_title_and_landmarks(page):
    assert page.one("html").attrs["lang"] == "en"
    assert "FAIL" in page.one("head").one("title").children[0]
    for tag in ("main", "nav", "h1"):
        page.one(tag)
    assert page.one("nav").attrs["aria-label"]


def test_headings_never_skip_a_level(page):
    levels = [int(n.tag[1]) for n in page.walk() if re.fullmatch(r"h[1-6]", n.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_tables_have_captions_and_scoped_heads(page):
    for table in page.all("table"):
        if table.attrs.get("class") != "inner":  # a table inside a list of facts is named by its term
            (caption,) = table.all("caption")
            assert caption.text
        for th in table.all("th"):
            assert th.attrs.get("scope") in {"col", "row", "rowgroup"}
        widths = {
            sum(int(c.attrs.get("colspan", "1")) for c in row.children if isinstance(c, Node))
            for row in table.all("tr")
        }
        assert len(widths) == 1, table.text[:80]


def test_pictures_have_a_text(page):
    for img in page.all("img"):
        assert img.attrs["alt"].strip()
    for svg in page.all("svg"):
        assert svg.attrs.get("aria-hidden") == "true" or (svg.attrs["role"] == "img" and svg.all("title"))


def test_symbols_are_never_alone(page):
    """A verdict is a word too: symbols are hidden from readers that speak, or carry a label."""
    for node in page.with_class("symbol"):
        assert node.attrs.get("aria-hidden") == "true"
    for node in page.with_class("cell"):
        assert node.attrs.get("aria-hidden") == "true" or node.attrs["aria-label"]


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [n.attrs["id"] for n in page.walk() if "id" in n.attrs]
    assert len(ids) == len(set(ids))
    for node in page.walk():
        if node.attrs.get("href", "").startswith("#"):
            assert node.attrs["href"][1:] in ids
            assert node.text or node.tag != "a"
        if "aria-labelledby" in node.attrs:
            assert node.attrs["aria-labelledby"] in ids


def test_print_rules_keep_figures_whole(css):
    rules = css.partition("@media print")[2]
    assert "break-inside: avoid" in rules
    assert "break-after: avoid" in rules
    assert "print-color-adjust: exact" in rules
