"""The model-file loader: isolation, digests, tasks, and one sentence for everything that can be wrong."""

from __future__ import annotations

import functools
import hashlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from audit import contracts
from audit.errors import AuditError, ModelError
from audit.state import frozen, modules_of, state_digest
from audit.subject import find_device, load
from tests.models import SOUND, spoiled, write

torch.set_num_threads(1)


def refusal(path, device="cpu") -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path, device)
    message = str(caught.value)
    assert "\n" not in message
    assert all((caught.value.expected, caught.value.got, caught.value.mend))
    return caught.value


def test_sound_file(tmp_path):
    path = write(tmp_path, SOUND + '\n\ndeclared = {"recall": 0.9}\n')
    subject = load(path)
    assert subject.name == "mymodel"
    assert list(subject.tasks) == ["detector"]
    assert isinstance(subject.tasks["detector"], contracts.WhiteBoxDetector)
    assert subject.access == {"detector": "white-box"}
    assert subject.declared == {"recall": 0.9}
    assert [(f.path, f.sha256, f.bytes) for f in subject.files] == [
        (str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    ]
    assert subject.modules == [subject.tasks["detector"].net]


def test_black_box_is_queried(tmp_path):
    subject = load(spoiled(tmp_path, "def model(device):\n    return Dark()\n"))
    assert subject.access == {"detector": "query"}


BAD_FILES = {
    "not Python": ("def model(device)\n    return 1\n", ["SyntaxError", "line 1"]),
    "null bytes": ("def model(device):\n    return '\0'\n", ["null bytes", "Python source text"]),
    "nothing in it": ("x = 1\n", ["a function `model`", "no function at all", "def model(device)"]),
    "another name": ("def modle(device):\n    return 1\n", ["`modle`", "rename `modle`"]),
    "model is no function": ("model = 3\n", ["an int of that name"]),
    "package is missing": (
        "import no_such_package_at_all\n",
        ["ModuleNotFoundError", "line 1", "install no_such_package"],
    ),
    "raises on import": ("x = 1\n\nraise RuntimeError('no\\nweights')\n", ["RuntimeError: no weights", "at line 3"]),
    "ends the process": ("import sys\nsys.exit(3)\n", ["SystemExit: 3", "line 2", "do not end the process"]),
    "raises in model": ("def model(device):\n    return 1 / 0\n", ["ZeroDivisionError", "line 2", "doctor"]),
    "takes no device": ("def model():\n    return 1\n", ["TypeError", "model(device) to return a model"]),
    "returns nothing": ("def model(device):\n    pass\n", ["nothing (None)", "end the function with `return`"]),
    "returns a list": ("def model(device):\n    return [1]\n", ["a list", "adapters"]),
    "an unknown task": ("def model(device):\n    return {'detektor': 1}\n", ["'detektor'", "write 'detector'"]),
    "no task": ("def model(device):\n    return {}\n", ["an empty dict"]),
    "not callable": ("def model(device):\n    return {'classifier': 3}\n", ["can be called", "an int"]),
    "without classes": (
        "class D:\n    score_threshold = 0.5\n    def __call__(self, x): ...\n\ndef model(device):\n    return D()\n",
        ["`classes`", "a D without `classes`"],
    ),
}


@pytest.mark.parametrize(("source", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file(tmp_path, source, says):
    path = write(tmp_path, source)
    message = str(refusal(path))
    assert str(path) in message
    for part in says:
        assert part in message


BAD_MODELS = {
    "classes as a word": ("Toy.classes = 'face'", ["`classes` as a list", "'face'"]),
    "no class": ("Toy.classes = []", ["no class at all"]),
    "threshold out of range": ("Toy.score_threshold = 1.5", ["`score_threshold` in [0, 1]", "1.5"]),
    "threshold no number": ("Toy.score_threshold = float('nan')", ["`score_threshold`", "nan"]),
    "an unknown task": ("Toy.task = 'detecter'", ["'detecter'", "write 'detector'"]),
    "declared no dict": ("declared = 0.9", ["`declared` to be a dict", "a float"]),
    "declared unknown": ("declared = {'recal': 0.9}", ["recall, precision", "'recal'"]),
    "declared per cent": ("declared = {'recall': 93}", ["a share in [0, 1]", "93"]),
    "weights not there": ("Toy.files = ['/no/such/weights.pth']", ["weight files", "/no/such/weights.pth"]),
    "candidates no method": ("Toy.candidates = 3", ["`candidates` as a method"]),
}


@pytest.mark.parametrize(("source", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_model(tmp_path, source, says):
    message = str(refusal(spoiled(tmp_path, source)))
    for part in says:
        assert part in message


@pytest.mark.parametrize(("name", "got"), [("none.py", "no such file"), (".", "a folder"), ("w.onnx", "a .onnx file")])
def test_no_python_file(tmp_path, name, got):
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07")
    assert got in refusal(tmp_path / name).got


@pytest.mark.slow
def test_bare_torchvision_model_is_told_its_adapter(tmp_path):
    source = """
    import torchvision

    def model(device):
        return torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    """
    assert "audit.adapters.torchvision_detector" in refusal(write(tmp_path, source)).mend


def test_errors_travel_between_processes(tmp_path):
    error = refusal(write(tmp_path, "x = 1\n"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_original_exception_is_kept(tmp_path):
    assert isinstance(refusal(write(tmp_path, "1 / 0\n")).__cause__, ZeroDivisionError)


TASKS = {
    "recognizer": ("face_size, threshold = (112, 112), 0.3", "faces.flatten(1)[:, :8] - 0.5", "recognizer"),
    "forgery": ("face_size, threshold = (64, 64), 0.0", "faces.mean((1, 2, 3))", "forgery"),
    "liveness": ("threshold = 0.5", "faces.mean((1, 2, 3))", "liveness"),
    "classifier": ("", "faces.mean((2, 3))", "classifier"),
    "said": ("task, face_size, threshold = 'liveness', (64, 64), 0.5", "faces.mean((1, 2, 3))", "liveness"),
}


@pytest.mark.parametrize(("attributes", "output", "task"), TASKS.values(), ids=TASKS)
def test_task_of_a_single_object(tmp_path, attributes, output, task):
    source = f"class M:\n    {attributes or 'pass'}\n    def __call__(self, faces):\n        return {output}\n\n"
    subject = load(write(tmp_path, source + "def model(device):\n    return M()\n"))
    assert subject.access == {task: "white-box"}


def test_task_by_similarity(tmp_path):
    source = """
    class M:
        face_size, threshold = (112, 112), 0.3
        def similarity(self, a, b):
            return (a * b).mean((1, 2, 3))

    def model(device):
        return M()
    """
    assert load(write(tmp_path, source)).access == {"recognizer": "query"}


def test_a_task_that_nothing_tells(tmp_path):
    source = "def model(device):\n    return lambda faces: faces\n"
    assert "(2, 3, 112, 112)" in refusal(write(tmp_path, source)).got


def test_dict_of_tasks_and_gradient_free_access(tmp_path):
    source = """
    class Score:
        threshold = 0.5
        def __call__(self, faces):
            with torch.no_grad():
                return faces.mean((1, 2, 3))

    def model(device):
        return {"detector": Toy(), "liveness": Score()}
    """
    assert load(spoiled(tmp_path, source)).access == {"detector": "white-box", "liveness": "query"}


def test_isolation(tmp_path):
    """Two files of one name, each with a `helper` of its own beside it: neither sees the other's, nothing is left."""
    before, bytecode = set(sys.path), sys.dont_write_bytecode
    for value in ("one", "two"):
        folder = tmp_path / value
        folder.mkdir()
        (folder / "helper.py").write_text(f"VALUE = {value!r}\n")
        path = write(folder, "import helper\n" + SOUND + "\n\nToy.value = helper.VALUE\n")
        subject = load(path)
        assert subject.tasks["detector"].value == value
        helper = folder / "helper.py"
        assert [(f.path, f.sha256) for f in subject.files[1:]] == [
            ("helper.py", hashlib.sha256(helper.read_bytes()).hexdigest())
        ]
        assert {p.name for p in folder.iterdir()} == {"helper.py", "mymodel.py"}
        assert [f.path for f in load(path).files] == [str(path), "helper.py"]
    assert set(sys.path) == before
    assert sys.dont_write_bytecode == bytecode


def test_weight_files_are_digested(tmp_path):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(bytes(range(256)) * 10)
    subject = load(spoiled(tmp_path, f"Toy.files = ({str(weights)!r},)"))
    assert subject.files[1].model_dump() == {
        "path": "weights.bin",
        "sha256": hashlib.sha256(bytes(range(256)) * 10).hexdigest(),
        "bytes": 2560,
    }


def test_extras(tmp_path):
    source = """
    def surrogates(device):
        return [Toy(), Toy()]

    def generator(device):
        return str(device)

    def data(root):
        raise OSError(f"no images under {root}")
    """
    subject = load(spoiled(tmp_path, source))
    assert sorted(subject.surrogates_fn()) == ["surrogate-1", "surrogate-2"]
    assert subject.generator_fn() == "cpu"
    line = next(i for i, row in enumerate(subject.path.read_text().splitlines(), 1) if "raise OSError" in row)
    with pytest.raises(ModelError, match=f"no images under /data at line {line}"):
        subject.data_fn(Path("/data"))
    assert load(write(tmp_path, SOUND)).data_fn is None


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "cpu:x", "meta"])
def test_no_such_device(name):
    with pytest.raises(AuditError, match=f"--audit-device: expected a device of this machine \\(cpu.*got '{name}'"):
        find_device(name)


def test_device_that_is_there():
    assert find_device("cpu") == torch.device("cpu")
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (find_device("auto").type != "cpu") == accelerated


class Holder:
    def __init__(self, net):
        self.parts = {"nets": [net]}

    def run(self, x):
        return self.parts["nets"][0](x)


def _closure(net):
    return lambda x: net(x) + 1


NET_AT_TOP = nn.Linear(2, 2)


def _by_global(x):
    return NET_AT_TOP(x)


def test_modules_are_found_wherever_they_hide():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for thing in (net, Holder(net), _closure(net), functools.partial(_closure(net), 1), Holder(net).run, [(net,)]):
        assert modules_of(thing) == [net], thing
    assert modules_of(net, net[0]) == [net]
    assert modules_of(_by_global) == [NET_AT_TOP]
    assert modules_of(3, "x", torch.zeros(2)) == []


def _weight(net):
    net[0].weight.data.view(torch.int32)[0, 0] ^= 1  # the last bit of one weight


CHANGES = {
    "a bit of a weight": _weight,
    "a buffer": lambda net: net[1].running_mean.add_(1),
    "a counter": lambda net: net[1].num_batches_tracked.add_(1),
    "a mode": lambda net: setattr(net[1], "training", False),
    "a gradient flag": lambda net: net[0].bias.requires_grad_(False),
    "a buffer outside the state dict": lambda net: net[2].hidden.add_(1),
}


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("hidden", torch.zeros(3, dtype=torch.bfloat16), persistent=False)

    def forward(self, x):
        return x


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Hidden())


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_digest_sees(change):
    net = _net()
    before = state_digest([net])
    assert state_digest([_net()]) == before
    change(net)
    assert state_digest([net]) != before


def test_frozen_restores_flags_exactly_even_after_an_error():
    net = _net()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    before = state_digest([net])

    def work():
        with frozen([net]):
            assert not any(part.training for part in net.modules())
            assert not any(w.requires_grad for w in net.parameters())
            net(torch.rand(4, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert state_digest([net]) == before
