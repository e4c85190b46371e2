"""Rules on patches, against scikit-image's own counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from audit.alignment import ARCFACE, Alignment
from audit.measures.face_rules import FACE_PX_PER_CM, WORN_CM2, FaceRules

PLAIN = torch.full((3, 112, 112), 100, dtype=torch.uint8)


def changed_where(mask, clean=PLAIN, by=1, channel=None):
    """The picture with the pixels of the mask changed, in all channels or in one alone."""
    out = clean.clone()
    at = torch.from_numpy(np.asarray(mask, dtype=bool))
    for c in range(3) if channel is None else [channel]:
        out[c][at] = out[c][at] + by
    return out


def first(pixels):
    """A mask of so many pixels in one region, row by row."""
    mask = np.zeros(112 * 112, bool)
    mask[:pixels] = True
    return mask.reshape(112, 112)


@st.composite
def masks(draw):
    """Speckle of any density with up to a dozen blocks: any number of regions and any area."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random((112, 112)) < draw(st.sampled_from([0, 0, 0.0005, 0.01, 0.1, 0.5, 1]))
    for _ in range(draw(st.integers(0, 12))):
        y, x, h, w = rng.integers(0, 112), rng.integers(0, 112), rng.integers(1, 40), rng.integers(1, 40)
        mask[y : y + h, x : x + w] = rng.random() < 0.8
    return mask


@settings(max_examples=150, deadline=None)
@given(masks(), st.sampled_from([8, 4]), st.sampled_from([None, 0, 1, 2]))
def test_any_mask_is_judged_as_scikit_image_judges_it(mask, connectivity, channel):
    found = FaceRules(connectivity=connectivity).check(PLAIN, changed_where(mask, channel=channel))
    labels = measure.label(mask, connectivity=2 if connectivity == 8 else 1)
    areas = [r.area for r in measure.regionprops(labels)]
    assert found.regions == len(areas)
    assert found.area == sum(areas)
    limits = {"regions": len(areas) > 5, "area": sum(areas) > 1254}
    broken = {name for name, over in limits.items() if over}
    assert {name for name, _ in found.broken} == broken
    assert found.ok is (not broken)


@pytest.mark.parametrize(("pixels", "ok"), [(0, True), (1254, True), (1255, False), (12544, False)])
def test_the_edge_of_the_area_is_exact(pixels, ok):
    found = FaceRules().check(PLAIN, changed_where(first(pixels)))
    assert (found.area, found.ok) == (pixels, ok)
    if not ok:
        assert found.sentences == (f"an area of {pixels} px, at most 1254 are allowed",)


def test_the_edge_holds_for_a_face_whose_scale_was_computed():
    """An aligned face is a photograph whose landmarks are the template: rounding of its scale must decide nothing."""
    scale = float(Alignment.by_landmarks(ARCFACE[None], (112, 112), (112, 112)).scale[0])
    clean = PLAIN[None].expand(2, -1, -1, -1)
    changed = torch.stack([changed_where(first(1254)), changed_where(first(1255))])
    broken = FaceRules().violations(clean, changed, torch.tensor([scale, scale]))
    assert [b.partition(":")[0] for b in broken] == ["picture 1"]
    assert [FaceRules().check(PLAIN, c, scale).ok for c in changed] == [True, False]
    for factor in (1 + 1e-7, 1 - 1e-7):
        whole = FaceRules(area=1.0).check(PLAIN, changed_where(first(12544)), factor)
        assert whole.ok, "all of the picture is no more than all of the picture"


@pytest.mark.parametrize(("blobs", "ok"), [(5, True), (6, False)])
def test_five_regions_pass_and_six_do_not(blobs, ok):
    mask = np.zeros((112, 112), bool)
    for i in range(blobs):
        mask[10, 10 * i : 10 * i + 5] = True
    assert FaceRules().check(PLAIN, changed_where(mask)).ok is ok


