"""Forgeries made from real faces: what they promise, against plain computations."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage
from scipy.spatial import ConvexHull
from skimage.color import rgb2lab
from skimage.metrics import peak_signal_noise_ratio
from torch.nn import functional as F

from audit.alignment import ARCFACE
from audit.errors import AuditError, DataError
from probes.forgery import blending, swapping
from probes.forgery.blending import RATIOS, Pieces, SelfBlended
from probes.forgery.face_geometry import (
    INNER,
    OUTLINE,
    PARTS,
    SQUARE,
    carried,
    filled,
    from_template,
    part_of,
    region,
    unlocated,
    usual_place,
)
from probes.forgery.forgers import FORGERS
from probes.forgery.inpainting import InpaintedPart
from probes.forgery.per_face import stream
from probes.forgery.spectrum import BINS, HIGHEST, ResidueSpectrum, SpectralNoise, radial_power
from probes.forgery.swapping import SwappedFace, swapped
from probes.forgery.upsampling import Upsampled, transposed, uneven_kernel
from probes.forgery.warping import SIDES, WarpedFace

UNSEEDED = {"up-sampled, nearest", "up-sampled, bilinear", "swapped face"}
every = pytest.mark.parametrize("name", FORGERS)


def pictures(count, height=64, width=64, seed=0):
    """Smooth colour with fine grain, as photographs have: (count, 3, H, W) uint8."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = cv2.resize(rng.uniform(60, 200, (6, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        made.append(np.clip(coarse + rng.normal(0, 5, (height, width, 3)), 0, 255).round().astype(np.uint8))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def placed(count, height=64, width=64, seed=0):
    """Landmarks (count, 5, 2) a little off their usual place, each otherwise."""
    rng = np.random.default_rng(seed)
    shifts = rng.normal(0, 0.02 * min(height, width), (count, 5, 2))
    return torch.from_numpy(usual_place((height, width)) + shifts).float()


def frame(face):
    return face.permute(1, 2, 0).numpy()


def forged(name, faces, landmarks=None, ids=None, seed=0, others=None):
    others = pictures(5, *faces.shape[2:], seed=99) if others is None else others
    ids = [f"face {i}" for i in range(len(faces))] if ids is None else ids
    there = placed(len(others), *others.shape[2:], seed=98)
    return FORGERS[name]().forge(faces, landmarks, others, there, ids=ids, seed=seed)


# What all of them promise.


@every
def test_each_says_what_it_is(name):
    made = FORGERS[name]()
    assert made.name == name
    assert json.loads(json.dumps(made.spec())) == made.spec()
    assert made.imitates, made.lacks
    assert made.refs
    assert made == FORGERS[name]()
    with pytest.raises(AttributeError):
        made.other = 1


def test_no_two_have_one_spec():
    assert len({json.dumps(make().spec(), sort_keys=True) for make in FORGERS.values()}) == len(FORGERS)


@every
def test_same_seed_same_bytes_whatever_the_order_and_the_batch(name):
    faces, there, ids = pictures(4), placed(4), ["a", "b", "c", "d"]
    before, where = faces.clone(), there.clone()
    whole = forged(name, faces, there, ids, seed=3)
    assert torch.equal(faces, before), "the real faces were changed"
    assert torch.equal(there, where)
    assert whole.dtype == torch.uint8
    assert whole.shape == faces.shape
    assert torch.equal(whole, forged(name, faces, there, ids, seed=3))
    turned = [2, 0, 3, 1]
    assert torch.equal(whole[turned], forged(name, faces[turned], there[turned], [ids[i] for i in turned], seed=3))
    for i in range(4):
        assert torch.equal(whole[i : i + 1], forged(name, faces[i : i + 1], there[i : i + 1], [ids[i]], seed=3))
        assert not torch.equal(whole[i], faces[i]), "a forgery that equals its face"


@every
def test_seed_and_name_of_the_image_decide_what_is_drawn(name):
    faces = pictures(1).expand(6, -1, -1, -1)
    ids = list("abcdef")
    first, second = forged(name, faces, None, ids, seed=1), forged(name, faces, None, ids, seed=2)
    if name in UNSEEDED:
        return
    assert not torch.equal(first, second)
    assert len({bytes(f.numpy()) for f in first}) > 1, "one face under six names"


def test_what_has_no_choice_does_not_depend_on_the_seed():
    for name in UNSEEDED:
        faces, there = pictures(2), placed(2)
        assert torch.equal(forged(name, faces, there, seed=1), forged(name, faces, there, seed=2))


