"""One texture for everybody: read as geometry says, trained on others, and it works on people it never saw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from audit.alignment import ARCFACE, Alignment
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError, DataError
from audit.examples import Examples
from probes.recognition.masks import FaceMask, wear
from probes.recognition.placing import chips
from probes.recognition.plain import GreyFace, NoiseFace
from probes.recognition.texture import Wearers
from probes.recognition.universal_face import UniversalFace, textures
from tests.face_attacks import Pooled, changed, craft, lfw, made_up, margins, portraits, real

CPU = torch.device("cpu")


def pooled(threshold=0.5):
    return Comparison("pooled", Pooled(threshold), True)


def test_a_texture_is_read_where_the_alignment_says():
    worn = portraits(3, 4)
    wearers = Wearers(worn, FaceMask("features"), CPU)
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    ramp = torch.stack([x, y, torch.full_like(x, 55.5)]) / 111
    seen = wearers.wearing(ramp, torch.tensor([2, 0]))
    matrix = Alignment.by_landmarks(worn.landmarks, worn.size, (112, 112)).matrix.numpy()
    for got, i in zip(seen, (2, 0), strict=True):
        mask = wearers.masks[i]
        rows, columns = mask.nonzero(as_tuple=True)
        at = matrix[i] @ np.stack([columns, rows, np.ones(len(rows))])
        expected = np.stack([at[0], at[1], np.full(len(rows), 55.5)]).clip(0, 111) / 111
        assert np.abs(got[:, mask].numpy() - expected).max() < 1e-4
        clean = worn.images[i].float() / 255
        assert torch.equal(got[:, ~mask], clean[:, ~mask])


def test_an_aligned_face_wears_the_texture_itself():
    chip = Portraits(torch.zeros(1, 3, 112, 112, dtype=torch.uint8), ARCFACE[None], ("a",), ("a",))
    wearers = Wearers(chip, FaceMask("glasses"), CPU)
    texture = torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(0))
    seen = wearers.wearing(texture, torch.tensor([0]))[0]
    assert torch.allclose(seen, texture * wearers.masks[0], atol=1e-4)


def test_each_pixel_of_a_mask_gives_the_texture_one_unit_of_gradient():
    wearers = Wearers(portraits(2, 9), FaceMask("nose"), CPU)
    texture = torch.full((3, 112, 112), 0.5, requires_grad=True)
    wearers.wearing(texture, torch.tensor([0, 1])).sum().backward()
    assert texture.grad.sum((1, 2)).tolist() == pytest.approx([float(wearers.masks.sum())] * 3, rel=1e-5)
    assert (texture.grad >= 0).all()


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_a_seed_decides_whatever_the_batch(goal):
    attacked, probe = made_up(goal, 3), UniversalFace(FaceMask("nose"), wearers=5)
    if goal == "impersonate":
        attacked = replace(attacked, targets=attacked.targets[[0, 0, 0]])
    one = craft(probe, pooled(0.9), attacked, steps=6)
    other = craft(probe, pooled(0.9), attacked, steps=6, batch=2)
    # batches sum in another order: a level here and there
    assert (one.images.int() - other.images.int()).abs().float().mean() < 0.1
    assert torch.equal(one.images, craft(probe, pooled(0.9), attacked, steps=6).images)
    assert not torch.equal(one.images, craft(probe, pooled(0.9), attacked, steps=6, seed=7).images)


def test_the_judged_photographs_wear_the_stored_textures(tmp_path):
    attacked = made_up("impersonate", 4)
    attacked = replace(attacked, targets=attacked.targets[[0, 1, 0, 1]])
    mask = FaceMask("cheeks")
    craft(UniversalFace(mask), pooled(), attacked, steps=4).save(tmp_path)
    examples = Examples.load(tmp_path)
    made = textures(examples)
    assert made.shape == (2, 112, 112, 3)
    assert examples.details["texture"] == [0, 1, 0, 1]
    assert torch.equal(changed(examples, attacked), examples.masks)
    for i in range(4):
        own = Wearers(attacked.sources[[i]], mask, CPU)
        texture = torch.from_numpy(made[i % 2].copy()).permute(2, 0, 1).float() / 255
        again = wear(own.images, own.wearing(texture, torch.tensor([0])), own.masks)
        assert torch.equal(again[0], examples.images[i])
    assert not torch.equal(torch.from_numpy(made[0]), torch.from_numpy(made[1]))


def test_a_texture_is_grey_where_nobody_wears_it():
    attacked, mask = made_up("dodge", 3), FaceMask("nose", 0.05)
    made = textures(craft(UniversalFace(mask), pooled(-0.5), attacked, steps=4))[0]
    chip = mask.photo_masks(ARCFACE[None], (112, 112))[0].numpy()
    far = np.ones((112, 112), bool)
    rows, columns = chip.nonzero()
    far[rows.min() - 15 : rows.max() + 15, columns.min() - 15 : columns.max() + 15] = False
    assert (made[far] == 128).all()
    assert (made[chip] != 128).any()


def test_who_is_attacked_trains_no_texture():
    attacked = made_up("dodge", 3)
    for background, got in ((attacked.background[[]], "no portrait"), (attacked.sources, "attacked")):
        with pytest.raises(DataError, match=got):
            craft(UniversalFace(FaceMask("nose")), pooled(), replace(attacked, background=background))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"wearers": 0}, {"start": "paper"}, {"rate": 0.0}, {"beyond": 0.0}], ids=str
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(AuditError, match=next(iter(options))):
        UniversalFace(FaceMask("nose"), **options)


def test_gradients_that_are_hidden_are_told():
    class Deaf(Pooled):
        def __call__(self, faces):
            return super().__call__((faces * 4).round() / 4)

    examples = craft(UniversalFace(FaceMask("nose")), Comparison("deaf", Deaf(0.99), True),
                     made_up("impersonate", 1), steps=4)  # fmt: skip
    assert next(d.name for d in examples.diagnostics if d.raised) == "gradient zero or not finite, steps"


def test_what_the_last_tenth_of_the_steps_gained_is_measured():
    probe = UniversalFace(FaceMask("nose"), start="grey")
    examples = craft(probe, pooled(0.99), made_up("impersonate", 1), steps=10)
    at = dict(zip(examples.history["step"], examples.history["loss"], strict=True))
    last = next(d for d in examples.diagnostics if d.name == "best step is the last")
    assert 0 < last.value == pytest.approx((at[9] - at[10]) / (at[0] - at[10]), rel=1e-5)


@pytest.mark.slow
def test_people_never_seen_are_taken_for_the_target():
    attacked, mask = lfw("impersonate", 7, background=12), FaceMask("features")
    rest = list(range(1, 7))
    attacked = replace(attacked, sources=attacked.sources[rest], targets=attacked.targets[[0] * 6])
    examples = craft(UniversalFace(mask, wearers=8), real(), attacked, steps=8)
    found = margins(real(), examples, attacked)
    own = chips(attacked.targets.images[:1].float() / 255, attacked.targets.landmarks[:1])[0]
    wearers = Wearers(attacked.sources, mask, CPU)
    pasted = wear(wearers.images, wearers.wearing(own, torch.arange(6)), wearers.masks)
    plain = margins(real(), Examples(pasted, wearers.masks), attacked)
    assert int((found >= 0).sum()) >= 3
    assert int((found >= 0).sum()) > int((plain >= 0).sum())
    assert (found > plain).all()
    assert not any(d.raised for d in examples.diagnostics if "last" not in d.name)


@pytest.mark.slow
def test_people_never_seen_are_no_longer_recognised():
    attacked, mask = lfw("dodge", 6, background=12), FaceMask("features")
    examples = craft(UniversalFace(mask, wearers=8), real(), attacked, steps=8)
    found = margins(real(), examples, attacked)
    plain = [margins(real(), craft(p(mask), real(), attacked), attacked) for p in (NoiseFace, GreyFace)]
    assert float(found.mean()) > max(float(p.mean()) for p in plain) + 0.05
    assert int((found > 0).sum()) > max(int((p > 0).sum()) for p in plain)
