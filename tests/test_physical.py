"""Physical conditions: replayable, true to their names, and held against computations of another kind."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from audit.errors import AuditError, DataError
from probes.camera import SHARPEN_SIGMA, Camera, photograph
from probes.physical import CONDITIONS, EOT, FULL, GENTLE, NOTHING, Draw
from probes.printing import PRINTABLE, Printing

N, H, W, K = 3, 37, 50, 4
seeds = st.integers(0, 2**31)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(seed=0, dtype=torch.float32, size=(H, W)):
    """Images with two patches each, one on the lower right edge: mask, pixels, owners, uv, what they see, and quads."""
    h, w = size
    g = stream(seed)
    images = torch.rand(N, 3, h, w, generator=g, dtype=dtype)
    mask = torch.zeros(N, h, w, dtype=torch.bool)
    mask[:, 5:14, 9:20] = True
    mask[:, h - 6 :, w - 7 :] = True
    pixel = mask.flatten().nonzero()[:, 0]
    owner = torch.randint(0, K, (len(pixel),), generator=g)
    uv = torch.rand(len(pixel), 2, generator=g, dtype=dtype)
    seen = torch.rand(len(pixel), 3, generator=g, dtype=dtype)
    quads = torch.tensor([[10.0, 10.0], [50.0, 14.0], [48.0, 40.0], [8.0, 34.0]]).repeat(K, 1, 1)
    return images, mask, pixel, owner, uv, seen, quads + torch.rand(K, 4, 2, generator=g)


def results(draw, seed=0):
    images, _, pixel, owner, uv, seen, quads = scene(seed)
    texture = torch.rand(3, 12, 10, generator=stream(seed))
    return draw.quads(quads), draw.surface(texture), draw.light(seen, owner, uv), draw.camera(images, pixel)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_nothing_changes_nothing():
    images, _, pixel, owner, uv, seen, quads = scene()
    draw = NOTHING.draw(stream(), K, N)
    assert EOT.none() == NOTHING
    assert draw.quads(quads) is quads
    assert draw.surface(seen) is seen
    assert draw.light(seen, owner, uv) is seen
    assert draw.camera(images, pixel) is images
    assert set(draw.to_json().values()) == {None}


def test_no_covered_pixel_changes_nothing():
    images = scene()[0]
    none = torch.zeros(0, dtype=torch.long)
    draw = FULL.draw(stream(), 0, N)
    assert torch.equal(draw.camera(images, none), images)
    assert draw.light(torch.zeros(0, 3), none, torch.zeros(0, 2)).shape == (0, 3)
    assert draw.quads(torch.zeros(0, 4, 2)).shape == (0, 4, 2)
    again = Draw.from_json(json.loads(json.dumps(draw.to_json())))
    assert again.quads(torch.zeros(0, 4, 2)).shape == (0, 4, 2)
    assert again.light(torch.zeros(0, 3), none, torch.zeros(0, 2)).shape == (0, 3)


@settings(max_examples=8, deadline=None)
@given(seed=seeds, eot=st.sampled_from([FULL, EOT(), GENTLE, *CONDITIONS.values()]))
def test_the_same_seed_gives_the_same_and_json_the_very_same(seed, eot):
    draw = eot.draw(stream(seed), K, N)
    first = results(draw)
    assert same(results(draw), first)
    assert same(results(eot.draw(stream(seed), K, N)), first)
    assert same(results(Draw.from_json(json.loads(json.dumps(draw.to_json())))), first)
    assert same(results(EOT.from_spec(json.loads(json.dumps(eot.spec()))).draw(stream(seed), K, N)), first)


def test_another_seed_gives_another_result():
    assert not any(
        torch.equal(a, b)
        for a, b in zip(results(FULL.draw(stream(1), K, N)), results(FULL.draw(stream(2), K, N)), strict=True)
    )


@settings(max_examples=15, deadline=None)
@given(seed=seeds, more=st.integers(0, 9), images=st.integers(0, 9))
def test_a_draw_does_not_depend_on_how_many_others_there_are(seed, more, images):
    few, many = FULL.draw(stream(seed), 2, 1).to_json(), FULL.draw(stream(seed), 2 + more, 1 + images).to_json()
    per_image = {"blur_after", "sharpen", "balance", "tone", "noise", "seeds", "jpeg"}
    for name, values in few.items():
        assert many[name][: len(values)] == values, name
        if name not in {"paper", "colours", "snap", "blur_before"}:
            assert len(many[name]) == (1 + images if name in per_image else 2 + more)


def test_a_draw_takes_one_number_from_the_stream():
    one, many = stream(3), stream(3)
    FULL.draw(one, 1, 1)
    NOTHING.draw(many, 50, 20)
    assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=many))


def test_a_part_does_not_depend_on_which_others_are_on():
    full = FULL.draw(stream(5), K, N).to_json()
    for part, names in {
        "shadow": ["shadow"],
        "noise": ["noise", "seeds"],
        "camera": ["balance", "tone", "sharpen"],
    }.items():
        alone = EOT.only(**{part: getattr(FULL, part)}).draw(stream(5), K, N).to_json()
        assert {n for n, v in alone.items() if v is not None} == set(names)
        assert all(alone[n] == full[n] for n in names)


def test_values_are_even_over_their_ranges():
    many = 4000
    draw = FULL.draw(stream(1), many, many)
    for values, (low, high) in (
        (draw.scale - 1, FULL.scale),
        (draw.rotation, FULL.rotation),
        (draw.shift[:, 1], FULL.shift),
        (draw.perspective.abs()[:, 2, 1], FULL.perspective),
        (draw.brightness - 1, FULL.brightness),
        (draw.gamma.log2(), FULL.gamma),
        (draw.shadow[:, 0], FULL.shadow),
        (draw.blur_after, FULL.blur_after),
        (draw.noise, FULL.noise),
    ):
        shares = ((values - low) / (high - low)).sort().values
        assert shares[0] > -1e-5
        assert shares[-1] < 1 + 1e-5
        # Kolmogorov–Smirnov at one in a million
        assert (shares - (torch.arange(many) + 0.5) / many).abs().max() < 2.7 / math.sqrt(many)
    assert 0.45 < (draw.perspective > 0).float().mean() < 0.55
    assert draw.jpeg.unique().tolist() == list(range(40, 96))
    assert len(draw.seeds.unique()) == many
    objects = [draw.scale[:, None], draw.rotation[:, None], draw.shift, draw.perspective.flatten(1), draw.shadow]
    objects += [draw.brightness[:, None], draw.contrast[:, None], draw.gamma[:, None]]
    images = [draw.blur_after, draw.noise, draw.jpeg.float(), draw.sharpen]
    for columns in (torch.cat(objects, 1).T, torch.stack(images)):
        assert (torch.corrcoef(columns) - torch.eye(len(columns))).abs().max() < 0.08


@pytest.mark.parametrize(
    "parts",
    [
        {"scale": (-1.0, 0.0)},
        {"rotation": (5.0, -5.0)},
        {"shadow": -0.1},
        {"perspective": 0.3},
        {"noise": float("nan")},
        {"jpeg": (0, 50)},
        {"jpeg": (90, 60)},
        {"gamma": (1.0,)},
        {"printing": torch.zeros(0, 3)},
        {"printing": torch.full((2, 3), 2.0)},
    ],
    ids=str,
)
def test_a_bad_range_is_named(parts):
    with pytest.raises(AuditError, match="expected"):
        EOT(**parts)


def test_numbers_stand_for_ranges_and_reprs_are_short():
    eot = EOT.only(rotation=10, blur_after=1.0, jpeg=[50, 60], printing=PRINTABLE)
    assert eot.rotation == (-10.0, 10.0)
    assert eot.blur_after == (0.0, 1.0)
    assert eot == EOT.only(rotation=(-10.0, 10.0), blur_after=(0.0, 1.0), jpeg=(50, 60), printing=Printing())
    assert repr(eot) == "EOT(rotation=-10..10, blur_after=0..1, jpeg=50..60, printing=31 colours)"
    assert hash(eot) != hash(FULL)


@pytest.mark.parametrize("change", [{"scale": "wide"}, {"colour": [1.0]}, {"seeds": [[1], 2]}], ids=str)
def test_a_broken_draw_is_named(change):
    with pytest.raises(DataError, match="draw of physical conditions"):
        Draw.from_json({**FULL.draw(stream(), 1, 1).to_json(), **change})
    with pytest.raises(AuditError, match="EOT specification"):
        EOT.from_spec({"scale": [0, 1]})


def test_a_draw_for_others_is_refused():
    draw, (images, _, pixel, *_, quads) = FULL.draw(stream(), K + 1, N + 1), scene()
    with pytest.raises(ValueError, match="does not fit"):
        draw.quads(quads)
    with pytest.raises(ValueError, match="does not fit"):
        draw.camera(images, pixel)


# ---- geometry --------------------------------------------------------------------------------------------------------


def area(q):
    x, y = q[:, 0].double(), q[:, 1].double()
    return float((x * y.roll(-1) - y * x.roll(-1)).sum() / 2)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_quads_turn_out_as_by_hand(seed):
    quads = scene(seed % 999)[-1]
    draw = EOT.only(scale=0.5, rotation=170.0, shift=0.3).draw(stream(seed), K, N)
    for quad, out, s, deg, way in zip(
        quads.numpy(), draw.quads(quads), draw.scale, draw.rotation, draw.shift.numpy(), strict=True
    ):
        turn = float(s) * np.exp(1j * math.radians(float(deg)))
        z = quad[:, 0] + 1j * quad[:, 1]
        across, down = (z[1] + z[2] - z[0] - z[3]) / 2, (z[2] + z[3] - z[0] - z[1]) / 2
        expected = z.mean() + way[0] * across + way[1] * down + turn * (z - z.mean())
        np.testing.assert_allclose(out[:, 0].numpy() + 1j * out[:, 1].numpy(), expected, atol=1e-3)
        assert area(out) == pytest.approx(area(torch.from_numpy(quad)) * float(s) ** 2, rel=1e-3)


def test_perspective_moves_each_corner_along_its_own_edges():
    square = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [10.0, 20.0], [0.0, 20.0]]])
    draw = EOT.only(perspective=0.1).draw(stream(2), 1, 1)
    jitter = draw.perspective[0]
    assert torch.allclose(draw.quads(square)[0] - square[0], jitter * torch.tensor([10.0, 20.0]), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds,
    eot=st.sampled_from([FULL, EOT(), GENTLE, CONDITIONS["tilted"], CONDITIONS["rotated"], EOT.only(rotation=180.0)]),
    angles=st.lists(st.floats(0, 2 * math.pi), min_size=4, max_size=4),
)
def test_areas_stay_convex_and_within_the_slack(seed, eot, angles):
    turns = torch.tensor(sorted(angles))
    gaps = (turns.roll(-1) - turns) % (2 * math.pi)
    if gaps.min() < 0.2 or gaps.max() > 3.0:
        return
    quad = torch.stack([50 * turns.cos(), 30 * turns.sin()], 1)[None]  # on an ellipse: convex, clockwise on screen
    out = eot.draw(stream(seed), 1, 1).quads(quad)[0]
    edges = out.roll(-1, 0) - out
    crosses = edges[:, 0] * edges.roll(-1, 0)[:, 1] - edges[:, 1] * edges.roll(-1, 0)[:, 0]
    assert (crosses > 0).all()
    longest = (quad[0].roll(-1, 0) - quad[0]).norm(dim=1).max()
    assert (out - quad[0]).norm(dim=1).max() <= eot.slack * longest + 1e-3


def test_no_area_stays_none():
    quads = scene()[-1].clone()
    quads[1] = math.nan
    out = FULL.draw(stream(), K, N).quads(quads)
    assert out[1].isnan().all()
    assert not out[[0, 2, 3]].isnan().any()


# ---- light -----------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_light_is_the_formula(seed):
    *_, owner, uv, seen, _ = scene(seed % 99, torch.float64)
    draw = FULL.draw(stream(seed), K, N)
    out = draw.light(seen, owner, uv)
    for m in range(0, len(owner), 41):
        k = int(owner[m])
        taken, deg, distance, soft = (float(v) for v in draw.shadow[k])
        u, v = (float(x) - 0.5 for x in uv[m])
        far = u * math.cos(math.radians(deg)) + v * math.sin(math.radians(deg)) - distance
        dim = float(draw.brightness[k]) * (1 - taken / (1 + math.exp(-far / soft)))
        for c in range(3):
            y = min(1.0, float(seen[m, c]) * dim)
            g, e = float(draw.gamma[k]), 0.01
            y = ((y + e) ** g - e**g) / ((1 + e) ** g - e**g)
            y = (y - 0.5) * float(draw.contrast[k]) + 0.5
            assert float(out[m, c]) == pytest.approx(min(1.0, max(0.0, y)), abs=1e-6)


def test_the_lifted_power_is_near_the_bare_one():
    values = torch.linspace(0, 1, 201)[:, None].expand(-1, 3)
    for g in (-0.6, 0.6):
        out = (
            EOT.only(gamma=(g, g))
            .draw(stream(), 1, 1)
            .light(values, torch.zeros(201, dtype=torch.long), torch.zeros(201, 2))
        )
        assert (out - values**2**g).abs().max() < (0.05 if g < 0 else 0.01)
        assert torch.equal(out[0], torch.zeros(3))
        assert torch.allclose(out[-1], torch.ones(3), atol=1e-6)


# ---- camera ----------------------------------------------------------------------------------------------------------


def whole(images):
    return torch.arange(images[:, 0].numel())


def smooth(image, s):
    return ndimage.gaussian_filter(image.numpy(), (0, s, s), mode="nearest", truncate=6) if s > 0 else image.numpy()


@pytest.mark.parametrize("size", [(H, W), (16, 24)], ids=str)
@pytest.mark.parametrize("part", ["blur", "sharpen", "both"])
def test_filters_are_gaussians(part, size):
    images, mask, pixel, *_ = scene(1, torch.float64, size)
    sigma, amount = torch.tensor([0.0, 0.7, 1.6]), torch.tensor([0.0, 0.4, 0.8])
    camera = Camera(blur=None if part == "sharpen" else sigma, sharpen=None if part == "blur" else amount)
    out = photograph(images, pixel, camera)
    for i in range(N):
        s = 0.0 if part == "sharpen" else float(sigma[i])
        a = 0.0 if part == "blur" else float(amount[i])
        expected = (1 + a) * smooth(images[i], s) - a * smooth(images[i], math.hypot(s, SHARPEN_SIGMA))
        expected = np.where(mask[i], expected.clip(0, 1), images[i].numpy())
        assert np.abs(out[i].numpy() - expected).max() < 0.02  # cut at 2.5 σ
        assert np.abs(out[i].numpy() - expected).mean() < 0.002


def test_balance_and_tone_are_their_formulas():
    images, mask, pixel, *_ = scene(2, torch.float64)
    balance, tone = torch.tensor([[1.1, 0.9, 1.0], [0.8, 1.2, 1.3], [1.0, 1.0, 1.0]]), torch.tensor([0.5, -0.5, 0.0])
    out = photograph(images, pixel, Camera(balance=balance, tone=tone)).numpy()
    x = (images.numpy() * balance.double().numpy()[:, :, None, None]).clip(0, 1)
    t = tone.double().numpy()[:, None, None, None]
    expected = np.where(mask[:, None], (1 - t) * x + t * (3 * x**2 - 2 * x**3), images.numpy())
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_noise_is_gaussian_and_by_place():
    images = torch.full((2, 3, 100, 120), 0.5)
    camera = Camera(noise=torch.tensor([0.03, 0.05]), seeds=torch.tensor([7, 2**47]))
    out = photograph(images, whole(images), camera) - images
    for i, sigma in enumerate((0.03, 0.05)):
        assert float(out[i].std()) == pytest.approx(sigma, rel=0.03)
        assert abs(float(out[i].mean())) < 0.02 * sigma * 3
        assert float((out[i].abs() < sigma).float().mean()) == pytest.approx(0.683, abs=0.02)
    side_by_side = torch.stack([out[0, 0, :-1].flatten(), out[0, 0, 1:].flatten(), out[0, 1, 1:].flatten()])
    assert (torch.corrcoef(side_by_side) - torch.eye(3)).abs().max() < 0.05
    some = torch.arange(31 * 120 + 17, 31 * 120 + 60)
    part = photograph(images, some, camera) - images
    assert torch.equal(part[0].flatten(1)[:, some], out[0].flatten(1)[:, some])


def by_pillow(image, quality):
    held = io.BytesIO()
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(
        held, "JPEG", quality=quality, subsampling=0
    )
    return torch.from_numpy(np.asarray(Image.open(held)).copy()).permute(2, 0, 1).float() / 255


def blocks_of(mask):
    """The pixels of all 8×8 blocks that hold one of ``mask`` (H, W), by a loop."""
    out = torch.zeros_like(mask)
    for y, x in mask.nonzero().tolist():
        out[y // 8 * 8 : y // 8 * 8 + 8, x // 8 * 8 : x // 8 * 8 + 8] = True
    return out


@settings(max_examples=12, deadline=None)
@given(
    seed=seeds,
    quality=st.integers(5, 100),
    blurred=st.booleans(),
    size=st.sampled_from([(93, 101), (96, 128), (17, 200)]),
)
def test_jpeg_is_that_of_another_encoder(seed, quality, blurred, size):
    images = scene(seed % 999, size=size)[0]
    if blurred:
        images = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    images = (images * 255).round() / 255
    some = torch.zeros(size, dtype=torch.bool)
    some[3:14, 5::9] = some[-1, -1] = some[9:12, 13:81] = True
    masks = torch.stack([some, torch.ones_like(some), ~some])
    out = photograph(images, masks.flatten().nonzero()[:, 0], Camera(jpeg=torch.full((N,), quality)))
    for i, mask in enumerate(masks):
        touched = blocks_of(mask)
        apart = (out[i] - by_pillow(images[i], quality)).abs()[:, touched] * 255
        assert apart.mean() < 1.5  # a few coefficients fall on the other side of a step
        assert apart.median() <= 1
        assert torch.equal(out[i][:, ~touched], images[i][:, ~touched])
        assert (out[i] - images[i]).abs()[:, touched].mean() > 0.2 / 255


@settings(max_examples=12, deadline=None)
@given(seed=seeds, eot=st.sampled_from([FULL, EOT(), EOT.only(blur_after=2.0, camera=1.0, noise=0.1)]))
def test_every_other_pixel_is_the_very_same(seed, eot):
    images, mask, pixel, *_ = scene(seed % 999)
    out = eot.draw(stream(seed), K, N).camera(images, pixel)
    assert out.min() >= 0
    assert out.max() <= 1
    for i in range(N):
        may = blocks_of(mask[i]) if eot.jpeg else mask[i]
        near = ndimage.binary_dilation(mask[i].numpy(), np.ones((2 * eot.reach + 1, 2 * eot.reach + 1)))
        assert not (may.numpy() & ~near).any()
        assert torch.equal(out[i][:, ~may], images[i][:, ~may])
        assert (out[i][:, mask[i]] != images[i][:, mask[i]]).float().mean() > 0.8


def test_parts_follow_one_another_also_beyond_the_edge():
    """What JPEG sees beyond the last row and column is the blurred edge, not the bare one."""
    images = scene(8)[0]
    every = whole(images)
    blur, jpeg = torch.tensor([0.8, 1.2, 1.5]), torch.tensor([20, 50, 90])
    together = photograph(images, every, Camera(blur=blur, jpeg=jpeg))
    in_turn = photograph(photograph(images, every, Camera(blur=blur)), every, Camera(jpeg=jpeg))
    assert (together - in_turn).abs().max() < 1e-6


def test_the_order_of_pixels_and_the_mode_do_not_matter():
    images, _, pixel, *_ = scene(6)
    draw = FULL.draw(stream(), K, N)
    expected = draw.camera(images, pixel)
    assert torch.equal(draw.camera(images, pixel[torch.randperm(len(pixel), generator=stream())]), expected)
    with torch.inference_mode():
        assert torch.equal(draw.camera(images, pixel), expected)
    assert torch.equal(draw.camera(images.clone().requires_grad_(), pixel).detach(), expected)


def test_an_image_does_not_depend_on_the_others():
    """To the last bits: filters as wide as the widest of a batch add zeros, in another order."""
    images, mask, *_ = scene(7)
    draw = FULL.draw(stream(1), K, N)
    alone = mask.clone()
    alone[1:] = False
    together = draw.camera(images, mask.flatten().nonzero()[:, 0])
    by_itself = draw.camera(images, alone.flatten().nonzero()[:, 0])
    assert torch.equal(by_itself[0], together[0])
    assert torch.equal(by_itself[1:], images[1:])


def test_the_input_is_left_alone():
    images, _, pixel, *_ = scene(4)
    before = images.clone()
    FULL.draw(stream(), K, N).camera(images, pixel)
    assert torch.equal(images, before)


# ---- gradients -------------------------------------------------------------------------------------------------------


def small(seed=0):
    g = stream(seed)
    images = torch.rand(2, 3, 11, 13, generator=g, dtype=torch.float64) * 0.5 + 0.25
    mask = torch.zeros(2, 11, 13, dtype=torch.bool)
    mask[0, 2:5, 3:9] = mask[1, 8:, 10:] = True
    return images.requires_grad_(), mask.flatten().nonzero()[:, 0]


@pytest.mark.parametrize(
    "parts", [{"blur_after": (0.5, 0.9)}, {"camera": 0.8}, {"blur_after": 0.9, "noise": 0.02, "camera": 1.0}], ids=str
)
def test_gradients_of_the_camera_agree_with_finite_differences(parts):
    images, pixel = small()
    draw = EOT.only(**parts).draw(stream(1), 1, 2)
    assert torch.autograd.gradcheck(lambda x: draw.camera(x, pixel), images, fast_mode=True)


def test_gradients_of_light_and_surface_agree_with_finite_differences():
    *_, owner, uv, seen, _ = scene(3, torch.float64)
    owner, uv, seen = owner[:30], uv[:30], (seen[:30] * 0.4 + 0.2).requires_grad_()
    draw = FULL.draw(stream(4), K, N)
    assert torch.autograd.gradcheck(lambda x: draw.light(x, owner, uv), seen)
    texture = torch.rand(3, 5, 6, generator=stream(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(draw.surface, texture)


def test_jpeg_hands_gradients_straight_through():
    """Without its roundings JPEG is the identity; with them the result is another, and the gradient still that one."""
    images, pixel = small(2)
    draw = EOT.only(jpeg=(30, 30)).draw(stream(), 1, 2)
    out = draw.camera(images, pixel)
    towards = torch.rand(out.shape, generator=stream(1), dtype=torch.float64)
    (grad,) = torch.autograd.grad(out, images, towards)
    assert (out - images).abs().max() > 0.05
    assert torch.equal(grad, towards)


def test_gradients_are_finite_at_the_ends():
    *_, owner, uv, seen, _ = scene(5)
    for value in (0.0, 1.0):
        x = torch.full_like(seen, value).requires_grad_()
        FULL.draw(stream(), K, N).light(x, owner, uv).sum().backward()
        assert x.grad.isfinite().all()


# ---- conditions ------------------------------------------------------------------------------------------------------


def under(name, seed=0):
    """Before and after on a whole-frame patch: seen colours and camera, with smooth content."""
    g = stream(seed)
    images = torch.nn.functional.avg_pool2d(torch.rand(N, 3, 40, 40, generator=g), 3, 1, 1) * 0.6 + 0.2
    draw = CONDITIONS[name].draw(stream(seed), 1, N)
    pixel = whole(images)
    seen = images.permute(0, 2, 3, 1).reshape(-1, 3)
    owner = torch.zeros(len(pixel), dtype=torch.long)
    axis = (torch.arange(40) + 0.5) / 40
    uv = torch.cartesian_prod(axis, axis).flip(1).repeat(N, 1)
    lit = draw.light(seen, owner, uv).view(N, 40, 40, 3).permute(0, 3, 1, 2)
    return images, draw.camera(lit, pixel), draw


def detail(x):
    return float((x[..., 1:] - x[..., :-1]).abs().mean())


@pytest.mark.parametrize("seed", range(3))
def test_each_condition_does_what_it_says(seed):
    assert set(CONDITIONS) == {
        *("dark", "bright", "low-contrast", "gamma", "shadow", "tilted", "rotated", "smaller", "blurred", "noise"),
        *("jpeg", "printed"),
    }
    before, dark, _ = under("dark", seed)
    assert torch.allclose(dark, before * (dark / before).mean(), atol=1e-5)
    assert dark.mean() < 0.45 * before.mean()
    before, bright, _ = under("bright", seed)
    assert (bright >= before).all()
    assert bright.mean() > 1.4 * before.mean()
    before, pale, _ = under("low-contrast", seed)
    assert pale.std() < 0.45 * before.std()
    before, bent, _ = under("gamma", seed)
    assert (bent < before).all()
    before, shaded, _ = under("shadow", seed)
    share = (shaded / before)[:, 0]
    assert share.max() > 0.9
    assert share.min() < 0.5
    assert torch.allclose(share[0], share[1], atol=1e-5)
    before, blurred, _ = under("blurred", seed)
    assert detail(blurred) < 0.5 * detail(before)
    before, noisy, _ = under("noise", seed)
    assert 0.07 < (noisy - before).std() < 0.13
    before, coded, _ = under("jpeg", seed)
    assert 2 / 255 < (coded - before).abs().mean() < 0.1
    square = torch.tensor([[[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0]]])
    smaller = CONDITIONS["smaller"].draw(stream(seed), 1, 1).quads(square)[0]
    assert 0.2 < area(smaller) / 81 < 0.4
    rotated = CONDITIONS["rotated"].draw(stream(seed), 1, 1).quads(square)[0]
    assert area(rotated) == pytest.approx(81, rel=1e-4)
    assert 15 <= math.degrees(math.atan2(*(rotated[1] - rotated[0]).flip(0).tolist())) <= 25
    tilted = CONDITIONS["tilted"].draw(stream(seed), 1, 1).quads(square)[0]
    assert ((tilted - square[0]).abs() >= 0.12 * 9 - 1e-4).all()
    texture = torch.rand(3, 30, 30, generator=stream(seed))
    printed = CONDITIONS["printed"].draw(stream(seed), 1, 1).surface(texture)
    assert printed.min() >= 0.03
    assert printed.max() <= 0.97
    assert printed.std() < texture.std()


def test_each_condition_is_one_part_alone():
    texture = torch.rand(3, 8, 8, generator=stream())
    images, _, pixel, owner, uv, seen, quads = scene()
    acts = {
        "quads": {"tilted", "rotated", "smaller"},
        "surface": {"printed"},
        "light": {"dark", "bright", "low-contrast", "gamma", "shadow"},
        "camera": {"blurred", "noise", "jpeg"},
    }
    for name, eot in CONDITIONS.items():
        draw = eot.draw(stream(1), K, N)
        assert (draw.quads(quads) is not quads) == (name in acts["quads"])
        assert (draw.surface(texture) is not texture) == (name in acts["surface"])
        assert (draw.light(seen, owner, uv) is not seen) == (name in acts["light"])
        assert (draw.camera(images, pixel) is not images) == (name in acts["camera"])


def test_a_surface_blurs_all_channels_and_prints_three():
    texture = torch.rand(4, 9, 9, generator=stream(), dtype=torch.float64)
    draw = EOT.only(blur_before=(1.0, 1.0)).draw(stream(), 1, 1)
    expected = ndimage.gaussian_filter(texture.numpy(), (0, 1, 1), mode="nearest", truncate=3)
    np.testing.assert_allclose(draw.surface(texture).numpy(), expected, atol=1e-12)
    assert torch.equal(CONDITIONS["printed"].draw(stream(), 1, 1).surface(texture)[3], texture[3])