@settings(max_examples=6, deadline=None)
@given(st.integers(32, 90), st.integers(32, 90), st.integers(0, 2**20), st.booleans())
@every
def test_any_size(name, height, width, seed, located):
    faces = pictures(1, height, width, seed)
    out = forged(name, faces, placed(1, height, width, seed) if located else None, seed=seed)
    assert out.shape == faces.shape
    assert out.dtype == torch.uint8
    assert not torch.equal(out, faces)


@every
def test_no_faces_give_none(name):
    assert forged(name, pictures(1)[:0]).shape == (0, 3, 64, 64)


@every
def test_a_face_without_landmarks_is_taken_to_lie_in_the_usual_place(name):
    faces, there = pictures(2), placed(2)
    there[0] = math.nan
    assert unlocated(there, 2).tolist() == [True, False]
    assert unlocated(None, 2).tolist() == [True, True]
    usual = torch.from_numpy(usual_place((64, 64)))
    explicit = torch.stack([usual, there[1].double()])
    assert torch.equal(forged(name, faces, there), forged(name, faces, explicit))
    assert torch.equal(forged(name, faces), forged(name, faces, usual.expand(2, 5, 2)))


@every
def test_wrong_faces_names_or_landmarks(name):
    faces = pictures(2)
    for wrong in (faces.float(), faces[:, :1], faces[0], faces[:, :, :8]):
        with pytest.raises(DataError, match=r"faces to forge: expected uint8 \(N, 3, H, W\)"):
            FORGERS[name]().forge(wrong, None, faces, None, ids=["a", "b"], seed=0)
    with pytest.raises(DataError, match="expected 2 names, got 1"):
        FORGERS[name]().forge(faces, None, faces, None, ids=["a"], seed=0)
    with pytest.raises(DataError, match=r"expected shape \(2, 5, 2\), got \(1, 5, 2\)"):
        forged(name, faces, placed(1))


@pytest.mark.parametrize("name", ["self-blended", "warped face", "swapped face", "inpainted part"])
def test_a_face_outside_of_its_picture_is_no_forgery(name):
    with pytest.raises(DataError, match="expected a face within the picture"):
        forged(name, pictures(1), placed(1) + 500)


# Where the face is.


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(10, 40), st.integers(10, 40))
def test_outlines_are_filled_as_scipy_says_what_is_inside(seed, height, width):
    points = np.random.default_rng(seed).uniform(-5, 45, (9, 2))
    hull = ConvexHull(points)
    outline = points[hull.vertices]  # counter-clockwise with y up: clockwise as one sees it with y down
    y, x = np.mgrid[:height, :width]
    inside = (hull.equations[:, :2] @ np.stack([x.ravel(), y.ravel()]) + hull.equations[:, 2:]).max(0) <= 0
    assert np.array_equal(filled(outline, (height, width)), inside.reshape(height, width))


@pytest.mark.parametrize("shape", [OUTLINE, INNER, SQUARE])
def test_outlines_go_round_clockwise_and_bulge_everywhere(shape):
    edges = np.roll(shape, -1, 0) - shape
    following = np.roll(edges, -1, 0)
    assert (edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] >= 0).all()
    assert (SQUARE.min(0) <= INNER).all()
    assert (SQUARE.max(0) >= INNER).all()


def test_the_face_turns_and_grows_with_its_landmarks():
    angle, scale, shift = 0.3, 2.1, np.array([40.0, 7.0])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = ARCFACE.double().numpy() @ turn.T + shift
    assert np.allclose(from_template(points), np.column_stack([turn, shift]), atol=1e-6)
    assert np.allclose(carried(from_template(points), SQUARE), SQUARE @ turn.T + shift, atol=1e-4)
    mask = region(SQUARE, points, (400, 400))
    assert mask.sum() == pytest.approx((68 * scale) ** 2, rel=0.01)


def test_parts_are_ellipses_around_the_landmarks():
    points = ARCFACE.double().numpy()
    y, x = np.mgrid[:112, :112]

    def ellipse(centre, a, b):
        return ((x - centre[0]) / a) ** 2 + ((y - centre[1]) / b) ** 2

    mouth = (points[3] + points[4]) / 2
    plain = {
        "eyes": np.minimum(ellipse(points[0], 13, 8), ellipse(points[1], 13, 8)),
        "nose": ellipse(points[2], 11, 16),
        "mouth": ellipse(mouth, 22, 11),
    }
    for part in PARTS:
        mask = part_of(part, points, (112, 112))
        assert mask[plain[part] < 0.95].all()
        assert not mask[plain[part] > 1.01].any()


