"""``python -m audit score faces``, as a user types it."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from audit.cli import main
from tests.handed_in import (
    attacked,
    corner_cosine,
    handed_in,
    originals,
    plain_score,
    png_bytes,
    write_comparer,
    write_model,
    zipped,
)
from tests.models import SOUND, write
from tests.test_cli import one_sentence, typed

torch.set_num_threads(1)


@pytest.fixture
def table(tmp_path):
    """Four pairs of which the first three are submitted: whole, weak, too large."""
    originals(tmp_path / "originals", 4)
    wide = attacked(3)
    wide[:42, :30] = 200, 1, 1
    files = {"0001.png": attacked(1), "0002.png": attacked(2, rows=20), "0003.png": wide}
    files = {name: png_bytes(pixels) for name, pixels in files.items()} | {"readme.txt": b"hello"}
    handed_in(tmp_path / "submission", files)
    return tmp_path


def words(folder, *more, submission="submission"):
    return ["score", "faces", str(folder / submission), str(folder / "originals"), *map(str, more)]


def run(capsys, *given):
    code = main([str(g) for g in given])
    return code, capsys.readouterr()


@pytest.mark.slow
def test_the_whole_command_as_a_process(table):
    models = [write_model(table, "near", 0.9), write_model(table, "far", 0.8), write_comparer(table)]
    out = table / "score.json"
    more = [w for m in models for w in ("--model", m)]
    code, text, err = typed(*words(table, *more, "--json", out, "--device", "cpu"), cwd=table)
    assert (code, err) == (1, ""), "a pair is void"

    def compares(a, b):
        return 1 - abs(float(a[:30, :30, 0].mean()) - float(b[:30, :30, 0].mean())) / 255 >= 0.8

    plain = [corner_cosine(0.9), corner_cosine(0.8), compares]
    value, wins = plain_score(table / "submission", table / "originals", plain)
    assert value == pytest.approx(4 / 12), "by hand: the first pair with all three, the second with one"
    found = json.loads(out.read_text())
    assert found["score"] == pytest.approx(value)
    assert found["interval"]["low"] < value < found["interval"]["high"]
    assert [list(f["success"].values()) for f in found["files"]] == wins.tolist()
    assert [found["recognizers"][n]["rate"]["k"] for n in ("near", "far", "comparer")] == wins.sum(0).tolist()
    assert (found["pairs"], found["void"]) == (4, 2)
    assert found["broken"] == {"name": 1, "PNG": 0, "8-bit RGB": 0, "112x112 px": 0, "regions": 0, "area": 1}
    third, fourth = found["files"][2:]
    assert (third["file"], third["area"], third["regions"], third["void"]) == ("0003.png", 1260, 1, True)
    assert third["broken"] == [{"rule": "area", "got": "an area of 1260 px, at most 1254 are allowed"}]
    assert third["sha256"] == hashlib.sha256((table / "submission" / "0003.png").read_bytes()).hexdigest()
    assert third["scores"] == {"near": None, "far": None, "comparer": None}
    assert (fourth["sha256"], fourth["rules"]) == (None, {"name": False} | dict.fromkeys(list(found["broken"])[1:]))
    assert found["left_aside"] == ["readme.txt: no name that is asked for"]
    assert "score = 0.333333" in text
    assert "2 of 4 pairs void" in text
    assert "0003.png void: area (an area of 1260 px, at most 1254 are allowed)" in text
    assert "0004.png void: name (no such file)" in text
    assert "left aside: readme.txt: no name that is asked for" in text
    assert "not comparable with the competition's own scores (pairs)" in text
    assert sorted(p.name for p in table.iterdir()) == [
        "comparer.py", "far.py", "near.py", "originals", "score.json", "submission"
    ]  # fmt: skip


def test_a_clean_zip_is_0_and_models_in_training_mode_are_put_right(table, capsys):
    zipped(table / "s.zip", {f"{i:04d}.png": png_bytes(attacked(i)) for i in range(1, 5)})
    model = write_model(table, "large", 0.9, size=150)
    code, shown = run(capsys, *words(table, "--model", model, "--pairs", 3, submission="s.zip"))
    assert code == 0
    assert "score = 1.000000" in shown.out
    assert "0 of 3 pairs void" in shown.out
    assert "left aside: 0004.png" in shown.out


def test_connectivity_is_the_users_choice(table, capsys):
    slanted = attacked(1)
    for i in range(40, 60):
        slanted[i, i] ^= 1
    handed_in(table / "s", {"0001.png": png_bytes(slanted)})
    given = words(table, "--model", write_model(table), "--pairs", 1, "--json", table / "j.json", submission="s")
    assert [run(capsys, *given, "--connectivity", c)[0] for c in (8, 4)] == [0, 1]
    assert json.loads((table / "j.json").read_text())["files"][0]["regions"] == 21


def test_many_void_files_are_counted_and_the_first_named(table, capsys):
    originals(table / "originals", 30)
    given = words(table, "--model", write_model(table), "--json", table / "j.json")
    code, shown = run(capsys, *given)
    assert code == 1
    assert shown.out.count(".png void:") == 5
    assert "23 more void, named in --json" in shown.out
    assert sum(f["void"] for f in json.loads((table / "j.json").read_text())["files"]) == 28


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--pairs", "0"], "--pairs: expected 1 to 100000"),
        (["--pairs", "5"], "got no 0005.png"),
        (["--model", "gone.py"], "gone.py"),
        (["--model", "detector.py"], "expected a recognizer"),
        (["--threads", "0"], "--threads: expected 1 to 1024"),
        (["--json", "."], "--json .: expected a file that can be written"),
        (["--model", "corner.py"], "corner.py twice"),
    ],
)
def test_bad_input_is_4_and_one_sentence(table, capsys, monkeypatch, change, sentence):
    monkeypatch.chdir(table)
    write_model(table)
    write(table, SOUND, "detector.py")
    code, shown = run(capsys, *words(table, "--model", "corner.py", *change))
    assert code == 4
    assert sentence in one_sentence(shown.err)


def test_a_zip_that_leads_out_is_4_and_names_the_entry(table, capsys):
    before = sorted(p.relative_to(table) for p in table.rglob("*"))
    path = zipped(table / "s.zip", {"../0001.png": png_bytes(attacked(1))})
    code, shown = run(capsys, *words(table, "--model", write_model(table), submission="s.zip"))
    assert code == 4
    assert "../0001.png: a path that leads out" in one_sentence(shown.err)
    path.unlink()
    (table / "corner.py").unlink()
    assert sorted(p.relative_to(table) for p in table.rglob("*")) == before
    assert not (table.parent / "0001.png").exists()


def test_unknown_options_name_the_commands_own(table, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words(table, "--model", "x.py"), "--pair", "3"])
    assert stop.value.code == 4
    assert "write --pairs, perhaps" in one_sentence(capsys.readouterr().err)


def test_the_terminal_gets_no_control_characters(table, capsys):
    (table / "submission" / "\x1b[2Jx.png").write_bytes(b"x")
    _, shown = run(capsys, *words(table, "--model", write_model(table)))
    assert "\x1b" not in shown.out
    assert r"\x1b[2Jx.png" in shown.out
    assert np.all([c.isprintable() or c == "\n" for c in shown.out])
