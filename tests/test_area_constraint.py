"""The rules of a patch on an area, checked without the code that places it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.contracts import Areas
from probes.area_constraint import AreaConstraint
from probes.areas import AreaPlacement

SIZE = (60, 90)
BOX = [torch.tensor([[10.0, 8.0, 70.0, 52.0]])]


def clean(seed=0):
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 0.5


def placed(placement, boxes=BOX, areas=None, value=1.0, seed=0):
    images = clean(seed)
    return placement.prepare(images, boxes, areas).place(images, torch.full((3, 8, 8), value))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1), st.floats(0.3, 3), st.tuples(st.floats(0, 1), st.floats(0, 1)), st.integers(0, 5))
def test_what_the_placement_does_is_allowed(share, aspect, at, seed):
    placement = AreaPlacement(share, aspect, at)
    assert placement.constraint((8, 8)).violations(clean(seed), placed(placement, seed=seed), BOX) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8), st.integers(0, 20))
def test_random_quads_and_masks_are_allowed(moves, seed):
    quad = torch.tensor([[20.0, 10.0], [70.0, 10.0], [70.0, 50.0], [20.0, 50.0]])
    quad = quad + torch.tensor(moves).view(4, 2) * 40
    areas = [Areas(quad[None])]
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(seed)) > 0.6
    placement = AreaPlacement() if not mask.any() else AreaPlacement().with_mask(mask)
    assert placement.constraint((8, 8)).violations(clean(), placed(placement, areas=areas), BOX, areas) == []


def test_a_pixel_outside_the_area_is_named():
    changed = placed(AreaPlacement())
    changed[0, 0, 3, 5] += 0.1
    found = AreaConstraint().violations(clean(), changed, BOX)
    assert any("1 pixels outside the area differ, the first at x=5, y=3" in f for f in found)


def test_a_larger_canvas_than_declared_is_found():
    found = AreaConstraint(share=0.1).violations(clean(), placed(AreaPlacement(share=0.3)), BOX)
    assert any("outside the area" in f for f in found)
    assert any("pixels differ where the declared area reaches" in f for f in found)


def test_more_than_the_mask_is_found():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:2, :2] = True
    declared = AreaPlacement(share=0.6).with_mask(mask).constraint((8, 8))
    found = declared.violations(clean(), placed(AreaPlacement(share=0.6)), BOX)
    assert any("pixels differ where the declared area reaches" in f for f in found)


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "not finite"), (1.5, "outside [0, 1]")])
def test_values_that_are_none_are_found(value, said):
    changed = placed(AreaPlacement())
    changed[0, 1, 30, 40] = value
    assert any(said in f for f in AreaConstraint().violations(clean(), changed, BOX))


def test_shapes_must_be_those_of_the_clean_images():
    (said,) = AreaConstraint().violations(clean(), placed(AreaPlacement())[:, :, 1:], BOX)
    assert said.startswith("expected patched images of shape")


def test_it_says_what_it_allows():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[3, 3] = True
    text = AreaConstraint(0.2, mask=mask, slack=0.1, reach=2).describe()
    assert "20% of its box" in text
    assert "2 region(s)" in text
    assert "2 px" in text


def test_a_print_outside_the_mask_is_found():
    """In the wrong half of the canvas, and as many spots where one was declared."""
    left, spots = torch.zeros(8, 8, dtype=torch.bool), torch.zeros(9, 9, dtype=torch.bool)
    left[:, :4] = True
    spots[::4, ::4] = True
    area = AreaPlacement(share=0.6)
    declared = area.with_mask(left).constraint((8, 8))
    assert declared.violations(clean(), placed(area.with_mask(left)), BOX) == []
    for other in (~left, spots):
        found = declared.violations(clean(), placed(area.with_mask(other)), BOX)
        assert any("outside the area" in f for f in found)


@pytest.mark.parametrize("side", [3, 40])
def test_masks_finer_and_coarser_than_pixels_are_allowed_as_they_are_placed(side):
    mask = torch.rand(side, side, generator=torch.Generator().manual_seed(side)) > 0.7
    area = AreaPlacement(share=0.3).with_mask(mask)
    assert area.constraint((8, 8)).violations(clean(), placed(area), BOX) == []