@pytest.mark.parametrize("size", [(130, 130), (260, 390)])
def test_the_usual_place_is_the_template_in_the_box_of_the_face(size):
    box = min(size) / 1.3
    corner = np.array([size[1] / 2 - box / 2, size[0] / 2 - box / 2]) - 0.5
    plain = corner + box / 112 * (ARCFACE.double().numpy() - [0, 8])
    assert np.allclose(usual_place(size), plain)


# Self-blended images.


def some_pieces(count=24, size=96):
    face, points = frame(pictures(1, size, size)[0]), usual_place((size, size))
    return face, [SelfBlended().pieces(face, points, stream(0, "self-blended", str(i))) for i in range(count)]


def test_blending_is_the_formula():
    face, pieces = some_pieces(3, 32)
    for p in pieces:
        out = p.blended()
        for y, x, c in np.ndindex(*face.shape):
            m = float(p.mask[y, x])
            assert abs(float(out[y, x, c]) - (m * p.source[y, x, c] + (1 - m) * p.target[y, x, c])) <= 0.5 + 1e-4
    half = Pieces(
        np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 51, np.uint8), np.float32([[0, 0.5], [1, 0.25]])
    )
    assert half.blended()[..., 0].tolist() == [[51, 76], [100, 63]]


def test_self_blended_faces_change_one_side_and_the_target_shows_outside_of_the_mask():
    face, pieces = some_pieces()
    for p in pieces:
        assert np.array_equal(p.blended()[p.mask == 0], p.target[p.mask == 0])
        assert (p.mask == 0).mean() > 0.1
    same = [np.array_equal(p.target, face) for p in pieces]
    assert 0.2 < np.mean(same) < 0.8, "the side that is changed is drawn evenly"


def test_the_mask_is_soft_lies_on_the_face_and_is_as_high_as_its_ratio():
    _, pieces = some_pieces(40)
    tops = [float(p.mask.max()) for p in pieces]
    assert {round(t, 5) for t in tops} == set(RATIOS)
    wide = cv2.dilate(region(OUTLINE, usual_place((96, 96)), (96, 96)).astype(np.uint8), np.ones((23, 23))) > 0
    for p, top in zip(pieces, tops, strict=True):
        assert p.mask.min() >= 0
        assert p.mask.sum() > 0.95 * (p.mask * wide).sum() > 0
        assert (p.mask[~wide] < 0.1 * top).all()
        steps = max(np.abs(np.diff(p.mask, axis=a)).max() for a in (0, 1))
        assert steps < 0.75 * top, "an edge without blending"


def test_a_side_is_shifted_and_scaled_about_the_middle():
    moves = np.stack([blending._affine(101, 201, stream(0, "", str(i))) for i in range(300)])
    scales, middles = moves[:, 0, 0], moves[:, :, :2] @ [100, 50] + moves[:, :, 2] - [100, 50]
    assert np.array_equal(moves[:, :, :2], scales[:, None, None] * np.eye(2))
    assert 0.95 <= scales.min() < 0.96 < 1.04 < scales.max() <= 1 / 0.95
    for axis, limit in ((0, 0.03 * 201), (1, 0.015 * 101)):
        assert 0.9 * limit < np.abs(middles[:, axis]).max() <= limit
        assert middles[:, axis].min() < 0 < middles[:, axis].max()


@pytest.mark.parametrize("size", [112, 224])
def test_the_mask_is_bent_as_much_as_published(size):
    """A ramp that is bent shows how far: uniform noise of spread 1/√3, smoothed by σ (1 / (2 √π σ)), times α."""
    ramp = np.tile(np.arange(size, dtype=np.float32), (size, 1))
    edge = size // 8
    away = np.concatenate([
        (blending._bent(ramp, stream(0, "", str(i))) - ramp)[edge:-edge, edge:-edge].ravel() for i in range(6)
    ])  # fmt: skip
    wanted = 50 / math.sqrt(3) / (2 * math.sqrt(math.pi) * 7) * size / 224
    assert away.std() == pytest.approx(wanted, rel=0.15)


