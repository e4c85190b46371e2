"""The forensics suite as a user runs it, on planted detectors: each has to be told for what it is."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from audit.measures.image_pictures import picture_of
from tests import planted_forgery
from tests.running import audit, only

pytestmark = pytest.mark.slow
PROFILE = """
extends = "forensics"
name = "planted"

[budgets.smoke]
steps = 8
batch = 8
queries = 40
images = 12
frames = 2
bootstrap = 200

[data]
epsilon = {epsilon}
"""


def run(folder, kind, data, *args, epsilon=4.0, surrogate=""):
    model = planted_forgery.model_file(kind, surrogate)
    return audit(folder, model, PROFILE.format(epsilon=epsilon), "--audit-data", str(data), *args)


def said(path):
    """What ``Fine`` says of a file, by hand."""
    picture = cv2.imread(str(path)).astype(np.float64)
    y, x = np.mgrid[:64, :64]
    return 2 * ((picture * (1 - 2 * ((x + y) % 2))[..., None]).mean() - 5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_forgery.folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def fine(tmp_path_factory, data):
    """The whole profile on the detector that sees fine traces alone."""
    folder = tmp_path_factory.mktemp("fine")
    code, rows, output = run(folder, "Fine", data, surrogate="Level")
    return folder, code, rows, output


def test_a_detector_of_fine_traces_is_told_for_what_it_is(fine):
    _, code, rows, output = fine
    assert code == 1, output
    verdicts = {id: row["verdict"] for id, row in rows.items()}
    assert not [id for id, v in verdicts.items() if v in ("error", "not_run", "not_applicable")], output
    good = ("FOR-CLEAN", "FOR-CONFOUNDER", "FOR-FALSE-ALARM", "FOR-CODEC/h265", "FOR-PGD/fake",
            "FOR-FREQUENCY/learned", "FOR-TRANSFER/pgd", "FOR-BLUR-CONTROL/real")  # fmt: skip
    bad = ("FOR-METHOD", "FOR-BLUR-CONTROL/fake", "FOR-BLUR/one-step-fake", "FOR-BLUR/multi-step-fake", "FOR-BLUR-GRID",
           "FOR-BLUR-GENERATOR/one", "FOR-TRANSFER/blur", "FOR-FORGED/swapped-face")  # fmt: skip
    assert {id: verdicts[id] for id in good} == dict.fromkeys(good, "pass")
    assert {id: verdicts[id] for id in bad} == dict.fromkeys(bad, "fail")
    # squares never meet the chequerboard: a search that gets nowhere earns no pass
    assert verdicts["FOR-QUERY/fake"] == "inconclusive"
    assert rows["FOR-METHOD"]["details"]["worst cell"] in ("waves", "dark")
    assert {rows[i]["access"] for i in ("FOR-PGD/fake", "FOR-BLUR-GENERATOR/two")} == {"white-box"}
    assert (rows["FOR-QUERY/fake"]["access"], rows["FOR-TRANSFER/pgd"]["access"]) == ("query", "transfer")


def test_the_method_matrix_is_what_scikit_learn_counts_on_the_files(fine, data):
    _, _, rows, _ = fine
    row = rows["FOR-METHOD"]
    grid = next(g for g in row["grids"] if g["title"].endswith("AUC per video"))
    assert grid["rows"] == ["the audited model (grid)", "Level (dark)"]
    assert (grid["columns"][0], grid["marks"]) == ("grid", [[0, 0], [1, 1]]), "what it was trained on comes first"
    real = [said(p) for p in sorted((data / "real").glob("*.png"))]
    for method, value in zip(grid["columns"], grid["values"][0], strict=True):
        fakes = [said(p) for p in sorted((data / "fake" / method).glob("*.png"))]
        auc = roc_auc_score([0] * len(real) + [1] * len(fakes), real + fakes)
        assert value == pytest.approx(auc, abs=1e-3), method
    assert row["measure"]["value"] == min(grid["values"][0])
    drops = {c["name"]: c["value"] for c in row["conditions"] if "drop" in c["group"]}
    assert drops["grid"] == 0
    assert drops["waves"] == pytest.approx(1 - grid["values"][0][grid["columns"].index("waves")])


def test_the_report_shows_each_quality_and_each_attack(fine):
    folder, _, rows, _ = fine
    shown = {e["caption"] for e in rows["FOR-QUALITY"]["evidence"]}
    assert {"as it is", "H.264 QP 23", "H.264 QP 40"} <= shown
    strip = [e for e in rows["FOR-BLUR/one-step-fake"]["evidence"] if e["case"] == "worst"]
    assert [e["role"] for e in strip] == ["clean", "map", "adversarial", "difference"]
    assert strip[1]["caption"].startswith("σ: black")
    groups = {c["group"] for c in rows["FOR-BLUR/one-step-fake"]["conditions"]}
    assert {"Imperceptibility: PSNR, dB", "Imperceptibility: SSIM"} <= groups
    page = (folder / "out" / "report.html").read_text()
    for words in ("Said to be, per video", "Qualities: trained on × tested on", "AUC by severity"):
        assert words in page, words


def test_a_detector_of_the_mean_stands_where_it_should(tmp_path, data):
    ids = ("FOR-CLEAN", "FOR-METHOD", "FOR-QUALITY", "FOR-PGD", "FOR-BLUR", "FOR-FLOW", "FOR-BLUR-CONTROL")
    code, rows, output = run(tmp_path, "Level", data, *only(*ids))
    verdicts = {id: row["verdict"] for id, row in rows.items() if row["verdict"] != "not_run"}
    assert verdicts.pop("FOR-METHOD") == "fail", output
    # one literal step moves σ by next to nothing: what that leaves is no proof
    assert verdicts.pop("FOR-BLUR/one-step-fake") == "inconclusive", output
    assert set(verdicts.values()) == {"pass"}, (verdicts, output)
    assert code == 1


def test_eight_levels_are_enough_against_fine_traces(tmp_path, data):
    code, rows, output = run(tmp_path, "Fine", data, *only("FOR-PGD", "FOR-FGSM/fake"), epsilon=8.0)
    assert {rows[i]["verdict"] for i in ("FOR-PGD/fake", "FOR-PGD/real", "FOR-FGSM/fake")} == {"fail"}, output
    # one step of eight levels along a linear detector's sign takes 8 of its 10 levels
    assert rows["FOR-FGSM/fake"]["measure"]["k"] == 0
    assert code == 1


def test_masked_gradients_earn_no_pass(tmp_path, data):
    ids = ("FOR-FGSM/fake", "FOR-PGD/fake", "FOR-PGD/real", "FOR-BLUR/multi-step-real")
    _, rows, output = run(tmp_path, "Masked", data, *only(*ids), epsilon=8.0)
    verdicts = {i: rows[i]["verdict"] for i in ids}
    assert "pass" not in verdicts.values(), (verdicts, output)
    assert any(d["raised"] for d in rows["FOR-PGD/fake"]["diagnostics"])


def test_one_video_is_no_verdict_however_many_its_frames(tmp_path):
    place = planted_forgery.folder(tmp_path / "data", pictures=1, frames=6)
    code, rows, output = run(tmp_path, "Fine", place, *only("FOR-CLEAN", "FOR-METHOD", "FOR-FALSE-ALARM"))
    assert {rows[i]["verdict"] for i in ("FOR-CLEAN", "FOR-METHOD", "FOR-FALSE-ALARM")} == {"inconclusive"}, output
    assert rows["FOR-CLEAN"]["measure"]["value"] == 1
    assert "1 fake and 1 real video" in rows["FOR-CLEAN"]["reason"]
    assert code == 11


def test_clips_are_judged_and_attacked_whole(tmp_path):
    place = planted_forgery.folder(tmp_path / "data", pictures=6, frames=4)
    ids = ("FOR-CLEAN", "FOR-METHOD", "FOR-PGD/fake", "FOR-BLUR/one-step-fake", "FOR-QUERY/fake")
    code, rows, output = run(tmp_path, "Clips", place, *only(*ids), epsilon=8.0)
    assert rows["FOR-CLEAN"]["verdict"] == "pass", output
    assert rows["FOR-PGD/fake"]["verdict"] == "fail"
    assert rows["FOR-PGD/fake"]["measure"]["n"] == 12, "six clips of two frames"
    assert rows["FOR-BLUR/one-step-fake"]["verdict"] == "fail"
    assert code == 1


def test_numbers_are_the_same_on_two_workers(tmp_path, fine, data):
    ids = ("FOR-METHOD", "FOR-QUALITY", "FOR-BLUR/multi-step-fake", "FOR-PGD/fake", "FOR-FORGED/self-blended")
    _, rows, output = run(tmp_path, "Fine", data, "-n", "2", *only(*ids), surrogate="Level")
    for id in ids:
        assert rows[id]["measure"] == fine[2][id]["measure"], output


def test_files_that_cannot_be_read_are_named(tmp_path):
    place = planted_forgery.folder(tmp_path / "data", pictures=4)
    (place / "real" / "900.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (place / "fake" / "grid" / "901.mp4").write_bytes(b"")
    code, _, output = run(tmp_path, "Fine", place, *only("FOR-CLEAN"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {u["name"] for u in report["data"][0]["unreadable"]} == {"real/900.png", "fake/grid/901.mp4"}, output
    assert code == 11


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: None, "nothing there"),
        (lambda place: planted_forgery.write(place / "real" / "1.png", planted_forgery.surface(1)), "expected"),
        (lambda place: planted_forgery.folder(place, 1, ()), "expected"),
    ],
    ids=["nothing", "one file", "no fakes"],
)
def test_bad_data_is_said_in_a_sentence(tmp_path, make, words):
    place = tmp_path / "data"
    make(place)
    code, _, output = run(tmp_path, "Fine", place)
    assert code == 4
    error = next(line for line in output.splitlines() if line.startswith("ERROR"))
    assert words in error
    assert "Traceback" not in output


def test_the_range_of_a_map_is_told_apart():
    assert picture_of("sigma", torch.tensor([[1.0, 1.00002]]))[1] == "σ: black 1, white 1.00002 px"
    assert picture_of("flow", torch.tensor([[[3.0, 0.0]], [[4.0, 0.0]]]))[1] == "flow: black 0, white 5 px"
    pixels, words = picture_of("mask", torch.zeros(2, 2))
    assert (int(pixels.max()), words) == (0, "mask: black 0, white 0")
