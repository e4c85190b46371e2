"""The search for a mask: every mask that is tried keeps to the rules, and a planted spot is found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from audit.errors import AuditError
from audit.execution import Execution
from probes.detection.craftset import CraftSet
from probes.detection.masks import MaskSearch, area_and_regions, screen, shape
from probes.geometry import COVER, Placement
from tests import planted

EIGHT = np.ones((3, 3))


@dataclass(frozen=True)
class Masked:
    """A wear of the tests' own: the square of a placement, worn only where the mask is true."""

    inner: Placement = field(default_factory=lambda: Placement("center", 1.0))
    mask: torch.Tensor | None = None

    def with_mask(self, mask):
        assert mask.dtype == torch.bool
        return replace(self, mask=mask)

    def spec(self):
        return {"masked": self.inner.spec()}

    def regions(self, boxes, areas=None):
        return self.inner.regions(boxes)

    def prepare(self, images, boxes, areas=None):
        return MaskedOn(self.inner.prepare(images, boxes), self.mask)


@dataclass(frozen=True)
class MaskedOn:
    whole: object
    mask: torch.Tensor | None

    @property
    def shape(self):
        return self.whole.shape

    @property
    def pixel(self):
        return self.whole.pixel

    def place(self, images, patch):
        worn = self.whole.place(images, patch)
        if self.mask is None:
            return worn
        share = self.whole.place(torch.zeros_like(images), self.mask.float().expand(3, *self.mask.shape))
        return images + share * (worn - images)


class Heart(planted.Red):
    """Finds a square as long as its right lower quarter is red; counts the images and the calls."""

    def __init__(self):
        self.images, self.calls = 0, 0

    def evidence(self, seen):
        half = planted.SIDE // 2
        quarter = torch.nn.functional.avg_pool2d(seen[:, None], half, planted.STRIDE)[:, 0]
        step = half // planted.STRIDE
        return quarter[:, step:, step:]

    def __call__(self, images):
        self.images += len(images)
        self.calls += 1
        return super().__call__(images)


def craft_set(count=2, wear=None):
    return CraftSet(planted.scenes(count), wear or Masked(), Execution(), batch=4, seed=0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 14), st.floats(0, 1), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_the_screen_agrees_with_scipy(seed, rows, columns, most_area, most_regions):
    mask = (np.random.default_rng(seed).random((rows, columns)) < 0.35).astype(np.uint8) * 255
    regions = ndimage.label(mask, EIGHT)[1]
    share = np.count_nonzero(mask) / mask.size
    assert area_and_regions(mask) == (pytest.approx(share), regions)
    assert screen(mask, most_area, most_regions) == bool(0 < share <= most_area and regions <= most_regions)


def test_corners_connect_and_an_empty_mask_is_none():
    diagonal = np.eye(5, dtype=np.uint8) * 255
    assert area_and_regions(diagonal) == (pytest.approx(0.2), 1)
    assert screen(diagonal, 0.2, 1)
    assert not screen(diagonal, 0.19, 1)
    assert not screen(np.zeros((4, 4), np.uint8), 1.0, 5)
    dots = np.zeros((9, 9), np.uint8)
    dots[::4, ::4] = 255
    assert area_and_regions(dots)[1] == 9
    assert not screen(dots, 1.0, 8)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 0.9),
    st.integers(1, 5),
    st.floats(0, 0.99),
    st.tuples(st.integers(12, 50), st.integers(12, 50)),
)
@settings(max_examples=40, deadline=None)
def test_every_mask_drawn_keeps_to_the_rules(seed, area, regions, done, size):
    search = MaskSearch(Masked(), size, max_area=area, max_regions=regions)
    stream = torch.Generator().manual_seed(seed)
    parents = []
    for _ in range(4):
        mask = search.drawn(parents, done, stream)
        assert mask.shape == size
        assert set(np.unique(mask)) <= {0, 255}
        assert np.count_nonzero(mask) / mask.size <= area
        assert 1 <= ndimage.label(mask, EIGHT)[1] <= regions
        parents = [mask]


def test_a_round_adds_and_erases():
    search = MaskSearch(Masked(), (40, 40), max_area=0.9)
    parent = np.zeros((40, 40), np.uint8)
    parent[10:30, 10:30] = 255
    stream = torch.Generator().manual_seed(0)
    children = [search.drawn([parent], 0.5, stream) for _ in range(40)]
    assert any((c > parent).any() for c in children)
    assert any((c < parent).any() for c in children)
    assert parent.sum() == 255 * 400, "the parent itself is left alone"


