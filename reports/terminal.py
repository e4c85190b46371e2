"""The summary on a terminal: worst first, readable without colour, without Unicode and in a log file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit.record import ORDER, Control, Report, Verdict
from reports.words import BADGES, beside, interval, number, required, visible, worst_first

STYLES: dict[Verdict, str] = {
    "fail": "bold red",
    "error": "bold magenta",
    "inconclusive": "bold yellow",
    "not_run": "bold cyan",
    "waived": "bold blue",
    "pass": "bold green",
    "not_applicable": "dim",
}
_PLAIN = str.maketrans({"≥": ">=", "≤": "<=", "−": "-", "×": "x", "—": "-", "–": "-", "·": "-", "α": "a"})


def summary(report: Report, paths: Sequence[Path | str] = ()) -> RenderableType:
    """A rich renderable: verdict, controls worst first with measured value against limit, reasons, and ``paths``.

    On a console whose encoding has no Unicode it uses ASCII symbols. All text of strangers is printed as text: no
    markup, no control characters.
    """
    return _Summary(report, tuple(str(p) for p in paths))


@dataclass(frozen=True)
class _Summary:
    report: Report
    paths: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        plain = options.ascii_only
        controls = worst_first(self.report.controls)
        yield _panel(self.report, plain=plain)
        if controls:
            yield _table(controls, plain=plain)
        for c in controls:
            # A failure's reason is its number, which the table holds; these verdicts need a sentence.
            if c.verdict in {"error", "inconclusive", "waived"} and c.reason:
                line = Text("  ")
                line.append(_clean(c.id, plain=plain), style="bold")
                line.append(f"  {_clean(c.reason, plain=plain)}")
                yield line
        for path in self.paths:
            yield Text(f"Report: {_clean(path, plain=plain)}", no_wrap=True, overflow="ignore")


def _panel(report: Report, *, plain: bool) -> Panel:
    style = STYLES[report.verdict]
    head = Text()
    head.append(_mark(report.verdict, plain=plain), style=style)
    if report.profile.indicative:
        head.append("  indicative only", style="yellow")
    if not report.run.complete:
        head.append("  incomplete", style="yellow")
    head.append(f"\n{_clean(report.subject.name, plain=plain)}, profile {_clean(report.profile.name, plain=plain)}")
    head.append(f", budget {_clean(report.profile.budget, plain=plain)}\n")
    counts = [(v, sum(c.verdict == v for c in report.controls)) for v in ORDER]
    head.append(", ".join(f"{n} {BADGES[v].plural}" for v, n in counts if n) or "no control has a result")
    head.append("\nThe verdict is the worst control, never an average.")
    return Panel(head, box=box.ASCII if plain else box.ROUNDED, border_style=style.removeprefix("bold "), expand=False)


def _table(controls: list[Control], *, plain: bool) -> Table:
    table = Table(box=box.ASCII if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Control", overflow="fold", min_width=30)
    table.add_column("Measured", no_wrap=True)
    table.add_column("Limit", no_wrap=True, justify="right")
    table.add_column("n", no_wrap=True, justify="right")
    for c in controls:
        edge = c.limit.value if c.limit else None
        measured = (
            f"{beside(c.measure.value, edge)} {interval(c.measure.low, c.measure.high, edge)}" if c.measure else "—"
        )
        table.add_row(
            Text(_mark(c.verdict, plain=plain), style=STYLES[c.verdict]),
            Text(_clean(c.id, plain=plain)),
            Text(_clean(measured.strip(), plain=plain)),
            Text(_clean(required(c.limit), plain=plain)),
            Text(_clean(number(c.measure.n if c.measure else None), plain=plain)),
        )
    return table


def _mark(verdict: Verdict, *, plain: bool) -> str:
    badge = BADGES[verdict]
    return f"{badge.plain if plain else badge.symbol} {badge.word}"


def _clean(text: str, *, plain: bool) -> str:
    text = visible(" ".join(text.split()))
    return text.translate(_PLAIN).encode("ascii", "replace").decode() if plain else text
