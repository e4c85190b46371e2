"""The constraint check finds every planted violation and accepts every honest patch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import probes.constraints
from probes.constraints import PatchConstraint
from probes.geometry import POSITIONS, REMOVALS, Placement, place, uv_map

H, W = 40, 50
BOXES = [torch.tensor([[6.3, 4.2, 26.9, 30.1], [30.0, 10.0, 48.0, 34.0]]), torch.zeros(0, 4)]


def images(seed=0):
    return torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(seed))


def patched(placement=None, seed=0):
    placement = placement or Placement()
    patch = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed + 1))
    return place(images(seed), patch, uv_map(BOXES, placement, (H, W)))


def test_shares_no_code_with_the_placement():
    tree = ast.parse(Path(probes.constraints.__file__).read_text())
    imported = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    imported += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert not [m for m in imported if m.startswith("probes")]


corner = st.floats(-15, 45, width=32)
side = st.floats(1, 40, width=32)
boxes = st.lists(st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side), max_size=5)


@settings(max_examples=120, deadline=None)
@given(
    lists=st.tuples(boxes, boxes),
    position=st.sampled_from(POSITIONS),
    alpha=st.floats(0.1, 1.5),
    remove=st.sampled_from(REMOVALS),
    seed=st.integers(0, 9),
)
def test_accepts_what_the_geometry_places(lists, position, alpha, remove, seed):
    tensors = [torch.tensor(b).reshape(-1, 4) for b in lists]
    patch = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    changed = place(images(), patch, uv_map(tensors, Placement(position, alpha, remove), (H, W)))
    assert PatchConstraint(position, alpha, remove).violations(images(), changed, tensors) == []


def test_a_patch_of_the_images_own_colour_is_no_violation():
    grey = torch.full((2, 3, H, W), 0.5)
    patch = torch.full((3, 6, 6), 0.5)
    patch[:, 2] = 1.0
    patch[:, 4] = 0.0  # two lines of change with untouched lines between them
    changed = place(grey, patch, uv_map(BOXES, Placement(), (H, W)))
    assert PatchConstraint().violations(grey, changed, BOXES) == []


def only(found, words):
    assert len(found) >= 1
    assert any(words in text for text in found), found


def test_finds_a_leak_of_one_pixel_and_says_where():
    changed = patched()
    changed[1, 0, 7, 9] += 1e-3 if changed[1, 0, 7, 9] < 0.5 else -1e-3
    only(
        PatchConstraint().violations(images(), changed, BOXES), "image 1: 1 pixels outside the patch differ, the first"
    )
    only(PatchConstraint().violations(images(), changed, BOXES), "x=9, y=7")


def test_finds_a_leak_just_beside_the_edge():
    placement = Placement("center", 0.5)
    x1, y1, _, _ = placement.squares(BOXES[0])[0].tolist()
    changed = patched(placement)
    changed[0, :, int(y1) + 2, int(x1) - 1] = 0
    only(PatchConstraint("center").violations(images(), changed, BOXES), "outside the patch")


@pytest.mark.parametrize("value", [1.01, -0.01])
def test_finds_values_out_of_range(value):
    changed = patched()
    changed[0, 1, 8, 16] = value
    only(PatchConstraint().violations(images(), changed, BOXES), "outside [0, 1]")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_finds_values_that_are_not_finite(value):
    changed = patched()
    changed[0, 1, 8, 16] = value
    only(PatchConstraint().violations(images(), changed, BOXES), "not finite")


def test_finds_a_patch_that_is_too_large():
    found = PatchConstraint("top", 0.4).violations(images(), patched(Placement("top", 0.6)), BOXES)
    only(found, "pixels differ where the declared patch reaches")
    only(found, "outside the patch")


def test_finds_a_patch_at_the_wrong_place():
    only(PatchConstraint("top").violations(images(), patched(Placement("bottom")), BOXES), "outside the patch")


def test_finds_a_part_that_was_not_removed():
    found = PatchConstraint("top", 0.5, "half-left").violations(images(), patched(Placement("top", 0.5)), BOXES)
    only(found, "outside the patch")


def test_finds_more_regions_than_boxes():
    changed = patched()
    changed[1, :, 2:4, 2:4] = 1 - changed[1, :, 2:4, 2:4]
    only(
        PatchConstraint().violations(images(), changed, BOXES), "image 1: the changed pixels form 1 regions for 0 boxes"
    )


def test_finds_a_changed_shape_and_missing_boxes():
    only(PatchConstraint().violations(images(), patched()[:, :, 1:], BOXES), "expected patched images of shape")
    only(PatchConstraint().violations(images(), patched(), BOXES[:1]), "1 lists")


@pytest.mark.parametrize("remove", ["none", "third-top"])
def test_says_in_words_what_it_allows(remove):
    text = PatchConstraint("lower", 0.35, remove).describe()
    assert "0.35" in text
    assert "lower" in text
    assert ("third top" in text) == (remove != "none")
