"""A profile: limits with their reasons, conditions, budgets and waivers, written down before the run, in TOML."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from audit.budget import Budget
from audit.errors import ProfileError
from audit.profile_tables import (
    BUDGETS,
    BoundsTable,
    BudgetsTable,
    BudgetTable,
    DataTable,
    PreconditionsTable,
    ProfileFile,
    VerdictTable,
    WaiverTable,
)
from audit.record import Limit, Waiver


@dataclass(frozen=True)
class LimitSpec:
    """One row of the profile: a control, or one variant of it, and what is required."""

    id: str
    control: str
    variant: str
    limit: Limit


@dataclass(frozen=True)
class Profile:
    """A validated profile.

    Attributes:
        sha256: of the file's bytes. controls: full id (``DET-PATCH-WB/patch-iou``, or ``DET-CONSTRAINT`` where it has
            no variants) -> what is required, in the order of the file.
    """

    name: str
    version: str
    description: str
    not_tested: tuple[str, ...]
    suites: tuple[str, ...]
    path: Path
    sha256: str
    data: DataTable
    budgets: BudgetsTable
    verdict: VerdictTable
    preconditions: PreconditionsTable
    controls: Mapping[str, LimitSpec]
    waivers: tuple[WaiverTable, ...] = ()

    def budget(self, name: str) -> Budget:
        """The budget of that name.

        Raises:
            ProfileError: there is none.
        """
        b = self._budget(name)
        return Budget(name, **b.model_dump(exclude={"indicative"}))

    def indicative(self, budget: str) -> bool:
        """Whether a run on that budget is stamped indicative and judged by the point estimate."""
        return self._budget(budget).indicative

    def rule(self, budget: str) -> Literal["interval", "point"]:
        """The verdict rule under that budget."""
        return "point" if self.indicative(budget) else self.verdict.rule

    def variants(self, control: str) -> tuple[str, ...]:
        """The variants of a control, in the order of the file; none where it has none or is not in the profile."""
        return tuple(c.variant for c in self.controls.values() if c.control == control and c.variant)

    def limit(self, full_id: str) -> Limit:
        """What is required of a control.

        Raises:
            ProfileError: the profile says nothing of it.
        """
        if full_id not in self.controls:
            raise _error(
                self.path,
                "a limit for every control that runs",
                f"none for {full_id!r}",
                _nearest(full_id, self.controls, "add it under [controls]"),
            )
        return self.controls[full_id].limit

    def waiver(self, full_id: str, today: date) -> Waiver | None:
        """The waiver that holds for a control on that day; it holds up to and with the day that it names."""
        for w in self.waivers:
            if w.control in (full_id, full_id.partition("/")[0]) and w.expires >= today:
                return Waiver(approver=w.approver, reason=w.reason, expires=w.expires.isoformat())
        return None

    def require_known(self, known: Iterable[str]) -> None:
        """Checks the profile against the controls that exist, by id without variant.

        Raises:
            ProfileError: the profile names a control that does not exist.
        """
        known = sorted(set(known))
        for row in self.controls.values():
            if row.control not in known:
                raise _error(
                    self.path,
                    f"controls among {', '.join(known)}",
                    repr(row.control),
                    _nearest(row.control, known, "remove it"),
                )

    def _budget(self, name: str) -> BudgetTable:
        if name not in BUDGETS:
            mend = _nearest(name, BUDGETS, "choose one of those")
            raise ProfileError("--audit-budget", expected=" or ".join(BUDGETS), got=repr(name), mend=mend)
        table: BudgetTable = getattr(self.budgets, name)
        return table


def built_in() -> dict[str, Path]:
    """Name -> file of the profiles that come with the suites."""
    spec = find_spec("suites")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return {file.stem: file for place in places for file in sorted((Path(place) / "profiles").glob("*.toml"))}


def load(name_or_path: str | Path, *, today: date | None = None) -> Profile:
    """Reads and validates a profile.

    Args:
        name_or_path: a built-in name, or a TOML file. today: the day on which waivers must still hold; the day of the
            call, if not given.

    Raises:
        ProfileError: no such profile, bad TOML, an unknown key, an impossible limit, a limit without a rationale, a
        waiver that expired or names no control of the profile.
    """
    path = _find(name_or_path)
    source, text, values = _read(path)
    try:
        file = ProfileFile.model_validate(values)
    except ValidationError as error:
        raise _explain(path, text, error) from error
    controls = _limits(path, file)
    _check_waivers(path, file.waivers, controls, today or datetime.now(UTC).astimezone().date())
    return Profile(
        name=file.name,
        version=file.version,
        description=file.description,
        not_tested=tuple(file.not_tested),
        suites=tuple(file.suites),
        path=path,
        sha256=hashlib.sha256(source).hexdigest(),
        data=file.data,
        budgets=file.budgets,
        verdict=file.verdict,
        preconditions=file.preconditions,
        controls=types.MappingProxyType(controls),
        waivers=tuple(file.waivers),
    )


def _find(name_or_path: str | Path) -> Path:
    path, known = Path(name_or_path), built_in()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    if path.is_file():
        return path
    raise ProfileError(
        "--audit-profile",
        expected=f"a built-in profile ({', '.join(known) or 'none is installed'}) or a TOML file",
        got=f"{str(name_or_path)!r}, which is neither",
        mend=_nearest(str(name_or_path), known, "check the path"),
    )


def _read(path: Path, above: tuple[Path, ...] = ()) -> tuple[bytes, str, dict[str, Any]]:
    """Bytes (with those of the profiles that it extends), text and tables of a profile."""
    source = path.read_bytes()
    try:
        text = source.decode()
        values = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _error(path, "valid TOML", str(error), "mend that place") from error
    base = values.pop("extends", None)
    if base is None:
        return source, text, values
    if not isinstance(base, str):
        raise _error(path, "`extends` to be the name or path of a profile", repr(base), "write it in quotes")
    beside = path.parent / base
    found = beside if beside.is_file() else _find(base)
    if found.resolve() in (path.resolve(), *(a.resolve() for a in above)):
        raise _error(path, "a profile that does not extend itself", repr(base), "remove `extends` in one of them")
    first, _, tables = _read(found, (*above, path))
    return first + b"\0" + source, text, _merged(tables, values)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables joined key by key; a limit that is set replaces the other kind of limit."""
    out = dict(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _merged(out[key], value)
        else:
            out[key] = value
    if {"min", "max"} & set(own):
        for kind in {"min", "max"} - set(own):
            out.pop(kind, None)
        if "rationale" not in own:
            out.pop("rationale", None)  # a reason for another number is none for this one
    return out


def _limits(path: Path, file: ProfileFile) -> dict[str, LimitSpec]:
    rows: dict[str, LimitSpec] = {}
    if not file.controls:
        raise _error(path, "at least one control", "none", 'add a table [controls."ID"] with a limit')
    for control, table in file.controls.items():
        if "/" in control or not control.strip():
            raise _error(path, "control ids without '/'", repr(control), "list variants under `variants`")
        twice = [v for v in table.variants if table.variants.count(v) > 1]
        if twice:
            raise _error(path, f"each variant of {control} once", f"{twice[0]!r} twice", "remove one")
        for name in table.variant:
            if name not in table.variants:
                got, mend = repr(name), _nearest(name, table.variants, "list it under `variants`, or remove it")
                raise _error(path, f"{control}.variant with keys among its variants", got, mend)
        for variant in table.variants or [""]:
            full = f"{control}/{variant}" if variant else control
            rows[full] = LimitSpec(full, control, variant, _limit(path, full, table.variant.get(variant, table)))
    return rows


def _limit(path: Path, full_id: str, bounds: BoundsTable) -> Limit:
    if (bounds.min is None) == (bounds.max is None):
        raise _error(
            path,
            f"one limit for {full_id}: `min` or `max`",
            "both" if bounds.min is not None else "none",
            "keep one" if bounds.min is not None else "write `min = 0.7`, say",
        )
    if bounds.rationale is None or not bounds.rationale.strip():
        raise _error(path, f"a `rationale` beside the limit of {full_id}", "none", "say in a sentence why that limit")
    reason = " ".join(bounds.rationale.split())
    if bounds.min is not None:
        return Limit(op="min", value=bounds.min, rationale=reason)
    assert bounds.max is not None
    return Limit(op="max", value=bounds.max, rationale=reason)


def _check_waivers(path: Path, waivers: list[WaiverTable], controls: Mapping[str, LimitSpec], today: date) -> None:
    known = [*controls, *dict.fromkeys(c.control for c in controls.values())]
    for w in waivers:
        if w.control not in known:
            mend = _nearest(w.control, known, "remove the waiver")
            raise _error(path, "waivers of controls of this profile", repr(w.control), mend)
        if w.expires < today:
            raise _error(
                path,
                f"a waiver of {w.control} that still holds on {today.isoformat()}",
                f"one that expired on {w.expires.isoformat()}",
                "remove it, or have it approved again with a new date",
            )


def _explain(path: Path, text: str, error: ValidationError) -> ProfileError:
    # A key that is misspelt is the reason why another is missing: it comes first.
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    where = [str(part) for part in first["loc"]]
    place = ".".join(where)
    line = next((i for i, row in enumerate(text.splitlines(), 1) if where and _says(row, where[-1])), None)
    at = f" (line {line})" if line else ""
    if first["type"] == "extra_forbidden":
        keys = _keys(where[:-1])
        section = f"[{'.'.join(where[:-1])}]" if where[:-1] else "the top of the file"
        mend = _nearest(where[-1], keys, "remove it")
        return _error(path, f"keys among {', '.join(keys)} in {section}", repr(where[-1]) + at, mend)
    if first["type"] == "missing":
        return _error(path, f"`{place}`", "no such key", "add it")
    message = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return _error(path, f"`{place}` to be {message}", repr(first["input"])[:80] + at, "correct it")


def _says(row: str, key: str) -> bool:
    left = row.partition("=")[0].strip().strip("[]")
    return left.strip("\"'") == key or left.rpartition(".")[2].strip("\"'") == key


def _keys(where: list[str]) -> list[str]:
    """The valid keys of the table at that place."""
    table: Any = ProfileFile
    for part in where:
        tables = isinstance(table, type) and issubclass(table, BaseModel)
        # Inside list[…] and dict[str, …] it is the last argument that says what stands there.
        table = table.model_fields[part].annotation if tables else typing.get_args(table)[-1]
    return list(table.model_fields)


def _nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"write {near[0]!r}, perhaps" if near else otherwise


def _error(path: Path, expected: str, got: str, mend: str) -> ProfileError:
    return ProfileError(f"profile {path}", expected=expected, got=got, mend=mend)
