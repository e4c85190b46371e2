"""The recognition suite on a real recognizer and real photographs of the kit: does a tenth of the face bite?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import mother
from tests.kit import kit

pytestmark = [pytest.mark.slow, pytest.mark.kit]
ROOT = Path(__file__).resolve().parents[1]
MODEL = """
from tests.kit import lfw_pairs, mobilefacenet

declared = {"accuracy": 0.99}

def model(device):
    return mobilefacenet()

def data(root):
    return lfw_pairs(60)
"""


def test_a_patch_on_a_tenth_of_the_face_makes_somebody_else_of_its_wearer(tmp_path):
    kit("face_rec_mobilefacenet_foamliu", "mobilefacenet.pt")
    (tmp_path / "subject.py").write_text(MODEL)
    asked = ("REC-CLEAN", "REC-FMR", "REC-IMPERSONATE/features", "REC-DODGE/features")
    words = ["-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider"]
    words += ["--audit-model", str(tmp_path / "subject.py"), "--audit-report", str(tmp_path / "out")]
    words += ["--audit-cache", str(tmp_path / "cache"), *(w for id in asked for w in ("--audit-control", id))]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = mother.run(words, cwd=ROOT, env=env, timeout=900)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {c["id"]: c for c in report["controls"] if c["verdict"] != "not_run"}
    assert set(rows) == set(asked), done.stdout + done.stderr
    assert rows["REC-CLEAN"]["measure"]["value"] >= 0.9
    assert rows["REC-FMR"]["measure"]["value"] <= 0.05
    for id in asked[2:]:
        row = rows[id]
        assert row["verdict"] == "fail", row["reason"]
        assert row["measure"]["value"] >= 0.9
        plain = {c["name"]: c["value"] for c in row["conditions"] if c["group"].startswith("Success of unoptimised")}
        assert max(plain.values()) <= row["measure"]["value"] - 0.5, "against its own unoptimised controls"
        assert not [d["name"] for d in row["diagnostics"] if d["raised"]]
