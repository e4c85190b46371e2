"""The append-only journal of a run: one JSON object per line, on disk before the next control starts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from audit.errors import AuditError

NAME = "journal.jsonl"


class Journal:
    """Writes ``journal.jsonl`` in the output folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def append(self, kind: str, data: dict[str, Any]) -> None:
        """One line ``{"kind": kind, "data": data}``, flushed to the disk. NaN is refused."""
        line = json.dumps({"kind": kind, "data": data}, allow_nan=False, sort_keys=True, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            # A line that a crash cut short must not swallow this one.
            if file.tell() and not _ends_clean(self.path):
                file.write("\n")
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def read(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """All whole lines of the journal as (kind, data); a line that a crash cut short is left out.

    Raises:
        AuditError: there is no journal in the folder.
    """
    path = folder / NAME
    if not path.is_file():
        raise AuditError(
            f"folder {folder}",
            expected=f"a {NAME}",
            got="none",
            mend="give the output folder of an audit (--audit-report)",
        )
    out: list[tuple[str, dict[str, Any]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("data"), dict):
            out.append((str(entry.get("kind")), entry["data"]))
    return out


def last_run(entries: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The entries from the last ``run`` line that was not a resumption."""
    start = 0
    for i, (kind, data) in enumerate(entries):
        if kind == "run" and not data.get("resumes"):
            start = i
    return entries[start:]


def unfinished(folder: Path, key: str) -> list[dict[str, Any]] | None:
    """The finished controls of an interrupted run with this key; None where there is nothing to take up."""
    if not (folder / NAME).is_file():
        return None
    entries = last_run(read(folder))
    if not entries or entries[0][0] != "run" or entries[0][1].get("key") != key:
        return None
    if any(kind == "end" and data.get("complete") for kind, data in entries):
        return None
    # Errors are tried again: what broke them may be mended.
    latest = {data["id"]: data for kind, data in entries if kind == "control"}
    return [data for data in latest.values() if data["verdict"] not in ("error", "not_run")]


def retire(folder: Path) -> None:
    """Move an older journal aside, so that nothing that was measured is lost."""
    path = folder / NAME
    if not path.is_file():
        return
    entries = read(folder)
    name = next((str(d["run"]["id"]) for k, d in reversed(entries) if k == "run" and "run" in d), "unknown")
    if not re.fullmatch(r"[0-9A-Za-z-]+", name):
        name = "unknown"
    path.replace(folder / f"journal-{name}.jsonl")


def _ends_clean(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
