"""The page as a text: every control and every number of the record is in it, in order, under the right heading."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit import record as r
from reports import html
from tests import sample_record
from tests.page import Node, close_to_one, numbers, parse
from tests.sample_record import WORST_FIRST


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def report(folder) -> r.Report:
    return sample_record.build(folder)


@pytest.fixture(scope="module")
def page(report, folder) -> Node:
    return parse(html.render(report, folder))


def article(page: Node, id: str) -> Node:
    return page.by_id(f"control-{WORST_FIRST.index(id) + 1}")


# --- completeness ------------------------------------------------------------------------------------------------


def test_controls_come_worst_first_everywhere(page):
    rows = page.one("table", class_="controls").all("tr")[1:]
    assert [row.one("th").one("code").text for row in rows] == WORST_FIRST
    assert [a.one("header").all("code")[0].text for a in page.all("article")] == WORST_FIRST
    assert [n.text for n in page.one("table", class_="matrix").with_class("turned")] == WORST_FIRST


def test_summary_table_says_verdict_measured_limit_and_n(page, report):
    rows = dict(zip(WORST_FIRST, page.one("table", class_="controls").all("tr")[1:], strict=True))
    for control in report.controls:
        row = rows[control.id]
        assert control.goal in row.text
        assert html.words.BADGES[control.verdict].word in row.text
        assert html.words.BADGES[control.verdict].symbol in row.text
        if control.measure:
            cells = row.all("td")
            seen = numbers(cells[1].text)
            for value in (control.measure.value, control.measure.low, control.measure.high):
                assert close_to_one(value, seen)
            assert close_to_one(control.limit.value, numbers(cells[3].text))
            assert cells[4].text == str(control.measure.n)
        else:
            assert control.reason in row.text


def test_every_number_of_a_control_stands_in_its_section(page, report):
    for control in report.controls:
        section = article(page, control.id)
        assert control.reason in section.text
        rows = {}
        for row in section.all("tr"):
            heads = row.all("th", scope="row")
            if heads:
                rows.setdefault(heads[0].text, row)
        if control.measure:
            (key,) = section.with_class("key")
            seen = numbers(key.text)
            for value in (control.measure.k, control.measure.n, control.measure.value, control.limit.value):
                assert close_to_one(value, seen), (control.id, value)
            assert control.measure.method in key.text
            assert control.limit.rationale in section.text
            assert f"{control.seed}" in section.text
        for c in control.conditions:
            seen = numbers(
                rows[c.name].all("td")[1].text + rows[c.name].all("td")[2].text + rows[c.name].all("td")[3].text
            )
            for value in (c.k, c.n, c.value, c.low, c.high):
                assert value is None or close_to_one(value, seen), (c.name, value)
        for d in control.diagnostics:
            seen = numbers(rows[d.name].text)
            assert close_to_one(d.value, seen)
            assert close_to_one(d.limit, seen)
            assert ("raised" in rows[d.name].text) == d.raised
            assert d.meaning in rows[d.name].text
        for e in control.evidence:
            assert e.caption in section.text
            assert e.path in section.text
        for text in (control.access, control.threat, control.constraint, control.remediation, control.reproduce):
            assert text in section.text
        for ref in control.refs:
            assert ref in section.text


def test_statement_is_claim_or_failure_as_the_verdict_says(page, report):
    for c in report.controls:
        statement = article(page, c.id).with_class("statement")[0].text
        if c.verdict == "pass":
            assert statement == c.title
        elif c.verdict in {"fail", "waived"}:
            assert statement == c.failure
        else:
            assert statement not in {c.title, c.failure}


def test_head_says_what_counts(page, report):
    head = page.by_id("verdict")
    assert "✖ FAIL" in head.text
    assert "incomplete" in head.text
    assert "1 of 8 controls failed, 3 are undecided." in head.text
    assert "The verdict is the worst control, never an average." in head.text
    counts = {" ".join(li.text.split()[2:]): int(li.text.split()[0]) for li in head.all("li")}
    assert counts == {
        "failed": 1, "in error": 1, "inconclusive": 1, "not run": 1, "waived": 1, "passed": 3, "not applicable": 1,
    }  # fmt: skip
    identity = page.with_class("identity")[0].text
    for f in report.subject.files:
        assert f.path in identity
        assert f.sha256 in identity
    assert "Unsigned." in identity


def test_other_sections_carry_the_record(page, report):
    text = {id: page.by_id(id).text for id, _ in html.sections(report)}
    for item in report.profile.not_tested:
        assert item in text["scope"]
    assert report.profile.sha256 in text["scope"]
    for p in report.preconditions:
        assert p.name in text["preconditions"]
        assert close_to_one(p.value, numbers(text["preconditions"]))
    for d in report.data:
        for value in (d.name, d.source, d.licence, d.digest, d.chosen, *d.notes):
            assert value in text["data"]
        for n in (d.images, d.objects, d.craft_images, d.held_out_images):
            assert n in numbers(text["data"])
    assert "broken.jpg truncated after 1204 bytes" in text["data"]
    for value in ("3.12.3", "Onnx2torch 1.5.15", "20260304", "46 min 41 s", "4be1c02d9c6f, clean", "xdist 3.8.0"):
        assert value in text["environment"]
    assert "J. Doe, security 2026-06-30" in text["waivers"]
    assert "0.243" in text["baseline"]
    assert "sha256sum -c SHA256SUMS" in text["sign-off"]
    assert (
        "ssh-keygen -Y verify -f allowed_signers -I reviewer@lab -n audit-report -s SHA256SUMS.sig < SHA256SUMS"
        in (text["sign-off"])
    )
    assert len(page.by_id("glossary").all("dt")) == 10


def test_sections_stand_in_order_and_are_numbered(page, report):
    ids = [n.attrs["id"] for n in page.all("section") if "id" in n.attrs]
    assert ids == [
        "verdict", "scope", "controls", "details", "preconditions", "baseline", "clauses", "data", "environment",
        "waivers", "limits", "glossary", "sign-off",
    ]  # fmt: skip
    assert [int(n.text) for n in page.with_class("number")] == list(range(1, 14))


def test_clause_map_marks_exactly_the_named_clauses(page, report):
    section = page.by_id("clauses")
    assert "Evidence, not conformity." in section.text
    assert "NISTAML identifiers and names were taken from secondary sources" in section.text
    by_id = {c.id: c for c in report.controls}
    marked = set()
    for row in section.one("table").all("tr"):
        cells = row.all("td")
        if not cells:
            continue
        clause = row.one("th").one("strong").text
        for id, cell in zip(WORST_FIRST, cells, strict=True):
            if cell.text:
                marked.add((id, clause))
                assert cell.one("span").attrs["aria-label"] == html.words.BADGES[by_id[id].verdict].word
    assert marked == {(c.id, ref) for c in report.controls for ref in c.refs}


def test_we_never_say_compliant(page):
    assert "complian" not in page.text.lower()
    assert "certified" not in page.text.lower()


def test_evidence_of_a_case_stands_clean_patched_difference(page):
    cases = article(page, "DET-PATCH-WB").with_class("case")
    assert [c.one("h5").text for c in cases] == ["Worst case", "Median case", "A survivor"]
    for case in cases:
        assert [f.one("strong").text for f in case.all("figure")] == ["Clean.", "Patched.", "Difference."]


def test_patch_is_shown_at_print_size_beside_its_unoptimised_controls(page):
    section = article(page, "DET-PATCH-WB")
    (patch,) = section.with_class("patch")
    assert patch.one("img").attrs["style"] == "width:87.0mm"
    assert "Print size 87 mm wide" in patch.text
    assert "128 × 128 px" in patch.text
    assert len(section.with_class("control-picture")) == 3


# --- states ------------------------------------------------------------------------------------------------------


def _banners(tree: Node) -> list[str]:
    return [n.attrs["aria-label"] for n in tree.with_class("banner")]


def test_banners_say_what_limits_the_report(page, tmp_path):
    assert _banners(page) == ["Partial run", "Precondition not met", "Constructed data", "Self-labelled data"]
    smoke = parse(html.render(sample_record.build(tmp_path, indicative=True), tmp_path))
    assert "Indicative only" in _banners(smoke)
    stamps = [n.text for n in smoke.with_class("stamp")]
    assert stamps.count("indicative") == 1 + len(WORST_FIRST)


def test_clean_pass_has_no_banner(tmp_path):
    report = sample_record.build(tmp_path)
    report.controls = [c for c in report.controls if c.verdict == "pass"]
    report.preconditions, report.data, report.baseline = report.preconditions[:2], [], None
    report.run.complete, report.verdict = True, "pass"
    tree = parse(html.render(report, tmp_path))
    assert _banners(tree) == []
    assert "✔ PASS" in tree.by_id("verdict").text
    assert "No control failed." in tree.by_id("verdict").text
    assert not [n for n in tree.walk() if n.attrs.get("id") == "baseline"]
    assert len(tree.with_class("number")) == 12


def test_the_least_record_renders(tmp_path):
    tree = parse(html.render(sample_record.bare_record(), tmp_path))
    assert "No control has a result, so nothing is known." in tree.by_id("verdict").text
    assert "interrupted" in tree.text
    assert "No statement was written" in tree.by_id("sign-off").text


@pytest.mark.parametrize("verdict", r.ORDER)
def test_a_control_that_knows_only_its_verdict_renders(verdict, tmp_path):
    report = sample_record.bare_record()
    empty = sample_record.empty_control(verdict)
    nothing = r.Measure(name="nothing", low=None, high=0.4)
    edge = r.Limit(op="max", value=-3.5, rationale="why")
    half = empty.model_copy(update={"id": "X-2", "measure": nothing, "limit": edge})
    curve = r.Curve(title="t", x_label="x", y_label="y", series=[r.Series(name="s", x=[], y=[])])
    gaps = r.Curve(title="t2", x_label="x", y_label="y", series=[r.Series(name="s", x=[1.0], y=[None])], mark_x=1.0)
    rest = empty.model_copy(update={"id": "X-3", "curves": [curve, gaps], "conditions": [r.Condition(name="c")]})
    report.controls = [empty, half, rest]
    report.verdict = r.worst(report.controls, complete=True)
    tree = parse(html.render(report, tmp_path))
    assert len(tree.all("article")) == 3
    word, symbol = html.words.BADGES[verdict].word, html.words.BADGES[verdict].symbol
    assert tree.by_id("control-1").with_class("badge")[0].text == f"{symbol} {word}"
    assert "None" not in tree.text.replace("None was recorded", "").replace("None.", "")
    assert "nan" not in tree.text.split()


def test_an_unknown_reference_does_not_cost_the_report(tmp_path):
    report = sample_record.bare_record()
    report.controls = [sample_record.empty_control("pass").model_copy(update={"refs": ["NOPE-1"]})]
    tree = parse(html.render(report, tmp_path))
    assert "NOPE-1 not in the list of references" in tree.by_id("control-1").text
