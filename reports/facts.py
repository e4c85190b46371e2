"""Free-form parts of the record (details, environment, options, baseline) as text, lists and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.words import number, title_case

LONGEST = 12
"""Longer lists are cut; the page says where the rest is."""
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Fact:
    """A value ready to be laid out.

    Attributes:
        kind: ``text``, ``list`` (of facts), ``pairs`` (head, fact) or ``table`` (heads and rows of facts).
    """

    kind: str
    text: str = ""
    items: tuple[Fact, ...] = ()
    heads: tuple[str, ...] = ()
    table: tuple[tuple[Fact, ...], ...] = ()
    more: str = ""


def fact(value: Any, depth: int = 0) -> Fact:
    """Any JSON value as a fact; what is nested too deeply becomes its JSON text."""
    if isinstance(value, Mapping | list | tuple) and not value:
        return Fact("text", "none")
    if depth > _DEEPEST and isinstance(value, Mapping | list | tuple):
        return Fact("text", json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))
    if isinstance(value, Mapping):
        keys = _ordered(value)
        heads = tuple(title_case(str(k)) for k in keys)
        return Fact("pairs", heads=heads, items=tuple(fact(value[k], depth + 1) for k in keys))
    if isinstance(value, list | tuple):
        return _sequence(value, depth)
    return Fact("text", value if isinstance(value, str) else number(value))


def _sequence(values: Sequence[Any], depth: int) -> Fact:
    if all(isinstance(v, Mapping) for v in values) and len({frozenset(v) for v in values}) == 1 and values[0]:
        keys = _ordered(values[0])
        rows = tuple(tuple(fact(v[k], depth + 1) for k in keys) for v in values)
        return Fact("table", heads=tuple(title_case(str(k)) for k in keys), table=rows)
    shown, more = values, ""
    if len(values) > LONGEST:
        shown, more = values[: LONGEST // 2], f"… and {len(values) - LONGEST // 2} more in report.json"
    if all(isinstance(v, int | float) or v is None for v in values):
        return Fact("text", ", ".join(number(v) for v in shown), more=more)
    return Fact("list", items=tuple(fact(v, depth + 1) for v in shown), more=more)


def _ordered(value: Mapping[Any, Any]) -> list[Any]:
    """By name, as ``report.json`` has them, but with ``id`` and ``name`` in front."""
    return sorted(value, key=lambda k: (k not in {"id", "name"}, str(k)))
