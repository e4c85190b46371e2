"""Patches in perspective, held against polygons clipped one by one and against what OpenCV draws."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit.errors import DataError
from probes import homography as overlaps_module
from probes.geometry import Placement, uv_map
from probes.perspective import QuadMap, homography, is_convex, quad_map
from probes.wear import Worn

H, W = 14, 17
SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)


def dlt(quad):
    """The map of the unit square to a quad, by solving the eight equations."""
    rows, values = [], []
    for (u, v), (x, y) in zip(SQUARE, quad, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        values += [x, y]
    return np.append(np.linalg.solve(rows, values), 1).reshape(3, 3)


def mapped(matrix, points):
    x, y, w = matrix @ np.c_[points, np.ones(len(points))].T
    return np.stack([x / w, y / w], 1)


def clipped(polygon, axis, bound, sign):
    """The part of a polygon with sign·coordinate <= sign·bound."""
    out = []
    for a, b in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
        da, db = sign * (a[axis] - bound), sign * (b[axis] - bound)
        if da <= 0:
            out.append(a)
        if da * db < 0:
            out.append(a + (b - a) * (da / (da - db)))
    return out


def moments(polygon):
    """Area and centre of a polygon."""
    if len(polygon) < 3:
        return 0.0, np.zeros(2)
    p = np.array(polygon)
    base = p[0]
    a, b = p - base, np.roll(p, -1, 0) - base
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    area = cross.sum() / 2
    return abs(area), base + ((a + b) * cross[:, None]).sum(0) / max(abs(6 * area), 1e-300) * np.sign(area)


def cells(polygon, size):
    """(y, x, area, centre) of the part of a polygon in every pixel that it touches."""
    p = np.array(polygon)
    low = np.clip(np.floor(p.min(0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(p.max(0)), 0, size[::-1]).astype(int)
    for y in range(low[1], high[1]):
        row = clipped(clipped(list(p), 1, y + 1, 1), 1, y, -1)
        for x in range(low[0], high[0]):
            area, centre = moments(clipped(clipped(row, 0, x + 1, 1), 0, x, -1))
            if area > 0:
                yield y, x, area, centre


def drawn(image, patch, quad):
    """The image with every texel's polygon clipped to every pixel; and the share of each pixel that is covered."""
    (_, rows, columns), matrix = patch.shape, dlt(quad)
    total, cover = np.zeros_like(image), np.zeros(image.shape[1:])
    for j in range(rows):
        for i in range(columns):
            polygon = mapped(matrix, (np.array([i, j]) + SQUARE) / [columns, rows])
            for y, x, area, _ in cells(polygon, image.shape[1:]):
                total[:, y, x] += area * patch[:, j, i]
                cover[y, x] += area
    return image * (1 - cover) + total, cover


def opencv(image, patch, quad, fine):
    """OpenCV's warp of the enlarged texels at ``fine`` times the size, averaged down; and the share covered."""
    (_, rows, columns), (_, height, width), k = patch.shape, image.shape, 8
    texture = np.dstack([patch.transpose(1, 2, 0), np.ones((rows, columns))]).repeat(k, 0).repeat(k, 1)
    corners = np.float32(SQUARE * [columns * k, rows * k] - 0.5)
    matrix = cv2.getPerspectiveTransform(corners, np.float32(quad * fine - 0.5))
    large = (width * fine, height * fine)
    warped = cv2.warpPerspective(texture.astype(np.float32), matrix, large, flags=cv2.INTER_NEAREST)
    small = cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    return image * (1 - small[3]) + small[:3], small[3]


def ordered(points, start, mirror):
    """Four points in turn around their middle."""
    around = points - points.mean(0)
    quad = np.roll(points[np.argsort(np.arctan2(around[:, 1], around[:, 0]))], start, 0)
    return quad[::-1].copy() if mirror else quad


@st.composite
def quads(draw):
    """Convex quads: of 2 px to many, rotated, sheared, in strong perspective, mirrored, partly outside.

    Points in turn on a circle are convex, and stay so under any homography whose horizon they lie before.
    """

    def number(low, high):
        return draw(st.floats(low, high))

    gaps = np.cumsum([number(1, 4) for _ in range(5)])
    angle = 2 * math.pi * gaps[:4] / gaps[3] + number(0, 6.3)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) @ [[1, 0], [number(-1, 1), number(0.2, 1)]]
    points /= 1 + number(-0.9, 0.9) * points[:, draw(st.integers(0, 1))][:, None] / np.abs(points).max()
    quad = (points - points.mean(0)) * draw(st.sampled_from([2, 4, 9, 16])) / np.ptp(points, 0).max()
    quad += np.array([number(-2, W + 2), number(-2, H + 2)])
    return quad[::-1].copy() if draw(st.booleans()) else quad


