"""Placement of patches, held against computations that share no code with it."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import AuditError
from probes.geometry import POSITIONS, REMOVALS, Placement, place, uv_map

H, W = 24, 31


def integral(image, patch, square, part):
    """The placed patch by a loop over pixels and exact overlaps with every texel, in numpy."""
    out, (height, width) = image.copy(), image.shape[1:]
    texels, side = patch.shape[1], square[2] - square[0]
    edges = np.arange(texels)

    def weights(low, high, start):
        a, b = (low - start) / side * texels, (high - start) / side * texels
        return np.clip(np.minimum(edges + 1, b) - np.maximum(edges, a), 0, None)

    for y in range(height):
        for x in range(width):
            left, right = max(x, part[0]), min(x + 1, part[2])
            top, bottom = max(y, part[1]), min(y + 1, part[3])
            if right <= left or bottom <= top:
                continue
            wx, wy = weights(left, right, square[0]), weights(top, bottom, square[1])
            seen = np.einsum("cij,i,j->c", patch, wy, wx) / (wy.sum() * wx.sum())
            share = (right - left) * (bottom - top)
            out[:, y, x] = (1 - share) * image[:, y, x] + share * seen
    return out


def by_hand(box, position, alpha):
    """Corner and side of the patch from the paper's formulas, in plain Python."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    s = alpha * math.sqrt(w * h)
    top, middle, bottom = s / 2, h / 2, h - s / 2
    down = {
        "top": top,
        "upper": (top + middle) / 2,
        "center": middle,
        "lower": (middle + bottom) / 2,
        "bottom": bottom,
    }
    return x1 + w / 2 - s / 2, y1 + down[position] - s / 2, s


corner = st.floats(-12, 28, allow_nan=False)
side = st.floats(0.5, 30)
boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)
placements = st.builds(Placement, st.sampled_from(POSITIONS), st.floats(0.1, 1.6), st.sampled_from(REMOVALS))


def random_images(n, seed=0, dtype=torch.float64):
    return torch.rand(n, 3, H, W, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_patch(size, seed=1, dtype=torch.float64):
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.2])
def test_squares_follow_the_papers_formulas(position, alpha):
    box = [3.0, 5.0, 23.0, 50.0]
    x, y, s = by_hand(box, position, alpha)
    got = Placement(position, alpha).squares(torch.tensor([box], dtype=torch.float64))[0]
    assert got.tolist() == pytest.approx([x, y, x + s, y + s])


@pytest.mark.parametrize("remove", REMOVALS)
def test_parts_are_cut_from_the_named_side(remove):
    u1, v1, u2, v2 = Placement(remove=remove).part
    kept = (u2 - u1) * (v2 - v1)
    assert kept == pytest.approx({"n": 1, "h": 1 / 2, "t": 2 / 3}[remove[0]])
    gone = {"top": v1 > 0, "bottom": v2 < 1, "left": u1 > 0, "right": u2 < 1}
    assert [k for k, v in gone.items() if v] == ([] if remove == "none" else [remove.split("-")[1]])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"position": "left"}, "upper"), ({"remove": "all"}, "half-top"), ({"alpha": 0}, "above 0"), ({"alpha": 9}, "4")],
)
def test_bad_placements_say_what_is_possible(arguments, word):
    with pytest.raises(AuditError, match=word):
        Placement(**arguments)


@settings(max_examples=60, deadline=None)
@given(box=boxes, placement=placements, size=st.integers(1, 13), seed=st.integers(0, 99))
def test_equals_the_integral_computed_pixel_by_pixel(box, placement, size, seed):
    images, patch = random_images(1, seed), random_patch(size, seed)
    exact = torch.tensor([box], dtype=torch.float64)
    got = place(images, patch, uv_map([exact], placement, (H, W)))[0].numpy()
    square, part = placement.squares(exact)[0].tolist(), placement.regions(exact)[0].tolist()
    assert np.abs(got - integral(images[0].numpy(), patch.numpy(), square, part)).max() < 2e-6


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_equals_opencv_where_the_patch_shrinks_by_a_whole_factor(factor):
    s = 6
    patch = random_patch(s * factor, dtype=torch.float32)
    box = torch.tensor([[5.0, 4.0, 5.0 + 2 * s, 4.0 + 2 * s]])
    got = place(random_images(1, dtype=torch.float32), patch, uv_map([box], Placement("top", 0.5), (H, W)))
    small = cv2.resize(patch.permute(1, 2, 0).numpy(), (s, s), interpolation=cv2.INTER_AREA)
    x, y, _ = by_hand(box[0].tolist(), "top", 0.5)
    assert np.abs(got[0, :, int(y) : int(y) + s, int(x) : int(x) + s].permute(1, 2, 0).numpy() - small).max() < 1e-6


