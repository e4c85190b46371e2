"""Attacks on frequencies: the transform against SciPy, what the masks let through, effect on real detectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn

from audit.execution import Execution
from audit.labelled import Adversarial, Labelled
from probes.forgery.ensemble import Ensemble
from probes.forgery.frequency import FrequencyAttack, Transform, fitted, top
from probes.forgery.hybrid import HybridAttack
from probes.forgery.image_attack import Run
from probes.forgery.image_rules import FrequencyRules
from probes.forgery.plain_noise import UniformNoise
from tests.kit import mesonet_model
from tests.test_image_attacks import (
    Net,
    accuracy,
    budget,
    craft,
    faces,
    judged_rightly,
    model,
    noise_images,
    raised,
    stream,
)

__all__ = ["faces"]
EPS = 4 / 255
MASKS = ["learned", "salient", "all", "low", "high"]


@pytest.mark.parametrize("block", [8, 4, None])
@pytest.mark.parametrize("size", [(16, 24), (19, 13)])
def test_the_transform_is_scipys_block_by_block_and_turns_back(block, size):
    images = torch.randn(2, 3, *size, generator=stream())
    transform = Transform(size, block)
    bh, bw = transform.shape
    found = transform.forward(images)
    back = transform.inverse(found)
    for i in range(size[0] // bh):
        for j in range(size[1] // bw):
            at = (slice(None), slice(None), slice(i * bh, (i + 1) * bh), slice(j * bw, (j + 1) * bw))
            wanted = dctn(images[at].numpy(), axes=(2, 3), norm="ortho")
            assert np.allclose(found[:, :, i, j].numpy(), wanted, atol=1e-5)
            assert np.allclose(back[at].numpy(), idctn(wanted, axes=(2, 3), norm="ortho"), atol=1e-5)
    rest = back.clone()
    rest[:, :, : size[0] // bh * bh, : size[1] // bw * bw] = 0
    assert not bool(rest.any())
    assert back.shape == images.shape


def test_frequencies_are_ordered_from_low_to_high():
    order = Transform((8, 8)).order()
    assert sorted(order.flatten().tolist()) == list(range(64))
    assert order[0, 0] == 0
    assert {int(order[0, 1]), int(order[1, 0])} == {1, 2}
    assert order[7, 7] == 63
    assert torch.equal(top(-order[None].float(), 0.25)[0], (order < 16).float())


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31), st.sampled_from([8, None]), st.sampled_from([0.05, 0.25, 1.0]),
    st.sampled_from([0, 100, 250]), st.floats(0.5, 60),
)  # fmt: skip
def test_only_the_masks_frequencies_change_and_pixels_keep_their_bound(seed, block, share, low, size):
    """Also where pixels are black or white already."""
    clean = noise_images(2, 16, seed, low, 256).float()
    transform = Transform((16, 16), block)
    mask = top(torch.rand(2, *transform.shape, generator=stream(seed)), share)
    change = size * torch.randn(clean.shape, generator=stream(seed + 1))
    found = fitted(transform, transform.masked(change, mask), clean, mask, 4)
    outside = transform.forward(found) * (1 - mask)[:, None, None, None]
    assert float(outside.abs().max()) < 1e-3
    assert float(found.abs().max()) < 4.5
    images = (clean + found).round().clamp(0, 255).byte()
    assert float((clean + found - images).abs().max()) < 0.5 + 1e-4
    rules = FrequencyRules(EPS, block)
    assert rules.violations(clean.byte(), Adversarial(images, {"mask": mask})) == []


def test_the_rules_tell_what_leaves_the_mask_the_bound_or_the_blocks():
    clean = noise_images(2, 20)
    mask = torch.zeros(2, 8, 8)
    mask[:, 0, 1] = 1
    wave = torch.from_numpy(idctn(np.eye(1, 64, 1).reshape(8, 8), norm="ortho")) * 15
    inside = clean.int().clone()
    inside[0, :, :8, 8:16] += wave.round().int()
    rules = FrequencyRules(EPS)

    def said(images, mask=mask):
        return rules.violations(clean, Adversarial(images.to(torch.uint8), {"mask": mask}))

    assert said(inside) == []
    assert [v.split(" levels")[0][:36] for v in said(inside, mask.transpose(1, 2))] == [
        "image 0: other frequencies changed b"
    ]
    outside = clean.int().clone()
    outside[1, 2, :8, :8] += wave.T.round().int()
    assert [v[:25] for v in said(outside)] == ["image 1: other frequencie"]
    edge = clean.int().clone()
    edge[1, 0, 18, 2] += 1
    assert said(edge) == ["image 1: changed beyond the last whole block"]
    assert "at most 4 are allowed" in said(clean.int() + 5)[0]
    assert "no mask (N, 8, 8)" in said(clean, mask[:, :4])[0]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("block", [8, 5, None])
def test_a_mask_of_ones_own_making_is_no_rule(kind, block):
    """All frequencies changed, and all in the recorded mask."""
    clean = noise_images(2, 20)
    attack = FrequencyAttack(EPS, mask=kind, share=0.25, block=block)
    rules, (bh, bw) = attack.rules(), Transform((20, 20), block).shape
    count = round(0.25 * bh * bw)
    change = torch.randint(-3, 4, clean.shape, generator=stream())
    change[:, :, 20 // bh * bh :], change[:, :, :, 20 // bw * bw :] = 0, 0
    moved = (clean.int() + change).to(torch.uint8)

    def said(mask, images=moved):
        return [v[:14] for v in rules.violations(clean, Adversarial(images, {"mask": mask})) if "a mask of" in v]

    ones = torch.ones(2, bh, bw)
    assert said(ones) == ([] if kind == "all" else ["image 0: a mas", "image 1: a mas"])
    assert said(ones, clean) == [], "nothing was changed, so nothing has to be allowed"
    # the ranks from low to high, by plain loops
    ranked = sorted(((u * bw) ** 2 + (v * bh) ** 2, u, v) for u in range(bh) for v in range(bw))
    for name, chosen in (("low", ranked[:count]), ("high", ranked[-count:])):
        mask = torch.zeros(2, bh, bw)
        for _, u, v in chosen:
            mask[:, u, v] = 1
        assert said(mask) == (
            [] if kind not in ("low", "high") or kind == name else ["image 0: a mas", "image 1: a mas"]
        )
        _, u, v = chosen[1]
        mask[1, u, v] = 0
        assert said(mask) == ([] if kind not in ("low", "high") else ["image 1: a mas"] if kind == name else
                              ["image 0: a mas", "image 1: a mas"])  # fmt: skip
        _, u, v = ranked[count] if name == "low" else ranked[-count - 1]
        mask[:, u, v], mask[1, chosen[1][1], chosen[1][2]] = 1, 1
        assert said(mask) == ([] if kind == "all" else ["image 0: a mas", "image 1: a mas"]), "one too many"


@pytest.mark.parametrize("mask", MASKS)
def test_where_nothing_changed_no_mask_is_recorded(mask):
    class Blind(torch.nn.Module):
        face_size, threshold = (16, 16), 0.0

        def forward(self, x):
            return 0 * x.sum((1, 2, 3)) + 1

    m = model(Blind())
    data = judged_rightly(m, noise_images(2, 16))
    made = craft(FrequencyAttack(EPS, mask=mask), m, data)
    assert torch.equal(made.images, data.images)
    assert not bool(made.maps["mask"].any())
    assert made.details["share of the mask in the lower half of the frequencies"] is None
    assert FrequencyAttack(EPS, mask=mask).rules().violations(data.images, made) == []


def test_the_learned_mask_remembers():
    """Two frequencies pull by turns: a mask that forgot would hold the one of the last step alone."""
    waves = torch.zeros(2, 8, 8)
    waves[0, 5, 2], waves[1, 1, 6] = 3.0, 3.0
    seen, calls = [], []

    class Turns(torch.nn.Module):
        face_size, threshold = (16, 16), 0.0

        def forward(self, x):
            calls.append(0)
            # the first is twice as often, and is the first of all
            wave = waves[1 if len(calls) % 3 == 0 else 0]
            return (Transform((16, 16)).forward(x - 0.5) * wave).sum((1, 2, 3, 4, 5))

    class Watched(Run):
        def look(self, levels, maps=None, *, candidate=True):
            seen.append(maps["mask"].clone())
            return super().look(levels, maps, candidate=candidate)

    images = noise_images(2, 16)
    names = ("a", "b")
    data = Labelled(images, torch.ones(2, dtype=torch.int64), names, names, names)
    attack = FrequencyAttack(EPS, share=1 / 64)
    attack.run(Watched(Ensemble.of([model(Turns())], Execution()), data, 9), 0)
    wanted = (waves[0] != 0).float().expand(2, 8, 8)
    # after the third look the other frequency alone pulled, once; the first had twice
    assert [torch.equal(s, wanted) for s in seen[1:]] == [True] * 9


@pytest.mark.parametrize("attack", [FrequencyAttack(EPS, mask=k) for k in MASKS] + [FrequencyAttack(EPS, block=None)])
def test_every_mask_attacks_inside_its_rules_whatever_the_batch(attack):
    m = model(Net())
    data = judged_rightly(m, noise_images(5, 16, low=0, high=256))
    one, *others = (craft(attack, m, data, batch=b, steps=8) for b in (1, 3, 8))
    assert all(torch.equal(one.images, o.images) for o in others)
    assert all(torch.equal(one.maps["mask"], o.maps["mask"]) for o in others)
    assert attack.rules().violations(data.images, one) == []
    shape = (16, 16) if attack.block is None else (8, 8)
    count = round((1 if attack.mask == "all" else 0.25) * shape[0] * shape[1])
    assert one.maps["mask"].shape == (5, *shape)
    assert one.maps["mask"].sum((1, 2)).tolist() == [count] * 5
    before, after = (m.margin(torch.from_numpy(m.ask(i)), data.labels) for i in (data.images, one.images))
    assert bool((after < before).all())


def test_salient_frequencies_are_those_the_model_looks_at():
    """A model that sees two frequencies of each block alone: both masks that look at the gradient find them."""
    wave = torch.zeros(8, 8)
    wave[5, 2], wave[1, 6] = 3.0, -4.0

    class Waves(torch.nn.Module):
        face_size, threshold = (16, 16), 0.0

        def forward(self, x):
            return (Transform((16, 16)).forward(x - 0.5) * wave).sum((1, 2, 3, 4, 5))

    m = model(Waves())
    data = judged_rightly(m, noise_images(4, 16))
    for mask in ("salient", "learned"):
        made = craft(FrequencyAttack(EPS, mask=mask, share=2 / 64), m, data)
        assert torch.equal(made.maps["mask"], (wave != 0).float().expand(4, 8, 8))
    low = craft(FrequencyAttack(EPS, mask="low", share=2 / 64), m, data, steps=2)
    before, after = (m.ask(i) for i in (data.images, low.images))
    assert np.abs(after - before).max() < 1e-3 * np.abs(before).max()


def test_the_hybrid_step_is_what_it_says():
    """One round by hand, on a net that bends: the inner step, the frequencies' gradient there, the outer step."""
    m = model(Net())
    data = judged_rightly(m, noise_images(4, 16))
    looks = []

    class Watched(Run):
        def look(self, levels, maps=None, *, candidate=True):
            looks.append(levels.detach().numpy())
            return super().look(levels, maps, candidate=candidate)

    HybridAttack(EPS, steps=2, beta=2.0, alpha=1 / 255).run(Watched(Ensemble.of([m], Execution()), data, 2), 0)

    def gradient(levels):
        x = (levels / 255).requires_grad_()
        return torch.autograd.grad(m.loss(x, data.labels).sum(), x)[0].numpy()

    clean = data.images.float()
    g = gradient(clean)
    there = gradient(clean + torch.from_numpy(np.sign(g)))
    blocks = there.reshape(4, 3, 2, 8, 2, 8).transpose(0, 1, 2, 4, 3, 5)
    coefficients = dctn(blocks, axes=(4, 5), norm="ortho")
    energy = np.square(coefficients).sum((1, 2, 3)).reshape(4, 64)
    keep = np.zeros_like(energy)
    np.put_along_axis(keep, np.argsort(-energy, 1)[:, :16], 1, 1)
    h = idctn(coefficients * keep.reshape(4, 1, 1, 1, 8, 8), axes=(4, 5), norm="ortho")
    h = h.transpose(0, 1, 2, 4, 3, 5).reshape(g.shape)
    g, h = (v / np.abs(v).sum((1, 2, 3), keepdims=True) for v in (g, h))
    wanted = [clean.numpy(), clean.numpy() + np.sign(g), clean.numpy() + np.sign(g + 2 * h)]
    assert len(looks) == 3
    # a sum near zero may have either sign
    assert [float((a != b).mean()) < 2e-3 for a, b in zip(looks, wanted, strict=True)] == [True] * 3
    assert float((looks[1] != looks[2]).mean()) > 0.05
    made = craft(HybridAttack(EPS), m, data)
    assert HybridAttack(EPS).rules().violations(data.images, made) == []
    assert made.details == {"steps": 6}
    assert len(made.history["loss"]) == 7


@pytest.mark.kit
@pytest.mark.parametrize(
    "attack",
    [FrequencyAttack(2 / 255, steps=4), FrequencyAttack(2 / 255, "salient", steps=4), HybridAttack(2 / 255, steps=4)],
)
def test_a_real_detector_gives_way_to_it_and_not_to_noise(attack, faces):
    m = mesonet_model("Meso4_DF")
    made = craft(attack, m, faces, batch=8)
    noise = UniformNoise(2 / 255, sign=True).craft([], faces, execution=Execution(), budget=budget(), seed=0)
    assert accuracy(m, noise.images, faces.labels) >= 0.8
    assert accuracy(m, made.images, faces.labels) <= 0.2
    assert attack.rules().violations(faces.images, made) == []
    assert raised(made) == set()
    if isinstance(attack, FrequencyAttack):
        share = made.details["share of the mask in the lower half of the frequencies"]
        order = Transform((8, 8)).order()
        assert share == pytest.approx(float((made.maps["mask"] * (order < 32)).sum() / made.maps["mask"].sum()))