def random(seed, *shape):
    return np.random.default_rng(seed).uniform(0, 1, shape)


def one(quad, size=(H, W), **options):
    return quad_map([torch.as_tensor(quad)[None]], size, **options)


TILTED = np.array([[3.2, 1.7], [13.9, 4.1], [11.3, 12.6], [1.1, 9.4]])
# Twelve times as large at one end as at the other; the horizon runs just past the short side.
STEEP = np.array([[7.0, 2.0], [7.9, 2.1], [14.5, 12.7], [1.2, 11.8]])


@settings(max_examples=80, deadline=None)
@given(quads(), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_equals_texels_clipped_one_by_one(quad, rows, columns, seed):
    image, patch = random(seed, 3, H, W), random(seed + 1, 3, rows, columns)
    want, cover = drawn(image, patch, quad)
    where = one(quad)
    got = where.place(torch.tensor(image)[None], torch.tensor(patch))[0].numpy()
    assert np.abs(got - want).max() < 2e-6  # covers below 1e-6 are left out
    found = np.zeros(H * W)
    found[where.pixel] = where.coverage
    assert np.abs(found.reshape(H, W) - cover).max() < 2e-6
    assert (got[:, cover == 0] == image[:, cover == 0]).all()
    assert (np.diff(where.pixel) > 0).all()


@pytest.mark.parametrize(
    "quad",
    [TILTED, STEEP, TILTED[::-1].copy(), TILTED / 4 + 5, TILTED * 3 - 14, STEEP + 6.5, SQUARE * 5 + 4.0],
    ids=["tilted", "steep", "mirrored", "tiny", "magnified", "outside", "whole"],
)
@pytest.mark.parametrize("texels", [(1, 1), (6, 9), (40, 30)])
def test_opencv_agrees(quad, texels):
    image, patch = random(3, 3, H, W), random(4, 3, *texels)
    # The reference counts samples: small quads need more of them to be right to 1/255 themselves.
    want, cover = opencv(image, patch, quad, 64)
    got = one(quad).place(torch.tensor(image)[None], torch.tensor(patch))[0].numpy()
    assert np.abs(got - want)[:, cover > 0].mean() <= 1 / 255
    outside = drawn(image, patch[:, :1, :1], quad)[1] == 0
    assert (got[:, outside] == image[:, outside]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_opencv_agrees_on_large_quads_at_sixteen_times(seed):
    rng = np.random.default_rng(seed)
    quad = ordered(rng.uniform(-10, 58, (4, 2)), rng.integers(4), bool(rng.integers(2)))
    assume(bool(is_convex(torch.tensor(quad)[None])) and cv2.contourArea(np.float32(quad)) > 150)
    image, patch = random(seed, 3, 48, 48), random(seed + 1, 3, *rng.integers(4, 33, 2))
    want, cover = opencv(image, patch, quad, 16)
    # Where the reference itself still changes with the number of samples, it is not one.
    assume((cover > 0).sum() > 50 and np.abs(want - opencv(image, patch, quad, 8)[0])[:, cover > 0].mean() < 2 / 255)
    got = one(quad, (48, 48)).place(torch.tensor(image)[None], torch.tensor(patch))[0].numpy()
    assert np.abs(got - want)[:, cover > 0].mean() <= 1 / 255


def test_axis_aligned_squares_equal_the_patch_on_a_box():
    boxes = torch.tensor([[1.3, 2.1, 9.8, 11.7], [6.2, 3.3, 30.0, 13.1]], dtype=torch.float64)
    square = Placement().squares(boxes)
    quad = torch.stack([square[:, [0, 1]], square[:, [2, 1]], square[:, [2, 3]], square[:, [0, 3]]], 1)
    image, patch = torch.tensor(random(0, 1, 3, H, W)), torch.tensor(random(1, 3, 8, 8))
    there = uv_map([boxes], Placement(), (H, W))
    here = quad_map([quad], (H, W))
    assert torch.equal(here.pixel, there.pixel)
    assert torch.allclose(here.place(image, patch), there.place(image, patch), atol=1e-12)
    assert torch.allclose(here.uv, there.uv, atol=1e-12)
    protocol: Worn = here
    assert protocol.shape == (1, H, W)


@settings(max_examples=4, deadline=None)
@given(quads(), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_gradients_are_those_of_small_steps(quad, rows, columns, seed):
    where = one(quad)
    rng = np.random.default_rng(seed)

    def leaf(*shape):
        return torch.tensor(rng.uniform(0.2, 0.8, shape), requires_grad=True)

    image, patch, every = leaf(1, 2, H, W).detach(), leaf(2, rows, columns), leaf(len(where)).detach()
    # A few pixels stand for all, half of them covered: the map treats each on its own.
    covered = torch.tensor(rng.permutation(len(where))[:6])
    at = torch.cat([where.pixel[covered], torch.tensor(rng.integers(0, H * W, 6))]).unique()
    few, opacity = image.flatten(2)[:, :, at].requires_grad_(), leaf(len(covered))

    def finished(few, patch, opacity):
        full = image.flatten(2).index_copy(2, at, few).view_as(image)
        return where.write(full, where.read(patch), every.index_copy(0, covered, opacity)).flatten(2)[:, :, at]

    assert torch.autograd.gradcheck(lambda patch: where.read(patch)[covered], (patch,))
    assert torch.autograd.gradcheck(finished, (few, patch, opacity))


def test_gradients_are_the_same_on_every_run():
    where = quad_map([torch.tensor(np.stack([TILTED, STEEP])), torch.tensor(TILTED)[None]], (H, W))
    image, grads = torch.rand(2, 3, H, W), []
    for _ in range(3):
        patch = torch.full((3, 13, 11), 0.5, requires_grad=True)
        where.place(image, patch).square().sum().backward()
        grads.append(patch.grad)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])
    assert grads[0].abs().min() > 0


def test_masks_are_read_and_written():
    where, image = one(TILTED), torch.tensor(random(0, 1, 3, H, W))
    patch, mask = torch.tensor(random(1, 3, 6, 5)), torch.ones(1, 6, 5, dtype=torch.float64)
    mask[:, :3] = 0
    read = where.read(torch.cat([patch * mask, mask]))
    opacity = read[:, 3]
    got = where.write(image, read[:, :3] / opacity.clamp(min=1e-9)[:, None], opacity)
    # The lower half alone, on the lower half of the quad.
    half = mapped(dlt(TILTED), np.array([[0, 0.5], [1, 0.5], [1, 1], [0, 1]]))
    want, cover = drawn(image[0].numpy(), patch[:, 3:].numpy(), half)
    assert np.abs(got[0].numpy() - want).max() < 2e-6
    assert 0 < (cover > 0).sum() < len(where)


def test_ragged_batches_equal_images_one_by_one():
    none, nan = torch.zeros(0, 4, 2), torch.full((1, 4, 2), torch.nan)
    partly = torch.tensor(STEEP)[None].clone()
    partly[0, 2, 1] = torch.nan
    tilted, steep = torch.tensor(TILTED)[None], torch.tensor(STEEP)[None]
    batch = [none, torch.cat([nan, tilted]), partly, torch.cat([steep, tilted / 3, nan]), steep - 100]
    images, patch = torch.rand(5, 3, H, W), torch.rand(3, 9, 9)
    where = quad_map(batch, (H, W))
    whole = where.place(images, patch)
    for k, each in enumerate(batch):
        alone = quad_map([each], (H, W))
        assert torch.equal(whole[k : k + 1], alone.place(images[k : k + 1], patch))
        assert (len(alone) > 0) == (k in {1, 3})
    assert torch.equal(whole[[0, 2, 4]], images[[0, 2, 4]])
    assert sorted(set(where.owner.tolist())) == [1, 3, 4]
    assert set((where.pixel[where.owner == 1] // (H * W)).tolist()) == {1}


@pytest.mark.parametrize("batch", [[], [torch.zeros(0, 4, 2)], [torch.full((3, 4, 2), torch.nan)]])
def test_a_batch_without_quads_is_left_alone(batch):
    where = quad_map(batch, (H, W))
    images, patch = torch.rand(len(batch), 3, H, W), torch.rand(3, 4, 4, requires_grad=True)
    assert len(where) == 0
    assert where.read(patch).shape == (0, 3)
    placed = where.place(images, patch)
    assert torch.equal(placed, images)
    placed.sum().backward()
    assert torch.equal(patch.grad, torch.zeros_like(patch))


def test_the_larger_quad_owns_what_both_cover():
    small, large = TILTED / 2 + 4, TILTED
    image, patch = torch.rand(1, 3, H, W), torch.rand(3, 4, 4)
    for order in ([small, large], [large, small]):
        where = quad_map([torch.tensor(np.stack(order))], (H, W))
        big = 0 if order[0] is large else 1
        alone = one(large)
        at = torch.isin(where.pixel, alone.pixel)
        assert set(where.owner[at].tolist()) == {big}
        got, want = where.place(image, patch).flatten(2), alone.place(image, patch).flatten(2)
        assert torch.equal(got[:, :, alone.pixel], want[:, :, alone.pixel])
    twice = quad_map([torch.tensor(np.stack([large, large]))], (H, W))
    assert set(twice.owner.tolist()) == {1}


def test_what_hides_the_patch_takes_its_share():
    hidden = torch.zeros(H, W)
    hidden[:6], hidden[6] = 1, 0.25
    image, patch = torch.rand(2, 3, H, W), torch.rand(3, 5, 5)
    quad = torch.tensor(TILTED)[None]
    free = quad_map([quad, quad], (H, W))
    where = quad_map([quad, quad], (H, W), hidden=[None, hidden])
    want = free.place(image, patch)
    want[1] = hidden * image[1] + (1 - hidden) * want[1]
    assert torch.allclose(where.place(image, patch), want, atol=1e-6)
    assert int((where.pixel - H * W).ge(0).sum()) < len(free) // 2
    assert torch.equal(where.pixel[where.pixel < H * W], free.pixel[free.pixel < H * W])
    line = where.pixel // W == H + 6
    assert torch.allclose(where.coverage[line], 0.75 * where.within[line])


@settings(max_examples=20, deadline=None)
@given(quads())
def test_uv_is_the_middle_of_what_each_pixel_sees(quad):
    where, back = one(quad), np.linalg.inv(dlt(quad))
    seen = {y * W + x: (area, centre) for y, x, area, centre in cells(quad, (H, W)) if area > 1e-3}
    for pixel, uv in zip(where.pixel.tolist(), where.uv.numpy(), strict=True):
        assert (uv >= 0).all()
        assert (uv <= 1).all()
        if pixel in seen:
            assert np.allclose(uv, mapped(back, seen[pixel][1][None])[0], atol=1e-6)


def test_a_mirrored_quad_shows_the_mirrored_patch():
    image, patch = torch.rand(1, 3, H, W, dtype=torch.float64), torch.rand(3, 4, 6, dtype=torch.float64)
    straight = one(STEEP).place(image, patch)
    turned = one(STEEP[[1, 0, 3, 2]]).place(image, patch.flip(2))
    assert torch.allclose(straight, turned, atol=1e-12)
    assert not torch.allclose(straight, one(STEEP[[1, 0, 3, 2]]).place(image, patch), atol=1e-2)


@settings(max_examples=20, deadline=None)
@given(quads(), quads())
def test_homographies_take_corners_to_corners(src, dst):
    h = homography(torch.tensor(src)[None], torch.tensor(dst)[None])[0].numpy()
    assert np.allclose(mapped(h, src), dst, atol=1e-6)
    unit = homography(torch.tensor(SQUARE)[None], torch.tensor(dst)[None])[0].numpy()
    assert math.isclose(unit[2, 2], 1, rel_tol=1e-12)
    assert np.allclose(unit, dlt(dst), rtol=1e-6, atol=1e-6 * np.abs(unit).max())


BAD = {
    "crossed": TILTED[[0, 2, 1, 3]],
    "dented": np.array([[0, 0], [8, 0], [2, 2], [0, 8]], float),
    "on a line": np.array([[0, 0], [4, 0], [8, 0], [0, 8]], float),
    "a point": np.full((4, 2), 3.0),
    "infinite": np.array([[0, 0], [np.inf, 0], [8, 8], [0, 8]]),
}


@pytest.mark.parametrize("quad", BAD.values(), ids=BAD)
def test_quads_that_are_none_are_refused(quad):
    assert not is_convex(torch.tensor(quad)[None]).item()
    with pytest.raises(DataError, match=r"area 1 of image 1 .*expected the corners of a convex quad"):
        quad_map([torch.tensor(TILTED)[None], torch.tensor(np.stack([TILTED, quad]))], (H, W))


def test_convex_either_way_round_and_never_with_nan():
    both = torch.tensor(np.stack([TILTED, TILTED[::-1], STEEP, np.full((4, 2), np.nan)]))
    assert is_convex(both).tolist() == [True, True, True, False]
    assert is_convex(both.float()).tolist() == [True, True, True, False]


def test_lots_of_any_size_give_the_same_map(monkeypatch):
    whole = one(TILTED).for_texels(9, 8)
    monkeypatch.setattr(overlaps_module, "_PIECES", {"cpu": 16})
    split = one(TILTED).for_texels(9, 8)
    assert torch.equal(whole.share, split.share)
    assert torch.equal(whole.texel, split.texel)
    assert torch.equal(whole.first, split.first)


def test_colours_that_do_not_fit_are_refused():
    where = one(TILTED)
    assert isinstance(where, QuadMap)
    with pytest.raises(ValueError, match="do not fit"):
        where.place(torch.rand(2, 3, H, W), torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="do not fit"):
        where.write(torch.rand(1, 3, H, W), torch.rand(len(where), 3), torch.rand(3))