def test_single_precision_images_stay_within_a_tenth_of_a_grey_level():
    images, patch = random_images(2, dtype=torch.float32), random_patch(128, dtype=torch.float32)
    boxes = [torch.tensor([[1.3, 2.1, 20.7, 21.9]]), torch.tensor([[-4.0, 3.0, 28.0, 23.0]])]
    where = uv_map(boxes, Placement("center", 0.9), (H, W))
    exact = place(images.double(), patch.double(), where)
    assert (place(images, patch, where).double() - exact).abs().max() < 0.1 / 255


@settings(max_examples=60, deadline=None)
@given(lists=st.lists(st.lists(boxes, max_size=5), min_size=1, max_size=3), placement=placements)
def test_map_lists_each_pixel_once_with_honest_numbers(lists, placement):
    tensors = [torch.tensor(b, dtype=torch.float64).reshape(-1, 4) for b in lists]
    where = uv_map(tensors, placement, (H, W))
    assert where.shape == (len(lists), H, W)
    assert bool((where.pixel[1:] > where.pixel[:-1]).all())
    assert len(where) == 0 or (int(where.pixel.min()) >= 0 and int(where.pixel.max()) < len(lists) * H * W)
    assert bool(((where.coverage > 0) & (where.coverage <= 1 + 1e-9)).all())
    assert bool(((where.uv >= 0) & (where.uv <= 1)).all())
    u1, v1, u2, v2 = placement.part
    inside = (where.uv >= torch.tensor([u1, v1]) - 1e-9) & (where.uv <= torch.tensor([u2, v2]) + 1e-9)
    assert bool(inside.all())
    for n, b in enumerate(tensors):
        plane = where.pixel // (H * W)
        covered = float(where.coverage[plane == n].sum())
        frame = placement.regions(b)
        clipped = torch.stack([frame[:, 0::2].clamp(0, W), frame[:, 1::2].clamp(0, H)], -1)
        areas = (clipped[:, 1] - clipped[:, 0]).clamp(min=0).prod(1)
        assert covered <= float(areas.sum()) + 1e-4
        if len(b) == 1:
            assert covered == pytest.approx(float(areas.sum()), abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(lists=st.lists(st.lists(boxes, max_size=4), min_size=1, max_size=3), placement=placements)
def test_nothing_but_the_covered_pixels_changes_and_values_stay_between_their_sources(lists, placement):
    tensors = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in lists]
    images, patch = random_images(len(lists), dtype=torch.float32), random_patch(7, dtype=torch.float32)
    where = uv_map(tensors, placement, (H, W))
    out = place(images, patch, where)
    changed = (out != images).any(1).flatten().nonzero()[:, 0]
    assert set(changed.tolist()) <= set(where.pixel.tolist())
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    white = place(torch.ones_like(images), torch.ones_like(patch), where)
    assert torch.equal(white, torch.ones_like(images)), "white on white stays white to the last bit"


def test_an_image_does_not_depend_on_its_company():
    lists = [torch.rand(k, 4, generator=torch.Generator().manual_seed(k)) * 12 for k in (3, 0, 1, 6)]
    lists = [torch.cat([b[:, :2], b[:, :2] + 4 + b[:, 2:]], 1) for b in lists]
    images, patch, placement = random_images(4), random_patch(9), Placement("upper", 0.7)
    together = place(images, patch, uv_map(lists, placement, (H, W)))
    for i, b in enumerate(lists):
        alone = place(images[i : i + 1], patch, uv_map([b], placement, (H, W)))
        assert torch.equal(alone[0], together[i])
    assert torch.equal(together[1], images[1])


