"""The planted detectors are what the tests say they are."""

import pytest
import torch

from tests import planted


def paste(image, boxes, colour):
    image = image.clone()
    for x1, y1, x2, _ in boxes.int().tolist():
        s = planted.SIDE // 2
        left = (x1 + x2) // 2 - s // 2
        image[:, y1 : y1 + s, left : left + s] = torch.tensor(colour)[:, None, None]
    return image


@pytest.mark.parametrize(
    ("kind", "hidden_by_grey", "hidden_by_cyan"),
    [
        (planted.Red, False, True),
        (planted.Robust, False, False),
        (planted.Blind, False, False),
        (planted.Quantised, False, True),
        (planted.NoisyGradient, False, True),
        (planted.QueryOnly, False, True),
    ],
)
def test_what_hides_a_square(kind, hidden_by_grey, hidden_by_cyan):
    scene = planted.scenes(1, row=planted.ROW)[0]
    clean = scene.load().float() / 255
    detector = kind()

    def found(image):
        d = detector(image[None])[0]
        return int((d.scores >= detector.score_threshold).sum())

    assert found(clean) == len(scene.boxes)
    assert (found(paste(clean, scene.boxes, [0.5, 0.5, 0.5])) < len(scene.boxes)) is hidden_by_grey
    assert (found(paste(clean, scene.boxes, [0.0, 1.0, 1.0])) < len(scene.boxes)) is hidden_by_cyan


def test_quantised_has_no_gradient_and_the_plain_one_has():
    image = torch.rand(1, 3, *planted.SIZE, requires_grad=True)
    assert torch.autograd.grad(planted.Red().candidates(image).logits.sum(), image)[0].abs().max() > 0
    assert torch.autograd.grad(planted.Quantised().candidates(image).logits.sum(), image)[0].abs().max() == 0