def test_the_mask_is_bent_before_it_is_softened(monkeypatch):
    monkeypatch.setattr(blending, "_bent", lambda mask, draw: mask * 0)
    _, pieces = some_pieces(2)
    assert all(p.mask.max() == 0 for p in pieces)


def test_tone_is_shifted_within_its_ranges_and_grain_coarsened_or_sharpened():
    flat = np.full((32, 32, 3), 100, np.uint8)
    drawn = np.stack([blending._toned(flat, stream(0, "", str(i)))[5, 5] for i in range(200)]).astype(int)
    # brightness ±25.5, contrast ±10, a channel ±20 in 3 of 10; sharpening takes up to a quarter of the light
    assert drawn.max() <= 100 * 1.1 + 20 * 1.1 + 25.5 + 1
    assert drawn.min() >= (100 * 0.9 - 20 * 1.1 - 25.5) * 0.75 - 1
    assert 92 < drawn.mean() < 99, "of sharpening's light a tenth is lost on the average, and nothing else"
    coloured = (drawn.max(1) - drawn.min(1)) > 1
    assert 0.2 < coloured.mean() < 0.4
    grain = frame(pictures(1)[0])

    def sharpness(picture):
        return cv2.Laplacian(picture.astype(np.float32), -1).std()

    before = sharpness(grain)
    after = [sharpness(blending._toned(grain, stream(0, "", str(i)))) for i in range(40)]
    assert 0.2 < np.mean(np.array(after) < 0.6 * before) < 0.8
    assert 0.2 < np.mean(np.array(after) > 1.5 * before) < 0.8


# Warped faces.


def test_a_ramp_stays_where_it_is():
    """Shrunk and brought back linearly a plane is itself: any shift or wrong scale would show."""
    size = 200
    y, x = np.mgrid[:size, :size]
    face = np.stack([x, y, (x + y) / 2], 2).round().astype(np.uint8)
    for i in range(6):
        draw = stream(i, "warped face", "ramp")
        out = WarpedFace().forged(face.copy(), usual_place((size, size)), draw)
        inner = region((SQUARE - [56, 68]) * 0.85 + [56, 68], usual_place((size, size)), (size, size))
        assert np.abs(out.astype(int) - face)[inner].max() <= 2


def test_at_its_own_size_a_warped_face_is_blurred_as_published():
    """Upright, at half the template's size and on whole pixels the warp is none: what is left is 5 × 5 of σ 1.1 px."""
    face = frame(pictures(1)[0])
    points = ARCFACE.double().numpy() / 2 + [1.5, 0.5]  # the square's first corner (22, 34) comes to (12.5, 17.5)
    weights = np.exp(-(np.arange(-2.0, 3) ** 2) / 2 / 1.1**2)
    weights /= weights.sum()
    square = face[18:52, 13:47].astype(float)
    for axis in (0, 1):
        square = ndimage.correlate1d(square, weights, axis, mode="mirror")
    out = WarpedFace().forged(face.copy(), points, stream(1, "", "b"))
    mask, _ = WarpedFace().mask(face, points, stream(1, "", "b"))
    assert mask[18:52, 13:47].sum() == mask.sum() > 0
    assert np.abs(out[18:52, 13:47] - square)[mask[18:52, 13:47]].max() <= 1


def test_a_warped_face_loses_its_grain_inside_and_nothing_outside():
    faces, places = pictures(8, 160, 160), placed(8, 160, 160)
    out = WarpedFace().forge(faces, places, ids=list("abcdefgh"), seed=0)
    sides, areas = [], []
    for i, id in enumerate("abcdefgh"):
        face, made, points = frame(faces[i]), frame(out[i]), places[i].double().numpy()
        mask, side = WarpedFace().mask(face, points, stream(0, "warped face", id))
        sides.append(side)
        areas.append(float(mask.mean()))
        assert np.array_equal(made[~mask], face[~mask])
        core = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
        grain = [cv2.Laplacian(f.astype(np.float32), -1)[core].std() for f in (face, made)]
        assert grain[1] < 0.5 * grain[0]
    assert SIDES[0] <= min(sides) < max(sides) <= SIDES[1]
    assert max(areas) > 1.1 * min(areas), "square and inner face are both drawn"


# Swapped faces.


def test_a_face_swapped_with_itself_is_itself():
    face, points = frame(pictures(1, 128, 128)[0]), usual_place((128, 128))
    assert np.abs(swapped(face, points, face.copy(), points).astype(int) - face).max() <= 2