def test_where_patches_overlap_the_larger_owns_the_pixel_and_of_equals_the_later():
    placement = Placement("center", 1.0)
    large, small = [2.0, 2.0, 14.0, 14.0], [8.0, 8.0, 16.0, 16.0]
    images = torch.zeros(1, 3, H, W, dtype=torch.float64)
    for order in ([large, small], [small, large]):
        where = uv_map([torch.tensor(order)], placement, (H, W))
        at = (where.pixel == 10 * W + 10).nonzero()[0, 0]  # pixel (10, 10) lies in both
        assert where.uv[at].tolist() == pytest.approx([8.5 / 12, 8.5 / 12])
    twin = [4.0, 4.0, 16.0, 16.0]
    where = uv_map([torch.tensor([large, twin])], placement, (H, W))
    at = (where.pixel == 10 * W + 10).nonzero()[0, 0]
    assert where.uv[at].tolist() == pytest.approx([6.5 / 12, 6.5 / 12])
    assert place(images, random_patch(3), where).isfinite().all()


def test_level_of_detail_is_texels_per_pixel():
    box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    where = uv_map([box], Placement("center", 0.5), (H, W))
    assert where.level_of_detail(8).tolist() == pytest.approx([0.0] * len(where))
    assert where.level_of_detail(32).tolist() == pytest.approx([2.0] * len(where))


def test_no_box_at_all_changes_nothing_and_still_gives_a_gradient_of_zero():
    images, patch = random_images(2), random_patch(5).requires_grad_()
    where = uv_map([torch.zeros(0, 4), torch.zeros(0, 4)], Placement(), (H, W))
    assert len(where) == 0
    out = place(images, patch, where)
    assert torch.equal(out, images)
    out.sum().backward()
    assert patch.grad is not None
    assert patch.grad.abs().max() == 0


def test_boxes_without_area_or_outside_the_frame_place_nothing():
    odd = torch.tensor([[3.0, 3.0, 3.0, 9.0], [-30.0, 2.0, -10.0, 12.0], [5.0, 40.0, 15.0, 50.0]])
    assert len(uv_map([odd], Placement("center", 0.5), (H, W))) == 0


@pytest.mark.parametrize("size", [1, 4, 11])
@pytest.mark.parametrize("remove", ["none", "third-left"])
def test_gradients_in_patch_and_images(size, remove):
    lists = [torch.tensor([[2.2, 3.1, 9.7, 12.0], [6.0, 7.0, 15.0, 17.5]]), torch.tensor([[-3.0, -2.0, 8.0, 9.0]])]
    where = uv_map(lists, Placement("upper", 0.6, remove), (H, W))
    images, patch = random_images(2).requires_grad_(), random_patch(size).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, p: place(i, p, where), (images, patch), fast_mode=True)


def test_gradient_by_finite_differences_of_a_whole_loss():
    where = uv_map([torch.tensor([[4.0, 3.0, 24.0, 22.0]])], Placement("lower", 0.7), (H, W))
    images, patch = random_images(1), random_patch(6).requires_grad_()
    weight = torch.randn(1, 3, H, W, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(p):
        return float((place(images, p, where).square() * weight).sum())

    (gradient,) = torch.autograd.grad((place(images, patch, where).square() * weight).sum(), patch)
    for index in ((0, 0, 0), (1, 3, 2), (2, 5, 5)):
        step = torch.zeros_like(patch)
        step[index] = 1e-5
        slope = (loss(patch.detach() + step) - loss(patch.detach() - step)) / 2e-5
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_images_and_map_of_different_shapes_are_refused():
    where = uv_map([torch.tensor([[0.0, 0.0, 9.0, 9.0]])], Placement(), (H, W))
    with pytest.raises(ValueError, match="do not fit"):
        place(random_images(2), random_patch(4), where)


def test_works_under_inference_mode():
    where = uv_map([torch.tensor([[0.0, 0.0, 9.0, 9.0]])], Placement(), (H, W))
    with torch.inference_mode():
        inside = place(random_images(1), random_patch(4), where)
    assert torch.equal(inside, place(random_images(1), random_patch(4), where))
