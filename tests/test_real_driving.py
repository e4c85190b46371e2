"""The driving suite on real detectors and street photographs of the kit: does a print of a fifth of the box bite?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests import mother
from tests.kit import fastestdet, kit, yolox_nano

pytestmark = [pytest.mark.slow, pytest.mark.kit]
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("build", [fastestdet, yolox_nano])
def test_the_kits_detectors_show_log_odds_of_their_scores(build):
    detector = build()
    images = torch.rand(2, 3, 240, 320, generator=torch.Generator().manual_seed(0))
    found = detector.candidates(images.requires_grad_())
    assert found.logits.shape[2] == 80
    (gradient,) = torch.autograd.grad(found.logits.max(), images)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_a_trained_print_hides_vehicles_that_noise_does_not(tmp_path):
    """At the smoke budget, a seventh of the standard one's steps and half its batch."""
    names = {"subject": "fastestdet", "other": "yolox_nano"}
    for stem, name in names.items():
        text = f"from tests.kit import {name}\n\ndef model(device):\n    return {name}()\n"
        (tmp_path / f"{stem}.py").write_text(text)
    asked = [
        "DRV-CLEAN",
        "DRV-CONTROL/noise",
        "DRV-SCENE-WB/combination",
        "DRV-TRANSFER",
        "DRV-PUBLISHED",
        "DRV-CONSTRAINT",
    ]
    words = ["-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider"]
    words += ["--audit-model", str(tmp_path / "subject.py"), "--audit-surrogates", str(tmp_path / "other.py")]
    words += ["--audit-profile", "driving", "--audit-data", str(kit("driving_apollo"))]
    words += ["--audit-patches", str(kit("patches_published", "yolov5_visdrone_vehicle"))]
    words += ["--audit-report", str(tmp_path / "out"), "--audit-cache", str(tmp_path / "cache")]
    words += [w for a in asked for w in ("--audit-control", a)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = mother.run(words, cwd=ROOT, env=env, timeout=1500)
    assert done.returncode in (1, 10, 11), done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {c["id"]: c for c in report["controls"] if c["verdict"] != "not_run"}
    assert set(rows) == set(asked)
    noise = rows["DRV-CONTROL/noise"]["measure"]["value"]
    trained = rows["DRV-SCENE-WB/combination"]["measure"]["value"]
    assert noise >= 0.5, "occlusion alone hides few"
    assert trained <= noise / 2
    assert not [d["name"] for d in rows["DRV-SCENE-WB/combination"]["diagnostics"] if d["raised"]]
    (grid,) = rows["DRV-TRANSFER"]["grids"]
    own = grid["values"][grid["rows"].index("other")][grid["columns"].index("other")]
    assert own <= grid["values"][grid["rows"].index("other")][0], "a print works best on the model it was made on"
    assert rows["DRV-PUBLISHED"]["measure"]["value"] >= trained
