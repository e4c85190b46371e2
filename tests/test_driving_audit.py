"""The driving suite as a user runs it, on planted detectors: open and closed ones, surrogates, published prints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import mother

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
PROFILE = """
extends = "driving"
name = "planted"

[data]
targets = ["square"]
min_side = 24
patch_share = 0.3

[budgets.smoke]
steps = 25
batch = 6
queries = 48
images = 20
bootstrap = 200
"""
MODEL = """
from tests.planted import scenes
{imports}

def model(device):
    return {kind}()

def data(root):
    return scenes(20)
"""


def audit(folder: Path, kind: str, *args: str, imports: str = "from tests.planted_goals import Colours"):
    """Exit code, report and output of the driving suite on a planted detector."""
    (folder / "profile.toml").write_text(PROFILE)
    (folder / "subject.py").write_text(MODEL.format(kind=kind, imports=imports))
    words = ["-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider"]
    words += ["--audit-model", str(folder / "subject.py"), "--audit-profile", str(folder / "profile.toml")]
    words += ["--audit-report", str(folder / "out"), "--audit-cache", str(folder / "cache"), *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = mother.run(words, cwd=ROOT, env=env, timeout=900)
    path = folder / "out" / "report.json"
    report = json.loads(path.read_text()) if path.exists() else {"controls": []}
    return done.returncode, {c["id"]: c for c in report["controls"]}, done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All controls, with a surrogate and two published prints."""
    folder = tmp_path_factory.mktemp("driving")
    (folder / "other.py").write_text(MODEL.format(kind="Red", imports="from tests.planted import Red"))
    (folder / "prints").mkdir()
    for name, rgb in {"cyan": (0, 255, 255), "pink": (255, 60, 120)}.items():
        Image.fromarray(np.full((20, 30, 3), rgb, np.uint8)).save(folder / "prints" / f"{name}.png")
    given = ["--audit-surrogates", str(folder / "other.py"), "--audit-patches", str(folder / "prints")]
    code, rows, out = audit(folder, "Colours", *given)
    return folder, code, rows, out


def test_every_control_ends_in_a_verdict_and_none_in_an_error(whole):
    _, code, rows, out = whole
    assert code == 1, out
    assert len(rows) == 34
    assert {i: (r["verdict"], r["reason"]) for i, r in rows.items() if r["verdict"] in ("error", "not_run")} == {}


def test_what_is_weak_fails_and_what_is_not_does_not(whole):
    _, _, rows, _ = whole
    for name in ("DRV-CLEAN", "DRV-CONSTRAINT"):
        assert rows[name]["verdict"] == "pass", rows[name]["reason"]
    assert {rows[f"DRV-CONTROL/{n}"]["verdict"] for n in ("noise", "grey", "black")} == {"pass"}
    teams = [r for i, r in rows.items() if i.startswith("DRV-SCENE-WB/")]
    assert len(teams) == 7
    for row in teams:
        assert row["verdict"] == "fail", row["id"]
        assert row["access"] == "white-box"
    assert rows["DRV-CLASS"]["verdict"] == "fail", "green makes a plant of a square"
    assert rows["DRV-BOX"]["verdict"] == "not_applicable", "its boxes stand on a grid"


def test_transfer_tells_the_surrogates_and_leaves_the_target_out(whole):
    _, _, rows, _ = whole
    row = rows["DRV-TRANSFER"]
    assert row["access"] == "transfer"
    assert row["verdict"] == "fail"
    (grid,) = row["grids"]
    assert grid["rows"] == ["other", "all others, fixed weights"]
    assert grid["columns"] == ["the audited model", "other"]
    assert row["measure"]["value"] == min(line[0] for line in grid["values"])


def test_published_prints_are_named_and_the_worst_is_judged(whole):
    _, _, rows, _ = whole
    row = rows["DRV-PUBLISHED"]
    assert row["details"]["worst_patch"] == "cyan"
    assert row["grids"][0]["rows"] == ["cyan", "pink"]


