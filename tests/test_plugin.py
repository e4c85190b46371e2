"""The command line as a user types it: options, outcomes, exit codes, journal, resumption, xdist."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests import mother
from tests.planted import model_file

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]

SUITE = """
import os
import pytest
from audit.control import control
from audit.record import Measure

TEXTS = dict(title="holds", failure="does not hold", goal="hold", refs=["002 §4.1"], threat="nobody", remediation="x")

def number(value, n=10):
    return Measure(name="share", k=round(value * n), n=n, value=value, low=value, high=value, method="exact")

@control("T-CLEAN", **TEXTS)
def test_clean(any_detector, scenes, measure):
    measure.clean(any_detector, scenes.held_out)

@control("T-NUMBER", **TEXTS)
def test_number(variant, measure):
    if os.environ.get("LOG"):
        with open(os.environ["LOG"], "a") as f:
            f.write(variant + "\\n")
    if variant == os.environ.get("RAISES"):
        raise RuntimeError("a probe\\nfell over <script>")
    if variant == os.environ.get("KILLED"):
        import signal
        os.kill(os.getpid(), signal.SIGKILL)
    measure.trial.judge(number(float(os.environ.get("NUMBER", "0.9"))))
"""

PROFILE = """
name = "own"
version = "1"
suites = ["test_own"]
[budgets.smoke]
steps = 3
batch = 4
queries = 3
images = 12
bootstrap = 100
indicative = true
[budgets.standard]
steps = 3
batch = 4
queries = 3
images = 12
bootstrap = 100
[budgets.certify]
steps = 3
batch = 4
queries = 3
images = 12
bootstrap = 100
[controls."T-CLEAN"]
min = 0.7
rationale = "a test"
[controls."T-NUMBER"]
variants = ["a", "b", "c"]
min = 0.7
rationale = "a test"
"""


@pytest.fixture
def audit(pytester, monkeypatch):
    """Runs pytest as a process in a folder with a planted model, a suite and a profile."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest('pytest_plugins = ["audit.plugin"]')
    pytester.makepyfile(test_own=SUITE, mymodel=model_file("Red"))
    (pytester.path / "own.toml").write_text(PROFILE)

    def run(*args, model="mymodel.py", profile="own.toml", fresh=False):
        words = ["-p", "no:cacheprovider", "--audit-cache", "cache", "--audit-profile", profile]
        if model:
            words += ["--model", model]
        if fresh:
            return pytester.runpytest_subprocess("test_own.py", *words, *args, timeout=300)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(pytester.path), str(ROOT)))}
        began = time.monotonic()
        done = mother.run(["-m", "pytest", "test_own.py", *words, *args], cwd=pytester.path, env=env)
        lines = done.stdout.splitlines(), done.stderr.splitlines()
        return pytest.RunResult(done.returncode, *lines, time.monotonic() - began)

    return run


def report(folder="audit-report"):
    return json.loads(Path(folder, "report.json").read_text())


def verdicts(folder="audit-report"):
    return {c["id"]: c["verdict"] for c in report(folder)["controls"]}


def test_all_pass_is_0_and_leaves_the_whole_folder(audit):
    result = audit(fresh=True)
    assert result.ret == 0
    assert verdicts() == {"T-CLEAN": "pass", "T-NUMBER/a": "pass", "T-NUMBER/b": "pass", "T-NUMBER/c": "pass"}
    names = {p.name for p in Path("audit-report").iterdir()}
    assert {"report.html", "report.json", "journal.jsonl", "evidence", "report.intoto.json", "SHA256SUMS"} <= names
    result.stdout.fnmatch_lines(["*mymodel.py offers detector (white-box)*", "*indicative*", "*report: *report.html"])
    assert report()["run"]["complete"] is True


def test_a_failed_control_is_1(audit, monkeypatch):
    monkeypatch.setenv("NUMBER", "0.2")
    result = audit()
    assert result.ret == 1
    assert report()["verdict"] == "fail"
    result.stdout.fnmatch_lines(["*share 0.200*; required at least 0.700*"])


def test_a_control_that_raises_is_a_row_and_the_others_run(audit, monkeypatch):
    monkeypatch.setenv("RAISES", "b")
    assert audit().ret == 1
    assert verdicts() == {"T-CLEAN": "pass", "T-NUMBER/a": "pass", "T-NUMBER/b": "error", "T-NUMBER/c": "pass"}
    row = next(c for c in report()["controls"] if c["verdict"] == "error")
    assert row["reason"] == "RuntimeError: a probe fell over <script>"
    assert "<script>" not in Path("audit-report/report.html").read_text()


