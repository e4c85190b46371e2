"""The built-in face generator is a principal component analysis, and any other is held to its contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

from audit.alignment import ARCFACE
from audit.data.faces import Portraits
from audit.errors import DataError, ModelError
from probes.recognition.eigenfaces import Eigenfaces, aligned, built_in, drawer, first_codes, identity
from tests.face_attacks import portraits


@pytest.fixture(scope="module")
def people():
    return portraits(20, seed=5)


@pytest.fixture(scope="module")
def faces(people):
    return Eigenfaces.fit(people)


def test_it_is_scikit_learns_pca(people, faces):
    pictures = aligned(people).flatten(1).numpy()
    pca = PCA(19, whiten=True, svd_solver="full").fit(pictures)
    assert faces.latent == 19
    assert faces.fitted == 20
    np.testing.assert_allclose(faces.mean, pca.mean_, atol=1e-5)
    np.testing.assert_allclose(faces.spread**2, pca.explained_variance_, rtol=1e-3)
    cosine = (faces.components.numpy() * pca.components_).sum(1)
    np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-3)
    others = portraits(4, seed=9)
    codes = faces.project(aligned(others)).numpy()
    np.testing.assert_allclose(codes, pca.transform(aligned(others).flatten(1).numpy()) * np.sign(cosine), atol=2e-2)


def test_codes_are_whitened_and_signs_fixed(people, faces):
    codes = faces.project(aligned(people))
    assert codes.mean(0).abs().max() < 1e-3
    assert (codes.std(0) - 1).abs().max() < 1e-3
    largest = faces.components.gather(1, faces.components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    assert (faces.spread.diff() <= 0).all()


def test_all_components_draw_the_faces_they_were_fitted_on(people, faces):
    assert (faces(faces.project(aligned(people))) - aligned(people)).abs().max() < 2e-3
    codes = torch.randn(3, 19, generator=torch.Generator().manual_seed(0))
    assert (faces.project(faces.linear(codes)) - codes).abs().max() < 1e-2
    drawn = faces(codes * 30)
    assert drawn.shape == (3, 3, 112, 112)
    assert drawn.min() == 0
    assert drawn.max() == 1


def test_fewer_components_draw_worse_and_few_portraits_serve(people, faces):
    few = Eigenfaces.fit(people, components=3)
    assert few.latent == 3
    assert few.names == ("component 1", "component 2", "component 3")
    assert torch.equal(few.directions, torch.eye(3))
    assert torch.equal(few.components, faces.components[:3])
    assert (few(few.project(aligned(people))) - aligned(people)).abs().mean() > 0.02
    assert Eigenfaces.fit(people, most=5).fitted == 5


def test_the_order_of_the_portraits_does_not_matter(people, faces):
    turned = people[list(range(19, -1, -1))]
    assert Eigenfaces.fit(turned).digest == faces.digest == built_in(people, torch.device("cpu")).digest
    assert Eigenfaces.fit(turned[range(19)]).digest != faces.digest


@pytest.mark.parametrize("count", [1, 2])
def test_a_background_that_tells_nothing_is_refused(people, count):
    names = ("a", "b")[:count]
    same = Portraits(people.images[[0] * count], people.landmarks[[0] * count], names, names)
    with pytest.raises(DataError, match="background of the face generator"):
        Eigenfaces.fit(same)


class Net(nn.Module):
    """A face generator of the user's, which draws 64 × 64."""

    latent = 5

    def __init__(self, size=64, channels=3, low=0.0, factor=1.0):
        super().__init__()
        self.net = nn.Linear(5, channels * size * size)
        self.size, self.channels, self.low, self.factor = size, channels, low, factor
        with torch.no_grad():
            self.net.weight.normal_(generator=torch.Generator().manual_seed(0))
            self.net.bias.zero_()

    def forward(self, codes):
        drawn = self.net(codes).sigmoid() * self.factor + self.low
        return drawn.view(len(codes), self.channels, self.size, self.size)


def test_any_generator_of_faces_is_taken():
    net = Net()
    draw = drawer(net, torch.device("cpu"))
    codes = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(net(codes), (112, 112), mode="bilinear", antialias=True)
    assert torch.allclose(draw(codes), expected)
    assert torch.equal(first_codes(net, torch.rand(3, 3, 112, 112)), torch.zeros(3, 5))
    assert identity(net) == identity(net) != identity(Net(factor=0.5, size=32))
    assert identity(None) != identity(net)


def broken(**change):
    net = Net()
    for name, value in change.items():
        setattr(net, name, value)
    return net


class Detached(Net):
    def forward(self, codes):
        return super().forward(codes).detach()


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (broken(latent=None), "`latent`, the length of its codes"),
        (broken(latent=0), "got 0"),
        (Net(channels=1), r"got shape \(2, 1, 64, 64\) for N = 2"),
        (Net(low=-1.0, factor=2.0), r"finite values in \[0, 1\]"),
        (Net(factor=torch.nan), r"finite values in \[0, 1\], got nan"),
        (Detached(), "differentiable in the codes"),
        (broken(directions=torch.eye(4)), r"a tensor \(D, 5\)"),
        (broken(directions=[1]), "got list"),
    ],
)
def test_a_generator_that_breaks_its_contract_is_told_so(generator, words):
    with pytest.raises(ModelError, match=words):
        drawer(generator, torch.device("cpu"))


def test_portraits_are_aligned_as_the_template_says():
    chips = Portraits(torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8), ARCFACE.repeat(2, 1, 1), ("a", "b"),
                      ("a", "b"))  # fmt: skip
    assert torch.equal(aligned(chips), chips.images.float() / 255)
