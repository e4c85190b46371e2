"""What the tests of adapters share: red squares to find, one control on a model file, gradients against differences."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from audit.cli import main
from tests import mother
from tests.planted import scenes

ROOT = Path(__file__).resolve().parents[1]
SIZE = (128, 160)
SIDE = 48
RED = torch.tensor([0.8, 0.2, 0.2])[:, None, None]


def needs(package: str):
    """The package; where it is missing the test skips, but never in continuous integration."""
    try:
        return importlib.import_module(package)
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{package} is not installed")


def painted(corners, size=SIZE, side=SIDE, seed=0):
    """(images (N, 3, H, W), boxes (N, 4)): grey noise with one red square per image, upper left corners given."""
    g = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand((len(corners), 1, *size), generator=g).repeat(1, 3, 1, 1)
    for image, (x, y) in zip(images, corners, strict=True):
        image[:, y : y + side, x : x + side] = RED
    return images, torch.tensor([[x, y, x + side, y + side] for x, y in corners], dtype=torch.float32)


def best(detections):
    """The box of the highest score."""
    return detections.boxes[detections.scores.argmax()]


def overlap(found, box) -> float:
    return float(box_iou(found[None], box[None]))


def gradient_agrees(detector, images, step=0.05, tolerance=0.05):
    """Along the gradient of the best candidate's logit and box, the difference quotient is the gradient's norm."""
    with torch.no_grad():
        start = detector.candidates(images)
    index = int(start.logits[0].amax(-1).argmax())
    label = int(start.logits[0, index].argmax())

    def value(x):
        found = detector.candidates(x)
        return found.logits[0, index, label] + found.boxes[0, index].sum() / 50

    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    assert gradient.isfinite().all()
    norm = float(gradient.norm())
    assert norm > 0
    way = gradient / norm
    with torch.no_grad():
        quotient = float(value(images + step * way) - value(images - step * way)) / (2 * step)
    assert quotient == pytest.approx(norm, rel=tolerance)


def usable_after_inference_mode(detector, images):
    """What a net stores in a call in inference mode must not break the next one for gradients."""
    with torch.inference_mode():
        before = detector(images)
    x = images.clone().requires_grad_()
    found = detector.candidates(x)
    (gradient,) = torch.autograd.grad(found.logits.sum() + found.boxes.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()
    with torch.no_grad():
        assert not detector.candidates(images).logits.requires_grad
        again = detector(images)
    assert [d.scores.tolist() for d in before] == [d.scores.tolist() for d in again]
    assert not any(m.training for m in detector.module.modules())
    assert not any(p.requires_grad for p in detector.module.parameters())


def doctored(path: Path, capsys) -> str:
    """What ``audit doctor`` says of a model file that meets its contract."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        assert main(["doctor", str(path), "--device", "cpu"]) == 0
    return capsys.readouterr().out


def data(root):
    """Scenes for a model file: two squares per image, 8 px of play to the side, all in one row."""
    return scenes(row=40)


def one_control(path: Path, folder: Path, id: str) -> dict:
    """The row of one control, from a run of the suites on a model file as a process."""
    suite = str(ROOT / "suites" / "test_detection.py")
    words = ["-m", "pytest", suite, "-p", "no:cacheprovider", "--audit-model", str(path), "--audit-control", id]
    words += ["--audit-report", str(folder / "out"), "--audit-cache", str(folder / "cache")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = mother.run(words, cwd=ROOT, env=env)
    report = folder / "out" / "report.json"
    assert report.exists(), done.stdout + done.stderr
    (row,) = [c for c in json.loads(report.read_text())["controls"] if c["id"] == id]
    return row


def clean_recall(row: dict) -> float:
    """The recall on clean images that a control's row states."""
    return next(c["value"] for c in row["conditions"] if c["name"] == "recall, clean")