def test_corners_join_unless_told_otherwise():
    mask = np.eye(112, dtype=bool)
    assert FaceRules().check(PLAIN, changed_where(mask)).regions == 1
    assert FaceRules(connectivity=4).check(PLAIN, changed_where(mask)).regions == 112


def test_darker_pixels_and_wrapped_ones_count():
    """A difference of uint8 that is taken without care loses what is darker, or wraps round."""
    clean = torch.zeros(3, 112, 112, dtype=torch.uint8)
    clean[:, :56] = 255
    found = FaceRules(area=1.0).check(clean, 255 - clean)
    assert (found.regions, found.area) == (1, 12544)


@given(st.floats(0.2, 3), st.integers(0, 12544))
def test_area_scales_with_the_square(scale, pixels):
    found = FaceRules(area=0.25).check(PLAIN, changed_where(first(pixels)), scale)
    assert found.area == pytest.approx(pixels * scale * scale)
    assert found.share == pytest.approx(pixels * scale * scale / 12544)
    if abs(found.area - 3136) > 1:
        assert found.ok is (pixels * scale * scale <= 3136)


def test_a_worn_patch_is_limited_in_square_centimetres():
    """With 5 px per cm of the aligned face 60 cm² are 1500 px; the share's own limit is lifted here."""
    rules = FaceRules(area=1.0, cm2=WORN_CM2, px_per_cm=5.0)
    fine, large = (rules.check(PLAIN, changed_where(first(n))) for n in (1500, 1501))
    assert (fine.ok, fine.cm2) == (True, 60)
    assert large.sentences == ("an area of 60.04 cm², at most 60 are allowed",)
    photo = rules.check(PLAIN, changed_where(first(375)), 2.0)  # a px of the photograph is 2 px of the aligned face
    assert photo.cm2 == 60
    assert FaceRules().check(PLAIN, PLAIN).cm2 is None
    assert pytest.approx((73.5318 - 38.2946) / 6.3, abs=0.01) == FACE_PX_PER_CM


def test_violations_name_the_picture_and_every_rule():
    six = np.zeros((112, 112), bool)
    six[::20, :] = True
    six[::20, ::2] = True
    many = six.copy()
    many[1, :] = many[3:10, :] = many[21:30, :] = True
    clean = PLAIN[None].expand(3, -1, -1, -1)
    changed = torch.stack([changed_where(first(100)), changed_where(six), changed_where(many)])
    broken = FaceRules().violations(clean, changed)
    areas, counts = [int(m.sum()) for m in (six, many)], [int(measure.label(m).max()) for m in (six, many)]
    assert areas[0] <= 1254 < areas[1]
    assert broken == [
        f"picture 1: {counts[0]} connected regions, at most 5 are allowed",
        f"picture 2: {counts[1]} connected regions, at most 5 are allowed",
        f"picture 2: an area of {areas[1]} px, at most 1254 are allowed",
    ]
    assert FaceRules().violations(clean[:0], changed[:0]) == []


@pytest.mark.parametrize(
    ("clean", "changed", "scale"),
    [
        (PLAIN.float(), PLAIN.float(), 1.0),
        (PLAIN, PLAIN[:, :100], 1.0),
        (PLAIN[0], PLAIN[0], 1.0),
        (PLAIN, PLAIN, 0.0),
        (PLAIN, PLAIN, float("nan")),
    ],
)
def test_what_cannot_be_counted_is_refused(clean, changed, scale):
    with pytest.raises(ValueError, match="expected"):
        FaceRules().check(clean, changed, scale)


@pytest.mark.parametrize("wrong", [{"area": 0}, {"area": 1.1}, {"regions": -1}, {"connectivity": 6}, {"cm2": 0.0}])
def test_rules_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        FaceRules(**wrong)


def test_words_and_spec():
    rules = FaceRules(cm2=60.0, connectivity=4)
    assert rules.describe() == (
        "at most 5 connected regions (4 neighbours) of at most 10 % of the aligned face, at most 60 cm² in all"
    )
    assert FaceRules(**rules.spec()) == rules
