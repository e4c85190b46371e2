"""The record of a run: the schema of ``report.json``, and the only module of the core that ``reports`` may import.

Unknown is ``null``, never NaN. Within schema 1 changes are additive only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "assay-report-1"

Verdict = Literal["pass", "fail", "inconclusive", "error", "not_applicable", "not_run", "waived"]
ORDER: tuple[Verdict, ...] = ("fail", "error", "inconclusive", "not_run", "waived", "pass", "not_applicable")
"""Verdicts from worst to best, the order of every table."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class File(_Strict):
    """A file by content. ``path`` is relative to the output folder, or as the user gave it."""

    path: str
    sha256: str
    bytes: int | None = None


class Measure(_Strict):
    """One measured number with its interval.

    ``k`` of ``n`` where it is a share. ``low``/``high`` are the interval's ends at ``level`` (0.95) by ``method``.
    """

    name: str
    unit: str = "share"
    k: int | None = None
    n: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    method: str = ""
    higher_is_better: bool = True


class Limit(_Strict):
    """What was required, written down before the run. ``op`` min: value >= limit is good; max: value <= limit."""

    op: Literal["min", "max"]
    value: float
    rationale: str


class Condition(_Strict):
    """A number beside the judged one: another class, size, place. ``group`` names the table it belongs to."""

    name: str
    group: str = ""
    k: int | None = None
    n: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Series(_Strict):
    """One line of a figure; ``None`` in ``y`` is a gap."""

    name: str
    x: list[float]
    y: list[float | None]


class Curve(_Strict):
    """A figure: lines over one axis."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    mark_x: float | None = None
    mark_label: str = ""


class Grid(_Strict):
    """A table of one number over two things: surrogate × target, scale × place, team × model.

    ``values[i][j]`` belongs to ``rows[i]`` and ``columns[j]``; ``None`` where nothing was measured.
    ``higher_is_better`` is ``None`` where neither is (a confusion, likeness).
    ``marks`` names cells by (row, column) index, e.g. the diagonal of a transfer matrix; ``mark_label`` says what for.
    """

    title: str
    row_label: str
    column_label: str
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    unit: str = "share"
    higher_is_better: bool | None = True
    marks: list[tuple[int, int]] = Field(default_factory=list)
    mark_label: str = ""
    note: str = ""


class Diagnostic(_Strict):
    """A number that says whether the attack itself was sound. Raised turns a pass into inconclusive."""

    name: str
    value: float | None
    limit: float | None
    raised: bool
    meaning: str


class Evidence(_Strict):
    """A picture or file in the output folder.

    ``role``: clean, patched, target, difference, patch, control, file; of attacks on images map, adversarial, of shifts
    quality, of generators forged, of what stands for itself photograph.

    ``case`` groups the pictures of one scene (``worst``, ``median``, ``survivor``).
    """

    role: str
    path: str
    sha256: str
    caption: str
    case: str = ""
    width_px: int | None = None
    height_px: int | None = None


class Waiver(_Strict):
    """A failure that somebody accepted for a time."""

    approver: str
    reason: str
    expires: str


class Control(_Strict):
    """The result of one control."""

    id: str
    title: str
    goal: str
    failure: str
    task: str
    verdict: Verdict
    reason: str
    measure: Measure | None = None
    limit: Limit | None = None
    conditions: list[Condition] = Field(default_factory=list)
    curves: list[Curve] = Field(default_factory=list)
    grids: list[Grid] = Field(default_factory=list)
    diagnostics: list[Diagnostic] = Field(default_factory=list)
    refs: list[str] = Field(default_factory=list)
    access: str = ""
    threat: str = ""
    constraint: str = ""
    protocol_sha256: str = ""
    seed: int = 0
    duration_s: float = 0.0
    evidence: list[Evidence] = Field(default_factory=list)
    reproduce: str = ""
    remediation: str = ""
    waiver: Waiver | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class Precondition(_Strict):
    """A check before any attack: clean performance as declared, determinism, gradients. Not ok: inconclusive."""

    name: str
    ok: bool
    value: float | None = None
    expected: str = ""
    meaning: str = ""


class Unreadable(_Strict):
    """A data file left out, and why."""

    name: str
    reason: str


class Data(_Strict):
    """A data set as it was used."""

    name: str
    source: str
    labelled_by: str
    licence: str
    digest: str
    images: int
    objects: int
    craft_images: int
    held_out_images: int
    chosen: str
    unreadable: list[Unreadable] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class Subject(_Strict):
    """The model under audit."""

    name: str
    tasks: list[str]
    access: dict[str, str]
    files: list[File]
    state_sha256: str = ""
    declared: dict[str, float] = Field(default_factory=dict)


class Profile(_Strict):
    """The limits that were used."""

    name: str
    version: str
    sha256: str
    budget: str
    indicative: bool
    description: str = ""
    not_tested: list[str] = Field(default_factory=list)


class Run(_Strict):
    """When, with what and how."""

    id: str
    started: str
    finished: str | None
    tool: str
    commit: str
    dirty: bool | None
    command: str
    options_given: dict[str, Any]
    options_effective: dict[str, Any]
    seed: int
    complete: bool
    resumed: int = 0
    wall_s: float | None = None


class Reference(_Strict):
    """A clause or technique that a control gives evidence for."""

    id: str
    title: str
    source: str
    url: str = ""


class Report(_Strict):
    """All of ``report.json``."""

    schema_: Literal["assay-report-1"] = Field(default="assay-report-1", alias="schema")
    run: Run
    subject: Subject
    profile: Profile
    verdict: Verdict
    summary: dict[str, int]
    preconditions: list[Precondition]
    controls: list[Control]
    references: list[Reference] = Field(default_factory=list)
    data: list[Data]
    environment: dict[str, Any]
    baseline: dict[str, Any] | None = None
    files: list[File] = Field(default_factory=list)

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> str:
        """Sorted keys, two spaces, a final newline: equal records give equal bytes."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def worst(controls: list[Control], complete: bool) -> Verdict:
    """The verdict of a run is its worst control, never an average; nothing measured is inconclusive.

    An error or a control that did not run leaves the run inconclusive unless something failed.
    """
    seen = {c.verdict for c in controls}
    if "fail" in seen:
        return "fail"
    if not complete or seen & {"error", "inconclusive", "not_run"} or not seen & {"pass", "waived"}:
        return "inconclusive"
    return "pass"


def summarise(controls: list[Control]) -> dict[str, int]:
    """Count of each verdict, all verdicts named."""
    return {v: sum(c.verdict == v for c in controls) for v in ORDER}


def digest(value: Any) -> str:
    """sha256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