def test_a_swap_takes_the_other_person_inside_and_leaves_the_face_outside():
    faces, donor = pictures(2, 128, 128, 1), pictures(2, 128, 128, 2)
    face, points = frame(faces[0]), usual_place((128, 128))
    other = frame(donor[0]).copy()
    mark = np.round(points[2]).astype(int)
    other[mark[1] - 6 : mark[1] + 6, mark[0] - 6 : mark[0] + 6] = 255
    out, without = swapped(face, points, other, points), swapped(face, points, frame(donor[0]), points)
    mask = region(INNER, points, (128, 128))
    assert np.array_equal(out[~mask], face[~mask])
    assert not np.array_equal(out[mask], face[mask])
    spot = out[mark[1] - 3 : mark[1] + 3, mark[0] - 3 : mark[0] + 3].astype(int)
    assert (spot - without[mark[1] - 3 : mark[1] + 3, mark[0] - 3 : mark[0] + 3]).mean() > 10, "the donor's mark shows"


def test_the_donor_is_laid_on_by_its_own_landmarks():
    """A donor that is the face itself, turned, shrunk and shifted, comes back to the face's place."""
    face, points = frame(pictures(1, 160, 160)[0]), usual_place((160, 160))
    matrix = np.add(cv2.getRotationMatrix2D((80, 80), 20, 0.9), [[0, 0, 4], [0, 0, -6]])
    donor = cv2.warpAffine(face, matrix, (160, 160), borderMode=cv2.BORDER_REFLECT)
    # grain is lost by two readings: what is smooth must fit
    out, wanted = (cv2.GaussianBlur(f, (0, 0), 3).astype(int) for f in (swapped(
        face, points, donor, carried(matrix, points)), face))  # fmt: skip
    mask = cv2.erode(region(INNER, points, (160, 160)).astype(np.uint8), np.ones((9, 9))) > 0
    wrong = cv2.GaussianBlur(swapped(face, points, donor, points), (0, 0), 3).astype(int)
    error, without = (np.abs(f - wanted)[mask].mean() for f in (out, wrong))
    assert error < 3
    assert error < 0.3 * without


def test_blending_leaves_no_seam():
    """Across the outline the step is smaller than that of a hard paste of the same donor, toned by nobody."""
    face, points = frame(pictures(1, 128, 128, 5)[0]), usual_place((128, 128))
    donor = np.clip(frame(pictures(1, 128, 128, 6)[0]).astype(int) + 40, 0, 255).astype(np.uint8)
    mask = region(INNER, points, (128, 128))
    hard = np.where(mask[..., None], donor, face)
    across = mask[:, 1:] != mask[:, :-1]

    def seam(picture):
        return np.abs(np.diff(picture.astype(float), axis=1))[across].mean()

    assert seam(swapped(face, points, donor, points)) < 0.5 * seam(hard)


def test_the_donor_is_given_the_tone_of_the_face():
    face, laid = frame(pictures(1, seed=1)[0]), frame(pictures(1, seed=2)[0])
    mask = region(INNER, usual_place((64, 64)), (64, 64))
    lab = [rgb2lab(f)[mask] for f in (face, swapping._toned(laid, face, mask))]
    assert np.allclose(lab[0].mean(0), lab[1].mean(0), atol=0.3)
    assert np.allclose(lab[0].std(0), lab[1].std(0), atol=0.5)


def test_a_donor_of_less_contrast_is_given_that_of_the_face(monkeypatch):
    face, points = frame(pictures(1, 128, 128)[0]), usual_place((128, 128))
    pale = np.round(face * 0.5 + 70).astype(np.uint8)
    mask = region(INNER, points, (128, 128))

    def error():
        return np.abs(swapped(face, points, pale, points).astype(int) - face)[mask].mean()

    toned = error()
    monkeypatch.setattr(swapping, "_toned", lambda laid, face, mask: laid)
    assert toned < 3
    assert toned < 0.5 * error()