def test_deselected_controls_are_rows_and_the_run_is_11(audit):
    assert audit("-k", "clean").ret == 11
    assert verdicts()["T-NUMBER/a"] == "not_run"
    assert report()["run"]["complete"] is False
    assert report()["verdict"] == "inconclusive"


def test_fail_goes_before_incomplete(audit, monkeypatch):
    monkeypatch.setenv("NUMBER", "0.2")
    assert audit("--audit-control", "T-NUMBER/a").ret == 1
    assert verdicts()["T-CLEAN"] == "not_run"


def test_a_model_below_what_it_declares_is_not_attacked(audit, pytester):
    (pytester.path / "mymodel.py").write_text(
        model_file("Red") + "\ndeclared = {'recall': 0.9}\n"
        "def data(root):\n"
        "    from dataclasses import replace\n"
        "    from tests.planted import scenes\n"
        "    s = scenes()\n"
        "    return replace(s, scenes=tuple(replace(x, boxes=x.boxes + 30) for x in s))\n"
    )
    (pytester.path / "test_own.py").write_text(
        SUITE.replace("def test_number(variant, measure):", "def test_number(variant, detector, measure):")
    )
    result = audit("-rs")
    rows = {c["id"]: c for c in report()["controls"]}
    assert rows["T-NUMBER/a"]["verdict"] == "inconclusive"
    assert "Not attacked: clean recall is 0.000, expected at least" in rows["T-NUMBER/a"]["reason"]
    assert rows["T-CLEAN"]["verdict"] == "fail"
    assert result.ret == 1
    assert any(not p["ok"] for p in report()["preconditions"])


def test_inconclusive_alone_is_10(audit, pytester):
    profile = PROFILE.replace("images = 12\nbootstrap = 100\nindicative = true", "images = 12\nbootstrap = 100")
    (pytester.path / "own.toml").write_text(
        profile.replace('[controls."T-CLEAN"]\nmin = 0.7', '[controls."T-CLEAN"]\nmin = 0.95')
    )
    result = audit()
    assert verdicts()["T-CLEAN"] == "inconclusive", "12 images cannot show 0.95"
    assert result.ret == 10
    assert result.parseoutcomes().get("inconclusive") == 1


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
@pytest.mark.parametrize(
    ("args", "change", "message"),
    [
        ([], {"profile": "nowhere.toml"}, "--audit-profile: expected a built-in profile"),
        (["--audit-control", "T-NOWHERE"], {}, "--audit-control T-NOWHERE: expected a control of the profile"),
        ([], {"model": "nowhere.py"}, "model file nowhere.py: expected a Python file, got no such file"),
        (["--audit-device", "cuda:77"], {}, "--audit-device: expected a device of this machine"),
        (["--audit-data", "nowhere"], {}, "expected"),
        (["--audit-report", "test_own.py"], {}, "report folder test_own.py: expected a folder that can be written"),
        (["--audit-budget", "huge"], {}, "--audit-budget: expected smoke or standard or certify, got 'huge'"),
    ],
)
def test_bad_input_is_one_sentence_and_4(audit, args, change, message, workers):
    result = audit(*args, *workers, **change)
    assert result.ret == 4
    said = [line for line in result.errlines if line.startswith("ERROR")]
    assert len(said) == 1
    assert message in said[0]
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_an_unknown_control_in_the_profile_is_4(audit, pytester, workers):
    (pytester.path / "own.toml").write_text(PROFILE.replace("T-CLEAN", "T-CLAEN"))
    result = audit(*workers)
    assert result.ret == 4
    assert "'T-CLAEN'" in result.stderr.str() + result.stdout.str()


def test_random_outputs_are_refused(audit, pytester):
    (pytester.path / "mymodel.py").write_text(model_file("Random"))
    result = audit()
    assert result.ret == 4
    assert "two calls" in result.stderr.str() or "same" in result.stderr.str()


def test_suites_without_a_model_are_4(audit):
    result = audit(model=None)
    assert result.ret == 4
    assert "expected a model to audit, got none" in result.stderr.str() + result.stdout.str()


def test_numbers_are_the_same_serially_with_workers_and_alone(audit):
    audit("--audit-report", "serial")
    audit("--audit-report", "parallel", "-n", "2", "--audit-cache", "cache2")
    audit("--audit-report", "alone", "--audit-control", "T-CLEAN", "--audit-cache", "cache3")

    def numbers(folder):
        keep = ("measure", "conditions", "curves", "protocol_sha256", "seed", "verdict")
        return {c["id"]: {k: c[k] for k in keep} for c in report(folder)["controls"]}

    assert numbers("serial") == numbers("parallel")
    assert numbers("serial")["T-CLEAN"] == numbers("alone")["T-CLEAN"]


