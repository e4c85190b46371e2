"""Spatially transformed images: sampling against OpenCV, the flow loss against loops, effect on real detectors."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.execution import Execution
from audit.labelled import Adversarial
from probes.forgery.flow import SpatialFlow, flow_loss, limited, random_flow, warp
from probes.forgery.image_rules import FlowRules
from probes.forgery.plain_noise import RandomFlow
from tests.kit import mesonet_model
from tests.test_image_attacks import (
    Net,
    accuracy,
    budget,
    craft,
    faces,
    judged_rightly,
    model,
    noise_images,
    raised,
    stream,
)

__all__ = ["faces"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 40]), st.tuples(st.integers(2, 17), st.integers(2, 17)))
def test_images_are_sampled_as_opencv_samples_them(seed, far, size):
    """At multiples of 1/32 px, which is all that OpenCV's table of weights knows."""
    image = torch.rand(1, 3, *size, generator=stream(seed)) * 255
    flow = torch.randint(-far * 32, far * 32 + 1, (1, 2, *size), generator=stream(seed + 1)).float() / 32
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wanted = cv2.remap(
        image[0].permute(1, 2, 0).numpy(), columns + flow[0, 1].numpy(), rows + flow[0, 0].numpy(),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    assert np.abs(warp(image, flow)[0].permute(1, 2, 0).numpy() - wanted).max() < 5e-2


def test_down_is_down_and_right_is_right():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    down, right = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    down[:, 0], right[:, 1] = 1, 0.5
    assert warp(image, down)[0, 0].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]
    assert warp(image, right)[0, 0, 0].tolist() == pytest.approx([0.5, 1.5, 2.5, 3])


def test_the_flow_loss_is_the_papers_sum_over_four_neighbours():
    flow = torch.randn(2, 2, 4, 5, generator=stream())
    wanted = []
    for f in flow.double().tolist():
        total = 0.0
        for i in range(4):
            for j in range(5):
                for y, x in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= y < 4 and 0 <= x < 5:
                        total += math.sqrt((f[0][i][j] - f[0][y][x]) ** 2 + (f[1][i][j] - f[1][y][x]) ** 2 + 0.01)
        wanted.append(total / 20)
    assert flow_loss(flow, 0.01).tolist() == pytest.approx(wanted, rel=1e-5)
    still = torch.zeros(1, 2, 4, 5, requires_grad=True)
    assert bool(torch.autograd.grad(flow_loss(still).sum(), still)[0].isfinite().all())


def test_the_gradient_by_the_flow_agrees_with_finite_differences():
    image = torch.rand(1, 1, 3, 4, generator=stream(), dtype=torch.float64)
    flow = (torch.rand(1, 2, 3, 4, generator=stream(1), dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    towards = torch.randn(1, 1, 3, 4, generator=stream(2), dtype=torch.float64)

    def value(f):
        return (warp(image, f) * towards).sum() + flow_loss(f).sum()

    (found,) = torch.autograd.grad(value(flow), flow)
    for i in range(flow.numel()):
        step = torch.zeros(flow.numel(), dtype=torch.float64)
        step[i] = 1e-6
        step = step.view_as(flow)
        change = float(value(flow.detach() + step) - value(flow.detach() - step)) / 2e-6
        assert float(found.flatten()[i]) == pytest.approx(change, rel=1e-4, abs=1e-6)


def test_vectors_are_shortened_and_not_turned():
    flow = torch.tensor([[3.0, 0.3], [4.0, 0.4]]).view(1, 2, 1, 2)
    assert limited(flow, 1.0).flatten().tolist() == pytest.approx([0.6, 0.3, 0.8, 0.4])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 3))
def test_the_rules_pass_what_was_sampled_and_nothing_else(seed, limit):
    clean = noise_images(2, 12, seed, 0, 256)
    flow = random_flow(clean.shape, limit, 4.0, stream(seed))
    images = warp(clean.float(), flow).round().clamp(0, 255).to(torch.uint8)
    rules = FlowRules(limit)
    assert rules.violations(clean, Adversarial(images, {"flow": flow})) == []
    changed = images.clone()
    changed[1, 0, 3, 4] ^= 2
    assert [v[:8] for v in rules.violations(clean, Adversarial(changed, {"flow": flow}))] == ["image 1:"]
    assert len(FlowRules(limit * 0.9).violations(clean, Adversarial(images, {"flow": flow}))) == 2
    assert len(rules.violations(clean, Adversarial(images))) == 1
    assert len(rules.violations(clean, Adversarial(images, {"flow": flow * math.nan}))) == 2


def test_the_control_flows_as_far_as_it_says_by_name_and_seed():
    data = judged_rightly(model(Net()), noise_images(3, 16))
    for control in (RandomFlow(1.5), RandomFlow(1.5, mean=0.25)):
        made = control.craft([], data, execution=Execution(), budget=budget(), seed=1)
        length = made.maps["flow"].norm(dim=1)
        assert float(length.max()) <= 1.5 + 1e-5
        if control.mean is None:
            assert length.flatten(1).amax(1).tolist() == pytest.approx([1.5] * 3, rel=1e-5)
        else:
            assert length.mean((1, 2)).tolist() == pytest.approx([0.25] * 3, rel=1e-3)
        assert control.rules().violations(data.images, made) == []
        one = control.craft([], data[torch.tensor([2])], execution=Execution(), budget=budget(), seed=1)
        assert torch.equal(one.images, made.images[[2]])


def test_the_batch_decides_nothing():
    m = model(Net())
    data = judged_rightly(m, noise_images(7, 16))
    one, *others = (craft(SpatialFlow(steps=8), m, data, batch=b) for b in (1, 3, 8))
    assert all(torch.equal(one.images, o.images) for o in others)
    assert all(torch.allclose(one.maps["flow"], o.maps["flow"], atol=1e-5) for o in others)


def test_a_dearer_flow_is_a_smoother_one():
    m = model(Net())
    data = judged_rightly(m, noise_images(6, 16))
    rough, smooth = (craft(SpatialFlow(tau=t, steps=30, kappa=5), m, data).maps["flow"] for t in (0.0, 1.0))
    assert float(flow_loss(smooth).mean()) < 0.5 * float(flow_loss(rough).mean())


@pytest.mark.kit
def test_a_real_detector_gives_way_to_a_flow_that_chance_does_not_find(faces):
    m = mesonet_model("Meso4_DF")
    attack = SpatialFlow(steps=8, limit=0.5)
    made = craft(attack, m, faces, batch=8)
    mean = made.details["mean flow, px"]
    plain = RandomFlow(0.5, mean=mean).craft([], faces, execution=Execution(), budget=budget(), seed=0)
    assert accuracy(m, faces.images, faces.labels) == 1
    assert accuracy(m, plain.images, faces.labels) >= 0.8
    assert accuracy(m, made.images, faces.labels) <= 0.2
    assert attack.rules().violations(faces.images, made) == []
    assert raised(made) == set()
    length = made.maps["flow"].norm(dim=1)
    assert mean == pytest.approx(float(length.mean()))
    assert made.details["largest flow, px"] == pytest.approx(float(length.max()))
    assert mean < 0.4
