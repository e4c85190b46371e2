"""Preprocessing: pixels against OpenCV, and boxes that follow their pixels back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audit.adapters import Preprocess
from audit.errors import ModelError

SIDE = st.integers(40, 200)
RESIZES = ("stretch", "letterbox", "letterbox-corner", "multiple-of-32")


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(RESIZES), st.data())
def test_a_box_comes_back_to_its_pixels(height, width, net_h, net_w, resize, data):
    x1, y1 = data.draw(st.integers(0, width - 20)), data.draw(st.integers(0, height - 20))
    x2, y2 = data.draw(st.integers(x1 + 12, width)), data.draw(st.integers(y1 + 12, height))
    image = torch.zeros(1, 3, height, width)
    image[..., y1:y2, x1:x2] = 1
    inputs, geometry = Preprocess(input_size=(net_h, net_w), resize=resize, fill=0.0)(image)
    expected = (net_h, net_w) if resize != "multiple-of-32" else (-(-net_h // 32) * 32, -(-net_w // 32) * 32)
    assert inputs.shape == (1, 3, *expected)
    # where the bright rectangle is now, found in the pixels
    rows = (inputs[0, 0].amax(1) > 0.5).nonzero().flatten()
    columns = (inputs[0, 0].amax(0) > 0.5).nonzero().flatten()
    seen = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float()
    back = geometry.back(seen)[0]
    torch.testing.assert_close(back[0::2], torch.tensor([x1, x2]).float(), atol=1.0 / geometry.scale_x + 0.5, rtol=0)
    torch.testing.assert_close(back[1::2], torch.tensor([y1, y2]).float(), atol=1.0 / geometry.scale_y + 0.5, rtol=0)


def test_stretch_is_opencvs():
    image = picture(120, 70)
    inputs, _ = Preprocess(input_size=(64, 96), resize="stretch")(image)
    expected = cv2.resize(image[0].permute(1, 2, 0).numpy(), (96, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(inputs[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("resize", "top", "left"), [("letterbox", 12, 0), ("letterbox-corner", 0, 0)])
def test_letterbox_is_opencvs(resize, top, left):
    image = picture(50, 100)
    inputs, _ = Preprocess(input_size=(64, 80), resize=resize, fill=0.25)(image)
    inner = cv2.resize(image[0].permute(1, 2, 0).numpy(), (80, 40), interpolation=cv2.INTER_LINEAR)
    expected = cv2.copyMakeBorder(inner, top, 24 - top, left, 0, cv2.BORDER_CONSTANT, value=(0.25,) * 3)
    np.testing.assert_allclose(inputs[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_antialias_keeps_the_mean_of_stripes():
    image = torch.zeros(1, 3, 128, 128)
    image[..., ::4] = 1
    plain, _ = Preprocess(input_size=(32, 32), resize="stretch")(image)
    smooth, _ = Preprocess(input_size=(32, 32), resize="stretch", antialias=True)(image)
    assert abs(float(smooth.mean()) - 0.25) < 0.02
    assert abs(float(plain.mean()) - 0.25) > 0.2


@given(
    st.sampled_from(["rgb", "bgr"]),
    st.sampled_from([1.0, 255.0]),
    st.sampled_from([0.0, 127.0, (104.0, 117.0, 123.0)]),
    st.sampled_from([1.0, 128.0, (57.0, 58.0, 59.0)]),
)
def test_the_range_is_the_networks(channels, scale, mean, std):
    image = picture(4, 5)
    inputs, geometry = Preprocess(channels=channels, scale=scale, mean=mean, std=std)(image)
    array = image[0].double().numpy()
    array = array[::-1] if channels == "bgr" else array

    def column(v):
        return np.broadcast_to(np.asarray(v, float), 3)[:, None, None]

    np.testing.assert_allclose(inputs[0].numpy(), (array * scale - column(mean)) / column(std), rtol=1e-5, atol=1e-4)
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(geometry.back(boxes), boxes)


@pytest.mark.parametrize("resize", RESIZES)
def test_it_is_differentiable(resize):
    image = picture(20, 30).double().requires_grad_()
    made = Preprocess(input_size=(16, 24), resize=resize, channels="bgr", scale=2, mean=(0.1, 0.2, 0.3), std=0.5)
    assert torch.autograd.gradcheck(lambda x: made(x)[0], image, nondet_tol=1e-9, fast_mode=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resize": "crop"}, "'crop'"),
        ({"resize": "stretch"}, "(height, width)"),
        ({"input_size": (320, 320)}, "how images reach"),
        ({"input_size": (320,), "resize": "stretch"}, "two positive whole numbers"),
        ({"input_size": (0, 320), "resize": "stretch"}, "two positive whole numbers"),
        ({"channels": "gbr"}, "'gbr'"),
        ({"mean": (1.0, 2.0)}, "one number or three"),
        ({"std": 0.0}, "other than 0"),
        ({"scale": 0.0}, "other than 0"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments, words):
    with pytest.raises(ModelError) as told:
        Preprocess(**arguments)
    assert words in str(told.value)