def test_the_nearest_stranger_is_taken():
    faces, others = pictures(2, seed=1), pictures(4, seed=2)
    usual = torch.from_numpy(usual_place((64, 64))).float()
    wide = usual + torch.tensor([[-3.0, 0], [3, 0], [0, 0], [0, 0], [0, 0]])
    long = usual + torch.tensor([[0.0, 0], [0, 0], [0, 3], [0, 6], [0, 6]])
    own = torch.stack([wide, long])
    # what counts is the shape: the third is the first's, shifted and larger
    theirs = torch.stack([long, usual, wide * 1.2 + 5, usual + 1])
    out = SwappedFace().forge(faces, own, others, theirs, ids=["a", "b"], seed=0)
    for i, j in ((0, 2), (1, 0)):
        alone = SwappedFace().forge(faces[i : i + 1], own[i : i + 1], others[j : j + 1], theirs[j : j + 1],
                                    ids=["a"], seed=7)  # fmt: skip
        assert torch.equal(out[i : i + 1], alone)
    turned = [3, 1, 0, 2]
    again = SwappedFace().forge(faces, own, others[turned], theirs[turned], ids=["a", "b"], seed=0)
    assert torch.equal(out, again), "the order of the others decides nothing"


def test_nobody_is_swapped_with_themselves():
    faces = pictures(3, seed=1)
    ids, people = ["a1", "a2", "b1"], ["a", "a", "b"]
    kw = {"ids": ids, "seed": 0, "groups": people, "other_groups": people}
    out = SwappedFace().forge(faces, None, faces, None, **kw)
    only_b = SwappedFace().forge(faces[:2], None, faces[2:], None, ids=ids[:2], seed=0)
    assert torch.equal(out[:2], only_b)
    with pytest.raises(DataError, match="a face of somebody else than a1, got only faces of the same"):
        SwappedFace().forge(faces[:2], None, faces[:2], None, ids=ids[:2], seed=0, groups=["a", "a"],
                            other_groups=["a", "a"])  # fmt: skip
    with pytest.raises(DataError, match="somebody else than a1"):
        SwappedFace().forge(faces[:1], None, faces[:1], None, ids=["a1"], seed=0)
    for none in (None, faces[:0]):
        with pytest.raises(DataError, match="expected faces of other people, got none"):
            SwappedFace().forge(faces, None, none, None, ids=ids, seed=0)


def test_ties_between_strangers_are_broken_by_the_seed():
    face, others = pictures(1), pictures(8, seed=4)
    made = {
        bytes(SwappedFace().forge(face, None, others, None, ids=["a"], seed=s).numpy()) for s in range(12)
    }  # fmt: skip
    assert len(made) > 2


# Up-sampling.


def halved(face):
    return F.avg_pool2d(face[None].double(), 2)


def test_up_sampling_is_that_of_torch():
    face = pictures(1, 40, 52)
    small = halved(face[0])
    nearest = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    bilinear = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    for how, plain in (("nearest", nearest), ("bilinear", bilinear)):
        out = Upsampled(how).forge(face, ids=["a"], seed=0)
        assert (out.double() - plain).abs().max() <= 0.5 + 1e-9
    kernel = uneven_kernel(0.2, np.random.default_rng(0))
    made = transposed(small[0].permute(1, 2, 0).numpy(), kernel)
    weight = torch.from_numpy(kernel)[None, None].expand(3, 1, 3, 3)
    plain = F.conv_transpose2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), weight, stride=2, padding=1,
                               output_padding=1, groups=3)[0, :, 2:-2, 2:-2]  # fmt: skip
    assert np.allclose(made, plain.permute(1, 2, 0).numpy(), atol=1e-9)
    drawn = uneven_kernel(0.05, stream(4, "up-sampled, transposed", "a"))
    whole = Upsampled("transposed").forge(face, ids=["a"], seed=4)[0].permute(1, 2, 0).numpy()
    assert np.abs(whole - transposed(small[0].permute(1, 2, 0).numpy(), drawn)).max() <= 0.5 + 1e-9


