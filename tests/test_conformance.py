"""Failures that were found in other tools; none of them may come back here."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from audit.budget import Budget
from audit.contracts import Candidates
from audit.errors import ConstraintViolated
from audit.execution import Execution
from audit.measures.evaluation import require
from audit.state import modules_of, state_digest
from probes.detection import NoisePatch, PatchIoU, UniversalPatch
from probes.geometry import place, uv_map
from tests import planted
from tests.kit import retinaface

BUDGET = Budget("test", steps=8, batch=4, queries=6, images=12, bootstrap=100)
SETTINGS = {"execution": Execution(), "budget": BUDGET}


def craft(detector, scenes, seed=3):
    return UniversalPatch(PatchIoU()).craft(detector, scenes, seed=seed, **SETTINGS)


class NaNGradient(planted.Red):
    """Right answers, gradients that are not numbers."""

    def candidates(self, images):
        found = super().candidates(images)
        return Candidates(found.boxes, _NaN.apply(found.logits))


class _NaN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


@pytest.mark.parametrize("kind", [planted.Quantised, NaNGradient])
def test_zero_or_nan_gradients_raise_a_flag(kind):
    raised = [d for d in craft(kind(), planted.scenes(12)).diagnostics if d.raised]
    assert any("gradient" in d.name for d in raised)
    assert all(d.value is None or np.isfinite(d.value) for d in raised)


def test_a_real_model_is_byte_identical_after_a_craft(kit_faces):
    detector, scenes = kit_faces
    modules = modules_of(detector)
    modules[0].train()
    before, bytes_before = state_digest(modules), _bytes(modules)
    craft(detector, scenes)
    assert _bytes(modules) == bytes_before
    assert state_digest(modules) == before, "modes and requires_grad are restored too"
    assert modules[0].training


def test_the_saved_8_bit_patch_is_the_one_that_is_judged(tmp_path):
    patch = craft(planted.Red(), planted.scenes(12))
    patch.save(tmp_path)
    saved = np.array(Image.open(tmp_path / "patch.png"))
    assert saved.dtype == np.uint8
    assert np.array_equal(saved, patch.picture())
    batch = Execution().batch(planted.scenes(2).scenes)
    placed = patch.apply(batch.images, batch.boxes)
    by_hand = place(
        batch.images,
        torch.from_numpy(saved.copy()).permute(2, 0, 1).float() / 255,
        uv_map(batch.boxes, patch.placement, planted.SIZE),
    )
    assert torch.equal(placed, by_hand)
    assert float(placed.min()) >= 0
    assert float(placed.max()) <= 1


def test_boxes_and_pixels_move_together():
    # Shift image and boxes by the same amount: the patch lies on the same pixels of the object.
    patch = NoisePatch().craft(planted.Red(), planted.scenes(2), seed=1, **SETTINGS)
    image = torch.zeros(1, 3, 90, 140)
    boxes = torch.tensor([[20.0, 10.0, 60.0, 55.0]])
    one = patch.apply(image, [boxes])
    two = patch.apply(image, [boxes + torch.tensor([30.0, 20.0, 30.0, 20.0])])
    assert torch.equal(one[..., :70, :110], two[..., 20:, 30:])
    assert torch.allclose(patch.regions(boxes, (90, 140))[0, :2] + torch.tensor([30.0, 20.0]),
                          patch.regions(boxes + torch.tensor([30.0, 20.0, 30.0, 20.0]), (90, 140))[0, :2])  # fmt: skip


@pytest.mark.parametrize("size", [(96, 200), (200, 96)])
def test_non_square_images_put_the_patch_where_the_box_is(size):
    patch = NoisePatch().craft(planted.Red(), planted.scenes(2), seed=1, **SETTINGS)
    box = torch.tensor([[size[1] - 60.0, size[0] - 60.0, size[1] - 20.0, size[0] - 20.0]])
    changed = (patch.apply(torch.full((1, 3, *size), 0.5), [box]) != 0.5).any(1)[0].nonzero()
    region = patch.regions(box, size)[0]
    assert changed[:, 1].min() >= region[0].floor()
    assert changed[:, 1].max() < region[2].ceil()
    assert changed[:, 0].min() >= region[1].floor()
    assert changed[:, 0].max() < region[3].ceil()
    assert len(changed) >= 0.9 * float((region[2] - region[0]) * (region[3] - region[1]))


def test_ragged_box_counts_in_one_batch_equal_one_by_one():
    patch = NoisePatch().craft(planted.Red(), planted.scenes(2), seed=1, **SETTINGS)
    images = torch.rand(3, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    boxes = [torch.zeros(0, 4), torch.tensor([[4.0, 4, 30, 30]]), torch.tensor([[2.0, 2, 20, 30], [40, 20, 76, 60]])]
    together = patch.apply(images, boxes)
    alone = torch.cat([patch.apply(images[i : i + 1], [b]) for i, b in enumerate(boxes)])
    assert torch.equal(together, alone)
    assert torch.equal(together[0], images[0])


def test_a_probe_that_leaves_its_constraint_set_is_an_error_never_a_result():
    patch = NoisePatch().craft(planted.Red(), planted.scenes(2), seed=1, **SETTINGS)
    batch = Execution().batch(planted.scenes(2).scenes)
    changed = patch.apply(batch.images, batch.boxes)
    require(patch, batch, changed)
    changed[0, 0, -1, -1] += 0.1
    with pytest.raises(ConstraintViolated, match="this is a defect of the probe"):
        require(patch, batch, changed)


def test_samples_are_chosen_by_seed_never_the_first_ones():
    scenes = planted.scenes(24)
    chosen = [tuple(s.id for s in scenes.sample(8, seed)) for seed in range(5)]
    assert len(set(chosen)) == 5
    assert chosen[0] == tuple(s.id for s in scenes.sample(8, 0))
    assert tuple(s.id for s in scenes[:8]) not in chosen


@pytest.fixture
def kit_faces():
    from tests.lfw import lfw_scenes

    return retinaface(), lfw_scenes(4)


def _bytes(modules):
    h = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            h.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return h.hexdigest()
