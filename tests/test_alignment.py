"""The alignment against OpenCV, SciPy and scikit-image; masks carried back; gradients."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import SimilarityTransform

from audit.alignment import ARCFACE, CHIP, Alignment, similarity_transform, template_for
from audit.errors import DataError

SIMILAR = {
    "turn": st.floats(-3.1, 3.1),
    "scale": st.floats(0.2, 4),
    "shift": st.tuples(st.floats(-200, 400), st.floats(-200, 400)),
}


def similar(turn: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def put(matrix: np.ndarray, points) -> np.ndarray:
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def landmarks(turn=0.2, scale=1.1, shift=(60.0, 30.0), noise=0.0, seed=0) -> torch.Tensor:
    away = np.random.default_rng(seed).normal(size=(5, 2)) * noise
    return torch.from_numpy(put(similar(turn, scale, shift), ARCFACE) + away)[None]


def read(photo: np.ndarray, matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A channel of a photograph at places of the face, bilinear, black outside."""
    inverse = np.linalg.inv(matrix[:, :2])
    at = put(np.c_[inverse, -inverse @ matrix[:, 2]], np.stack([x, y], -1))
    return ndimage.map_coordinates(photo, [at[..., 1], at[..., 0]], order=1, mode="grid-constant", cval=0.0)


@settings(max_examples=60, deadline=None)
@given(**SIMILAR)
def test_a_similarity_is_found_again(turn, scale, shift):
    truth = similar(turn, scale, shift)
    inverse = np.linalg.inv(truth[:, :2])
    points = put(np.c_[inverse, -inverse @ truth[:, 2]], ARCFACE)
    (found,) = similarity_transform(torch.from_numpy(points)[None], ARCFACE).numpy()
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), **SIMILAR)
def test_the_least_squares_are_scikit_images(seed, turn, scale, shift):
    points = landmarks(turn, scale, shift, noise=4 * scale, seed=seed)
    reference = SimilarityTransform.from_estimate(points[0].numpy(), ARCFACE.double().numpy())
    np.testing.assert_allclose(similarity_transform(points, ARCFACE)[0], reference.params[:2], rtol=1e-7, atol=1e-6)


def test_opencv_estimates_the_same():
    points = landmarks()
    reference, _ = cv2.estimateAffinePartial2D(points[0].numpy(), ARCFACE.numpy())
    np.testing.assert_allclose(similarity_transform(points, ARCFACE)[0], reference, atol=1e-4)


def test_many_photographs_at_once():
    each = [landmarks(0.1 * i, 1 + 0.1 * i, (10.0 * i, 5.0), noise=2, seed=i) for i in range(4)]
    together = similarity_transform(torch.cat(each), ARCFACE)
    torch.testing.assert_close(together, torch.cat([similarity_transform(e, ARCFACE) for e in each]))


@pytest.mark.parametrize("points", [torch.full((1, 5, 2), torch.nan), torch.ones(1, 5, 2), torch.full((1, 5, 2), 9.0)])
def test_landmarks_that_say_nothing_are_refused(points):
    with pytest.raises(DataError, match="five finite points"):
        similarity_transform(points, ARCFACE)


@pytest.mark.parametrize("face", [(112, 112), (150, 150), (96, 112)])
@pytest.mark.parametrize(("turn", "scale"), [(0.0, 1.0), (0.3, 1.3), (-2.0, 0.8)])
def test_faces_are_what_scipy_reads(face, turn, scale):
    rng = np.random.default_rng(1)
    photo = rng.random((3, 140, 160)).astype(np.float32)
    points = landmarks(turn, scale, (30.0, 20.0))
    alignment = Alignment.by_landmarks(points, (140, 160), face)
    y, x = np.meshgrid(np.arange(face[0]), np.arange(face[1]), indexing="ij")
    expected = np.stack([read(c, alignment.matrix[0].numpy(), x, y) for c in photo])
    found = alignment.faces(torch.from_numpy(photo)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_faces_are_what_opencv_warps():
    """As the models' owners align: OpenCV rounds places to 1/32 px, so on a smooth photograph."""
    photo = cv2.GaussianBlur(np.random.default_rng(2).random((250, 250, 3)).astype(np.float32), (0, 0), 4)
    photo = (photo - photo.min()) / (photo.max() - photo.min())
    points = landmarks(0.15, 1.15, (70.0, 60.0), noise=1)
    matrix = SimilarityTransform.from_estimate(points[0].numpy(), ARCFACE.double().numpy()).params[:2]
    expected = cv2.warpAffine(photo, matrix, (CHIP, CHIP), flags=cv2.INTER_LINEAR, borderValue=0)
    found = Alignment.by_landmarks(points, (250, 250), (CHIP, CHIP)).faces(
        torch.from_numpy(photo).permute(2, 0, 1)[None]
    )
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=0.01)


def test_a_photograph_that_shrinks_does_not_alias():
    """Four px of a checkerboard per px of the face: its mean; read at single places it would be black and white."""
    board = (torch.arange(500)[:, None] + torch.arange(500)[None]).remainder(2).float().expand(1, 3, -1, -1)
    alignment = Alignment(torch.tensor([[[0.25, 0.0, -5.3], [0.0, 0.25, -4.1]]]).double(), (500, 500), (100, 100))
    inner = alignment.faces(board)[..., 5:90, 5:90]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.05, rtol=0)