def test_teams_are_tabulated_against_models(whole):
    _, _, rows, _ = whole
    (grid,) = rows["DRV-TEAMS"]["grids"]
    assert sorted(grid["rows"]) == ["class-margin", "joint", "max-objectness", "objectness", "targeted-class"]
    assert grid["columns"] == ["the audited model", "other"]
    (grid,) = rows["DRV-GRID"]["grids"]
    assert grid["columns"] == ["upper", "middle", "lower"]


def test_queries_stand_in_the_record_with_their_curve(whole):
    _, _, rows, _ = whole
    for name in ("random-search", "evolution"):
        row = rows[f"DRV-QUERY/{name}"]
        assert row["access"] == "query"
        assert any(c["y_label"] == "success" for c in row["curves"])
        assert 0 < row["details"]["queries"] <= 5000


def test_the_report_shows_tables_and_needs_no_network(whole):
    folder, _, _, _ = whole
    page = (folder / "out" / "report.html").read_text()
    assert "surrogate × target" in page
    assert "<script" not in page


def test_a_closed_model_is_attacked_by_queries_and_what_needs_gradients_is_not_applicable(tmp_path):
    imports = "from tests.planted_goals import Colours\n\nclass Closed:\n"
    imports += "    classes, score_threshold = Colours.classes, 0.5\n"
    imports += "    def __call__(self, images):\n        return Colours()(images)\n"
    asked = [
        "DRV-SCENE-WB/joint",
        "DRV-SCENE-WB/bands",
        "DRV-TEAMS",
        "DRV-GHOSTS",
        "DRV-TRANSFER",
        "DRV-PUBLISHED",
        "DRV-QUERY",
    ]
    words = [w for a in asked for w in ("--audit-control", a)]
    code, rows, out = audit(tmp_path, "Closed", *words, imports=imports)
    assert {rows[f"DRV-SCENE-WB/{v}"]["access"] for v in ("joint", "bands")} == {"query"}, out
    for name, verdict, why in (
        ("DRV-TEAMS", "not_applicable", "needs gradients"),
        ("DRV-GHOSTS", "not_applicable", "needs gradients"),
        ("DRV-TRANSFER", "inconclusive", "--audit-surrogates"),
        ("DRV-PUBLISHED", "inconclusive", "--audit-patches"),
    ):
        assert rows[name]["verdict"] == verdict
        assert why in rows[name]["reason"]
    assert rows["DRV-QUERY/random-search"]["measure"]["value"] < 0.7
    assert code == 1


def test_a_surrogate_that_sees_nothing_does_not_make_a_pass(tmp_path):
    blind = "from tests.planted import Red\n\nclass Dim(Red):\n"
    blind += "    def candidates(self, images):\n        found = super().candidates(images)\n"
    blind += "        return type(found)(found.boxes, found.logits - 30)\n"
    (tmp_path / "dim.py").write_text(MODEL.format(kind="Dim", imports=blind))
    asked = ["--audit-control", "DRV-TRANSFER", "--audit-surrogates", str(tmp_path / "dim.py")]
    code, rows, out = audit(tmp_path, "Colours", *asked)
    assert rows["DRV-TRANSFER"]["verdict"] == "inconclusive", out
    assert "clean recall is dim 0.000" in rows["DRV-TRANSFER"]["reason"]
    assert code == 11


def test_a_detector_of_one_class_is_audited_as_far_as_that_goes(tmp_path):
    asked = ["DRV-SCENE-WB/targeted-class", "DRV-CLASS", "DRV-TEAMS", "DRV-QUERY/random-search"]
    words = [w for a in asked for w in ("--audit-control", a)]
    _, rows, out = audit(tmp_path, "Red", *words, imports="from tests.planted import Red")
    for name in asked[:2]:
        assert rows[name]["verdict"] == "not_applicable", out
        assert "Every class of the detector is under attack" in rows[name]["reason"]
    assert sorted(rows["DRV-TEAMS"]["grids"][0]["rows"]) == ["class-margin", "joint", "max-objectness", "objectness"]
    assert rows["DRV-QUERY/random-search"]["verdict"] == "fail"
