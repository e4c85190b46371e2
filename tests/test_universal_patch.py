"""The trained patch: what it hides, what it leaves alone, and that the 8-bit one is the one that counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from audit.budget import Budget
from audit.contracts import Candidates
from audit.errors import AuditError, DataError, ModelError
from audit.execution import Execution
from probes.detection import OBJECTIVES, FacePatch, GreyPatch, NoisePatch, Patch, PatchIoU, PicturePatch, UniversalPatch
from probes.detection.craftset import CraftSet
from probes.detection.random_search import best_scores
from probes.detection.views import view
from probes.geometry import Placement
from probes.optimisers import Descent, Steps
from tests import planted

BUDGET = Budget("test", steps=40, batch=4, queries=4, images=12, bootstrap=100)
SETTINGS = {"execution": Execution(), "budget": BUDGET}


def kept(patch, scenes):
    """Share of the squares that the plain detector still finds."""
    found = total = 0
    detector = planted.Red()
    for batch in Execution().batches(scenes, 8):
        scores = best_scores(detector(patch.apply(batch.images, batch.boxes)), batch.boxes, batch.labels)
        found, total = found + int((scores >= detector.score_threshold).sum()), total + len(scores)
    return found / total


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_hides_what_no_unoptimised_patch_hides_on_images_it_never_saw(objective):
    patch = UniversalPatch(objective).craft(planted.Red(), planted.scenes(8), seed=1, **SETTINGS)
    held_out = planted.scenes(8, seed=5)
    assert kept(patch, held_out) < 0.1
    for control in (NoisePatch(), GreyPatch()):
        assert kept(control.craft(planted.Red(), planted.scenes(8), seed=1, **SETTINGS), held_out) > 0.9


def test_heights_of_the_history_are_those_of_the_saved_pixels_and_fall():
    probe = UniversalPatch()
    patch = probe.craft(planted.Red(), planted.scenes(8), seed=1, **SETTINGS)
    craft = CraftSet(planted.scenes(8), probe.placement, Execution(), batch=4, seed=1)
    assert probe.height(planted.Red(), craft, patch.pixels) == pytest.approx(min(patch.history["height"]))
    assert patch.history["checked"][0] == 0
    assert patch.history["checked"][-1] == BUDGET.steps
    assert min(patch.history["height"]) < 0.5 * patch.history["height"][0]


def test_model_is_left_as_it_was():
    class Net(planted.Red, nn.Module):
        def __init__(self):
            nn.Module.__init__(self)
            self.inner = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
            self.inner[0].weight.requires_grad_(False)
            self.inner[1].eval()

        def candidates(self, images):
            assert not self.training
            assert not any(p.requires_grad for p in self.parameters())
            return planted.Red.candidates(self, images + 0 * self.inner(images))

        def __call__(self, images):
            return planted.Red.__call__(self, images)

    net = Net().train()
    net.inner[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    UniversalPatch().craft(net, planted.scenes(4), seed=0, **SETTINGS)
    assert net.training
    assert net.inner[0].training
    assert not net.inner[1].training
    assert [p.requires_grad for p in net.parameters()] == [False, True]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_images_of_several_sizes_and_without_objects_share_the_steps():
    wide = planted.scenes(5)
    odd = []
    for i, s in enumerate(planted.scenes(3, seed=2)):
        pixels = s.load()[:, :120]
        fits = s.boxes[:, 3] <= 120
        odd.append(
            replace(
                s, id=f"odd{i}", size=(120, 160), load=lambda p=pixels: p, ignore=~fits, boxes=s.boxes.clamp(max=160)
            )
        )
    empty = replace(wide[0], id="empty", ignore=torch.ones(2, dtype=torch.bool))
    mixed = replace(wide, scenes=(*wide.scenes, *odd, empty))
    craft = CraftSet(mixed, Placement(), Execution(), batch=4, seed=0)
    used = [s.id for g in craft.groups for s in g]
    assert "empty" not in used
    assert sorted(used) == sorted(set(used))
    assert all(len(g) <= 4 for g in craft.groups)
    assert {p.images.shape[2:] for i in range(len(craft.groups)) for p in craft.group(i)} <= {(128, 160), (120, 160)}
    patch = UniversalPatch().craft(planted.Red(), mixed, seed=0, **SETTINGS)
    assert kept(patch, planted.scenes(6, seed=9)) < 0.2


def test_batches_are_the_same_whatever_the_order_of_the_scenes():
    scenes = planted.scenes(6)
    turned = replace(scenes, scenes=tuple(reversed(scenes.scenes)))
    one, two = (CraftSet(s, Placement(), Execution(), batch=4, seed=3) for s in (scenes, turned))
    assert [[s.id for s in g] for g in one.groups] == [[s.id for s in g] for g in two.groups]
    first = UniversalPatch().craft(planted.Red(), scenes, seed=3, **SETTINGS)
    assert first.identity == UniversalPatch().craft(planted.Red(), turned, seed=3, **SETTINGS).identity


def test_views_move_pixels_and_boxes_together():
    images, boxes, marks = torch.zeros(6, 3, 96, 128), [], torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    for i in range(6):
        x, y = 30 + int(marks[i, 0] * 40), 25 + int(marks[i, 1] * 25)
        images[i, :, y : y + 20, x : x + 30] = 1
        boxes.append(torch.tensor([[float(x), float(y), x + 30.0, y + 20.0]]))
    seen, moved, worn, _ = view(images, boxes, torch.Generator().manual_seed(4))
    assert seen.shape == images.shape
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1
    for i in range(6):
        bright = seen[i, 0] > (seen[i].amin() + seen[i].amax()) / 2
        rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert found == pytest.approx(moved[i][0].tolist(), abs=1.0)
        assert worn[i][0].tolist() == pytest.approx(moved[i][0].tolist(), abs=6)
    assert any(not torch.equal(a, b) for a, b in zip(moved, worn, strict=True))


def test_a_detector_without_candidates_is_refused_in_one_sentence():
    with pytest.raises(ModelError, match="candidates"):
        UniversalPatch().craft(planted.QueryOnly(), planted.scenes(4), seed=0, **SETTINGS)


def test_scenes_without_objects_are_refused_in_one_sentence():
    scenes = planted.scenes(2)
    none = replace(scenes, scenes=tuple(replace(s, ignore=torch.ones(2, dtype=torch.bool)) for s in scenes))
    with pytest.raises(DataError, match="object"):
        UniversalPatch().craft(planted.Red(), none, seed=0, **SETTINGS)


def test_a_gradient_that_is_not_a_number_does_not_spoil_the_patch():
    class Broken(planted.Red):
        def candidates(self, images):
            found = super().candidates(images)
            return Candidates(found.boxes, found.logits + 0 * (images - images.detach()).abs().sqrt().sum())

    patch = UniversalPatch().craft(Broken(), planted.scenes(4), seed=0, **SETTINGS)
    assert {d.name for d in patch.diagnostics if d.raised} >= {"gradient zero or not finite, steps"}
    patch.history["loss"]
    json.dumps(dict(patch.history), allow_nan=False)


class TestPatch:
    patch = Patch(
        torch.arange(3 * 8 * 8).reshape(3, 8, 8).to(torch.uint8), Placement("lower", 0.4), "a patch", {"a": 1}
    )

    def test_what_is_applied_is_the_8_bit_patch_that_was_saved(self, tmp_path):
        batch = Execution().batch(planted.scenes(2).scenes)
        again = Patch.load(self.patch.save(tmp_path))
        png = np.array(Image.open(tmp_path / "patch.png"))
        assert np.array_equal(png, self.patch.pixels.permute(1, 2, 0).numpy())
        assert torch.equal(again.apply(batch.images, batch.boxes), self.patch.apply(batch.images, batch.boxes))
        assert (again.name, again.placement, again.origin) == (self.patch.name, self.patch.placement, {"a": 1})

    def test_a_picture_that_was_changed_on_disk_is_refused(self, tmp_path):
        self.patch.save(tmp_path)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "patch.png")
        with pytest.raises(AuditError, match="sha256"):
            Patch.load(tmp_path)

    def test_missing_files_and_folders_that_cannot_be_written(self, tmp_path):
        with pytest.raises(AuditError, match=r"patch\.png"):
            Patch.load(tmp_path / "nowhere")
        (tmp_path / "file").write_text("")
        with pytest.raises(AuditError, match="can be written"):
            self.patch.save(tmp_path / "file")

    def test_values_that_are_not_8_bit_are_refused(self):
        with pytest.raises(AuditError, match="uint8"):
            Patch(torch.rand(3, 4, 4), Placement(), "floats")

    def test_parts_and_places(self):
        half = self.patch.removed("half-top")
        assert half.picture().shape == (4, 8, 3)
        assert half.identity != self.patch.identity
        box = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
        assert half.regions(box, (50, 50)).tolist()[0] == pytest.approx([12, 26, 28, 34])
        moved = self.patch.with_placement(Placement("top", 0.5))
        assert moved.regions(box, (50, 50)).tolist()[0] == pytest.approx([10, 0, 30, 20])
        assert torch.equal(moved.pixels, self.patch.pixels)


class TestControls:
    def test_pictures_from_file_and_array_are_the_same(self, tmp_path):
        array = np.arange(10 * 14 * 3, dtype=np.uint8).reshape(10, 14, 3)
        Image.fromarray(array).save(tmp_path / "p.png")
        one, two = PicturePatch(picture=tmp_path / "p.png"), PicturePatch(picture=array)
        made = [c.craft(planted.Red(), planted.scenes(2), seed=0, **SETTINGS) for c in (one, two)]
        assert made[0].identity == made[1].identity

    def test_a_picture_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "p.png").write_text("no picture")
        with pytest.raises(DataError, match="image file"):
            PicturePatch(picture=tmp_path / "p.png").spec()
        with pytest.raises(DataError, match="uint8"):
            PicturePatch(picture=np.zeros((4, 4))).spec()

    def test_the_real_object_is_cut_from_the_craft_images(self):
        pixels = FacePatch().craft(planted.Red(), planted.scenes(4), seed=0, **SETTINGS).pixels
        assert pixels.float().mean((1, 2)).tolist() == pytest.approx([204, 51, 51], abs=1)


class TestSteps:
    @pytest.mark.parametrize("rule", ["sign", "adam"])
    def test_finds_the_minimum_of_a_bowl_inside_the_range_and_its_edge_outside(self, rule):
        goal = torch.tensor([[[0.3, 0.9], [-1.0, 2.0]]])
        descent = Descent(torch.full((1, 2, 2), 0.5), 200, Steps(rule))
        for _ in range(200):
            descent.step(descent.value - goal)
        assert (descent.value - goal.clamp(0, 1)).abs().max() < 0.02

    @pytest.mark.parametrize("rule", ["sign", "adam"])
    def test_the_way_does_not_depend_on_the_scale_of_the_gradient(self, rule):
        ways = []
        for scale in (1e-9, 1.0, 1e6):
            descent = Descent(torch.full((1, 2, 2), 0.5), 20, Steps(rule))
            for k in range(20):
                descent.step(scale * torch.tensor([[[1.0, -2.0], [0.5, (-1.0) ** k]]]))
            ways.append(descent.value)
        assert torch.allclose(ways[0], ways[1], atol=1e-5)
        assert torch.allclose(ways[1], ways[2], atol=1e-5)

    def test_zero_gradients_move_nothing(self):
        descent = Descent(torch.full((1, 2, 2), 0.5), 5)
        descent.step(torch.zeros(1, 2, 2))
        assert torch.equal(descent.value, torch.full((1, 2, 2), 0.5))

    @pytest.mark.parametrize("arguments", [{"rule": "newton"}, {"rate": 0}, {"momentum": 1.0}])
    def test_bad_settings_are_refused(self, arguments):
        with pytest.raises(AuditError):
            Steps(**arguments)


def test_name_and_repr_tell_objectives_apart():
    names = {repr(UniversalPatch(o)) for o in OBJECTIVES}
    assert len(names) == 4
    assert repr(UniversalPatch(PatchIoU())) == "UniversalPatch(PatchIoU, top α=0.5)"
