"""The output folder: digests that real tools accept, a schema that holds, a statement for every verdict."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

import reports
from audit import record as r
from reports import attest, html, output, schema
from tests import sample_record
from tests.page import parse


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("sha256sum") or pytest.skip("sha256sum is not installed")
    return subprocess.run([tool, "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def written(tmp_path):
    report = sample_record.build(tmp_path)
    assert reports.write(report, tmp_path) == tmp_path / "report.html"
    return tmp_path, report


def test_folder_holds_what_it_should(written):
    folder, _ = written
    names = {p.name for p in folder.iterdir()}
    assert names == {"report.html", "report.json", "report.intoto.json", "SHA256SUMS", "journal.jsonl", "evidence"}


def test_sha256sum_accepts_the_list_and_it_covers_everything(written):
    folder, _ = written
    done = sha256sum(folder)
    assert done.returncode == 0, done.stderr
    covered = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    everything = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert covered == everything - {"SHA256SUMS"}


@pytest.mark.parametrize("name", ["report.html", "report.json", "journal.jsonl", "evidence/patch.png"])
def test_sha256sum_rejects_a_changed_file(written, name):
    folder, _ = written
    path = folder / name
    path.write_bytes(path.read_bytes() + b" ")
    done = sha256sum(folder)
    assert done.returncode != 0
    assert f"{name}: FAILED" in done.stdout


@pytest.mark.parametrize("name", ["with space.png", "back\\slash.png", "new\nline.png", "ünï.png", "-dash.png"])
def test_sha256sum_accepts_odd_names(written, name):
    folder, report = written
    (folder / "evidence" / name).write_bytes(b"x")
    (folder / "evidence" / "sub").mkdir()
    (folder / "evidence" / "sub" / "y").write_bytes(b"y")
    reports.write(report, folder)
    assert sha256sum(folder).returncode == 0
    assert "evidence/sub/y" in (folder / "SHA256SUMS").read_text()


def test_record_covers_journal_and_evidence_and_leaves_the_given_one_alone(written):
    folder, report = written
    assert report.files == []
    assert report.references == []
    stored = json.loads((folder / "report.json").read_text())
    files = {f["path"]: f for f in stored["files"]}
    expected = {"journal.jsonl", *(f"evidence/{p.name}" for p in (folder / "evidence").iterdir())}
    assert set(files) == expected
    for path, f in files.items():
        assert f["sha256"] == sha256(folder / path)
        assert f["bytes"] == (folder / path).stat().st_size
    named = {ref for c in report.controls for ref in c.refs}
    assert {ref["id"] for ref in stored["references"]} == named


def test_page_and_statement_name_the_digest_of_the_record(written):
    folder, _ = written
    digest = sha256(folder / "report.json")
    assert digest in parse((folder / "report.html").read_text()).by_id("sign-off").text
    statement = json.loads((folder / "report.intoto.json").read_text())
    assert statement["predicate"]["details"]["digest"] == {"sha256": digest}


def test_page_can_be_made_again_from_the_stored_record(written):
    folder, _ = written
    stored = r.Report.model_validate_json((folder / "report.json").read_text())
    assert html.render(stored, folder) == (folder / "report.html").read_text()


def test_writing_twice_gives_the_same_bytes(written):
    folder, report = written
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    reports.write(report, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_a_failure_half_way_leaves_the_old_page_and_no_scraps(written, monkeypatch):
    folder, report = written
    old = (folder / "report.html").read_bytes()

    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(output.html, "render", broken)
    with pytest.raises(RuntimeError):
        reports.write(report, folder)
    assert (folder / "report.html").read_bytes() == old
    assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(reports.FolderError, match=r"^report folder .*: expected .*, got .*; choose .*$") as caught:
            reports.write(sample_record.bare_record(), folder)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, OSError)
        assert caught.value.strerror in {"File exists", "Not a directory"}


# --- schema ------------------------------------------------------------------------------------------------------


def test_published_schema_is_the_records_own():
    assert schema.published() == schema.build()
    path = Path(schema.__file__).with_name("schema.json")
    assert path.read_text() == schema.dumps()
    jsonschema.Draft202012Validator.check_schema(schema.published())


def test_schema_accepts_what_is_written(written):
    folder, _ = written
    jsonschema.validate(json.loads((folder / "report.json").read_text()), schema.published())
    jsonschema.validate(json.loads(sample_record.bare_record().to_json()), schema.published())


SPOILED = {
    "no schema": lambda d: d.pop("schema"),
    "other schema": lambda d: d.update(schema="assay-report-2"),
    "extra key": lambda d: d.update(extra=1),
    "unknown verdict": lambda d: d.update(verdict="maybe"),
    "no seed": lambda d: d["run"].pop("seed"),
    "upper case": lambda d: d["controls"][0].update(verdict="PASS"),
    "text for a number": lambda d: d["controls"][1]["measure"].update(value="high"),
    "unknown operator": lambda d: d["controls"][1]["limit"].update(op="<"),
    "evidence without digest": lambda d: d["controls"][1]["evidence"][0].pop("sha256"),
    "half a byte": lambda d: d["subject"]["files"][0].update(bytes=1.5),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_schema_rejects(written, spoil):
    folder, _ = written
    data = json.loads((folder / "report.json").read_text())
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema.published())


# --- statement ---------------------------------------------------------------------------------------------------


def _report(*verdicts, complete=True, **profile):
    report = sample_record.bare_record()
    report.controls = [sample_record.empty_control(v, id=f"C-{v}-{i}") for i, v in enumerate(verdicts)]
    report.run.complete = complete
    report.profile = report.profile.model_copy(update={"indicative": False, "sha256": "ab" * 32, **profile})
    report.subject.files = [r.File(path="m.onnx", sha256="cd" * 32), r.File(path="m.py", sha256="ef" * 32)]
    report.verdict = r.worst(report.controls, complete)
    return report


@pytest.mark.parametrize(
    ("verdicts", "result", "lists"),
    [
        (["pass"], "PASSED", (1, 0, 0)),
        (["pass", "not_applicable"], "PASSED", (1, 0, 0)),
        (["pass", "waived"], "WARNED", (1, 1, 0)),
        (["waived"], "WARNED", (0, 1, 0)),
        (["pass", "fail"], "FAILED", (1, 0, 1)),
        (["pass", "inconclusive"], "FAILED", (1, 0, 1)),
        (["pass", "error", "not_run"], "FAILED", (1, 0, 2)),
        (["not_applicable"], "FAILED", (0, 0, 0)),
        ([], "FAILED", (0, 0, 0)),
    ],
)
def test_statement_says_the_verdict(verdicts, result, lists):
    report = _report(*verdicts)
    statement = attest.statement(report, "12" * 32)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["subject"] == [
        {"name": "m.onnx", "digest": {"sha256": "cd" * 32}},
        {"name": "m.py", "digest": {"sha256": "ef" * 32}},
    ]
    predicate = statement["predicate"]
    assert predicate["result"] == result
    named = [predicate[k] for k in ("passedTests", "warnedTests", "failedTests")]
    assert tuple(map(len, named)) == lists
    decided = {c.id for c in report.controls if c.verdict != "not_applicable"}
    assert {id for ids in named for id in ids} == decided
    assert predicate["configuration"][0]["digest"] == {"sha256": "ab" * 32}


def test_statement_of_an_incomplete_or_indicative_run_is_no_pass():
    assert attest.statement(_report("pass", complete=False), "")["predicate"]["result"] == "FAILED"
    smoke = attest.statement(_report("pass", indicative=True), "")["predicate"]
    assert smoke["result"] == "WARNED"
    assert smoke["passedTests"] == []
    assert smoke["warnedTests"] == ["C-pass-0"]


def test_a_verdict_that_contradicts_its_controls_never_passes():
    report = _report("pass", "fail")
    report.verdict = "pass"
    assert attest.result(report) == "FAILED"


def test_statement_speaks_of_weights_or_not_at_all(tmp_path):
    report = _report("pass")
    report.subject.files, report.subject.state_sha256 = [], "aa" * 32
    assert attest.statement(report, "")["subject"] == [{"name": "weights of model", "digest": {"sha256": "aa" * 32}}]
    report.subject.state_sha256 = ""
    with pytest.raises(ValueError, match="expected a model file"):
        attest.statement(report, "")
    (tmp_path / "report.intoto.json").write_text("stale")
    reports.write(report, tmp_path)
    assert not (tmp_path / "report.intoto.json").exists()
    assert sha256sum(tmp_path).returncode == 0


# --- house rule --------------------------------------------------------------------------------------------------


def test_reports_import_nothing_of_ours_but_the_record():
    for path in Path(reports.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] not in {"probes", "suites", "torch"}, (path, name)
                assert not name.startswith("audit") or name == "audit.record", (path, name)
