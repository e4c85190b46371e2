"""FGSM, PGD and what all attacks on images share, by closed forms, planted models and real detectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from audit.budget import Budget
from audit.errors import AuditError, DataError, ModelError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, Labelled
from probes.forgery.additive import FGSM, PGD, boxed, in_ball, rounded_in_ball, whole_levels
from probes.forgery.ensemble import SURE, Ensemble, Seen
from probes.forgery.flow import SpatialFlow
from probes.forgery.frequency import FrequencyAttack
from probes.forgery.hybrid import HybridAttack
from probes.forgery.image_attack import ImageAttack, Run, eight_bits
from probes.forgery.image_rules import PixelBound
from probes.forgery.plain_noise import UniformNoise
from probes.forgery.soundness import Course, Sample
from reports.references import known
from tests.kit import forgery_faces, mesonet, mesonet_model

EPS = 4 / 255


def budget(batch=4, steps=6, queries=4):
    return Budget("smoke", steps, batch, queries, 100, 10)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear(torch.nn.Module):
    """s = scale · (w · x) over 12 x 12 images, or K logits."""

    face_size, threshold = (12, 12), 0.0

    def __init__(self, scale=1.0, classes=None, side=12, seed=0):
        super().__init__()
        w = torch.randn(classes or 1, 3 * side * side, generator=stream(seed))
        self.register_buffer("w", scale * (w - w.mean(1, keepdim=True)))
        self.face_size = self.image_size = (side, side)
        self.classes = classes

    def forward(self, x):
        out = x.flatten(1) @ self.w.T
        return out if self.classes else out[:, 0]


class Net(torch.nn.Module):
    """A small net that bends: the scores of 16 x 16 images."""

    face_size, threshold = (16, 16), 0.0

    def __init__(self, seed=0):
        super().__init__()
        draw = stream(seed)
        self.register_buffer("a", torch.randn(8, 3, 3, 3, generator=draw) / 3)
        self.register_buffer("b", torch.randn(8, generator=draw))

    def forward(self, x):
        return F.silu(F.conv2d(x - 0.5, self.a, padding=1) * 4).mean((2, 3)) @ self.b * 8


def model(net, task="forgery", white_box=True):
    return ImageModel(type(net).__name__, net, task, white_box)


def noise_images(n, side=12, seed=1, low=40, high=216):
    return torch.randint(low, high, (n, 3, side, side), generator=stream(seed), dtype=torch.uint8)


def judged_rightly(m, images, frames=1):
    """The images with the labels that the model gives them: all is there to lose."""
    out = torch.from_numpy(m.ask(images)).float()
    labels = (out >= m.threshold).long() if out.ndim == 1 else out.argmax(1)
    names = tuple(f"image {i}" for i in range(len(images)))
    clips = tuple(f"clip {i // frames}" for i in range(len(images)))
    return Labelled(images, labels, names, clips, clips)


def craft(attack, m, data, batch=4, steps=6, seed=0, queries=4):
    models = m if isinstance(m, list) else [m]
    return attack.craft(models, data, execution=Execution(), budget=budget(batch, steps, queries), seed=seed)


def accuracy(m, images, labels):
    return float(m.right(torch.from_numpy(m.ask(images)), labels).float().mean())


def raised(made):
    return {d.name for d in made.diagnostics if d.raised}


def corner(clean, w, labels, levels):
    """x − (2y − 1) ε sign(w) in [0, 255], value by value."""
    out = np.empty_like(clean)
    for i in range(len(clean)):
        flat = clean[i].reshape(-1).astype(int)
        moved = [
            min(255, max(0, v - (2 * int(labels[i]) - 1) * levels * (1 if u > 0 else -1)))
            for v, u in zip(flat, w, strict=True)
        ]
        out[i] = np.array(moved, dtype=np.uint8).reshape(clean[i].shape)
    return out


@pytest.mark.parametrize("attack", [FGSM(EPS), PGD(EPS), PGD(EPS, random_start=False, loss="margin"), FGSM(4.9 / 255)])
def test_on_a_linear_model_the_best_corner_of_the_box_is_found(attack):
    m = model(Linear())
    data = judged_rightly(m, noise_images(5, low=0, high=256))
    made = craft(attack, m, data)
    wanted = corner(data.images.numpy(), m.model.w[0].tolist(), data.labels, 4)
    assert np.array_equal(made.images.numpy(), wanted)
    assert attack.rules().violations(data.images, made) == []


def test_on_a_linear_model_l2_steps_end_where_the_gradient_points():
    m = model(Linear())
    data = judged_rightly(m, noise_images(4))
    attack = PGD(0.5, norm="l2", steps=10)
    made = craft(attack, m, data)
    change = (made.images.double() - data.images.double()).flatten(1) / 255
    towards = -(2 * data.labels - 1)[:, None] * m.model.w.double()
    cosine = F.cosine_similarity(change, towards)
    assert bool((cosine > 0.97).all())
    assert bool((change.norm(dim=1) <= 0.5).all())
    assert bool((change.norm(dim=1) > 0.47).all())
    assert attack.rules().violations(data.images, made) == []


@pytest.mark.parametrize("attack", [FGSM(EPS), PGD(EPS, steps=4), PGD(EPS, steps=4, loss="margin")])
@pytest.mark.parametrize("classes", [None, 5])
def test_a_saturated_model_keeps_its_gradient(attack, classes):
    """Margins of thousands: the loss is exactly 0 and so is its gradient in float32; the attack moves all the same."""
    images = noise_images(4)
    task = "classifier" if classes else "forgery"
    plain, sure = (model(Linear(s, classes), task) for s in (1.0, 1e4))
    data = judged_rightly(plain, images)
    x = (images.float() / 255).requires_grad_()
    loss = sure.loss(x, data.labels)
    assert float(loss.detach().sum()) == 0
    assert float(torch.autograd.grad(loss.sum(), x)[0].abs().sum()) == 0
    made = craft(attack, sure, data)
    assert "gradient zero or not finite, images" not in raised(made)
    before, after = (sure.margin(torch.from_numpy(sure.ask(i)), data.labels) for i in (images, made.images))
    assert bool((after < 0.99 * before).all())


@pytest.mark.parametrize("classes", [None, 4])
def test_the_loss_is_the_models_own_mean_until_it_saturates(classes):
    images = noise_images(6).float() / 255
    nets = [Linear(0.3, classes, seed=s) for s in (0, 1)]
    models = [model(n, "classifier" if classes else "liveness") for n in nets]
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    x = images.clone().requires_grad_()
    seen = Ensemble.of(models, Execution()).seen(x, labels)
    (pull,) = torch.autograd.grad(seen.loss.sum(), x)
    own = sum(m.loss(x, labels) for m in models) / 2
    (wanted,) = torch.autograd.grad(own.sum(), x)
    assert seen.loss.tolist() == pytest.approx(own.tolist(), rel=1e-4)
    assert torch.allclose(pull, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-3)
    rights = torch.stack([m.right(m.outputs(images), labels) for m in models])
    assert seen.wrong.tolist() == (~rights).sum(0).tolist()


def test_beyond_sure_the_loss_goes_on_with_the_slope_it_had():
    class Score(torch.nn.Module):
        face_size, threshold = (1, 1), 0.0

        def forward(self, x):
            return x[:, 0, 0, 0] * 1000

    margin = torch.tensor([SURE - 1, SURE, SURE + 1, SURE + 400])
    x = (margin / 1000)[:, None, None, None].expand(-1, 3, 1, 1).clone().requires_grad_()
    loss = Ensemble.of([model(Score())], Execution()).seen(x, torch.ones(4, dtype=torch.int64)).loss
    slope = torch.autograd.grad(loss.sum(), x)[0][:, 0, 0, 0] / 1000
    s = [-1 / (1 + math.exp(min(float(m), SURE))) for m in margin]
    assert slope.tolist() == pytest.approx(s, rel=1e-4)
    assert bool((loss[1:] < loss[:-1]).all())


def test_models_of_other_sizes_and_clips_are_asked_in_their_own_way():
    class Clip(Linear):
        clip_frames = 2

        def forward(self, x):
            return x.mean(1).flatten(1) @ self.w[0]

    images = noise_images(4).float() / 255
    labels = torch.tensor([1, 1, 0, 0])
    small, clip = model(Linear(side=8)), model(Clip())
    ensemble = Ensemble.of([small, clip], Execution())
    assert ensemble.unit == 2
    seen = ensemble.seen(images, labels)
    shrunk = F.interpolate(images, size=(8, 8), mode="bilinear", antialias=True, align_corners=False)
    assert seen.loss.tolist() == pytest.approx(((small.loss(shrunk, labels) + clip.loss(images, labels)) / 2).tolist())
    with pytest.raises(DataError, match="a multiple of 2, the frames of a clip, got 3"):
        craft(PGD(EPS), clip, judged_rightly(clip, noise_images(4), 2)[torch.arange(3)])


def test_models_without_gradients_are_refused():
    data = judged_rightly(model(Linear()), noise_images(2))
    with pytest.raises(ModelError, match="no gradient through Linear"):
        craft(FGSM(EPS), model(Linear(), white_box=False), data)
    with pytest.raises(ModelError, match="got none"):
        craft(FGSM(EPS), [], data)


def test_nothing_to_attack_gives_nothing():
    m = model(Linear())
    data = judged_rightly(m, noise_images(2))[torch.zeros(0)]
    assert len(craft(PGD(EPS), m, data).images) == 0


@pytest.mark.parametrize("attack", [FGSM(EPS), PGD(EPS, restarts=2), PGD(0.4, norm="l2")])
@pytest.mark.parametrize("frames", [1, 3])
def test_neither_batch_nor_company_nor_order_decides_anything(attack, frames):
    class Clip(Net):
        clip_frames = frames

        def forward(self, x):
            return super().forward(x) if frames == 1 else super().forward(x.flatten(0, 1)).view(-1, frames).mean(1)

    m = model(Clip())
    data = judged_rightly(m, noise_images(9, 16), frames)
    one, *others = (craft(attack, m, data, batch=b) for b in (1, 3, 8))
    for other in others:
        assert torch.equal(one.images, other.images)
        assert one.history["loss"] == pytest.approx(other.history["loss"])
    turned = torch.arange(9).view(-1, frames).flip(0).flatten()
    assert torch.equal(craft(attack, m, data[turned]).images, one.images[turned])
    if getattr(attack, "random_start", False):
        assert not torch.equal(craft(attack, m, data, seed=1).images, one.images)


def test_of_all_looks_the_wrong_decision_comes_before_the_higher_loss():
    data = Labelled(noise_images(4), torch.ones(4, dtype=torch.int64), tuple("abcd"), tuple("abcd"), tuple("aabb"))
    run = Run(Ensemble.of([model(Linear())], Execution()), data, 3)
    #        loss, wrong models; which look is to be kept: 1 (wrong), 2 (more wrong), 0 (highest), 1 (not a NaN)
    looks = [
        ([5.0, 9.0, 3.0, 1.0], [0, 0, 0, 0]),
        ([1.0, 1.0, 2.0, 2.0], [1, 1, 0, 0]),
        ([0.5, 0.1, 1.0, math.nan], [1, 2, 0, 0]),
    ]
    for i, (loss, wrong) in enumerate(looks):
        levels = torch.full((4, 3, 12, 12), float(i))
        seen = Seen(torch.tensor(loss), torch.ones(1, 4), torch.tensor(wrong))
        run.keep(levels, seen, seen.loss, {"look": torch.full((4, 2), float(i))})
    assert run.images[:, 0, 0, 0].tolist() == [1, 2, 0, 1]
    assert run.maps["look"][:, 1].tolist() == [1, 2, 0, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.3), st.floats(0.01, 300), st.sampled_from([0, 200]))
def test_what_is_projected_stays_in_the_ball_and_the_rules_agree(seed, epsilon, size, low):
    clean = noise_images(3, 6, seed, low, 256).float()
    moved = clean + size * torch.randn(clean.shape, generator=stream(seed + 1))
    inside = boxed(moved, clean, epsilon).round()
    away = (inside - clean).abs()
    assert float(away.max()) <= whole_levels(epsilon) <= 255 * epsilon + 1e-4
    assert 0 <= float(inside.min()) <= float(inside.max()) <= 255
    assert PixelBound(epsilon).violations(clean.byte(), Adversarial(inside.byte())) == []
    whole = rounded_in_ball(in_ball(moved, clean, epsilon), clean, epsilon)
    assert torch.equal(whole, whole.round())
    assert 0 <= float(whole.min()) <= float(whole.max()) <= 255
    assert PixelBound(epsilon, "l2").violations(clean.byte(), Adversarial(whole.byte())) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 9), st.sampled_from(["linf", "l2"]), st.floats(-2e-3, 2e-3))
def test_the_bound_is_judged_as_plain_loops_judge_it(seed, size, norm, slack):
    clean = noise_images(2, 4, seed)
    rng = np.random.default_rng(seed)
    changed = clean + torch.from_numpy(rng.integers(-size, size + 1, clean.shape)).to(torch.uint8)  # wraps back
    sizes = []
    for a, b in zip(clean.tolist(), changed.tolist(), strict=True):
        flat = [abs(q - p) for u, v in zip(a, b, strict=True) for r, s in zip(u, v, strict=True)
                for p, q in zip(r, s, strict=True)]  # fmt: skip
        sizes.append(max(flat) if norm == "linf" else math.sqrt(sum(d * d for d in flat)))
    bound = max(0.0, max(sizes) / 255 + slack)
    broken = [i for i, s in enumerate(sizes) if s > bound * 255 + 1e-6]
    found = PixelBound(bound, norm).violations(clean, Adversarial(changed))
    assert [int(f.split(":")[0].removeprefix("image ")) for f in found] == broken


def test_other_shapes_and_types_are_violations():
    clean = noise_images(2)
    for changed in (clean[:1], clean[:, :, :6], clean.float()):
        assert len(PixelBound(1.0).violations(clean, Adversarial(changed))) == 1


def test_rounding_lets_the_gradient_through():
    x = torch.tensor([1.4, 254.6, 300.0, -3.0], requires_grad=True)
    out = eight_bits(x)
    assert out.tolist() == [1, 255, 255, 0]
    out.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1]


def test_noise_is_within_its_bound_uses_all_of_it_and_belongs_to_the_image():
    data = judged_rightly(model(Linear()), noise_images(6, low=0, high=256))
    for noise in (UniformNoise(EPS), UniformNoise(EPS, sign=True)):
        made = noise.craft([], data, execution=Execution(), budget=budget(), seed=3)
        change = made.images.int() - data.images.int()
        inner = (data.images >= 4) & (data.images <= 251)
        levels, counts = change[inner].unique(return_counts=True)
        assert levels.tolist() == ([-4, 4] if noise.sign else list(range(-4, 5)))
        assert float(counts.min() / counts.max()) > 0.7
        assert noise.rules().violations(data.images, made) == []
        part = noise.craft([], data[torch.tensor([4])], execution=Execution(), budget=budget(), seed=3)
        assert torch.equal(part.images, made.images[[4]])


# what the diagnostics say of models that hide, answer at random or do not look


class Rounded(Net):
    """Looks at four grey levels only; ``straight``: hands on the gradient as if it did not."""

    def __init__(self, straight):
        super().__init__()
        self.straight = straight

    def forward(self, x):
        seen = (x * 3).round() / 3
        return super().forward(x + (seen - x).detach() if self.straight else seen)


class Random(Net):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x))


class _Astray(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, fresh):
        ctx.fresh = fresh
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        made = torch.randn(g.shape[1:]) if ctx.fresh else torch.randn(g.shape[1:], generator=stream(5))
        return made.expand_as(g) * g.abs().mean(), None


class Astray(Net):
    """The gradient is noise: another each time (``fresh``), or the same."""

    def __init__(self, fresh):
        super().__init__()
        self.fresh = fresh

    def forward(self, x):
        return super().forward(_Astray.apply(x, self.fresh))


class Blind(Net):
    def forward(self, x):
        return 0 * super().forward(x) + 1


class Broken(Net):
    def forward(self, x):
        return super().forward(x) + (x * 0).sqrt().sum((1, 2, 3))


GRADIENT, LOSS, LAST = "gradient zero or not finite, images", "loss fell", "best step is the last"
AGREE, PREDICTS, RUNS = "two gradients agree", "gradient predicts the change", "two runs agree"
UNBOUNDED, QUERY = "unbounded attack succeeds", "attack without gradients beats white-box"


@pytest.mark.parametrize(
    ("net", "wanted"),
    [
        (Net(), set()),
        (Rounded(straight=False), {GRADIENT, AGREE, PREDICTS, UNBOUNDED}),
        (Rounded(straight=True), {PREDICTS}),
        (Random(), {RUNS}),
        (Astray(fresh=True), {AGREE, PREDICTS, QUERY}),
        (Astray(fresh=False), {PREDICTS, QUERY}),
        (Blind(), {GRADIENT, LOSS, AGREE, PREDICTS, UNBOUNDED}),
        (Broken(), {GRADIENT, AGREE, PREDICTS, UNBOUNDED}),
    ],
    ids=lambda v: (
        f"{type(v).__name__}{[int(x) for x in vars(v).values() if isinstance(x, bool)]}" if isinstance(v, Net) else ""
    ),
)
def test_planted_models_are_told_for_what_they_are(net, wanted):
    m = model(net)
    torch.manual_seed(0)  # of the planted model's own noise
    plain = model(Net())
    data = judged_rightly(m if isinstance(net, Rounded | Blind) else plain, noise_images(8, 16))
    made = craft(PGD(2 / 255, random_start=False), m, data, queries=24, steps=12)
    assert wanted <= raised(made)
    if not wanted:
        assert raised(made) == set()
        assert len(made.diagnostics) == 8


def test_too_short_a_way_is_told_by_the_last_step():
    class Far(Linear):
        def forward(self, x):
            return super().forward(x) + 100

    m = model(Far())
    data = judged_rightly(m, noise_images(6))
    assert raised(craft(PGD(64 / 255, alpha=1 / 255, steps=20, random_start=False), m, data)) == {LAST}
    assert LAST not in raised(craft(PGD(4 / 255, alpha=1 / 255, steps=20, random_start=False), m, data))


def test_an_attack_that_gets_nowhere_is_told():
    held = torch.tensor([[2.0, 2.0], [2.0, 1.995]])
    none = torch.zeros(2, dtype=torch.int64)
    found = {d.name for d in Course(held, none, none, none + 1).diagnostics() if d.raised}
    assert found == {LOSS}
    gone = torch.tensor([[2.0, 2.0], [0.0, 1.9]])
    dead = Course(gone, torch.tensor([5, 5]), none, none + 10)
    assert {d.name: d.value for d in dead.diagnostics()}[GRADIENT] == 0.5  # the one that gave way is not counted


@pytest.mark.parametrize(("unit", "wanted"), [(1, [0, 1, 4, 7, 9, 10, 11, 12]), (2, [0, 1, 4, 5, 6, 7, 12, 13])])
def test_those_that_held_out_are_asked_about_again(unit, wanted):
    class Clip(Linear):
        clip_frames = unit

    data = judged_rightly(model(Linear()), noise_images(14), unit)
    first, last = torch.ones(14), torch.zeros(14)
    first[[2, 3, 5, 6, 8, 13]] = 0
    last[[4, 7, 9, 12]] = 1
    if unit == 2:
        first[:], last[:] = 1, 0
        last[[4, 6, 12]] = 1
    none = torch.zeros(14, dtype=torch.int64)
    course = Course(torch.stack([first, last]), none, none, none)
    ensemble = Ensemble.of([model(Clip())], Execution())
    sample = Sample.of(ensemble, data, data.images, course)
    assert torch.equal(sample.clean, data.images[wanted].float())
    assert torch.equal(sample.labels, data.labels[wanted])


# real detectors


@pytest.fixture(scope="module")
def faces():
    """Two real and three fake faces that Meso4_DF judges rightly."""
    data = forgery_faces()
    m = mesonet_model("Meso4_DF")
    right = m.right(torch.from_numpy(m.ask(data.images)), data.labels)
    return data[torch.cat([torch.nonzero(right & (data.labels == y))[:, 0][:k] for y, k in ((0, 2), (1, 3))])]


@pytest.mark.kit
@pytest.mark.parametrize("attack", [FGSM(2 / 255), PGD(2 / 255, steps=4), PGD(0.5, norm="l2", steps=4)])
def test_real_detectors_give_way_to_it_and_not_to_noise(attack, faces):
    m = mesonet_model("Meso4_DF")
    made = craft(attack, m, faces, batch=8)
    noise = UniformNoise(2 / 255, sign=True).craft([], faces, execution=Execution(), budget=budget(), seed=0)
    assert accuracy(m, faces.images, faces.labels) == 1
    assert accuracy(m, noise.images, faces.labels) >= 0.8
    assert accuracy(m, made.images, faces.labels) <= (0.5 if isinstance(attack, PGD) and attack.norm == "l2" else 0)
    assert attack.rules().violations(faces.images, made) == []
    assert raised(made) == set()


@pytest.mark.kit
def test_a_real_clip_detector_is_attacked_as_a_whole(faces):
    class Clip(torch.nn.Module):
        face_size, threshold, clip_frames = (256, 256), 0.0, 3

        def __init__(self):
            super().__init__()
            self.net = mesonet("Meso4_DF")

        def forward(self, x):
            return self.net(x.flatten(0, 1)).view(-1, 3).mean(1)

    m = model(Clip())
    fakes = faces[torch.tensor([2, 3, 4])]
    data = Labelled(fakes.images, fakes.labels, fakes.ids, ("v",) * 3, ("v",) * 3)
    made = craft(PGD(2 / 255, steps=3, random_start=False), m, data, batch=1, queries=1)
    assert accuracy(m, data.images, data.labels) == 1
    assert accuracy(m, made.images, data.labels) == 0
    assert bool((made.images != data.images).flatten(1).any(1).all())


def test_options_that_cannot_be_are_refused():
    for wrong in (
        lambda: FGSM(0),
        lambda: FGSM(8),
        lambda: FGSM(0.99 / 255),
        lambda: PGD(0.99 / 255),
        lambda: PGD(0.99 / 255, norm="l2"),
        lambda: FrequencyAttack(0.99 / 255),
        lambda: HybridAttack(0.99 / 255),
        lambda: PGD(norm="l1"),
        lambda: PGD(alpha=0),
        lambda: PGD(restarts=0),
        lambda: PGD(steps=0),
        lambda: SpatialFlow(limit=0),
        lambda: SpatialFlow(steps=0),
        lambda: FrequencyAttack(mask="middle"),
        lambda: FrequencyAttack(share=0),
        lambda: FrequencyAttack(steps=0),
        lambda: HybridAttack(steps=1),
        lambda: HybridAttack(beta=-1),
    ):
        with pytest.raises(AuditError, match="correct the option"):
            wrong()


def test_one_level_is_an_attack():
    m = model(Linear())
    data = judged_rightly(m, noise_images(2))
    for attack in (FGSM(1 / 255), PGD(1 / 255), HybridAttack(1 / 255)):
        change = (craft(attack, m, data).images.int() - data.images.int()).abs()
        assert int(change.max()) == 1, attack


def test_the_random_start_belongs_to_the_image():
    """On equal images the starts differ by name, and by restart; they are the same for the same name."""
    images = noise_images(1, 16).expand(3, -1, -1, -1).contiguous()

    def starts(ids, seed=0, restart=0):
        data = Labelled(images, torch.ones(3, dtype=torch.int64), ids, ids, ids)
        run = Run(Ensemble.of([model(Net())], Execution()), data, 1)
        return PGD(8 / 255)._start(run, seed, restart)

    first = starts(("a", "b", "c"))
    assert float((first - images.float()).abs().max()) <= 8
    assert all(float((first[i] != first[j]).float().mean()) > 0.9 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(starts(("c", "a", "b")), first[[2, 0, 1]])
    for other in (starts(("a", "b", "c"), seed=1), starts(("a", "b", "c"), restart=1)):
        assert float((other != first).float().mean()) > 0.9


def test_progress_rises_to_the_end():
    m = model(Linear())
    data = judged_rightly(m, noise_images(5))
    for attack in (FGSM(EPS), PGD(EPS, restarts=2), SpatialFlow(), FrequencyAttack(EPS), HybridAttack(EPS)):
        said: list[float] = []

        def hear(share, words, said=said):
            said.append(share)

        attack.craft([m], data, execution=Execution(), budget=budget(2, 5, 0), seed=0, progress=hear)
        assert said == sorted(said)
        assert said[-1] == pytest.approx(1.0)
        assert said.count(1.0) <= 2


def test_every_attack_here_says_who_and_why():
    for kind in (FGSM, PGD, SpatialFlow, FrequencyAttack, HybridAttack):
        attack = kind()
        assert issubclass(kind, ImageAttack)
        assert all((attack.name, attack.goal, attack.threat, attack.refs, attack.spec()))
        assert attack.access == "white-box"
        assert not [r for r in attack.refs if r not in known()]
        assert len(repr(attack)) < 120
