"""The report page: one file without script, rendered here, that opens offline, prints, and can be mailed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit.record import ORDER, Control, Evidence, Reference, Report
from reports import curves, facts, figures, grids, pictures, references, words

SIZE_LIMIT = 5_000_000
"""The page is never larger than this many bytes, unless its text alone is."""
_MARKUP_PER_PICTURE = 200
CASES = {"worst": "Worst case", "median": "Median case", "survivor": "A survivor", "": "Pictures"}
LABELS = {
    "human": "people",
    "self": "the audited model itself (self-labelled)",
    "construction": "construction: the objects were placed, so their boxes are known",
}
ROLES = (
    "clean", "patched", "target", "map", "adversarial", "forged", "difference", "quality", "photograph", "patch",
    "control",
)  # fmt: skip
SCENE_ROLES = frozenset(ROLES) - {"patch", "control"}


def render(report: Report, folder: Path) -> str:
    """The page of ``report``; pictures are taken from ``folder``, where the record's evidence paths point to.

    It never fails for what a picture or a name contains: a picture that is missing, altered or unreadable is named as
    such, and all text is escaped.
    """
    plain = _page(report, pictures.bare(report))
    uses = sum(len(c.evidence) for c in report.controls)
    budget = SIZE_LIMIT - len(plain.encode()) - _MARKUP_PER_PICTURE * uses
    return _page(report, pictures.album(report, folder, budget))


@dataclass(frozen=True, slots=True)
class Banner:
    """Something that limits what the whole report says."""

    kind: str
    head: str
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """A row of the clause map: a reference and the controls that name it."""

    reference: Reference
    controls: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class ClauseGroup:
    """The clauses of one source."""

    source: str
    standing: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """The pictures of one scene."""

    name: str
    evidence: tuple[Evidence, ...]


def _page(report: Report, album: pictures.Album) -> str:
    controls = words.worst_first(report.controls)
    refs = reference_index(report)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            controls=controls,
            album=album,
            banners=banners(report, album),
            sections=sections(report),
            refs=refs,
            clauses=clause_map(controls, refs),
            record_sha256=hashlib.sha256(report.to_json().encode()).hexdigest(),
            counts=[(v, sum(c.verdict == v for c in controls)) for v in ORDER],
            attested=bool(report.subject.files or report.subject.state_sha256),
        )
    )


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    env.filters.update(
        number=words.number,
        short=words.short,
        small_share=words.small_share,
        seconds=words.seconds,
        title_case=words.title_case,
        fact=facts.fact,
    )
    env.globals.update(
        BADGES=words.BADGES,
        CASES=CASES,
        LABELS=LABELS,
        words=words,
        figures=figures,
        curves=curves,
        grids=grids,
        cases=cases,
        gallery=gallery,
        loose_files=loose_files,
        link=link,
        print_mm=print_mm,
        print_words=print_words,
        asked=asked,
    )
    return env


def _finalize(value: Any) -> Any:
    """Text of strangers loses its power to deceive before it is escaped; our own markup passes."""
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def sections(report: Report) -> list[tuple[str, str]]:
    """(anchor, title) of the numbered sections; the baseline's only where there is one."""
    out = [
        ("verdict", "Verdict"),
        ("scope", "Scope"),
        ("controls", "Controls, worst first"),
        ("details", "Control by control"),
        ("preconditions", "Preconditions"),
        ("baseline", "Baseline comparison"),
        ("clauses", "Clause map"),
        ("data", "Data"),
        ("environment", "Environment"),
        ("waivers", "Waivers"),
        ("limits", "Limits of the method"),
        ("glossary", "Glossary"),
        ("sign-off", "Sign-off"),
    ]
    return [s for s in out if s[0] != "baseline" or report.baseline is not None]


def banners(report: Report, album: pictures.Album) -> list[Banner]:
    """What a reader must know before any number."""
    out = []
    missing = tuple(f"{c.id}: {c.reason}" for c in report.controls if c.verdict == "not_run")
    if missing or not report.run.complete:
        text = "Controls of the profile have no result, so the run cannot pass."
        if report.run.finished is None:
            text += " The run was interrupted; what was finished before that is shown."
        out.append(Banner("partial", "Partial run", text, missing))
    if report.profile.indicative:
        text = f"Budget {report.profile.budget}: verdicts use the point estimate. Too little work for a certificate."
        out.append(Banner("indicative", "Indicative only", text))
    unmet = tuple(f"{p.name}: {p.meaning}" for p in report.preconditions if not p.ok)
    if unmet:
        out.append(
            Banner(
                "preconditions",
                "Precondition not met",
                "Numbers below may say more about the set-up than about the model.",
                unmet,
            )
        )
    for data in report.data:
        if data.labelled_by == "self":
            text = (
                f"The boxes of {data.name} are the audited model's own confident detections on clean images. Objects "
                "that it misses without any attack are not counted, so recall is measured against the model itself."
            )
            out.append(Banner("data", "Self-labelled data", text, tuple(data.notes)))
        elif data.labelled_by == "construction":
            text = (
                f"The scenes of {data.name} were built by placing known objects on photographs: the boxes are exact, "
                "but these are not images of the place where the model works."
            )
            out.append(Banner("data", "Constructed data", text, tuple(data.notes)))
    altered = tuple(f"{path}: {p.note}" for (path, _), p in album.items() if p.altered)
    if altered:
        text = "Evidence files are missing or differ from what was recorded. Treat this report as damaged."
        out.append(Banner("damaged", "Damaged evidence", text, altered))
    return out


