"""Every model file in examples/ gives a working contract object."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from skimage import data

from audit.contracts import Detector, WhiteBoxDetector
from tests.kit import kit

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CPU = torch.device("cpu")


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(image) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_example_is_tested():
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_adapters_*.py"))
    missing = [p.name for p in EXAMPLES.glob("*.py") if f'"{p.stem}"' not in here and f'"{p.name}"' not in here]
    assert missing == []


@pytest.mark.parametrize("name", ["centerface", "onnx_blackbox", "opencv_dnn"])
def test_centerface_finds_the_astronaut(name):
    example = load(name)
    assert example.declared == {"recall": 0.9}
    detector = example.model(CPU)
    assert isinstance(detector, WhiteBoxDetector) == (name == "centerface")
    assert isinstance(detector, Detector)
    assert [f.name for f in detector.files] == ["centerface.onnx"]
    (found,) = detector(picture(data.astronaut()))
    sure = found.scores >= detector.score_threshold
    assert sure.sum() == 1
    # the face in that picture, by eye: from the hair line to the chin
    torch.testing.assert_close(found.boxes[sure][0], torch.tensor([180.0, 60.0, 268.0, 177.0]), atol=12, rtol=0)


def test_the_example_of_the_first_audit_is_short():
    code = (EXAMPLES / "centerface.py").read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_torchvision_ssd(monkeypatch):
    torch.manual_seed(0)
    random = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: random)
    detector = load("torchvision_ssd").model(CPU)
    assert len(detector.classes) == 90
    assert detector.classes[0] == "person"
    x = picture(data.astronaut()[100:300]).requires_grad_()
    found = detector.candidates(x)
    (gradient,) = torch.autograd.grad(found.logits.amax(), x)
    assert found.logits.shape == (1, 8732, 90)
    assert gradient.abs().amax() > 0


def test_torch_callable(tmp_path, monkeypatch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = torch.nn.AvgPool2d(160)

        def forward(self, x):
            bright = 20 * self.pool(x).mean(1) - 10
            corner = torch.tensor([[0.0, 0.0], [160.0, 0.0], [0.0, 160.0], [160.0, 160.0]])
            boxes = torch.cat((corner, corner + 160), 1).expand(x.shape[0], 4, 4)
            return boxes, torch.stack((bright.flatten(1), -20 + 0 * bright.flatten(1)), 2)

    monkeypatch.chdir(tmp_path)
    sizes = {"x": {0: torch.export.Dim("N", min=1, max=64)}}
    torch.export.save(torch.export.export(Net(), (torch.zeros(2, 3, 320, 320),), dynamic_shapes=sizes), "detector.pt2")
    detector = load("torch_callable").model(CPU)
    x = torch.zeros(1, 3, 160, 320)
    x[..., :, 160:] = 1  # the right half; letterboxed, the picture fills rows 80 to 240 of 320
    (found,) = detector(x)
    assert detector.module is not None
    assert [f.name for f in detector.files] == ["detector.pt2"]
    assert found.labels.tolist() == [0, 0]
    torch.testing.assert_close(found.boxes.amin(0)[:2], torch.tensor([160.0, 0.0]))
    torch.testing.assert_close(found.boxes.amax(0)[2:], torch.tensor([320.0, 160.0]))


@pytest.mark.kit
def test_onnx_yolox(monkeypatch):
    monkeypatch.chdir(kit("coco_det_yolox_nano"))
    detector = load("onnx_yolox").model(CPU)
    (found,) = detector(picture(data.astronaut()))
    best = found.scores.argmax()
    assert detector.classes[found.labels[best]] == "person"
    assert found.scores[best] > 0.7
    x = picture(data.astronaut()).requires_grad_()
    (gradient,) = torch.autograd.grad(detector.candidates(x).logits[..., 0].amax(), x)
    assert gradient.abs().amax() > 0
