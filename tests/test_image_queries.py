"""The attack that only asks: its bound, its course, and its effect beside noise of the same size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.budget import Budget
from audit.errors import AuditError, DataError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Labelled
from probes.forgery.query import HALVINGS, SquareSearch
from tests.kit import forgery_faces, mesonet_model

EPSILON = 8 / 255


class Deaf:
    """Fake, by the same margin whatever it is shown."""

    face_size, threshold = (16, 16), 0.0

    def __call__(self, faces):
        return torch.full((len(faces),), 3.0)


class Tired(Deaf):
    """Gives way by one with each question."""

    def __init__(self):
        self.left = 101

    def __call__(self, faces):
        self.left -= 1
        return torch.full((len(faces),), float(self.left))


class Bright:
    """Says fake where the left half is darker than the right one; shows no gradient."""

    face_size, threshold = (16, 16), 0.0

    def __init__(self, frames=None):
        self.asked = 0
        if frames:
            self.clip_frames = frames

    def __call__(self, faces):
        self.asked += 1
        with torch.no_grad():
            x = faces if faces.ndim == 4 else faces.mean(1)
            return (x[..., 8:] - x[..., :8]).mean((1, 2, 3)) * 50


def labelled(n=6, seed=0):
    images = torch.randint(60, 190, (n, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    names = tuple(f"{i}" for i in range(n))
    return Labelled(images, torch.ones(n, dtype=torch.int64), names, names, names)


def craft(model, images, queries=60, probe=None, seed=1):
    budget = Budget("test", steps=0, batch=4, queries=queries, images=0, bootstrap=0)
    return (probe or SquareSearch(EPSILON)).craft([model], images, execution=Execution(), budget=budget, seed=seed)


def test_asking_alone_turns_decisions_round_and_never_leaves_the_bound():
    thing = Bright()
    model = ImageModel("bright", thing, "forgery", white_box=False)
    images = labelled()
    labels = model.right(torch.from_numpy(model.ask(images.images)), images.labels)
    images = Labelled(images.images, torch.where(labels, 1, 0), images.ids, images.groups, images.clips)
    assert bool(model.right(torch.from_numpy(model.ask(images.images)), images.labels).all())
    thing.asked = 0
    made = craft(model, images, queries=100)
    assert made.details["queries"] == thing.asked <= 6 * 101
    assert (made.images.int() - images.images.int()).abs().max() <= 8
    left = model.right(torch.from_numpy(model.ask(made.images)), images.labels).float().mean()
    noise = torch.randint(0, 2, images.images.shape, generator=torch.Generator().manual_seed(2)) * 16 - 8
    plain = (images.images.int() + noise).clamp(0, 255).to(torch.uint8)
    kept = model.right(torch.from_numpy(model.ask(plain)), images.labels).float().mean()
    assert left < kept
    assert SquareSearch(EPSILON).rules().violations(images.images, made) == []


def health(made):
    assert [d.name for d in made.diagnostics] == ["loss fell", "best step is the last"]
    return made.diagnostics, {d.name for d in made.diagnostics if d.raised}


def test_a_search_that_moved_nothing_is_no_sign_of_strength():
    made = craft(ImageModel("deaf", Deaf(), "forgery", white_box=False), labelled(), queries=20)
    assert made.history["margin"] == pytest.approx([3.0] * 21)
    (fell, last), flags = health(made)
    assert (fell.value, last.value, flags) == (0.0, 0.0, {"loss fell"})


def test_health_is_that_of_the_margins_that_were_seen():
    """Kept by a model that writes down what it was asked: the lowest so far of each image, as plain loops find it."""
    images, told = labelled(), []

    class Written(Bright):
        def __call__(self, faces):
            found = super().__call__(faces)
            told.append(found.tolist()[0])
            return found

    model = ImageModel("bright", Written(), "forgery", white_box=False)
    labels = (torch.from_numpy(model.ask(images.images)) >= 0).long()
    images = Labelled(images.images, labels, images.ids, images.groups, images.clips)
    queries = []
    for i in range(6):
        told.clear()
        craft(model, images[[i]], queries=30)
        queries.append([(1 if labels[i] else -1) * s for s in told])
    wanted = []
    for q in range(31):
        left = [max(0.0, min(asked[: q + 1])) for asked in queries]
        wanted.append(sum(left) / 6)
    made = craft(model, images, queries=30)
    assert made.history["margin"] == pytest.approx(wanted, abs=1e-6)
    assert made.details["queries"] == sum(map(len, queries))
    (fell, last), _ = health(made)
    assert fell.value == pytest.approx((wanted[0] - wanted[-1]) / wanted[0])
    late = (wanted[27] - wanted[-1]) / (wanted[0] - wanted[-1])
    assert last.value == pytest.approx(late, abs=1e-6)


def test_questions_that_ran_out_too_early_are_told():
    model = ImageModel("tired", Tired(), "forgery", white_box=False)
    made = craft(model, labelled(1), queries=20)
    assert made.history["margin"] == list(range(100, 79, -1))
    (fell, last), flags = health(made)
    assert (fell.value, last.value) == pytest.approx((0.2, 2 / 20))
    assert flags == {"best step is the last"}


def test_no_queries_and_no_images_give_no_health_that_is_not_there():
    model = ImageModel("deaf", Deaf(), "forgery", white_box=False)
    assert health(craft(model, labelled(2), queries=0))[1] == {"loss fell"}
    none = craft(model, labelled(2)[torch.zeros(0)])
    assert (none.diagnostics, none.history) == ([], {"margin": []})


@pytest.mark.parametrize("wrong", [{"epsilon": 0.9 / 255}, {"epsilon": 0}, {"epsilon": 1.5}, {"share": 0}])
def test_what_no_search_can_be_is_refused(wrong):
    with pytest.raises(AuditError, match="correct the option"):
        SquareSearch(**wrong)


def test_the_order_of_images_does_not_matter():
    model, images = ImageModel("bright", Bright(), "forgery", white_box=False), labelled()
    turned = images[[3, 1, 5, 0, 2, 4]]
    first, other = craft(model, images), craft(model, turned)
    assert torch.equal(first.images[[3, 1, 5, 0, 2, 4]], other.images)
    assert not torch.equal(first.images, craft(model, images, seed=2).images)


def test_frames_of_a_clip_carry_the_same_squares():
    model = ImageModel("clips", Bright(frames=3), "forgery", white_box=False)
    images = labelled(6)
    made = craft(model, images, queries=20)
    change = made.images.int() - images.images.int()
    assert bool(change.any())
    assert torch.equal(change[0], change[1])
    assert torch.equal(change[3], change[5])
    with pytest.raises(DataError, match="whole clips"):
        craft(model, labelled(4))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 300))
def test_squares_shrink_and_stay_inside(queries, height, width):
    sides = [SquareSearch().side(q, queries, height, width) for q in range(queries)]
    assert sides == sorted(sides, reverse=True)
    assert all(1 <= s <= min(height, width) for s in sides)


def test_the_schedule_is_that_of_the_paper():
    probe = SquareSearch(share=0.8)
    for i, h in enumerate(HALVINGS):
        assert probe.side(h, 10_000, 100, 100) == max(1, round((0.8 / 2**i) ** 0.5 * 100))
        assert probe.side(h + 1, 10_000, 100, 100) == max(1, round((0.8 / 2 ** (i + 1)) ** 0.5 * 100))


@pytest.mark.kit
def test_a_real_detector_gives_way_to_questions():
    model, faces = mesonet_model("Meso4_DF"), forgery_faces()
    right = model.right(torch.from_numpy(model.ask(faces.images)), faces.labels)
    chosen = faces[right & (faces.labels == 1)][[0, 5, 9, 13]]
    made = craft(model, chosen, queries=60, probe=SquareSearch(4 / 255))
    before, after = (model.margin(torch.from_numpy(model.ask(x)), chosen.labels) for x in (chosen.images, made.images))
    noise = torch.randint(0, 2, chosen.images.shape, generator=torch.Generator().manual_seed(0)) * 8 - 4
    plain = (chosen.images.int() + noise).clamp(0, 255).to(torch.uint8)
    random = model.margin(torch.from_numpy(model.ask(plain)), chosen.labels)
    assert bool((after < before).all())
    assert after.mean() < random.mean()
