"""From the journal of a run to its report; works on whatever was written before a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit import journal
from audit.errors import AuditError
from audit.record import (
    ORDER,
    Control,
    Data,
    File,
    Precondition,
    Profile,
    Reference,
    Report,
    Run,
    Subject,
    summarise,
    worst,
)


def assemble(folder: Path) -> Report:
    """The report of the last run in ``folder``'s journal; controls that did not finish are rows marked not run.

    Raises:
        AuditError: there is no journal, or no run in it.
    """
    entries = journal.last_run(journal.read(folder))
    heads = [data for kind, data in entries if kind == "run"]
    if not heads:
        raise AuditError(
            f"journal in {folder}",
            expected="a run",
            got=f"{len(entries)} lines without one",
            mend="run the audit again; it stopped before it began",
        )
    head, last = heads[0], heads[-1]
    controls: dict[str, Control] = {}
    planned: list[str] = []
    for kind, data in entries:
        if kind == "plan":
            for row in data["controls"]:
                planned.append(row["id"])
                controls.setdefault(row["id"], Control.model_validate(row))
        elif kind == "control":
            controls[data["id"]] = Control.model_validate(data)
    preconditions = {d["name"]: Precondition.model_validate(d) for k, d in entries if k == "precondition"}
    ends = [data for kind, data in entries if kind == "end"]
    rows = sorted(controls.values(), key=lambda c: (ORDER.index(c.verdict), c.id))
    missing = [c.id for c in rows if c.verdict == "not_run"]
    complete = bool(planned) and not missing
    run: dict[str, Any] = {
        **head["run"],
        "command": last["run"]["command"],
        "options_given": last["run"]["options_given"],
        "options_effective": last["run"]["options_effective"],
        "finished": ends[-1]["finished"] if ends else None,
        "wall_s": ends[-1]["wall_s"] if ends else None,
        "complete": complete,
        "resumed": len(heads) - 1,
    }
    return Report(
        run=Run.model_validate(run),
        subject=Subject.model_validate(head["subject"]),
        profile=Profile.model_validate(head["profile"]),
        verdict=worst(rows, complete),
        summary=summarise(rows),
        preconditions=list(preconditions.values()),
        controls=rows,
        references=[Reference.model_validate(r) for r in head.get("references", [])],
        data=[Data.model_validate(d) for d in head["data"]],
        environment={**head["environment"], **({"model_unchanged": ends[-1]["model_unchanged"]} if ends else {})},
        files=_files(folder, rows),
    )


def _files(folder: Path, rows: list[Control]) -> list[File]:
    seen = {e.path: e.sha256 for c in rows for e in c.evidence}
    return [
        File(path=p, sha256=s, bytes=(folder / p).stat().st_size if (folder / p).is_file() else None)
        for p, s in sorted(seen.items())
    ]
