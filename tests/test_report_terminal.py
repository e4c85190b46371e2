"""The terminal summary: worst first, plain where it must be, harmless always."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from audit import record as r
from reports.terminal import summary
from reports.words import BADGES
from tests import sample_record
from tests.sample_record import WORST_FIRST


def show(report, *, width=100, encoding="utf-8", colour=False, paths=()):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    console = Console(file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    console.print(summary(report, paths))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_controls_stand_worst_first_with_measure_and_limit(tmp_path, encoding):
    text = show(sample_record.build(tmp_path), encoding=encoding, paths=["audit-report/report.html"])
    places = [text.index(id) for id in WORST_FIRST]
    assert places == sorted(places)
    assert "0.214 [0.151, 0.284]" in text
    assert ("≥ 0.500" in text) == (encoding == "utf-8")
    assert (">= 0.500" in text) == (encoding != "utf-8")
    (line,) = [ln for ln in text.splitlines() if "0.214" in ln]
    assert "FAIL" in line
    assert "DET-PATCH-WB" in line
    assert "192" in line
    assert "1 failed, 1 in error, 1 inconclusive, 1 not run, 1 waived, 3 passed" in " ".join(text.split())
    assert "Report: audit-report/report.html" in text
    assert "incomplete" in text
    assert "The interval lies across the limit." in text


def test_hostile_names_are_text(tmp_path):
    report = sample_record.build(tmp_path, hostile=True)
    report.controls[1].id = report.controls[1].reason = sample_record.HOSTILE
    for colour in (False, True):
        text = show(report, width=300, colour=colour, paths=["a\x1b[2J/report.html"])
        assert "\u202e" not in text
        assert "\x1b[31m[red]" not in text
        assert "\x1b[2J" not in text
        assert "\\u202egpj.exe\\u001b[31m[red]" in text


def test_no_control_codes_without_colour(tmp_path):
    text = show(sample_record.build(tmp_path))
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_least_record_and_narrow_consoles(width, tmp_path):
    assert "no control has a result" in " ".join(
        show(sample_record.bare_record(), width=width).replace("│", "").split()
    )
    text = show(sample_record.build(tmp_path), width=width)
    assert max(map(len, text.splitlines())) <= width or width == 40


@pytest.mark.parametrize("verdict", r.ORDER)
def test_each_verdict_has_word_and_symbol(verdict):
    report = sample_record.bare_record()
    report.controls, report.verdict = [sample_record.empty_control(verdict)], verdict
    badge = BADGES[verdict]
    assert f"{badge.symbol} {badge.word}" in show(report)
    assert f"{badge.plain} {badge.word}" in show(report, encoding="ascii")
    assert "\x1b[" in show(report, colour=True)


def test_symbols_are_distinct():
    assert len({b.symbol for b in BADGES.values()}) == len({b.plain for b in BADGES.values()}) == len(r.ORDER)
