"""The scene patch of the five teams: it works against its own unoptimised control, and its options do what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from audit.budget import Budget
from audit.contracts import Areas
from audit.errors import AuditError, ModelError
from audit.execution import Execution
from audit.surrogates import Surrogate
from probes.areas import AreaPlacement
from probes.detection import TEAMS, MaskedPatch, NoisePatch, RandomSearchPatch, ScenePatch
from probes.detection.craftset import CraftSet
from probes.detection.ensemble import Ensemble
from probes.detection.queries import best_scores
from probes.detection.team_objectives import Joint
from probes.detection.views import squared
from probes.losses import non_printability, total_variation
from probes.physical import FULL
from tests import planted
from tests.planted_goals import Colours

AREA = AreaPlacement(0.3, 1.0, (0.5, 0.5))
BUDGET = Budget("test", steps=40, batch=6, queries=24, images=12, bootstrap=100)
SETTINGS = {"execution": Execution(), "budget": BUDGET}


@pytest.fixture(scope="module")
def scenes():
    return planted.scenes(12)


@pytest.fixture(scope="module")
def held_out():
    return planted.scenes(12, seed=5)


def found(detector, scenes, patch):
    """Share of the objects that are found under the patch."""
    batch = Execution().batch(scenes.scenes)
    answers = detector(patch.apply(batch.images, batch.boxes, batch.areas))
    return float((best_scores(answers, batch.boxes, batch.labels) >= detector.score_threshold).float().mean())


@pytest.mark.parametrize("team", sorted(TEAMS))
def test_each_teams_attack_hides_what_noise_of_the_same_size_does_not(team, scenes, held_out):
    probe = replace(TEAMS[team], placement=AREA, size=16)
    patch = probe.craft(Colours(), scenes, seed=3, **SETTINGS)
    noise = NoisePatch(AREA).craft(Colours(), scenes, seed=3, **SETTINGS)
    assert found(Colours(), held_out, noise) > 0.9
    assert found(Colours(), held_out, patch) < 0.3


def test_the_same_seed_gives_the_same_patch_and_another_does_not(scenes):
    probe = ScenePatch(placement=AREA, size=12, realism=FULL)
    few = Budget("few", steps=6, batch=4, queries=0, images=12, bootstrap=100)
    one, two, other = (probe.craft(Colours(), scenes, execution=Execution(), budget=few, seed=s) for s in (1, 1, 2))
    assert one.digest == two.digest != other.digest


def test_realism_is_drawn_anew_at_every_step_and_the_same_for_the_same_step(scenes):
    probe = ScenePatch(placement=AREA, size=12, realism=FULL)
    craft = probe.craft_set(scenes, Execution(), batch=4, seed=1)
    group = craft.group(0, 1)
    value = torch.full((3, 12, 12), 0.5)

    def look(step):
        return torch.cat([p.where.place(p.images, value) for p in probe.shown(group, step, 7)])

    assert torch.equal(look(1), look(1))
    assert not torch.equal(look(1), look(2))


def test_tv_and_nps_are_added_with_their_weights(scenes):
    plain = ScenePatch(placement=AREA, size=10, realism=None)
    both = replace(plain, tv=0.7, nps=0.3)
    craft = plain.craft_set(scenes, Execution(), batch=4, seed=1)
    value = torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(0))
    v = value.clone().requires_grad_()
    (0.7 * total_variation(v, mean=True) + 0.3 * non_printability(v, both.colours, mean=True)).backward()
    assert torch.allclose(both.look(value), v.grad, atol=1e-6)
    assert not plain.look(value).any()
    one, two = (p.joint([Colours()], craft.group(0), value, Execution())[0] for p in (plain, both))
    assert torch.equal(one, two), "the attack's own gradient stays apart, so that a zero one is seen"


def test_smoothness_makes_smooth_prints(scenes):
    budget = Budget("few", steps=25, batch=6, queries=0, images=12, bootstrap=100)
    rough, smooth = (
        replace(TEAMS["max-objectness"], placement=AREA, size=16, tv=tv, nps=0.0).craft(
            Colours(), scenes, execution=Execution(), budget=budget, seed=3
        )
        for tv in (0.0, 20.0)
    )
    assert total_variation(smooth.value) < 0.7 * total_variation(rough.value)


def test_texels_follow_the_aspect_of_the_area():
    assert ScenePatch(placement=AreaPlacement(aspect=4.0), size=32).texels == (16, 64)
    assert ScenePatch(placement=AreaPlacement(aspect=0.25), size=32).texels == (64, 16)


def surrogate(name, detector):
    return Surrogate(name, detector, f"digest of {name}", "built by the test")


class Untouchable(planted.Red):
    """Fails where anything but its facts is asked for."""

    def candidates(self, images):
        raise AssertionError("the audited model was asked")

    def __call__(self, images):
        raise AssertionError("the audited model was asked")


def test_a_patch_made_on_surrogates_never_asks_the_audited_model_and_carries_over(scenes, held_out):
    members = Ensemble((surrogate("a", planted.Red()), surrogate("b", Colours())))
    probe = ScenePatch(placement=AREA, size=16, ensemble=members)
    assert probe.access == "transfer"
    patch = probe.craft(Untouchable(), scenes, seed=3, **SETTINGS)
    assert found(planted.Red(), held_out, patch) < 0.3
    with_it = replace(probe, ensemble=replace(members, with_subject=True))
    assert with_it.access == "white-box"
    with pytest.raises(AssertionError, match="was asked"):
        with_it.craft(Untouchable(), scenes, seed=3, **SETTINGS)


def test_the_joint_gradient_is_the_weighted_sum(scenes):
    a, b = planted.Red(), planted.Robust()
    group = ScenePatch(placement=AREA, size=10, realism=None).craft_set(scenes, Execution(), batch=4, seed=1).group(0)
    value = torch.full((3, 10, 10), 0.9)
    alone = ScenePatch(placement=AREA, size=10, realism=None)
    joint = Joint(fixed=(0.25, 0.75))
    both = replace(alone, ensemble=Ensemble((surrogate("a", a), surrogate("b", b)), joint=joint))
    one, two = (alone.gradient(d, group, value, Execution())[0] for d in (a, b))
    got, _, _ = both.joint([a, b], group, value, Execution())
    assert torch.allclose(got, 0.25 * one + 0.75 * two, atol=1e-7)


def test_an_ensemble_of_nobody_is_refused():
    with pytest.raises(ModelError, match="at least one detector"):
        Ensemble(())
    assert Ensemble((), with_subject=True).detectors(planted.Red())


def test_a_member_without_candidates_is_refused(scenes):
    probe = ScenePatch(placement=AREA, ensemble=Ensemble((surrogate("q", planted.QueryOnly()),)))
    with pytest.raises(ModelError, match="candidates"):
        probe.craft(planted.Red(), scenes, seed=1, **SETTINGS)


def test_a_masked_patch_keeps_to_area_and_regions(scenes, held_out):
    probe = MaskedPatch(replace(TEAMS["class-margin"], placement=AreaPlacement(0.6), size=16), 0.6, 2, candidates=8)
    patch = probe.craft(Colours(), scenes, seed=3, **SETTINGS)
    mask = patch.placement.mask
    assert 0 < patch.placement.printed <= 0.6
    assert patch.origin["mask"]["regions"] <= 2
    batch = Execution().batch(held_out.scenes)
    changed = patch.apply(batch.images, batch.boxes)
    assert patch.constraint.violations(batch.images, changed, batch.boxes) == []
    boxes = torch.cat(batch.boxes)
    share = (changed != batch.images).any(1).float().sum() / (boxes[:, 2:] - boxes[:, :2]).prod(1).sum()
    assert float(share) < 0.6 * float(mask.float().mean()) + 0.12
    noise = NoisePatch(patch.placement).craft(Colours(), scenes, seed=3, **SETTINGS)
    assert found(Colours(), held_out, patch) <= found(Colours(), held_out, noise)


def test_a_mask_needs_an_area():
    with pytest.raises(AuditError, match="AreaPlacement"):
        MaskedPatch(RandomSearchPatch())


@pytest.mark.parametrize("stretch", [True, False])
def test_squared_images_move_boxes_and_areas_along(stretch):
    image = torch.zeros(1, 3, 40, 80)
    image[:, :, 10:20, 30:50] = 1
    box = [torch.tensor([[30.0, 10.0, 50.0, 20.0]])]
    quad = [Areas(torch.tensor([[[30.0, 10.0], [50.0, 10.0], [50.0, 20.0], [30.0, 20.0]]]))]
    out, true, worn, areas = squared(image, box, box, quad, stretch=stretch)
    assert out.shape == (1, 3, 80, 80)
    x1, y1, x2, y2 = (int(v) for v in true[0][0])
    assert torch.equal(true[0], worn[0])
    assert areas[0].quads[0, 0].tolist() == [x1, y1]
    assert areas[0].quads[0, 2].tolist() == [x2, y2]
    assert float(out[0, 0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min()) > 0.99
    border = float(out[0, 0, 0, 0])
    assert border == pytest.approx(0 if stretch else 114 / 255)


def test_both_pre_processings_come_in_turn(scenes):
    craft = CraftSet(scenes, AREA, Execution(), batch=4, seed=1, both=True)
    sizes = [tuple(craft.group(0, v)[0].images.shape[2:]) for v in range(4)]
    assert sizes == [(128, 160), (160, 160), (160, 160), (128, 160)]
