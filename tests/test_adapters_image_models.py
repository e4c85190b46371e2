"""Forgery detectors, liveness detectors, attributors and classifiers from torch networks: right numbers, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from audit.adapters import attributor, classifier, forgery_detector, liveness_detector
from audit.checks import check
from audit.errors import ModelError
from audit.image_model import ImageModel
from audit.state import modules_of
from audit.subject import load
from audit.tasks import access_of, conforms, find_task

CPU = torch.device("cpu")


def images(n=3, size=(8, 8)):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(1))


def flat(outputs: int):
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, outputs))


@pytest.mark.parametrize("fake", [0, 1, 2])
def test_of_several_logits_the_log_odds_of_one_class_are_taken(fake):
    net, x = flat(3), images()
    model = forgery_detector(net, face_size=(8, 8), output="logits", fake=fake)
    p = net(x).double().softmax(1)[:, fake]
    torch.testing.assert_close(model(x).double(), p.log() - (1 - p).log(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fake", [0, 1])
def test_a_single_output_may_speak_for_either_class(fake):
    net, x = flat(1), images()
    logit = forgery_detector(net, face_size=(8, 8), fake=fake)(x)
    torch.testing.assert_close(logit, (1 if fake else -1) * net(x)[:, 0])
    p = forgery_detector(lambda x: net(x).sigmoid(), face_size=(8, 8), fake=fake, output="probability")(x)
    torch.testing.assert_close(p, logit, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=4))
def test_probabilities_become_log_odds(ps):
    two = torch.tensor([[1 - p, p] for p in ps])
    model = liveness_detector(lambda x: two, output="probabilities", face_size=(8, 8))
    assert model(images(len(ps))).tolist() == pytest.approx([math.log(p / (1 - p)) for p in ps], rel=1e-3, abs=1e-4)


def test_the_network_sees_what_it_was_trained_on():
    seen = {}

    def net(x):
        seen["x"] = x
        return x.mean((1, 2, 3))

    x = images()
    forgery_detector(net, face_size=(8, 8), scale=255, mean=(1, 2, 3), std=2, channels="bgr")(x)
    expected = (x.flip(1) * 255 - torch.tensor([1.0, 2, 3])[None, :, None, None]) / 2
    torch.testing.assert_close(seen["x"], expected)


def test_clips_keep_their_frames_in_order():
    seen = {}

    def net(x):
        seen["x"] = x
        return x.mean((1, 2, 3, 4))

    model = forgery_detector(net, face_size=(8, 8), clip_frames=4, mean=0.5)
    x = images(8)
    assert model(x.unflatten(0, (2, 4))).shape == (2,)
    torch.testing.assert_close(seen["x"].flatten(0, 1), x - 0.5)
    told = ImageModel("clips", model, "forgery", white_box=True)
    assert told.outputs(x).shape == (8,)
    torch.testing.assert_close(told.outputs(x)[:4], (x[:4] - 0.5).mean().expand(4))
    with pytest.raises(ValueError, match="multiple of 4"):
        told.outputs(x[:6])


@pytest.mark.parametrize("frames", [None, 4])
def test_a_detector_with_features_is_an_attributor_too_of_faces_and_of_clips(tmp_path, frames):
    file = tmp_path / "model.py"
    file.write_text(
        "import torch\nfrom torch import nn\nfrom audit.adapters import forgery_detector\n"
        "def model(device):\n"
        "    torch.manual_seed(0)\n"
        "    size = 3 * 8 * 8\n"
        f"    flat = nn.Flatten({1 if frames is None else 2})\n"
        "    body = nn.Sequential(flat, nn.Linear(size, 5))\n"
        f"    pooled = body if {frames is None} else lambda x: body(x).mean(1)\n"
        "    head = nn.Linear(5, 1)\n"
        f"    return forgery_detector(lambda x: head(pooled(x)), face_size=(8, 8), mean=0.5, clip_frames={frames},\n"
        "                            embed=pooled)\n"
    )
    subject = load(file, "cpu")
    assert set(subject.tasks) == {"forgery", "attributor"}
    features = subject.tasks["attributor"]
    assert getattr(features, "clip_frames", None) == frames
    shape = (2, 3, 8, 8) if frames is None else (2, frames, 3, 8, 8)
    assert features(torch.rand(shape)).shape == (2, 5)
    assert subject.access == {"forgery": "white-box", "attributor": "white-box"}
    facts = check(subject)
    assert len(facts) > 4
    assert all(f.ok for f in facts)
    x = torch.rand(8, 3, 8, 8)
    assert ImageModel("features", features, "attributor", white_box=True).outputs(x).shape == (8, 5)


def test_each_task_is_found_and_can_be_attacked(tmp_path):
    made = {
        "forgery": forgery_detector(flat(1), face_size=(8, 8)),
        "liveness": liveness_detector(flat(2), output="logits", face_size=(8, 8)),
        "attributor": attributor(flat(5), face_size=(8, 8)),
        "classifier": classifier(flat(4), input_size=(8, 8), classes=["a", "b", "c", "d"]),
    }
    for task, model in made.items():
        assert find_task(tmp_path, model, CPU) == task
        conforms(tmp_path, task, model)
        assert access_of(task, model, CPU, modules_of(model)) == "white-box"
        assert modules_of(model) == [model.module]
        assert not any(p.requires_grad for p in model.module.parameters())
    assert made["classifier"].classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: forgery_detector(flat(1), output="fake"), "one of logit, probability"),
        (lambda: forgery_detector(flat(1), fake=2), "0 or 1 of a single output"),
        (lambda: forgery_detector(flat(1), face_size=224), "two positive whole numbers"),
        (lambda: forgery_detector(flat(1), threshold=math.nan), "a finite number"),
        (lambda: forgery_detector("net"), "a callable"),
        (lambda: forgery_detector(flat(2), face_size=(8, 8))(images()), 'say output="logits"'),
        (lambda: forgery_detector(flat(1), face_size=(8, 8), output="probability")(9 * images()), "probabilities in"),
        (lambda: liveness_detector(flat(2), live=4, output="logits")(images()), r"\(N, K\) with K above 4"),
        (lambda: classifier(lambda x: [x])(images()), "a tensor"),
        (lambda: attributor(flat(3), files=["nowhere.pt"]), "no such file"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(build, words):
    with pytest.raises(ModelError, match=words):
        build()
