"""The audit tells planted subjects for what they are: weak, robust, blind to the patch, masked, random, closed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import mother
from tests.planted import model_file

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


def audit(folder: Path, kind: str, *args: str) -> tuple[int, dict, str]:
    """The suites as a process on a planted subject: exit code, report (empty where there is none), output."""
    (folder / "subject.py").write_text(model_file(kind))
    words = [
        "-m",
        "pytest",
        str(ROOT / "suites"),
        "-p",
        "no:cacheprovider",
        "--audit-model",
        str(folder / "subject.py"),
    ]
    words += ["--audit-report", str(folder / "out"), "--audit-cache", str(folder / "cache"), *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = mother.run(words, cwd=ROOT, env=env, timeout=900)
    path = folder / "out" / "report.json"
    return done.returncode, json.loads(path.read_text()) if path.exists() else {}, done.stdout + done.stderr


def rows(report: dict, prefix: str) -> dict[str, str]:
    return {
        c["id"]: c["verdict"] for c in report["controls"] if c["id"].startswith(prefix) and c["verdict"] != "not_run"
    }


def only(*ids: str) -> list[str]:
    return [word for id in ids for word in ("--audit-control", id)]


def test_weak_only_to_its_own_trained_patch_fails(tmp_path):
    code, report, out = audit(tmp_path, "Red", *only("DET-CONTROL", "DET-PATCH-WB"))
    assert code == 1, out
    assert set(rows(report, "DET-CONTROL").values()) == {"pass"}
    assert set(rows(report, "DET-PATCH-WB").values()) == {"fail"}
    for c in report["controls"]:
        if c["id"].startswith("DET-PATCH-WB"):
            assert c["measure"]["value"] < 0.2
            assert c["access"] == "white-box"


@pytest.mark.parametrize("kind", ["Blind", "Robust"])
def test_what_no_patch_at_the_top_can_hide_passes(tmp_path, kind):
    code, report, out = audit(tmp_path, kind, *only("DET-CLEAN", "DET-CONTROL", "DET-PATCH-WB", "DET-QUERY"))
    assert code == 11, out  # the other controls did not run
    assert set(rows(report, "DET-").values()) == {"pass"}, {c["id"]: c["reason"] for c in report["controls"]}


@pytest.mark.parametrize("kind", ["Quantised", "NoisyGradient"])
def test_masked_gradients_never_pass(tmp_path, kind):
    _, report, out = audit(tmp_path, kind, *only("DET-PATCH-WB"))
    assert rows(report, "DET-PATCH-WB"), out
    assert set(rows(report, "DET-PATCH-WB").values()) <= {"inconclusive", "fail"}
    raised = [d["name"] for c in report["controls"] for d in c["diagnostics"] if d["raised"]]
    assert raised


def test_random_outputs_are_refused(tmp_path):
    code, report, out = audit(tmp_path, "Random")
    assert code == 4
    assert not report
    assert "Traceback" not in out


def test_without_candidates_it_is_attacked_by_queries_and_the_report_says_so(tmp_path):
    _, report, out = audit(tmp_path, "QueryOnly", *only("DET-PATCH-WB/patch-iou", "DET-QUERY"))
    assert report["subject"]["access"] == {"detector": "query"}, out
    ran = [c for c in report["controls"] if c["verdict"] != "not_run"]
    assert {c["access"] for c in ran} == {"query"}
    assert all(c["measure"]["value"] < 0.8 for c in ran), "queries alone find the weakness"


def numbers(report: dict) -> dict[str, dict]:
    keep = ("measure", "conditions", "curves", "diagnostics", "protocol_sha256", "seed", "verdict", "reason")
    return {c["id"]: {k: c[k] for k in keep} for c in report["controls"] if c["verdict"] != "not_run"}


def test_same_seed_same_numbers_serially_in_parallel_reordered_and_alone(tmp_path):
    ids = only("DET-CONTROL", "DET-PATCH-WB", "DET-PATCH-GHOST/patch-iou", "DET-QUERY")
    seen = {}
    suite = f"{ROOT}/suites/test_detection.py"
    turned = [f"{suite}::{name}" for name in ("test_patch_by_queries", "test_patch_is_no_object", "test_trained_patch")]
    runs = {
        "serial": ids,
        "parallel": [*ids, "-n", "2"],
        "reordered": [*ids, "--deselect", f"{suite}::test_unoptimised_patch", *turned],
        "alone": only("DET-PATCH-GHOST/patch-iou"),
        "other seed": [*only("DET-PATCH-GHOST/patch-iou"), "--audit-seed", "1"],
    }
    for name, args in runs.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        _, report, out = audit(folder, "Red", *args)
        assert report, out
        seen[name] = numbers(report)
    assert len(seen["serial"]) == 9
    assert seen["parallel"] == seen["serial"]
    assert seen["alone"]
    for name in ("reordered", "alone"):
        assert seen[name] == {id: row for id, row in seen["serial"].items() if id in seen[name]}
    one = "DET-PATCH-GHOST/patch-iou"
    assert seen["other seed"][one]["seed"] != seen["serial"][one]["seed"]
    assert seen["other seed"][one]["protocol_sha256"] != seen["serial"][one]["protocol_sha256"]