def test_shapes_are_triangles_ellipses_and_rectangles():
    """Share of the rectangle around each shape, turned so that it is smallest: 1/2, π/4 and 1."""
    import cv2

    shares = []
    for seed in range(150):
        mask = np.zeros((900, 900), np.uint8)
        shape(mask, 255, 1.0, torch.Generator().manual_seed(seed))
        if mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any():
            continue
        points = cv2.findNonZero(mask)
        (_, (a, b), _) = cv2.minAreaRect(points)
        shares.append(np.count_nonzero(mask) / ((a + 1) * (b + 1)))
    kinds = np.array([0.5, np.pi / 4, 1.0])
    near = np.abs(np.array(shares)[:, None] - kinds).min(1)
    assert near.max() < 0.04
    assert set(np.abs(np.array(shares)[:, None] - kinds).argmin(1)) == {0, 1, 2}


@pytest.mark.parametrize("feedback", ["scores", "decision"])
def test_finds_the_spot_that_matters(feedback):
    detector = Heart()
    search = MaskSearch(Masked(), (24, 24), max_area=0.25, max_regions=2, rounds=6, candidates=16, feedback=feedback)
    found = search.search(detector, craft_set(), seed=1)
    mask = found.mask.numpy()
    assert found.mask.dtype == torch.uint8
    assert found.area == pytest.approx(np.count_nonzero(mask) / mask.size)
    assert found.area <= 0.25
    assert found.regions == ndimage.label(mask, EIGHT)[1] <= 2
    quarters = [mask[y : y + 12, x : x + 12].mean() for y in (0, 12) for x in (0, 12)]
    assert max(range(4), key=quarters.__getitem__) == 3
    assert found.history["loss"] == sorted(found.history["loss"], reverse=True)
    assert found.loss == found.history["loss"][-1] < found.history["loss"][0] + 1e-9
    assert detector.images == found.history["query"][-1] == found.origin["images_sent"]
    # What was found is said of what is worn: the detector itself, asked again.
    part = craft_set().group(0)[0]
    worn = Masked(mask=found.mask > 0).prepare(part.images, part.boxes)
    seen = planted.QueryOnly.__call__  # the plain detector still finds them all: only the heart is covered
    black = worn.place(part.images, torch.zeros(3, 24, 24))
    assert all(len(d.boxes) for d in seen(planted.QueryOnly(), part.images))
    assert (
        float(torch.stack([redness_of_heart(black[i], b) for i, bs in enumerate(part.boxes) for b in bs]).max()) < 0.3
    )


def redness_of_heart(image, box):
    x, y = (int(v) + planted.SIDE // 2 for v in box[:2])
    return planted.redness(image[None])[0, y : y + planted.SIDE // 2, x : x + planted.SIDE // 2].mean()


def test_of_equal_masks_the_smaller_wins():
    class Sees(planted.QueryOnly):
        """Finds everything, whatever is worn."""

        def __call__(self, images):
            return planted.Red()(images * 0 + torch.tensor([0.8, 0.2, 0.2])[:, None, None])

    search = MaskSearch(Masked(COVER), (20, 20), rounds=2, candidates=10)
    found = search.search(Sees(), craft_set(1), seed=0)
    stream_areas = []
    original = MaskSearch.drawn

    class Watched(MaskSearch):
        def drawn(self, parents, done, stream):
            mask = original(self, parents, done, stream)
            stream_areas.append(np.count_nonzero(mask) / mask.size)
            return mask

    again = Watched(Masked(COVER), (20, 20), rounds=2, candidates=10).search(Sees(), craft_set(1), seed=0)
    assert torch.equal(found.mask, again.mask)
    assert found.area == pytest.approx(min(stream_areas))


def test_the_seed_decides_and_the_limit_holds():
    results = []
    for seed in (1, 1, 2):
        detector = Heart()
        search = MaskSearch(Masked(), (24, 24), rounds=50, max_images=75)
        results.append(search.search(detector, craft_set(), seed=seed).mask)
        assert 70 < detector.images <= 75
        assert detector.calls < detector.images / 4, "masks share calls"
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_what_cannot_be_is_refused():
    for wrong in ({"max_area": 0.0}, {"max_area": 1.5}, {"max_regions": 0}, {"rounds": 0}, {"images": 0}):
        with pytest.raises(AuditError, match="mask search"):
            MaskSearch(Masked(), (24, 24), **wrong)
    with pytest.raises(AuditError, match="mask search"):
        MaskSearch(Masked(), (0, 24))
    with pytest.raises(AuditError, match="max_images"):
        MaskSearch(Masked(), (24, 24), max_images=1).search(Heart(), craft_set(), seed=0)
    with pytest.raises(AuditError, match="rules"):
        MaskSearch(Masked(), (300, 300), max_area=1 / 90000).search(Heart(), craft_set(), seed=0)
