"""Clauses, techniques and method sources: read from ``references.toml``, looked up by id."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from audit.record import Reference


class UnknownReference(LookupError):
    """An id that ``references.toml`` does not have. The message names it and the nearest known ids."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where identifiers come from.

    Attributes:
        name: as in ``Reference.source``.
        kind: ``clause`` for catalogues, laws and standards; ``method`` for papers.
        standing: how sure the identifiers are, one sentence, or empty.
    """

    name: str
    kind: Literal["clause", "method"]
    standing: str


@cache
def _load() -> tuple[dict[str, Reference], dict[str, Source]]:
    data = tomllib.loads(files("reports").joinpath("references.toml").read_text(encoding="utf-8"))
    refs: dict[str, Reference] = {}
    sources: dict[str, Source] = {}
    for group in data["group"]:
        name = group["source"]
        if name not in sources:
            sources[name] = Source(name, group["kind"], group.get("standing", ""))
        for key, title in group["titles"].items():
            if key in refs:
                raise ValueError(f"references.toml: expected each id once, got {key!r} twice; remove one")
            refs[key] = Reference(id=key, title=title, source=name, url=group["url"].replace("{id}", key))
    return refs, sources


def known() -> dict[str, Reference]:
    """All references by id, in the order of the file."""
    return dict(_load()[0])


def sources() -> dict[str, Source]:
    """All sources by name, in the order of the file."""
    return dict(_load()[1])


def resolve(ids: Iterable[str]) -> list[Reference]:
    """The references of ``ids``, each once, in the order of the file.

    Raises:
        UnknownReference: an id is not in ``references.toml``.
    """
    wanted = set(ids)
    refs = _load()[0]
    missing = sorted(wanted - set(refs))
    if missing:
        near = [key for key in refs if any(key.startswith(m[:5]) for m in missing)]
        raise UnknownReference(
            f"references {', '.join(map(repr, missing))}: expected ids of reports/references.toml, got unknown ones; "
            f"correct them or add them there{' (known: ' + ', '.join(near) + ')' if near else ''}"
        )
    return [ref for key, ref in refs.items() if key in wanted]
