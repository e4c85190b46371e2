"""Patches drawn by a face generator: painted where they belong, found by their codes, carried on as pixels."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.alignment import ARCFACE, Alignment
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError, ModelError
from audit.examples import Attacked
from audit.measures.face_rules import FaceRules
from probes.recognition.canvas import Ascent, Canvas, Kept
from probes.recognition.eigenfaces import Eigenfaces, aligned
from probes.recognition.latent import LatentPatch, LatentStart, bounded
from probes.recognition.masks import FaceMask
from tests.face_attacks import Pooled, changed, craft, lfw, made_up, margins, portraits, real

CPU = torch.device("cpu")
MASK = FaceMask("features")


def planted():
    return Comparison("pooled", Pooled(0.9), True)


def chips(n, seed=0):
    """Aligned faces as photographs: the alignment leaves them as they are."""
    images = torch.randint(0, 256, (n, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    names = tuple(f"chip {i}" for i in range(n))
    return Portraits(images, ARCFACE.repeat(n, 1, 1), names, names)


def test_a_chip_sees_the_drawn_face_pixel_by_pixel():
    people = chips(2)
    masks = MASK.photo_masks(people.landmarks, people.size)
    drawn = torch.randint(0, 256, (2, 3, 112, 112), generator=torch.Generator().manual_seed(1)).float() / 255
    painted = Canvas.of(people, masks, CPU)
    images = painted.paint(painted.read(drawn))
    # paper 000, eq. 17
    expected = torch.where(masks[:, None], drawn, people.images.float() / 255)
    assert ((images - expected).abs().amax(1) > 2e-3).sum() <= 2  # but for pixels that had that very colour
    assert torch.equal(images, (images * 255).round() / 255)


def test_a_photograph_sees_the_face_where_its_landmarks_put_it():
    people = portraits(3)
    masks = MASK.photo_masks(people.landmarks, people.size)
    canvas = Canvas.of(people, masks, CPU)
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    read = canvas.read(torch.stack([x, y]).expand(3, 2, 112, 112))
    matrix = Alignment.by_landmarks(people.landmarks, people.size, (112, 112)).matrix
    image, row, column = masks.nonzero(as_tuple=True)
    points = torch.stack([column, row, torch.ones_like(row)], 1).double()
    expected = torch.stack([matrix[i] @ p for i, p in zip(image, points, strict=True)])
    assert torch.allclose(read.double(), expected.clamp(0, 111), atol=1e-3)


def test_every_pixel_of_the_mask_changes_and_no_other():
    people = chips(2)
    masks = MASK.photo_masks(people.landmarks, people.size)
    canvas = Canvas.of(people, masks, CPU)
    images = (canvas.paint(canvas.own) * 255).round().to(torch.uint8)
    assert torch.equal((images != people.images).any(1), masks)
    assert (images.int() - people.images.int()).abs().max() == 1


def test_gradients_pass_the_rounding_and_stop_at_the_mask():
    people = chips(1)
    canvas = Canvas.of(people, MASK.photo_masks(people.landmarks, people.size), CPU)
    drawn = torch.full((1, 3, 112, 112), 0.503, requires_grad=True)
    weight = torch.rand(1, 3, 112, 112)
    (slope,) = torch.autograd.grad((canvas.paint(canvas.read(drawn)) * weight).sum(), drawn)
    assert torch.allclose(slope, weight * canvas.masks[:, None], atol=1e-3)


def test_steps_are_adams():
    slopes = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
    ascent = Ascent(0.3, 10)
    for t in range(1, 11):
        step = ascent.step(slopes[t - 1])
        # Kingma and Ba 2015, the averages written out
        old = torch.arange(t - 1, -1, -1, dtype=torch.float64)[:, None]
        mean = (0.1 * 0.9**old * slopes[:t]).sum(0) / (1 - 0.9**t)
        square = (0.001 * 0.999**old * slopes[:t] ** 2).sum(0) / (1 - 0.999**t)
        rate = 0.3 * math.cos(math.pi * (t - 1) / 20) ** 2
        assert torch.allclose(step, rate * mean / square.sqrt(), rtol=1e-6)


def test_the_best_look_is_kept():
    canvas = Canvas.of(chips(2), torch.ones(2, 112, 112, dtype=torch.bool), CPU)
    kept = Kept.nothing(canvas)
    for level, seen in (
        (10, [[0.1, -0.3], [0.2, -0.1]]),
        (20, [[0.0, 0.2], [0.5, 0.1]]),
        (30, [[0.3, 0.0], [-0.2, 0.9]]),
    ):
        kept.see(torch.full((2, 3, 112, 112), level / 255), torch.tensor(seen), level / 30)
    assert kept.images[:, 0, 0, 0].tolist() == [10, 20]
    assert torch.allclose(kept.best, torch.tensor([0.1, 0.1]))
    assert torch.allclose(kept.first, torch.tensor([0.1, -0.3]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 50), st.floats(0.1, 3), st.floats(0.01, 100), st.integers(0, 99))
def test_codes_stay_within_their_length(length, radius, scale, seed):
    codes = scale * torch.randn(4, length, generator=torch.Generator().manual_seed(seed))
    kept = bounded(codes, radius)
    longest = radius * math.sqrt(length)
    assert (kept.norm(dim=1) <= longest * 1.0001).all()
    short = codes.norm(dim=1) <= longest
    assert torch.equal(kept[short], codes[short])
    assert torch.allclose(torch.cosine_similarity(kept, codes), torch.ones(4), atol=1e-4)


def test_without_steps_the_patch_is_the_projected_face():
    people = chips(3)
    faces = Eigenfaces.fit(portraits(12))
    attacked = Attacked("impersonate", people, chips(3, 7), portraits(2))
    got = craft(LatentPatch(MASK, generator=faces, steps=0, radius=1e9), planted(), attacked)
    drawn = (faces(faces.project(people.images.float() / 255)) * 255).round()
    masks = MASK.photo_masks(people.landmarks, people.size)[:, None]
    assert (got.images - torch.where(masks, drawn, people.images.float())).abs().max() <= 1
    assert torch.equal(changed(got, attacked), masks[:, 0])
    other = craft(LatentPatch(MASK, generator=faces, steps=0, start="target", radius=1e9), planted(), attacked)
    drawn = (faces(faces.project(attacked.targets.images.float() / 255)) * 255).round()
    assert (other.images - torch.where(masks, drawn, people.images.float())).abs().max() <= 1


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_codes_and_pixels_beat_their_start_and_do_not_hang_on_the_batch(goal):
    attacked, model = made_up(goal, 5), planted()
    start = craft(LatentPatch(MASK, steps=0), model, attacked)
    for probe in (LatentPatch(MASK, transforms=("di",)), LatentStart(MASK, steps=6)):
        whole, parts = (craft(probe, model, attacked, steps=6, batch=b) for b in (16, 2))
        assert torch.equal(whole.images, parts.images)
        assert (margins(model, whole, attacked) > margins(model, start, attacked) + 1e-3).all()
        assert torch.equal(changed(whole, attacked), whole.masks)
        assert all(len(values) == len(whole.history["share beyond the threshold"]) for values in whole.history.values())
        json.dumps([probe.spec(), whole.details], allow_nan=False)


def test_pixels_take_up_what_the_codes_left():
    attacked, model = made_up("impersonate", 4), planted()
    both = craft(LatentStart(MASK, steps=10, share=0.4), model, attacked)
    first = craft(LatentPatch(MASK, transforms=("mi",), order="random", steps=4), model, attacked)
    assert both.details["steps on codes"] == 4
    assert both.history["share beyond the threshold"][:5] == first.history["share beyond the threshold"]
    assert len(both.history["share beyond the threshold"]) == 5 + 7
    assert (margins(model, both, attacked) >= margins(model, first, attacked)).all()


class Blind(Pooled):
    """Answers the same whatever it sees, with a gradient of zero."""

    def __call__(self, faces):
        return super().__call__(faces * 0 + torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(0)))


def test_a_gradient_of_zero_is_told():
    attacked = Attacked("dodge", portraits(3), portraits(3), portraits(4))
    for probe in (LatentPatch(MASK), LatentStart(MASK)):
        raised = {
            d.name for d in craft(probe, Comparison("blind", Blind(), True), attacked, steps=4).diagnostics if d.raised
        }
        assert "gradient zero or not finite" in raised


def test_what_cannot_be_is_refused():
    attacked = made_up("impersonate", 2)
    with pytest.raises(ModelError, match="gradients"):
        craft(LatentPatch(MASK), Comparison("dark", Pooled(), False), attacked)
    for wrong in ({"start": "elsewhere"}, {"rate": 0.0}, {"radius": -1.0}, {"steps": -1}, {"transforms": ("xi",)}):
        with pytest.raises(AuditError):
            LatentPatch(MASK, **wrong)
    for wrong in ({"share": 1.0}, {"steps": 1}, {"origin": "elsewhere"}):
        with pytest.raises(AuditError):
            LatentStart(MASK, **wrong)


@pytest.mark.slow
def test_found_codes_take_mobilefacenet_further_than_random_ones_do():
    attacked = lfw("impersonate", 4)
    made = craft(LatentPatch(MASK, rate=0.4), real(), attacked, steps=8)
    control = craft(LatentPatch(MASK, start="random", steps=0), real(), attacked)
    gain, plain = margins(real(), made, attacked), margins(real(), control, attacked)
    assert (gain > plain + 0.1).all()
    scale = Alignment.by_landmarks(attacked.sources.landmarks, attacked.sources.size, (112, 112)).scale
    assert FaceRules().violations(attacked.sources.images, made.images, scale) == []
    assert made.details["length of the codes, mean and most, in √L"][1] <= 2 + 1e-3
    assert aligned(attacked.background).shape[1:] == (3, 112, 112)