def reference_index(report: Report) -> dict[str, Reference]:
    """References by id: the record's own, else the shipped ones; an unknown id stays, and says so."""
    index = {**references.known(), **{r.id: r for r in report.references}}
    named = dict.fromkeys(ref for c in report.controls for ref in c.refs)
    unknown = {key: Reference(id=key, title="not in the list of references", source="Unknown source") for key in named}
    return {**{k: r for k, r in index.items() if k in named}, **{k: r for k, r in unknown.items() if k not in index}}


def clause_map(controls: list[Control], refs: Mapping[str, Reference]) -> list[ClauseGroup]:
    """The references by source, each with one flag per control in the order of ``controls``."""
    known = references.sources()
    names = dict.fromkeys([*(s for s in known), *(r.source for r in refs.values())])
    out = []
    for name in names:
        rows = [Clause(r, tuple(r.id in c.refs for c in controls)) for r in refs.values() if r.source == name]
        if rows:
            out.append(ClauseGroup(name, known[name].standing if name in known else "", tuple(rows)))
    return out


def cases(control: Control) -> list[Case]:
    """Scene pictures by case: worst, median and survivor first, each with its pictures in the order of ``ROLES``."""
    scenes = [e for e in control.evidence if e.role in SCENE_ROLES]
    names = dict.fromkeys([*(c for c in CASES if c), *(e.case for e in scenes)])
    order = list(ROLES)
    grouped = [(n, [e for e in scenes if e.case == n]) for n in names]
    return [Case(n, tuple(sorted(es, key=lambda e: order.index(e.role)))) for n, es in grouped if es]


def gallery(control: Control, role: str) -> list[Evidence]:
    """Patches, or unoptimised controls."""
    return [e for e in control.evidence if e.role == role]


def loose_files(control: Control) -> list[Evidence]:
    """Evidence that is no picture of a known role."""
    return [e for e in control.evidence if e.role not in ROLES]


def link(url: str) -> str:
    """``url`` where it is a plain https address, else empty: nothing else becomes a link."""
    return url if url.startswith("https://") and not any(c in url for c in " \"'<>\\") else ""


def print_mm(control: Control) -> float | None:
    """Width of the printed patch in mm, by ``details["print_cm"]``, or else ``details["print_mm"]``."""
    sides = print_cm(control)
    return 10 * sides[0] if sides else _positive(control.details.get("print_mm"))


def print_cm(control: Control) -> tuple[float, ...]:
    """(width,) or (width, height) of the print in cm, where the control recorded it as ``details["print_cm"]``."""
    given = control.details.get("print_cm")
    sides = [_positive(v) for v in (given if isinstance(given, list | tuple) else [given])]
    return tuple(s for s in sides if s is not None) if len(sides) <= 2 and None not in sides else ()


def print_words(control: Control) -> str:
    """The size of the print and its resolution: ``120 × 54 cm at 59 dots per inch``; empty where no size is known."""
    sides, mm = print_cm(control), print_mm(control)
    if mm is None:
        return ""
    size = f"{' × '.join(words.short(s) for s in sides)} cm" if sides else f"{words.number(mm)} mm"
    dpi = _positive(control.details.get("print_dpi"))
    return (
        size + ("" if len(sides) == 2 else " wide") + (f" at {words.short(round(dpi, 1))} dots per inch" if dpi else "")
    )


def asked(control: Control) -> str:
    """How often the model was asked to find the patch, where that is ``details["queries"]``; else empty."""
    value = _positive(control.details.get("queries"))
    if value is None:
        return ""
    return f"Found with {value:,.0f} {'query' if value == 1 else 'queries'} of the model. ".replace(",", "\u202f")


def _positive(value: Any) -> float | None:
    """A number above 0 that is not absurd, or ``None``: details are free-form."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
        return float(value)
    return None
