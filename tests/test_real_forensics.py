"""Forensics and liveness on real videos, photographs and detectors of the kit."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from audit.data.images import inspect, read_as
from tests.kit import KIT, MESONETS, MiniFASFinder, kit
from tests.running import ROOT, audit, only

pytestmark = [pytest.mark.slow, pytest.mark.kit]

MODEL = f"""
import sys
import audit
sys.path[:0] = ["{KIT}/nets", "{ROOT}"]
def model(device, which="Meso4_DF", trained=("Deepfakes", "c23")):
    from nets_deepfake import MesoNetKeras
    net = MesoNetKeras(f"{KIT}/deepfake_mesonet_keras/{{which}}.h5").to(device)
    net.f2.register_forward_hook(lambda module, given, out: setattr(net, "logit", -out))
    return audit.adapters.forgery_detector(lambda x: (net(x), net.logit)[1], scale=255, trained_on=trained)
"""
"""Ten lines."""
MORE = """
def surrogates(device):
    others = {"Meso4_F2F": "Face2Face", "MesoInception_DF": "Deepfakes", "MesoInception_F2F": "Face2Face"}
    return {name: model(device, name, (method,)) for name, method in others.items()}
def faces(device):
    from tests.kit import retinaface
    return retinaface(0.5)
"""
PROFILE = """
extends = "{profile}"
name = "kit"
[budgets.smoke]
steps = 5
batch = 8
queries = 10
images = 30
frames = 2
bootstrap = 200
indicative = true
[data]
clip_frames = 6
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The kit's FaceForensics++ videos and frames as a plain folder."""
    place = tmp_path_factory.mktemp("ffpp")
    videos = kit("ffpp_c23_videos")
    named = {"real": ("004", "519", "634"), "fake/NeuralTextures": ("004_982",), "fake/Deepfakes": ("519_515",),
             "fake/FaceSwap": ("634_660",)}  # fmt: skip
    for folder, names in named.items():
        (place / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(videos / f"{name}.mp4", place / folder)
    shutil.copytree(kit("deepfake_frames", "ffpp_c23", "Face2Face", "750_743"), place / "fake/Face2Face/750_743")
    return place


def test_the_matrices_of_four_mesonets_from_a_model_file_of_ten_lines(tree, tmp_path):
    assert len(MODEL.strip().splitlines()) <= 10
    ids = ("FOR-METHOD", "FOR-QUALITY", "FOR-CONFOUNDER", "FOR-BLUR/one-step-fake")
    code, rows, output = audit(tmp_path, MODEL + MORE, PROFILE.format(profile="forensics"), "--audit-data", str(tree),
                               *only(*ids))  # fmt: skip
    assert code in (1, 11), output
    names = ["the audited model", *MESONETS[1:]]
    for id, columns in (
        ("FOR-METHOD", ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]),
        ("FOR-QUALITY", ["as it is", "H.264 QP 23", "H.264 QP 40"]),
    ):
        grid = next(g for g in rows[id]["grids"] if g["title"].endswith("AUC per frame"))
        assert [r.partition(" (")[0] for r in grid["rows"]] == names
        assert grid["columns"] == columns
        assert all(0 <= v <= 1 for row in grid["values"] for v in row)
        # one video of a method is no verdict
        assert rows[id]["verdict"] == "inconclusive", output
    told = rows["FOR-QUALITY"]["details"]["read back from the bits, first clip"]
    assert (told["H.264 QP 23"]["quantiser"], told["H.264 QP 40"]["quantiser"]) == ([23, 23], [40, 40])
    assert told["H.264 QP 40"]["bytes"] < told["H.264 QP 23"]["bytes"] / 3
    reason = json.dumps(rows["FOR-CONFOUNDER"]["details"])
    assert "NeuralTextures: 1 of 1 fake(s) differ at least twofold" in reason
    assert rows["FOR-CONFOUNDER"]["verdict"] == "fail"


def test_liveness_rates_are_those_of_a_plain_count(tmp_path):
    images = kit("spoof_images")
    model = (
        f"import sys\nsys.path.insert(0, '{ROOT}')\n"
        "def model(device):\n    from tests.kit import MiniFASFinder\n    return MiniFASFinder()\n"
    )
    code, rows, output = audit(tmp_path, model, PROFILE.format(profile="liveness"), "--audit-data", str(images),
                               *only("LIV-CLEAN", "LIV-APCER", "LIV-BPCER", "LIV-DOMAIN"))  # fmt: skip
    assert code in (1, 11), output
    detector = MiniFASFinder()
    with (images / "labels.csv").open() as file:
        table = [(r["file"], int(r["spoof"]), r["kind"].partition("(")[0].strip(" ,")) for r in csv.DictReader(file)]
    said = {}
    for name, _, _ in table:
        image = read_as(images / name, inspect(images / name).size)[None].float() / 255
        said[name] = float(detector(image)[0]) >= 0
    species = sorted({k for _, spoof, k in table if spoof})
    apcer = {k: np.mean([said[n] for n, spoof, kind in table if spoof and kind == k]) for k in species}
    bpcer = np.mean([not said[n] for n, spoof, _ in table if not spoof])
    found = {c["name"]: c["value"] for c in rows["LIV-APCER"]["conditions"] if c["group"].startswith("APCER")}
    assert found == pytest.approx(apcer), output
    assert rows["LIV-APCER"]["measure"]["value"] == max(apcer.values())
    assert rows["LIV-BPCER"]["measure"]["value"] == pytest.approx(bpcer)
    assert rows["LIV-DOMAIN"]["verdict"] == "inconclusive"
    assert torch.is_tensor(detector(torch.rand(2, 3, 96, 128)))
