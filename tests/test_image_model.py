"""How probes and measures ask a model of images: margins, decisions and losses against plain NumPy."""

from __future__ import annotations

import hashlib
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.adapters import forgery_detector
from audit.data.clips import Clip, Clips, evenly, linked
from audit.data.groups import side_of
from audit.embedding import Embedding
from audit.errors import DataError, ModelError
from audit.image_model import ImageModel
from audit.labelled import Adversarial, Labelled
from audit.record import Diagnostic


class Told:
    """Says what it is told, whatever it is shown."""

    face_size = input_size = (4, 4)

    def __init__(self, outputs, threshold=0.0):
        self.outputs, self.threshold = outputs, threshold

    def __call__(self, images):
        return self.outputs[: len(images)] + 0 * images.flatten(1).sum(1).reshape(-1, *[1] * (self.outputs.ndim - 1))


numbers = st.floats(-30, 30, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, st.integers(0, 1)), min_size=1, max_size=8), numbers)
def test_two_sided_decisions_and_losses(rows, threshold):
    scores, labels = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    model = ImageModel("told", Told(scores, threshold), "forgery", white_box=True)
    images = torch.zeros(len(rows), 3, 4, 4)
    said = [int(s >= torch.tensor(threshold)) for s in scores]
    assert model.right(scores, labels).tolist() == [a == b for a, b in zip(said, labels.tolist(), strict=True)]
    odds = [
        s - threshold if y else threshold - s for s, y in rows
    ]  # of the right answer, whose chance is 1 / (1 + e^-x)
    expected = [math.log1p(math.exp(-x)) for x in odds]
    np.testing.assert_allclose(model.loss(images, labels).numpy(), expected, rtol=1e-3, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31 - 1))
def test_classes(k, seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, 3, (6, k)).astype(np.float32), rng.integers(0, k, 6)
    z[0, :] = z[0, 0]  # a tie is no right answer
    model = ImageModel("told", Told(torch.from_numpy(z)), "classifier", white_box=True)
    labels = torch.from_numpy(y)
    best = [row[c] > max(np.delete(row, c)) for row, c in zip(z, y, strict=True)]
    assert model.right(torch.from_numpy(z), labels).tolist() == best
    expected = [-np.log(np.exp(row[c]) / np.exp(row).sum()) for row, c in zip(z.astype(float), y, strict=True)]
    found = model.loss(torch.zeros(6, 3, 4, 4), labels).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (torch.tensor([1.0, float("nan"), 2.0]), "not finite"),
        (torch.zeros(3, 2), r"shape \(3, 2\)"),
        (torch.zeros(2), r"shape|broadcast|size"),
    ],
)
def test_what_cannot_be_counted_is_refused(outputs, words):
    model = ImageModel("told", Told(outputs), "forgery", white_box=False)
    with pytest.raises((ModelError, RuntimeError), match=words):
        model.ask(torch.zeros(3, 3, 4, 4, dtype=torch.uint8))


def test_asking_gives_the_same_whatever_the_batch():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1), torch.nn.Flatten(0))
    net.face_size, net.threshold = (4, 4), 0.0
    images = torch.randint(0, 256, (70, 3, 4, 4), dtype=torch.uint8)
    model = ImageModel("net", net, "forgery", white_box=True)
    one_by_one = np.concatenate([model.ask(images[i : i + 1]) for i in range(70)])
    np.testing.assert_allclose(model.ask(images), one_by_one, rtol=1e-5, atol=1e-6)
    assert model.ask(images[:0]).shape == (0,)


def test_what_an_attack_hands_back_survives_the_disk(tmp_path):
    told = Diagnostic(name="loss fell", value=0.5, limit=0.1, raised=False, meaning="It did.")
    made = Adversarial(
        torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8), {"sigma": torch.rand(2, 4, 4)}, [told],
        {"loss": [1.0, 2.0]}, {"mean sigma": [0.5, 0.25]},
    )  # fmt: skip
    made.save(tmp_path)
    again = Adversarial.load(tmp_path)
    assert torch.equal(again.images, made.images)
    assert torch.equal(again.maps["sigma"], made.maps["sigma"])
    assert (again.diagnostics, again.history, again.details) == (made.diagnostics, made.history, made.details)


def test_labelled_images_can_be_chosen_by_mask_and_number():
    names = tuple("abc")
    x = Labelled(torch.arange(3)[:, None, None, None].expand(3, 3, 2, 2).to(torch.uint8), torch.tensor([0, 1, 1]),
                 names, names, ("u", "u", "v"))  # fmt: skip
    chosen = x[torch.tensor([True, False, True])]
    assert (chosen.ids, chosen.clips, chosen.labels.tolist()) == (("a", "c"), ("u", "v"), [0, 1])
    assert x[[2, 0]].ids == ("c", "a")
    assert x.digest != x[[2, 0]].digest != x[[0, 1, 2]].digest == x.digest