def test_a_killed_run_is_rendered_and_taken_up(audit, pytester, monkeypatch):
    log = pytester.path / "log"
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("KILLED", "b")
    assert audit().ret in (-9, 137)
    assert not Path("audit-report/report.html").exists()
    assert pytester.run(sys.executable, "-m", "audit", "render", "audit-report").ret == 0
    assert report()["run"]["complete"] is False
    assert verdicts() == {"T-CLEAN": "pass", "T-NUMBER/a": "pass", "T-NUMBER/b": "not_run", "T-NUMBER/c": "not_run"}
    assert "incomplete" in Path("audit-report/report.html").read_text().lower()
    monkeypatch.delenv("KILLED")
    result = audit()
    assert result.ret == 0
    assert set(verdicts().values()) == {"pass"}
    assert log.read_text().split() == ["a", "b", "b", "c"], "a was finished and is not measured again"
    result.stdout.fnmatch_lines(["*finished controls were taken up*"])
    assert report()["run"]["resumed"] == 1
    assert audit().ret == 0
    assert log.read_text().split()[4:] == ["a", "b", "c"], "a complete run is not resumed but run afresh"


def test_installed_beside_a_client_that_has_its_own_model_option(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(
        'pytest_plugins = ["audit.plugin"]\ndef pytest_addoption(parser):\n    parser.addoption("--other")\n'
    )
    pytester.makepyfile("def test_one(request):\n    assert request.config.getoption('--other') == 'x'\n")
    assert pytester.runpytest_subprocess("--other", "x").ret == 0


def test_pytest_without_a_model_does_not_load_torch(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest('pytest_plugins = ["audit.plugin"]')
    pytester.makepyfile("import sys\ndef test_light():\n    assert 'torch' not in sys.modules\n")
    assert pytester.runpytest_subprocess().ret == 0


def test_a_folder_in_use_is_refused_and_its_journal_left_alone(audit, pytester):
    assert audit().ret == 0
    before = Path("audit-report/journal.jsonl").read_bytes()
    with FileLock("audit-report/.lock"):
        result = audit()
    assert result.ret == 4
    assert "expected a folder that no other audit is writing to" in result.stderr.str()
    assert Path("audit-report/journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("args", [("--collect-only",), ("--audit-control", "T-NOWHERE")])
def test_a_mistyped_option_or_a_look_leaves_a_finished_report_as_it_is(audit, args):
    assert audit().ret == 0
    before = {p: p.read_bytes() for p in Path("audit-report").rglob("*") if p.is_file()}
    audit(*args)
    after = {p: p.read_bytes() for p in Path("audit-report").rglob("*") if p.is_file()}
    assert after == before


def test_a_model_that_changes_when_it_is_called_is_never_read_back_from_the_cache_as_sound(audit, pytester):
    (pytester.path / "mymodel.py").write_text(
        "import torch\nfrom tests.planted import Red, scenes\n\n"
        "class Counting(Red):\n"
        "    def __init__(self):\n"
        "        self.module = torch.nn.BatchNorm2d(1)\n"
        "    def __call__(self, images):\n"
        "        self.module.running_mean += 1\n"
        "        return super().__call__(images)\n\n"
        "def model(device):\n    return Counting()\n\ndef data(root):\n    return scenes()\n"
    )
    for _ in range(2):
        assert audit().ret in (1, 4)
        if Path("audit-report/report.json").exists():
            assert verdicts()["T-CLEAN"] == "error"


def test_the_command_to_reproduce_a_control_measures_it_again_beside_the_report(audit, pytester):
    assert audit("--audit-seed", "3").ret == 0
    rows = {c["id"]: c for c in report()["controls"]}
    words = shlex.split(rows["T-CLEAN"]["reproduce"])
    assert words[:2] == ["pytest", "suites/"]
    result = pytester.runpytest_subprocess("test_own.py", "-p", "no:cacheprovider", *words[2:], timeout=300)
    assert result.ret == 11
    again = {c["id"]: c for c in report("audit-again")["controls"]}
    assert again["T-CLEAN"]["measure"] == rows["T-CLEAN"]["measure"]
    assert again["T-CLEAN"]["protocol_sha256"] == rows["T-CLEAN"]["protocol_sha256"]
    assert report()["run"]["complete"] is True
