"""The patch per pair: what it does to a real recognizer, what it leaves alone, and how its health is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from audit.alignment import ARCFACE
from audit.budget import Budget
from audit.comparison import Comparison
from audit.data.faces import Portraits
from audit.errors import AuditError, DataError, ModelError
from audit.examples import Attacked
from audit.execution import Execution
from audit.measures.face_rules import FaceRules
from probes.recognition.ensemble import Aimed
from probes.recognition.face_patch import FacePatch
from probes.recognition.masks import WHOLE, FaceMask, FreeSearch
from probes.recognition.plain import GreyFace, NoiseFace, OtherFace
from probes.recognition.soundness import Course
from probes.recognition.transforms import Pipeline
from tests.kit import lfw_pairs, mobilefacenet

BUDGET = Budget("test", steps=20, batch=8, queries=0, images=8, bootstrap=0)


class Tiny(nn.Module):
    """A recognizer of faces of 16 × 16: a smooth random map to 8 numbers."""

    def __init__(self, seed=0, metric="cosine", threshold=0.6, template=None):
        super().__init__()
        stream = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(24, 3 * 16 * 16, generator=stream) / 12, requires_grad=False)
        self.second = nn.Parameter(torch.randn(8, 24, generator=stream) / 5, requires_grad=False)
        self.face_size, self.metric, self.threshold = (16, 16), metric, threshold
        if template is not None:
            self.template = template

    def forward(self, faces):
        return (self.second @ torch.tanh(self.first @ (faces.flatten(1).T - 0.5))).T


def tiny(**options):
    return Comparison("tiny", Tiny(**options), white_box=True)


def portraits(n, seed, names="p"):
    stream = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 40, 44), dtype=torch.uint8, generator=stream)
    landmarks = ARCFACE * 0.3 + 4 + torch.randn(n, 5, 2, generator=stream) * 0.4
    return Portraits(images, landmarks, tuple(f"{names}{i}" for i in range(n)), tuple(f"{names}{i}" for i in range(n)))


def pairs(goal="impersonate", n=5):
    return Attacked(goal, portraits(n, 1, "a"), portraits(n, 2, "b"), portraits(3, 3, "c"))


def craft(probe, models, attacked, budget=BUDGET, **more):
    return probe.craft(models, attacked, execution=Execution(), budget=budget, seed=0, **more)


def scores(model, attacked, images):
    return model.ask(images, attacked.sources.landmarks, attacked.targets.images, attacked.targets.landmarks)


def gained(model, attacked, examples):
    """Per pair, how much further towards the goal than the clean photograph."""
    sign = 1 if attacked.goal == "impersonate" else -1
    return sign * (scores(model, attacked, examples.images) - scores(model, attacked, attacked.sources.images))


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_moves_every_pair_towards_its_goal(goal, metric):
    model, attacked = tiny(metric=metric), pairs(goal)
    mask = FaceMask("features", 0.2)
    patch = gained(model, attacked, craft(FacePatch(mask=mask), [model], attacked))
    noise = gained(model, attacked, craft(NoiseFace(mask), [model], attacked))
    assert bool((patch > 0).all())
    assert patch.mean() > noise.mean() + 0.1


@pytest.mark.parametrize("mask", [FaceMask("cheeks"), FreeSearch(), FaceMask("frame", 0.05)], ids=repr)
@pytest.mark.parametrize("start", ["source", "noise", "grey"])
def test_changes_the_mask_and_nothing_else(mask, start):
    model, attacked = tiny(), pairs()
    examples = craft(FacePatch(mask=mask, start=start), [model], attacked, replace(BUDGET, steps=4))
    clean = attacked.sources.images
    assert examples.images.dtype == torch.uint8
    assert torch.equal((examples.images != clean).any(1), examples.masks)
    scales = model.align(attacked.sources.landmarks, (40, 44)).scale * 112 / 16
    assert FaceRules(area=mask.area).violations(clean, examples.images, scales) == []


def test_many_targets_are_enrolled_some_at_a_time():
    class Counted(Tiny):
        most = 0

        def forward(self, faces):
            self.most = max(self.most, len(faces))
            return super().forward(faces)

    net, attacked = Counted(), pairs(n=150)
    model = Comparison("counted", net, white_box=True)
    enrolled = Aimed.at([model], attacked, Execution()).enrolled[0]
    assert net.most <= 64
    whole = model.enrol(model.aligned(attacked.targets.images, attacked.targets.landmarks))
    assert torch.allclose(enrolled, whole, atol=1e-5)


def test_same_seed_same_patch_whatever_the_batch():
    model, attacked = tiny(), pairs()
    probe = FacePatch(transforms=("mi", "ti", "di", "si", "s2i"), order="random", start="noise")
    one, again = (craft(probe, [model], attacked).images for _ in range(2))
    assert torch.equal(one, again)
    # sums in another order may turn a sign where a gradient is all but zero
    other = craft(probe, [model], attacked, replace(BUDGET, batch=2)).images
    assert (one != other).float().mean() < 0.01
    assert abs(float((scores(model, attacked, one) - scores(model, attacked, other)).mean())) < 0.01


def test_the_best_photograph_is_kept_not_the_last():
    """With steps far too large most are worse than one before."""
    model, attacked = tiny(), pairs()
    examples = craft(FacePatch(rate=1.0, last=1.0, transforms=()), [model], attacked)
    told = examples.history["margin of the worst model, best so far"]
    assert told == sorted(told)
    assert told[-1] == pytest.approx(float((scores(model, attacked, examples.images) - model.cut).mean()), abs=1e-5)
    assert len(told) == BUDGET.steps + 1


def test_enough_is_enough():
    model, attacked = tiny(threshold=-1.0), pairs()
    examples = craft(FacePatch(enough=0.0), [model], attacked)
    assert (examples.images.int() - attacked.sources.images.int()).abs().max() == 1  # the start was enough
    full = craft(FacePatch(), [tiny()], attacked)
    stopped = craft(FacePatch(enough=0.05), [tiny()], attacked)
    beyond = [scores(tiny(), attacked, e.images) >= 0.6 for e in (full, stopped)]
    assert torch.equal(*beyond)
    assert bool(beyond[0].any())


def test_a_given_start_is_where_it_starts():
    model, attacked = tiny(), pairs()
    start = torch.full((5, 3, 40, 44), 0.25)
    examples = craft(FacePatch(rate=1e-6), [model], attacked, replace(BUDGET, steps=1), start=start)
    assert (examples.images[examples.masks[:, None].expand(-1, 3, -1, -1)].int() - 64).abs().max() <= 1
    with pytest.raises(AuditError, match="one picture per pair"):
        craft(FacePatch(), [model], attacked, start=start[:2])


def test_the_gradient_is_that_of_the_margin():
    """Through alignment, copies and weights, against central differences in double precision."""
    models = [tiny(seed=1), tiny(seed=2, metric="euclidean", threshold=1.0)]
    for m in models:
        m.model.double()
    attacked = pairs("dodge", 2)
    aimed = Aimed.at([tiny(seed=1), tiny(seed=2, metric="euclidean", threshold=1.0)], attacked, Execution())
    aimed = replace(aimed, models=tuple(models), enrolled=tuple(e.double() for e in aimed.enrolled))
    x = attacked.sources.images.double() / 255
    stream = torch.Generator().manual_seed(0)
    pull, margins = aimed.gradient(x, Pipeline(()), stream, (3.0, 1.0))
    way = torch.randn(x.shape, dtype=torch.float64, generator=stream)
    step = 1e-3
    up, down = (torch.stack([
        -(m.score(a.faces(x + s * step * way), e) - m.cut)
        for m, a, e in zip(models, aimed.alignments, aimed.enrolled, strict=True)
    ]) for s in (1, -1))  # fmt: skip
    slope = ((up - down) / (2 * step) * torch.tensor([[0.75], [0.25]])).sum(0)
    assert torch.allclose((pull * way).flatten(1).sum(1), slope, rtol=1e-3, atol=1e-5)
    assert margins is not None
    assert torch.allclose(margins.double(), (up + down) / 2, atol=1e-3)


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_dynamic_weights_follow_one_minus_cosine(goal):
    models = [tiny(seed=1, threshold=0.1), tiny(seed=2, threshold=0.5)]
    attacked = pairs(goal, 3)
    aimed = Aimed.at(models, attacked, Execution())
    margins = aimed.margins(attacked.sources.images.float() / 255)
    cosine = torch.stack([scores(m, attacked, attacked.sources.images) for m in models])
    away = 1 - cosine if goal == "impersonate" else 1 + cosine
    assert torch.allclose(aimed.shares(margins, "dynamic"), away / away.sum(0), atol=1e-5)
    assert torch.allclose(aimed.shares(margins, "fixed"), torch.full((2, 3), 0.5))


def test_several_models_are_all_attacked():
    models, attacked = [tiny(seed=1), tiny(seed=2)], pairs()
    mask = FaceMask("features", 0.2)
    for weights in ("fixed", "dynamic"):
        both = craft(FacePatch(mask=mask, weights=weights), models, attacked)
        assert all(bool((gained(m, attacked, both) > 0).all()) for m in models)


def test_what_cannot_be_attacked_is_said():
    attacked = pairs()
    dark = Comparison("dark", Tiny(), white_box=False)
    with pytest.raises(ModelError, match="dark"):
        craft(FacePatch(), [dark], attacked)
    with pytest.raises(AuditError, match="2 shares"):
        craft(FacePatch(weights=(1.0,)), [tiny(), tiny()], attacked)
    for wrong in ({"start": "black"}, {"rate": 0}, {"steps": 0}, {"transforms": ("fgsm",)}, {"order": "any"}):
        with pytest.raises(AuditError):
            FacePatch(**wrong)


def test_the_spec_is_json_and_tells_attacks_apart():
    probes = [FacePatch(), FacePatch(order="random"), FacePatch(mask=FreeSearch()), FacePatch(transforms=("mi", "di")),
              FacePatch(weights=(1.0, 2.0)), FacePatch(enough=0.1), NoiseFace(), GreyFace(), OtherFace(),
              NoiseFace(FaceMask("nose"))]  # fmt: skip
    assert len({json.dumps(p.spec(), sort_keys=True) for p in probes}) == len(probes)


# --- health


class Masked(nn.Module):
    """The same recognizer, but its gradient is cut off."""

    def __init__(self):
        super().__init__()
        self.inner = Tiny(threshold=0.99)
        self.face_size, self.metric, self.threshold = (16, 16), "cosine", 0.99

    def forward(self, faces):
        return self.inner((faces * 8).round() / 8 + 0 * faces)


def raised(examples):
    return {d.name for d in examples.diagnostics if d.raised}


def test_a_masked_gradient_is_told():
    examples = craft(FacePatch(), [Comparison("masked", Masked(), white_box=True)], pairs())
    assert {"gradient zero or not finite", "loss fell", "unbounded patch succeeds"} <= raised(examples)


def test_a_sound_attack_raises_nothing_even_where_it_fails():
    """A threshold that ten per cent of the face do not reach, but the whole face does."""
    mask, attacked = FaceMask("nose", 0.02), pairs()
    examples = craft(FacePatch(mask=mask, steps=150), [tiny(threshold=0.9)], attacked)
    assert bool((scores(tiny(), attacked, examples.images) < 0.9).all())
    assert raised(examples) == set()
    assert "unbounded patch succeeds" in {d.name for d in examples.diagnostics}


def test_an_attack_that_stopped_too_early_is_told():
    examples = craft(FacePatch(rate=0.004, last=1.0, mask=FaceMask(area=0.02)), [tiny(threshold=0.95)], pairs())
    assert "best step is the last" in raised(examples)


def test_success_is_never_held_against_a_model():
    n = torch.ones(10)
    course = Course(-n, -n, n, 20 * n, 0 * n, 20 * n)
    assert not any(d.raised for d in course.diagnostics())
    held_out = Course(-n, -n, -n, 20 * n, 0 * n, 20 * n)
    assert {d.name for d in held_out.diagnostics() if d.raised} == {"gradient zero or not finite", "loss fell"}
    one = torch.cat([-n[:1], n[1:]])  # one pair of ten is no more than the limit
    assert not any(d.raised for d in Course(-n, -n, one, 20 * n, 0 * n, 20 * n).diagnostics())


# --- plain patches


def test_another_faces_part_lies_where_the_landmarks_say():
    """A donor that is the source itself, moved: its part comes back as the source's own."""
    base = torch.rand(1, 3, 13, 14, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(base, (100, 104), mode="bicubic").clamp(0, 1)
    image = (smooth * 255).round().to(torch.uint8)
    landmarks = ARCFACE[None] * 0.5 + 24
    moved = torch.roll(image, (5, -7), (2, 3))
    own = Portraits(image, landmarks, ("s",), ("s",))
    target = Portraits(image, landmarks, ("t",), ("t",))
    donor = Portraits(moved, landmarks + torch.tensor([-7.0, 5.0]), ("d",), ("d",))
    examples = craft(OtherFace(), [], Attacked("impersonate", own, target, donor))
    assert bool(examples.masks.any())
    assert (examples.images.int() - image.int()).abs().max() <= 2


def test_the_donor_is_a_third_person():
    attacked = pairs(n=2)
    one_person = replace(attacked, background=attacked.targets[[0]])
    with pytest.raises(DataError, match="third person"):
        craft(OtherFace(), [], one_person)


def test_a_pair_has_the_same_donor_alone_or_with_others():
    attacked = pairs(n=6)
    attacked = replace(attacked, background=portraits(5, 3, "c"))
    whole = craft(OtherFace(), [], attacked).images
    for i in range(6):
        one = replace(attacked, sources=attacked.sources[[i]], targets=attacked.targets[[i]])
        assert torch.equal(craft(OtherFace(), [], one).images[0], whole[i])


def test_plain_patches_are_what_they_say():
    attacked = pairs()
    grey, noise = craft(GreyFace(), [], attacked), craft(NoiseFace(), [], attacked)
    inside = grey.masks[:, None].expand(-1, 3, -1, -1)
    assert (grey.images[inside].int() - 128).abs().max() <= 1
    values = noise.images[inside].float() / 255
    assert abs(float(values.mean()) - 0.5) < 0.05
    assert abs(float(values.var()) - 1 / 12) < 0.02
    assert torch.equal(noise.images, craft(NoiseFace(), [], attacked).images)


# --- a real recognizer


@pytest.fixture(scope="module")
def lfw():
    """Four pairs of each kind, and MobileFaceNet."""
    data = lfw_pairs(4)

    def side(same, column):
        return data.portraits(data.pairs[data.same == same][:, column])

    return {
        "model": Comparison("MobileFaceNet", mobilefacenet(), white_box=True),
        "impersonate": Attacked("impersonate", side(False, 0), side(False, 1), side(True, 0)),
        "dodge": Attacked("dodge", side(True, 0), side(True, 1), side(False, 0)),
    }


@pytest.mark.slow
@pytest.mark.kit
@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_beats_every_plain_patch_on_a_real_recognizer(lfw, goal):
    model, attacked = lfw["model"], lfw[goal]
    budget = replace(BUDGET, steps=15)
    patch = craft(FacePatch(enough=0.1), [model], attacked, budget)
    score = scores(model, attacked, patch.images)
    won = score >= model.cut if goal == "impersonate" else score < model.cut
    assert int(won.sum()) == 4
    rules = FaceRules().violations(
        attacked.sources.images, patch.images, model.align(attacked.sources.landmarks, (250, 250)).scale
    )
    assert rules == []
    for plain in (NoiseFace(), GreyFace(), OtherFace()):
        examples = craft(plain, [model], attacked)
        assert bool((gained(model, attacked, patch) > gained(model, attacked, examples)).all())


@pytest.mark.slow
@pytest.mark.kit
def test_the_whole_face_can_be_anybodys(lfw):
    attacked = replace(lfw["impersonate"], sources=lfw["impersonate"].sources[[0]],
                       targets=lfw["impersonate"].targets[[0]])  # fmt: skip
    examples = craft(FacePatch(mask=WHOLE, enough=0.3), [lfw["model"]], attacked, replace(BUDGET, steps=30))
    assert float(scores(lfw["model"], attacked, examples.images)) > lfw["model"].cut + 0.3


@pytest.mark.slow
@pytest.mark.kit
def test_random_order_of_all_transforms_works_on_a_real_recognizer(lfw):
    attacked = replace(lfw["dodge"], sources=lfw["dodge"].sources[[0, 1]], targets=lfw["dodge"].targets[[0, 1]])
    probe = FacePatch(transforms=("mi", "ti", "di", "si", "s2i"), order="random", enough=0.05)
    examples = craft(probe, [lfw["model"]], attacked, replace(BUDGET, steps=6))
    noise = craft(NoiseFace(), [lfw["model"]], attacked)
    assert bool((gained(lfw["model"], attacked, examples) > gained(lfw["model"], attacked, noise)).all())
