"""What others can check offline: an in-toto statement about the model's files, and the list of digests.

The statement is unsigned. Whoever signs it wraps it in an envelope, or signs ``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from audit.record import File, Report

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
SUMS = "SHA256SUMS"
LISTED = ("report.html", "report.json", "report.intoto.json", "journal.jsonl")


def sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def result(report: Report) -> str:
    """``PASSED``, ``WARNED`` or ``FAILED``.

    The predicate has no word for undecided: all but a pass is ``FAILED``. A pass that leans on a waiver, or on a run
    that is only indicative, is ``WARNED``.
    """
    if report.verdict not in {"pass", "waived"}:
        return "FAILED"
    verdicts = {c.verdict for c in report.controls}
    if verdicts - {"pass", "waived", "not_applicable"} or not verdicts & {"pass", "waived"} or not report.run.complete:
        return "FAILED"
    return "WARNED" if "waived" in verdicts or report.verdict == "waived" or report.profile.indicative else "PASSED"


def statement(report: Report, report_sha256: str) -> dict[str, Any]:
    """An in-toto Statement v1 with a test-result v0.1 predicate.

    The subjects are the model's files, or the digest of its weights where no file is known. ``failedTests`` holds what
    failed and what is undecided; controls that do not apply are in no list. ``details`` binds ``report.json``.

    Args:
        report: the record.
        report_sha256: hex digest of ``report.json``.

    Raises:
        ValueError: the record names neither a file nor a weights digest, so that there is nothing to speak of.
    """
    subjects = [{"name": f.path, "digest": {"sha256": f.sha256}} for f in report.subject.files]
    if not subjects and report.subject.state_sha256:
        subjects = [{"name": f"weights of {report.subject.name}", "digest": {"sha256": report.subject.state_sha256}}]
    if not subjects:
        raise ValueError(
            f"statement on {report.subject.name}: expected a model file or a digest of its weights, got neither; "
            "record the model's files"
        )
    passed = "warnedTests" if report.profile.indicative else "passedTests"
    lists: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for c in report.controls:
        if c.verdict != "not_applicable":
            lists[{"pass": passed, "waived": "warnedTests"}.get(c.verdict, "failedTests")].append(c.id)
    profile = report.profile
    configuration: dict[str, Any] = {
        "name": f"profile {profile.name} {profile.version}".strip(),
        "annotations": {"budget": profile.budget, "indicative": profile.indicative, "seed": report.run.seed},
    }
    if profile.sha256:
        configuration["digest"] = {"sha256": profile.sha256}
    details = {"name": "report.json", "digest": {"sha256": report_sha256}, "mediaType": "application/json"}
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "result": result(report),
            "configuration": [configuration],
            **{name: sorted(ids) for name, ids in lists.items()},
            "details": details,
        },
    }


def dumps(value: dict[str, Any]) -> str:
    """JSON with sorted keys, two spaces, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def evidence(folder: Path) -> list[Path]:
    """All files under ``evidence/``, sorted by path."""
    return sorted(p for p in (folder / "evidence").rglob("*") if p.is_file())


def listed(folder: Path) -> list[Path]:
    """What ``SHA256SUMS`` covers, as far as it is there, sorted by path."""
    top = [folder / name for name in LISTED if (folder / name).is_file()]
    return sorted([*top, *evidence(folder)], key=lambda p: p.relative_to(folder).as_posix())


def record_files(folder: Path, paths: list[Path]) -> list[File]:
    """``paths`` as the record names them: relative to ``folder``, with digest and size."""
    return [File(path=p.relative_to(folder).as_posix(), sha256=sha256(p), bytes=p.stat().st_size) for p in paths]


def sums(folder: Path) -> str:
    """The text of ``SHA256SUMS``, as ``sha256sum`` writes it: a backslash or a line break in a name is escaped."""
    lines = []
    for f in record_files(folder, listed(folder)):
        name = f.path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if name == f.path else chr(92)}{f.sha256}  {name}\n")
    return "".join(lines)
