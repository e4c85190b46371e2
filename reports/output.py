"""Write the output folder: page, record, statement and list of digests, each in one step or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from audit.record import Report
from reports import attest, html, references


class FolderError(OSError):
    """The output folder cannot be written. The message is one sentence: what, why, how to mend it."""


def write(report: Report, folder: Path) -> Path:
    """Write ``report.json``, ``report.intoto.json``, ``report.html`` and ``SHA256SUMS`` into ``folder``.

    ``journal.jsonl`` and ``evidence/`` are there already and finished: their digests go into the record's ``files``,
    and the references that the controls name go into its ``references``. ``report`` itself is not changed. The
    statement is left out where the record names no file of the model; the page then says so.

    Returns:
        The path of ``report.html``.

    Raises:
        FolderError: ``folder`` is not a folder, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(completed(report, folder), folder)
    except OSError as error:
        cause = error.strerror or str(error)
        raised = FolderError(
            f"report folder {folder}: expected a folder that can be written, got {cause}; "
            "choose another one with --audit-report"
        )
        raised.strerror = cause
        raise raised from error


def completed(report: Report, folder: Path) -> Report:
    """A copy of ``report`` with the digests of journal and evidence, and the known references of its controls."""
    covered = [p for p in attest.listed(folder) if p.name == "journal.jsonl" or p.parent != folder]
    known = references.known()
    have = {r.id: r for r in report.references}
    named = {ref for c in report.controls for ref in c.refs}
    ordered = [have.get(key, ref) for key, ref in known.items() if key in named or key in have]
    ordered += [ref for key, ref in have.items() if key not in known]
    return report.model_copy(update={"files": attest.record_files(folder, covered), "references": ordered})


def _write(report: Report, folder: Path) -> Path:
    text = report.to_json()
    page = folder / "report.html"
    _put(folder / "report.json", text)
    if report.subject.files or report.subject.state_sha256:
        digest = hashlib.sha256(text.encode()).hexdigest()
        _put(folder / "report.intoto.json", attest.dumps(attest.statement(report, digest)))
    else:
        (folder / "report.intoto.json").unlink(missing_ok=True)
    _put(page, html.render(report, folder))
    _put(folder / attest.SUMS, attest.sums(folder))
    return page


def _put(path: Path, text: str) -> None:
    """Write beside the file, flush to disk, then take its place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