def test_a_face_does_not_depend_on_its_batch():
    photos = torch.rand(4, 3, CHIP, CHIP, generator=torch.Generator().manual_seed(0))
    points = torch.cat([ARCFACE[None], landmarks(0.1, 2.6, (-90.0, -80.0)), ARCFACE[None].double(),
                        landmarks(0.2, 1.1, (-4.0, -9.0))])  # fmt: skip
    together = Alignment.by_landmarks(points, (CHIP, CHIP), (CHIP, CHIP))
    faces = together.faces(photos)
    for i in range(4):
        alone = Alignment.by_landmarks(points[i : i + 1], (CHIP, CHIP), (CHIP, CHIP)).faces(photos[i : i + 1])
        assert torch.equal(faces[i : i + 1], alone)
    assert torch.equal(together[[3, 0]].faces(photos[[3, 0]]), faces[[3, 0]])
    assert torch.equal(faces[2], photos[2])


def test_an_aligned_chip_stays_as_it_is():
    chips = torch.rand(3, 3, CHIP, CHIP)
    alignment = Alignment.by_landmarks(ARCFACE.expand(3, 5, 2), (CHIP, CHIP), (CHIP, CHIP))
    assert torch.equal(alignment.faces(chips), chips)
    torch.testing.assert_close(alignment.scale, torch.ones(3).double())
    mask = torch.rand(CHIP, CHIP) > 0.7
    assert torch.equal(alignment.to_photo(mask), mask.expand(3, -1, -1))


@pytest.mark.parametrize("scale", [1.2, 3.7])
def test_gradients_are_those_of_finite_differences(scale):
    points = landmarks(0.3, scale * 12 / CHIP, (2.0, 1.0))
    alignment = Alignment.by_landmarks(points.expand(2, 5, 2), (14, 15), (9, 8), ARCFACE * 8 / CHIP)
    photos = torch.rand(2, 3, 14, 15, dtype=torch.float64, requires_grad=True)
    assert len(torch.unique(alignment.faces(photos))) > 10
    assert torch.autograd.gradcheck(alignment.faces, (photos,), eps=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), **SIMILAR)
def test_masks_lie_in_the_photograph_where_they_lie_in_the_face(seed, turn, scale, shift):
    rng = np.random.default_rng(seed)
    matrix, face = similar(turn, scale, tuple(s / 8 for s in shift)), (12, 10)
    mask = rng.random(face) > 0.5
    alignment = Alignment(torch.from_numpy(matrix)[None], (17, 19), face)
    expected = np.zeros((17, 19), bool)
    unclear = np.zeros((17, 19), bool)
    for y in range(17):
        for x in range(19):
            u, v = matrix @ (x, y, 1)
            unclear[y, x] = min(abs(u % 1 - 0.5), abs(v % 1 - 0.5)) < 1e-9
            if -0.5 < u < face[1] - 0.5 and -0.5 < v < face[0] - 0.5:
                expected[y, x] = mask[int(np.floor(v + 0.5)), int(np.floor(u + 0.5))]
    found = alignment.to_photo(torch.from_numpy(mask))[0].numpy()
    assert (found == expected)[~unclear].all()
    each = alignment[[0, 0]].to_photo(torch.from_numpy(np.stack([mask, ~mask]))).numpy()
    assert (each[0] == found).all()
    assert not (each[0] & each[1]).any()


def test_the_scale_is_that_of_the_similarity():
    alignment = Alignment.by_landmarks(torch.cat([landmarks(0.4, 2.0), landmarks(1.0, 0.5)]), (250, 250), (CHIP, CHIP))
    torch.testing.assert_close(alignment.scale, torch.tensor([0.5, 2.0]).double(), rtol=1e-5, atol=0)
    larger = Alignment.by_landmarks(landmarks(0.4, 2.0), (250, 250), (224, 224))
    torch.testing.assert_close(larger.scale, torch.tensor([1.0]).double(), rtol=1e-5, atol=0)
    assert len(alignment) == 2
    assert len(alignment[1:]) == 1


def test_no_photograph_at_all():
    alignment = Alignment.by_landmarks(torch.zeros(0, 5, 2), (20, 30), (CHIP, CHIP))
    assert alignment.faces(torch.zeros(0, 3, 20, 30)).shape == (0, 3, CHIP, CHIP)
    assert alignment.to_photo(torch.ones(CHIP, CHIP)).shape == (0, 20, 30)


def test_photographs_of_another_size_are_refused():
    alignment = Alignment.by_landmarks(landmarks(), (250, 250), (CHIP, CHIP))
    with pytest.raises(ValueError, match="photographs of"):
        alignment.faces(torch.zeros(1, 3, 250, 251))
    with pytest.raises(ValueError, match="1 photographs"):
        alignment.faces(torch.zeros(2, 3, 250, 250))


def test_templates():
    torch.testing.assert_close(template_for((224, 112)), ARCFACE * torch.tensor([1.0, 2.0]))
    own = [[1.0, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert template_for((112, 112), own).tolist() == own
    for wrong in (own[:4], [[float("nan"), 0]] * 5):
        with pytest.raises(DataError, match="five points"):
            template_for((112, 112), wrong)
