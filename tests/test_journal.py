import json
import os
import signal
import subprocess
import sys

import pytest

from audit import journal
from audit.errors import AuditError


def run_line(key="k", resumes=False, run_id="r1"):
    return {"key": key, "resumes": resumes, "run": {"id": run_id}}


def test_lines_come_back_in_order(tmp_path):
    j = journal.Journal(tmp_path)
    j.append("run", run_line())
    j.append("control", {"id": "A", "verdict": "pass", "text": "line\nbreak <b>"})
    assert journal.read(tmp_path) == [
        ("run", run_line()),
        ("control", {"id": "A", "verdict": "pass", "text": "line\nbreak <b>"}),
    ]


def test_nan_is_refused_before_it_is_written(tmp_path):
    j = journal.Journal(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        j.append("control", {"value": float("nan")})
    assert not j.path.exists() or j.path.read_text() == ""


def test_a_torn_last_line_is_left_out_and_does_not_swallow_the_next(tmp_path):
    j = journal.Journal(tmp_path)
    j.append("run", run_line())
    with j.path.open("a") as f:
        f.write('{"kind": "control", "data": {"id": "A", "ver')
    j.append("control", {"id": "B", "verdict": "fail"})
    assert [d.get("id") for k, d in journal.read(tmp_path) if k == "control"] == ["B"]


def test_only_an_interrupted_run_with_the_same_key_is_taken_up(tmp_path):
    j = journal.Journal(tmp_path)
    assert journal.unfinished(tmp_path, "k") is None
    j.append("run", run_line())
    j.append("control", {"id": "A", "verdict": "pass"})
    j.append("control", {"id": "B", "verdict": "error"})
    assert journal.unfinished(tmp_path, "other") is None
    assert [c["id"] for c in journal.unfinished(tmp_path, "k")] == ["A"], "an error is tried again"
    j.append("end", {"complete": True})
    assert journal.unfinished(tmp_path, "k") is None


def test_a_resumed_run_keeps_the_first_runs_controls(tmp_path):
    j = journal.Journal(tmp_path)
    j.append("run", run_line(run_id="old"))
    j.append("control", {"id": "OLD", "verdict": "pass"})
    j.append("run", run_line())
    j.append("control", {"id": "A", "verdict": "pass"})
    j.append("run", run_line(resumes=True))
    j.append("control", {"id": "B", "verdict": "pass"})
    assert [c["id"] for c in journal.unfinished(tmp_path, "k")] == ["A", "B"]


def test_an_older_journal_is_moved_aside_not_lost(tmp_path):
    j = journal.Journal(tmp_path)
    j.append("run", run_line(run_id="20260101T000000-abc"))
    journal.retire(tmp_path)
    assert not j.path.exists()
    kept = tmp_path / "journal-20260101T000000-abc.jsonl"
    assert json.loads(kept.read_text())["data"]["run"]["id"] == "20260101T000000-abc"


def test_no_journal_is_one_sentence(tmp_path):
    with pytest.raises(AuditError, match=r"expected a journal\.jsonl, got none; give the output folder"):
        journal.read(tmp_path)


def test_a_line_survives_sigkill(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from audit.journal import Journal\n"
        "j = Journal(Path(sys.argv[1])); j.append('control', {'id': 'A'}); print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == "written\n"
        os.kill(p.pid, signal.SIGKILL)
    assert journal.read(tmp_path) == [("control", {"id": "A"})]


def test_a_hostile_run_id_does_not_lead_out_of_the_folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    journal.Journal(folder).append("run", run_line(run_id="x/../../y"))
    journal.retire(folder)
    assert [p.name for p in folder.iterdir()] == ["journal-unknown.jsonl"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
