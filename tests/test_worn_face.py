"""Patches as they are worn: the conditions do what they say, and training through them pays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.alignment import Alignment
from audit.examples import Examples
from probes.draws import Draw
from probes.physical import EOT, NOTHING
from probes.recognition.face_patch import FacePatch
from probes.recognition.masks import FaceMask
from probes.recognition.plain import NoiseFace
from probes.recognition.worn import WORN, Wearing, WornPatch, worn_looks
from tests.face_attacks import craft, lfw, made_up, margins, real


def worn(n=2, seed=0, name="nose"):
    attacked = made_up("dodge", n, seed)
    return attacked, craft(NoiseFace(FaceMask(name)), [], attacked)


def wearing(attacked, examples):
    return Wearing.of(attacked.sources.images.float() / 255, attacked.sources.landmarks, examples.masks)


def shifted(dx, dy, mask):
    """A draw that moves the patch by whole pixels."""
    rows, columns = (mask.any(i).nonzero()[:, 0] for i in (1, 0))
    width, height = (int(c[-1] - c[0]) + 1 for c in (columns, rows))
    return Draw(shift=torch.tensor([[dx / width, dy / height]]))


def test_nothing_happens_under_no_conditions():
    attacked, examples = worn()
    looks = worn_looks(examples, attacked, 2, eot=NOTHING)
    assert list(looks) == ["look 1", "look 2"]
    assert all(torch.equal(look.images, examples.images) for look in looks.values())


@settings(max_examples=10, deadline=None)
@given(st.integers(-6, 6), st.integers(-6, 6), st.integers(0, 50))
def test_a_patch_is_put_on_beside_its_place(dx, dy, seed):
    attacked, examples = worn(1, seed)
    draw = shifted(dx, dy, examples.masks[0])
    seen = wearing(attacked, examples).seen(examples.images.float() / 255, draw)
    moved = examples.masks.roll((dy, dx), (1, 2))[:, None]
    patch = examples.images.roll((dy, dx), (2, 3))
    expected = torch.where(moved, patch, attacked.sources.images).float() / 255
    assert (seen - expected).abs().max() < 2e-3


def test_light_falls_on_the_whole_face_and_nowhere_else():
    attacked, examples = worn()
    images = examples.images.float() / 255
    seen = wearing(attacked, examples).seen(images, Draw(brightness=torch.tensor([1.3])))
    whole = torch.ones(112, 112, dtype=torch.bool)
    face = Alignment.by_landmarks(attacked.sources.landmarks, attacked.sources.size, (112, 112)).to_photo(whole)
    expected = torch.where(face[:, None], (images * 1.3).clamp(max=1), images)
    assert torch.allclose(seen, expected, atol=1e-6)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**40))
def test_any_look_is_a_photograph_that_keeps_what_is_not_the_face(seed):
    attacked, examples = worn(2, seed % 97, "cheeks")
    look = worn_looks(examples, attacked, 1, seed)["look 1"]
    assert look.images.dtype == torch.uint8 and look.images.shape == examples.images.shape  # noqa: PT018
    one = wearing(attacked, examples)
    outside = torch.ones(2, *attacked.sources.size, dtype=torch.bool)
    outside[:, *one.box] = False
    assert torch.equal(look.images.movedim(1, 3)[outside], attacked.sources.images.movedim(1, 3)[outside])
    assert not torch.equal(look.images, examples.images)
    assert Draw.from_json(look.details["draw"]).to_json() == look.details["draw"]


def test_looks_come_from_their_seed_alone():
    attacked, examples = worn(3)
    one, again, other = (worn_looks(examples, attacked, 2, seed) for seed in (5, 5, 6))
    assert all(torch.equal(one[k].images, again[k].images) for k in one)
    assert not torch.equal(one["look 1"].images, one["look 2"].images)
    assert not torch.equal(one["look 1"].images, other["look 1"].images)
    part = made_up("dodge", 3)
    alone = type(part)("dodge", part.sources[[1]], part.targets[[1]], part.background)
    single = worn_looks(Examples(examples.images[[1]], examples.masks[[1]]), alone, 1, 5)["look 1"].images
    assert (single.int() - one["look 1"].images[[1]].int()).abs().max() <= 1


def test_the_gradient_comes_through_the_patch_alone():
    attacked, examples = worn(2, 3)
    leaf = (examples.images.float() / 255).requires_grad_()
    stream = torch.Generator().manual_seed(1)
    draw = EOT.only(rotation=(3.0, 4.0), shift=(0.02, 0.03), noise=(0.01, 0.02)).draw(stream, 1, 1)
    one = wearing(attacked, examples)
    seen = one.seen(leaf, draw)
    (gradient,) = torch.autograd.grad(seen[:, :, *one.box].sum(), leaf)
    inside = gradient.abs().sum(1)[:, *one.box]
    assert (inside[one.masks] > 0).float().mean() > 0.95
    assert (inside[~one.masks] == 0).all()


@pytest.mark.slow
def test_training_through_the_conditions_pays():
    attacked, mask = lfw("dodge", 3), FaceMask("features", 0.05)
    seen, lost = {}, {}
    for kind in (FacePatch, WornPatch, NoiseFace):
        examples = craft(kind(mask=mask), real(), attacked, steps=16)
        looks = worn_looks(examples, attacked, 4, seed=9).values()
        seen[kind] = torch.stack([margins(real(), look, attacked) for look in looks])
        lost[kind] = float((margins(real(), examples, attacked) - seen[kind]).mean())
    assert lost[WornPatch] < 0.5 * lost[FacePatch]
    assert float(seen[WornPatch].mean()) > float(seen[FacePatch].mean())
    assert int((seen[WornPatch] > 0).sum()) >= int((seen[FacePatch] > 0).sum())
    assert int((seen[WornPatch] > 0).sum()) > int((seen[NoiseFace] > 0).sum()) + 3


def test_the_conditions_are_part_of_what_determines_it():
    one, other = WornPatch(mask=FaceMask("nose")), WornPatch(mask=FaceMask("nose"), eot=EOT.only(noise=0.1))
    assert one.spec()["eot"] == WORN.spec()
    assert one.spec() != other.spec()
    assert WornPatch(FaceMask("nose")).spec() == one.spec()
    assert repr(one) == "nose 10% mi worn"
    assert one.spec()["probe"] != FacePatch(mask=FaceMask("nose")).spec()["probe"]