def test_the_four_phases_have_uneven_gains():
    k = uneven_kernel(0.3, np.random.default_rng(3))
    out = transposed(np.full((5, 6, 3), 100.0), k)[..., 0]
    gains = {(0, 0): k[1, 1], (0, 1): k[1, 0] + k[1, 2], (1, 0): k[0, 1] + k[2, 1], (1, 1): k[::2, ::2].sum()}
    for (dy, dx), gain in gains.items():
        assert np.allclose(out[dy::2, dx::2], 100 * gain)
    assert np.mean(list(gains.values())) == pytest.approx(1)
    assert np.allclose(
        uneven_kernel(0, np.random.default_rng(0)), [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    )


def prominence(face):
    """How far the Nyquist frequencies stand out: their power against the median of those around, the largest."""
    spectrum = np.abs(fft.fft2(face.double().mean(0).numpy())) ** 2
    n = spectrum.shape[0]
    found = []
    for y, x in ((n // 2, 0), (0, n // 2), (n // 2, n // 2)):
        around = [
            spectrum[(y + dy) % n, (x + dx) % n] for dy in range(-4, 5) for dx in range(-4, 5) if (dy, dx) != (0, 0)
        ]
        found.append(spectrum[y, x] / np.median(around))
    return max(found)


def test_transposed_convolution_leaves_peaks_at_the_nyquist_frequency():
    faces = pictures(6, 128, 128)
    ids = list("abcdef")
    peaks = [prominence(f) for f in Upsampled("transposed").forge(faces, ids=ids, seed=0)]
    assert min(peaks) > 100
    for plain in (
        faces,
        Upsampled("transposed", unevenness=0).forge(faces, ids=ids, seed=0),
        Upsampled("bilinear").forge(faces, ids=ids, seed=0),
    ):
        assert max(prominence(f) for f in plain) < 30


def test_up_sampling_of_the_face_alone_leaves_the_rest():
    faces = pictures(2, 66, 71)
    out = Upsampled("nearest", where="face").forge(faces, ids=["a", "b"], seed=0)
    mask = torch.from_numpy(region(OUTLINE, usual_place((66, 71)), (66, 71)))
    whole = Upsampled("nearest").forge(faces, ids=["a", "b"], seed=0)
    assert torch.equal(out, torch.where(mask, whole, faces))
    assert Upsampled("nearest", where="face").name == "up-sampled, nearest (face)"
    with pytest.raises(DataError, match="a face within the picture"):
        Upsampled("nearest", where="face").forge(faces, placed(2, 66, 71) + 300, ids=["a", "b"], seed=0)


# Inpainting.


def test_only_the_part_is_inpainted_and_what_was_there_does_not_matter():
    faces, places = pictures(12, 96, 96), placed(12, 96, 96)
    ids = [f"{i}" for i in range(12)]
    out = InpaintedPart().forge(faces, places, ids=ids, seed=0)
    blank, seen, used = faces.clone(), set(), set()
    for i, id in enumerate(ids):
        points = places[i].double().numpy()
        mask, how = InpaintedPart().hole(frame(faces[i]), points, stream(0, "inpainted part", id))
        assert torch.equal(out[i][:, ~mask], faces[i][:, ~mask])
        assert not torch.equal(out[i][:, mask], faces[i][:, mask])
        seen |= {p for p in PARTS if np.array_equal(part_of(p, points, (96, 96)), mask)}
        used.add(how)
        blank[i][:, mask] = 0
    assert seen == set(PARTS)
    assert used == {"telea", "navier-stokes"}
    assert torch.equal(out, InpaintedPart().forge(blank, places, ids=ids, seed=0))


def test_parts_and_methods_can_be_chosen():
    face, points = pictures(1, 96, 96), usual_place((96, 96))
    out = InpaintedPart(parts=("mouth",), methods=("telea",)).forge(face, ids=["a"], seed=5)
    mask = part_of("mouth", points, (96, 96)).astype(np.uint8)
    assert np.array_equal(frame(out[0]), cv2.inpaint(frame(face[0]), mask, 3, cv2.INPAINT_TELEA))
    assert InpaintedPart(parts=("mouth",)).name == "inpainted mouth"


# Noise of a spectrum.


def plain_radial(picture, bins):
    """Mean of |DFT|² by distance from the constant part, frequency by frequency."""
    power = np.abs(fft.fft2(picture)) ** 2
    h, w = picture.shape
    values = [[] for _ in range(bins)]
    for y in range(h):
        for x in range(w):
            fy, fx = min(y, h - y) / h, min(x, w - x) / w
            r = math.sqrt(fy * fy + fx * fx)
            if r > 0:
                values[min(int(r / HIGHEST * bins), bins - 1)].append(power[y, x])
    return np.array([np.mean(v) if v else np.nan for v in values])


@settings(max_examples=12, deadline=None)
@given(st.integers(32, 60), st.integers(32, 60), st.floats(0, 2.5), st.integers(0, 1000))
def test_noise_has_its_spectrum_exactly(height, width, exponent, seed):
    given_power = ResidueSpectrum.falling(exponent, peaks=0)
    noise = given_power.noise((height, width), np.random.default_rng(seed))
    found = plain_radial(noise, BINS)
    there = np.isfinite(found)
    ratio = found[there] / np.array(given_power.power)[there]
    assert np.allclose(ratio / ratio.mean(), 1, atol=1e-6)
    assert np.allclose(found, radial_power(noise[None]), equal_nan=True)
    assert noise.mean() == pytest.approx(0, abs=1e-9)
    assert np.square(noise).mean() == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(st.integers(32, 65), st.integers(32, 65), st.floats(0.05, 0.8))
def test_peaks_hold_their_share(height, width, share):
    spectrum = ResidueSpectrum.falling(1.0, peaks=share)
    amplitude = spectrum.amplitude((height, width)) ** 2
    smooth = ResidueSpectrum.falling(1.0, peaks=0).amplitude((height, width)) ** 2
    assert amplitude.sum() == pytest.approx(height * width)
    above = amplitude - smooth * (1 - share)
    assert above.sum() == pytest.approx(share * height * width)
    grid = np.zeros_like(above, dtype=bool)
    for y in {0, round(height / 2), round(-height / 2) % height}:
        for x in {0, round(width / 2), round(-width / 2) % width}:
            grid[y, x] = (y, x) != (0, 0)
    assert np.abs(above[~grid]).max() < 1e-9
    noise = spectrum.noise((height, width), np.random.default_rng(0))
    assert np.allclose(np.abs(fft.fft2(noise)) ** 2 / (height * width), amplitude, atol=1e-9)


@pytest.mark.parametrize("psnr", [30.0, 40.0, 45.0])
def test_the_distance_is_as_stated(psnr):
    faces = pictures(3, 96, 96)
    out = SpectralNoise(psnr=psnr).forge(faces, ids=list("abc"), seed=0)
    for face, made in zip(faces, out, strict=True):
        found = peak_signal_noise_ratio(face.numpy(), made.numpy(), data_range=255)
        rounding = 10 * math.log10(1 + 10 ** (psnr / 10) / 255**2 / 12)
        assert found == pytest.approx(psnr - rounding, abs=0.05)
    change = out.int() - faces
    assert torch.equal(change[:, 0], change[:, 1])


def test_a_measured_spectrum_is_that_of_the_residue():
    faces = pictures(4, 48, 48)
    found = ResidueSpectrum.measured(faces, bins=20)
    greys = [f.double().mean(0).numpy().astype(np.float32) for f in faces]
    plain = np.mean([plain_radial((g - cv2.medianBlur(g, 3)).astype(float), 20) for g in greys], 0)
    assert np.allclose(found.power, plain, rtol=1e-5)
    made = SpectralNoise(found).forge(torch.full_like(faces, 128), ids=list("abcd"), seed=0)
    again = np.mean([plain_radial(f[0].double().numpy() - 128, 20) for f in made], 0)
    assert np.corrcoef(np.log(again), np.log(plain))[0, 1] > 0.95


# What cannot be asked for.


NONSENSE = {
    "no such up-sampling": (lambda: Upsampled("cubic"), "expected one of nearest, bilinear, transposed, got 'cubic'"),
    "no such place": (lambda: Upsampled(where="mouth"), "expected one of image, face"),
    "unevenness NaN": (lambda: Upsampled(unevenness=math.nan), "an unevenness in"),
    "too uneven": (lambda: Upsampled(unevenness=0.6), "an unevenness in"),
    "no part": (lambda: InpaintedPart(parts=()), "some of eyes, nose, mouth"),
    "no such part": (lambda: InpaintedPart(parts=("ear",)), "some of eyes, nose, mouth"),
    "no such method": (lambda: InpaintedPart(methods=("patch",)), "some of telea, navier-stokes"),
    "small radius": (lambda: InpaintedPart(radius=0.5), "a radius of at least 1 px"),
    "too quiet": (lambda: SpectralNoise(psnr=70), "a PSNR in"),
    "PSNR NaN": (lambda: SpectralNoise(psnr=math.nan), "a PSNR in"),
    "no power": (lambda: ResidueSpectrum(()), "finite power, somewhere above 0"),
    "all power 0": (lambda: ResidueSpectrum((0.0, 0.0)), "finite power, somewhere above 0"),
    "power below 0": (lambda: ResidueSpectrum((1.0, -1.0)), "finite power, somewhere above 0"),
    "power NaN": (lambda: ResidueSpectrum((1.0, math.nan)), "finite power, somewhere above 0"),
    "peaks alone": (lambda: ResidueSpectrum((1.0,), peaks=1.0), "a share of peaks in"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused(what):
    make, message = NONSENSE[what]
    with pytest.raises(AuditError, match=message):
        make()
