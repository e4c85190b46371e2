"""Comparison against NumPy, for both metrics and for models that only compare."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from audit.alignment import ARCFACE, CHIP
from audit.comparison import CHUNK, Comparison
from audit.errors import ModelError

SIZE = (8, 6)


class Linear(nn.Module):
    """Embeddings by a fixed matrix, at an operating point."""

    def __init__(self, metric=None, threshold=0.3, face_size=SIZE):
        super().__init__()
        self.weight = torch.randn(3 * face_size[0] * face_size[1], 5, generator=torch.Generator().manual_seed(3))
        self.face_size, self.threshold = face_size, threshold
        if metric:
            self.metric = metric

    def forward(self, faces):
        return faces.flatten(1) @ self.weight


class Compares:
    """Shows no embeddings."""

    face_size, threshold = SIZE, 0.9

    def similarity(self, a, b):
        return 1 - (a - b).abs().mean((1, 2, 3))


def faces(n=6, seed=0, size=SIZE):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def scored(model, a, b):
    """float64, pair by pair."""
    w = model.weight.double().numpy()
    out = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        p, q = x.ravel() @ w, y.ravel() @ w
        cosine = p @ q / (np.linalg.norm(p) * np.linalg.norm(q))
        out.append(-np.sqrt(np.sum((p - q) ** 2)) if getattr(model, "metric", "") == "euclidean" else cosine)
    return np.array(out)


@pytest.mark.parametrize("metric", [None, "cosine", "euclidean"])
def test_scores_are_numpys(metric):
    model = Linear(metric)
    comparison = Comparison("linear", model, white_box=True)
    a, b = faces(seed=0), faces(seed=1)
    np.testing.assert_allclose(comparison.score(a, comparison.enrol(b)), scored(model, a, b), rtol=2e-4, atol=1e-5)
    assert comparison.metric == (metric or "cosine")
    assert comparison.embeds


def test_the_cut_is_the_owners_threshold_in_terms_of_the_score():
    near, far = faces(1, 0), faces(1, 1)
    cosine = Comparison("c", Linear("cosine", 0.75), white_box=True)
    distance = Comparison("d", Linear("euclidean", 0.75), white_box=True)
    assert (cosine.cut, distance.cut) == (0.75, -0.75)
    assert float(distance.score(near, distance.enrol(near))) == pytest.approx(0, abs=1e-5)
    away = -float(scored(Linear("euclidean"), near, far)[0])
    loose = Comparison("d", Linear("euclidean", away + 0.1), white_box=True)
    tight = Comparison("d", Linear("euclidean", away - 0.1), white_box=True)
    score = float(loose.score(near, loose.enrol(far)))
    assert loose.cut < score < tight.cut


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_gradients_are_finite_and_those_of_finite_differences(metric):
    comparison = Comparison("linear", Linear(metric), white_box=True)
    a, b = faces(2, 0).requires_grad_(), comparison.enrol(faces(2, 1))
    (gradient,) = torch.autograd.grad(comparison.score(a, b).sum(), a)
    step = torch.zeros_like(a)
    step[1, 2, 3, 4] = 0.01
    with torch.no_grad():
        slope = (comparison.score(a + step, b) - comparison.score(a - step, b)).sum() / 0.02
    assert float(gradient[1, 2, 3, 4]) == pytest.approx(float(slope), rel=0.02, abs=1e-3)
    same = faces(2, 1).requires_grad_()  # a distance of nothing has no direction, but must not be NaN
    (gradient,) = torch.autograd.grad(comparison.score(same, b).sum(), same)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_asking_photographs_is_aligning_and_scoring(metric):
    model = Linear(metric, face_size=(CHIP, CHIP))
    comparison = Comparison("linear", model, white_box=True)
    n = CHUNK + 3
    a, b = ((faces(n, s, (CHIP, CHIP)) * 255).to(torch.uint8) for s in (0, 1))
    chips = ARCFACE.expand(n, 5, 2)
    found = comparison.ask(a, chips, b, chips)
    np.testing.assert_allclose(found, scored(model, a.double() / 255, b.double() / 255), rtol=2e-3, atol=1e-4)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    moved = comparison.ask(a[:2], chips[:2] + 3, b[:2], chips[:2])
    assert (moved - found[:2]).abs().min() > 1e-3, "the landmarks were not used"
    assert comparison.ask(a[:0], chips[:0], b[:0], chips[:0]).shape == (0,)


def test_a_model_that_only_compares():
    comparison = Comparison("vendor", Compares(), white_box=False)
    a, b = faces(seed=0), faces(seed=1)
    assert not comparison.embeds
    assert torch.equal(comparison.enrol(b), b)
    np.testing.assert_allclose(
        comparison.score(a, comparison.enrol(b)), 1 - np.abs(a.numpy() - b.numpy()).mean((1, 2, 3)), rtol=1e-5
    )


def test_a_template_of_its_own_is_used():
    model = Linear(face_size=(CHIP, CHIP))
    model.template = ARCFACE + torch.tensor([4.0, -3.0])
    points = ARCFACE[None]
    own = Comparison("own", model, white_box=True).align(points, (CHIP, CHIP))
    torch.testing.assert_close(own.matrix[0, :, 2], torch.tensor([4.0, -3.0]).double(), atol=1e-4, rtol=0)


def test_another_metric_is_refused():
    with pytest.raises(ModelError, match="cosine or euclidean"):
        Comparison("x", Linear("manhattan"), white_box=True)