def test_the_digest_is_that_of_shape_names_pixels_and_labels_in_this_order():
    pixels = torch.randint(0, 256, (4, 2, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8).reshape(4, 2)
    names = tuple("abcd")
    x = Labelled(pixels.permute(0, 3, 1, 2), labels[:, 1], names, names, names)  # neither lies in one piece
    about = repr(((4, 3, 2, 5), names, names, names)).encode()
    whole = pixels.numpy().transpose(0, 3, 1, 2).tobytes() + np.array([1, 3, 5, 7]).tobytes()
    assert x.digest == hashlib.sha256(about + whole).hexdigest()
    nothing = x[[]]
    assert nothing.digest == hashlib.sha256(repr(((0, 3, 2, 5), (), (), ())).encode()).hexdigest()


def test_the_digest_is_computed_once(monkeypatch):
    x = Labelled(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ("a",), ("a",), ("a",))
    first = x.digest
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("computed again"))
    assert x.digest == first
    assert pickle.loads(pickle.dumps(x)).digest == first


def test_the_device_is_where_the_weights_are_unless_it_is_said():
    there = torch.device("meta")
    net = torch.nn.Linear(2, 2, device="meta")
    net.face_size, net.threshold = (4, 4), 0.0
    assert ImageModel("net", net, "forgery", white_box=True).device == there
    assert ImageModel("told", Told(torch.zeros(1)), "forgery", white_box=True).device == torch.device("cpu")
    hidden = ImageModel("told", Told(torch.zeros(1, device="meta")), "forgery", True, "", there)
    assert hidden.device == there, "weights out of reach"
    assert ImageModel("net", net, "forgery", white_box=True, place=torch.device("cpu")).device == torch.device("cpu")


def test_the_place_is_where_images_are_brought_to():
    seen = []

    def net(images):
        seen.append(images.device)
        return torch.zeros(len(images))

    model = ImageModel("net", net, "forgery", white_box=False, place=torch.device("meta"))
    model.ask(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert seen == [torch.device("meta")]


def test_an_attributor_of_clips_gives_each_frame_the_features_of_its_clip():
    def embed(clips):
        return clips.mean((3, 4)).flatten(1)  # of 3 frames with 3 channels: (N, 9)

    detector = forgery_detector(lambda x: x.mean((1, 2, 3, 4)), face_size=(4, 4), clip_frames=3, embed=embed, mean=0.5)
    model = ImageModel("features", Embedding(detector), "attributor", white_box=True)
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = model.outputs(images)
    for i in range(6):
        first = i // 3 * 3
        expected = [float(images[first + t, c].mean()) - 0.5 for t in range(3) for c in range(3)]
        assert out[i].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="whole clips, a multiple of 3 frames, got 4"):
        model.outputs(images[:4])


@pytest.mark.parametrize(("said", "frames"), [({}, 1), ({"clip_frames": None}, 1), ({"clip_frames": 5}, 5)])
def test_a_model_that_says_nothing_of_clips_judges_single_images(said, frames):
    net = Told(torch.zeros(1))
    vars(net).update(said)
    assert ImageModel("net", net, "forgery", white_box=True).frames == frames


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=3), min_size=1, max_size=8))
def test_clips_that_share_a_source_are_one_group(sources):
    found = linked({str(i): s for i, s in enumerate(sources)})
    # by flooding: whoever can be reached over common sources
    left = set(range(len(sources)))
    parts = []
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            part |= edge
            near = {j for i in edge for j in left if set(sources[i]) & set(sources[j])}
            edge, left = near, left - near
        parts.append(frozenset(part))
    groups = {}
    for i in range(len(sources)):
        groups.setdefault(found[str(i)], set()).add(i)
    assert {frozenset(g) for g in groups.values()} == set(parts)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.integers(1, 40))
def test_frames_are_spread_evenly(count, wanted):
    at = evenly(count, wanted)
    assert len(at) == min(count, wanted)
    assert at == sorted(set(at))
    assert all(0 <= i < count for i in at)
    if count > wanted:
        gaps = np.diff([-1 - at[0], *at, 2 * count - 1 - at[-1]])
        assert gaps[1:-1].max(initial=0) - gaps[1:-1].min(initial=count) <= 1


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text(min_size=1, max_size=4), min_size=2, max_size=20), st.floats(0.05, 0.95))
def test_no_group_is_on_both_sides_and_neither_is_empty(groups, share):
    sides = side_of(groups, share, "data")
    assert set(sides) == groups
    assert {True, False} == set(sides.values())
    assert side_of(sorted(groups, reverse=True), share, "data") == sides
    with pytest.raises(DataError, match="at least two groups"):
        side_of(list(groups)[:1], share, "data")


def test_two_clips_of_one_name_are_refused():
    one = Clip("a", "", "a", None, "")
    with pytest.raises(DataError, match="twice"):
        Clips((one, one), "data", "here")
