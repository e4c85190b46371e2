"""The suites for attributors, liveness detectors and classifiers as a user runs them, on planted models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests import planted_forgery
from tests.planted_forgery import fake, surface, write
from tests.running import audit, only

pytestmark = pytest.mark.slow
PROFILE = """
extends = "{profile}"
name = "planted"

[budgets.smoke]
steps = 8
batch = 8
queries = 40
images = 12
frames = 2
bootstrap = 200
"""


def run(folder, kind, profile, data, *args, head="", surrogate=""):
    model = planted_forgery.model_file(kind, surrogate) + head
    return audit(folder, model, PROFILE.format(profile=profile), "--audit-data", str(data), *args)


@pytest.fixture(scope="module")
def attributed(tmp_path_factory):
    """Three methods in the gallery, four among the probes of other sources, each seen by a number of ``Fine.embed``."""
    folder = tmp_path_factory.mktemp("attribution")
    place = folder / "data"
    for side, methods, first in (("gallery", ("grid", "waves"), 0), ("probe", ("grid", "waves", "dark"), 100)):
        for i in range(first, first + 8):
            for m in methods:
                write(place / side / m / f"{i:03d}.png", fake(surface(i), m))
    return folder, *run(folder, "Fine", "attribution", place)


def test_an_attributor_that_sees_the_methods_passes(attributed):
    _, code, rows, output = attributed
    verdicts = {id: row["verdict"] for id, row in rows.items()}
    assert not [id for id, v in verdicts.items() if v in ("error", "not_run", "not_applicable")], output
    assert {verdicts[i] for i in ("ATT-RETRIEVAL", "ATT-NOVEL/knn", "ATT-NOVEL/lof", "ATT-NOVEL/fused")} == {"pass"}, (
        output
    )
    shifted = {c["name"]: c["value"] for c in rows["ATT-SHIFT"]["conditions"] if c["group"] == "precision@5"}
    assert len(shifted) == 8
    assert shifted["as they are"] == rows["ATT-RETRIEVAL"]["measure"]["value"]
    assert rows["ATT-SHIFT"]["measure"]["value"] == min(shifted.values())
    assert code == int("fail" in verdicts.values())


def test_precision_and_novelty_are_what_a_count_by_hand_gives(attributed):
    folder, _, rows, _ = attributed
    gallery, probes = {}, {}
    for place in (folder / "cache" / "features").glob("*/features.npz"):
        key = json.loads((place.parent / "key.json").read_text())["key"]
        with np.load(place) as file:
            found = {"rows": file["rows"], "methods": file["methods"].tolist()}
        if key["shift"] is None:
            (probes if "dark" in found["methods"] else gallery).update(found)
    a, b = (x["rows"] / np.linalg.norm(x["rows"], axis=1, keepdims=True) for x in (probes, gallery))
    right = total = 0
    for row, method in zip(a, probes["methods"], strict=True):
        if method in gallery["methods"]:
            best = sorted(range(len(b)), key=lambda j, row=row: (-float(row @ b[j]), j))[:5]
            right += sum(gallery["methods"][j] == method for j in best)
            total += 5
    measure = rows["ATT-RETRIEVAL"]["measure"]
    assert (measure["k"], measure["n"]) == (right, total)
    distance = np.sort(np.linalg.norm(a[:, None] - b[None], axis=2), axis=1)[:, :5].mean(1)
    auc = roc_auc_score([m == "dark" for m in probes["methods"]], distance)
    assert rows["ATT-NOVEL/knn"]["measure"]["value"] == pytest.approx(auc)
    parts = {c["name"]: c["value"] for c in rows["ATT-TOTAL"]["conditions"] if c["group"] == "Parts of the total"}
    expected = 0.6 * parts["precision@5"] + 0.3 * parts["AUC of new methods, fused"]
    assert rows["ATT-TOTAL"]["measure"]["value"] == pytest.approx(expected)
    assert rows["ATT-TOTAL"]["details"]["at most"] == pytest.approx(0.9)


def test_one_method_hidden_by_the_profile(tmp_path):
    place = planted_forgery.folder(tmp_path / "data", pictures=10)
    (tmp_path / "own.toml").write_text(
        'extends = "attribution"\nname = "own"\n[data]\nnovel = ["dark"]\nsubjective = 1\n'
    )
    _, rows, output = run(tmp_path, "Fine", "attribution", place, "--audit-profile", str(tmp_path / "own.toml"),
                          *only("ATT-RETRIEVAL", "ATT-NOVEL/knn", "ATT-TOTAL"))  # fmt: skip
    parts = {c["name"]: c["value"] for c in rows["ATT-TOTAL"]["conditions"] if c["group"] == "Parts of the total"}
    total = 0.6 * parts["precision@5"] + 0.3 * parts["AUC of new methods, fused"] + 0.1
    assert rows["ATT-TOTAL"]["measure"]["value"] == pytest.approx(total)
    assert rows["ATT-NOVEL/knn"]["details"]["new methods"] == ["dark"], output
    assert rows["ATT-RETRIEVAL"]["details"]["sources on both sides"] == 0


@pytest.fixture(scope="module")
def lively(tmp_path_factory):
    """Prints are dark and so seen; masks are not; the field's live faces are darker than the lab's."""
    folder = tmp_path_factory.mktemp("liveness")
    place = folder / "data"
    for i in range(10):
        real = surface(i)
        write(place / "lab" / "live" / f"{i}.png", real)
        write(place / "lab" / "spoof" / "print" / f"{i}.png", real - 100)
        write(place / "field" / "live" / f"a{i}.png", real - 30 if i % 2 else real - 70)
        write(place / "field" / "spoof" / "mask" / f"a{i}.png", real - 60 if i < 6 else real - 20)
    return folder, *run(folder, "Live", "liveness", place)


def test_a_species_that_passes_is_named_and_never_pooled(lively):
    _, code, rows, output = lively
    assert code == 1, output
    row = rows["LIV-APCER"]
    apcer = {c["name"]: (c["k"], c["n"]) for c in row["conditions"] if c["group"] == "APCER, at the owner's threshold"}
    live = {n: [surface(i).mean() - d >= 100 for i in range(10) for d in [of(i)]] for n, of in {
        "print": lambda i: 100, "mask": lambda i: 60 if i < 6 else 20}.items()}  # fmt: skip
    assert apcer == {n: (sum(v), 10) for n, v in live.items()}
    assert (row["details"]["worst species"], row["verdict"]) == ("mask", "fail")
    assert row["measure"]["value"] == max(sum(v) / 10 for v in live.values())
    assert (rows["LIV-BPCER"]["measure"]["k"], rows["LIV-BPCER"]["measure"]["n"]) == (
        sum(surface(i).mean() - (30 if i % 2 else 70) < 100 for i in range(10)), 20)  # fmt: skip
    assert "LIV-DOMAIN" in rows
    assert rows["LIV-DOMAIN"]["verdict"] == "fail"
    grid = rows["LIV-DOMAIN"]["grids"][0]
    assert grid["rows"] == ["field", "lab"]


def test_one_domain_is_no_cross_domain_result(tmp_path):
    for i in range(4):
        write(tmp_path / "data" / "lab" / "live" / f"{i}.png", surface(i))
        write(tmp_path / "data" / "lab" / "spoof" / "print" / f"{i}.png", surface(i) - 100)
    code, rows, output = run(tmp_path, "Live", "liveness", tmp_path / "data", *only("LIV-DOMAIN", "LIV-CLEAN"))
    assert rows["LIV-DOMAIN"]["verdict"] == "inconclusive", output
    assert "1 domain" in rows["LIV-DOMAIN"]["reason"]
    assert rows["LIV-CLEAN"]["verdict"] == "pass"
    assert code == 11


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    place = folder / "data"
    for k, name in enumerate(("bottom", "middle", "top")):
        for i in range(5):
            picture = surface(50 + i)
            picture[21 * k : 21 * (k + 1)] += 12
            write(place / f"{k} {name}" / f"{i}.png", picture)
    head = "\n\ndef lpips(device):\n    return lambda a, b: (a - b).abs().mean((1, 2, 3))\n"
    return folder, place, *run(folder, "Classes", "classification", place, head=head, surrogate="Classes")


def test_a_classifier_by_the_papers_tables(classes):
    _, _, _, rows, output = classes
    verdicts = {id: row["verdict"] for id, row in rows.items()}
    assert not [id for id, v in verdicts.items() if v in ("error", "not_run", "not_applicable")], output
    assert verdicts["CLS-CLEAN"] == "pass"
    assert rows["CLS-CLEAN"]["measure"]["n"] == 15
    assert rows["CLS-BLUR-GRID"]["grids"][0]["rows"][0] == "k = 3, σ from 1"
    assert len(rows["CLS-BLUR-GRID"]["grids"][0]["rows"]) == 7
    assert any("LPIPS" in c["group"] for c in rows["CLS-ATTACK/pgd"]["conditions"])


def test_a_step_of_the_sign_on_a_linear_classifier_is_known(classes):
    # each third's mean moves by 4 levels: what leads by less than 8 falls
    _, place, _, rows, _ = classes
    import cv2

    stands = 0
    for path in sorted(place.glob("*/*.png")):
        picture = cv2.imread(str(path)).astype(float).mean(2)
        thirds = [picture[21 * k : 21 * (k + 1)].mean() for k in range(3)]
        own = thirds.pop(int(path.parent.name[0]))
        stands += own - max(thirds) > 8
    measure = rows["CLS-ATTACK/fgsm"]["measure"]
    assert measure["n"] == 15
    assert abs(measure["k"] - stands) <= 1, "the loss of all three logits weighs the third as well"


def test_classes_that_do_not_fit_the_logits_are_said(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "data" / name / "1.png", surface(ord(name)))
    code, _, output = run(tmp_path, "Classes", "classification", tmp_path / "data")
    assert code == 4
    assert "expected 3 classes, as many as the model has logits, got 2" in output
