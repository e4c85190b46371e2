"""Attacks by queries: what they ask, what they keep to, and that they work."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.alignment import ARCFACE
from audit.comparison import Comparison
from audit.errors import AuditError, ModelError
from audit.execution import Execution
from probes.recognition import asking
from probes.recognition.asking import Curve, never_began, still_gaining
from probes.recognition.decisions import DecisionFace
from probes.recognition.masks import FaceMask
from probes.recognition.placing import Numbers, chip_coordinates, chips, onto
from probes.recognition.plain import NoiseFace, OtherFace
from probes.recognition.query import QueryFace
from probes.recognition.squares import DRAWS, Places, propose, side, window
from tests.face_attacks import Pooled, changed, craft, effort, lfw, made_up, margins, portraits, real, regions

BOTH = (QueryFace, DecisionFace)
NAMES = ("glasses", "forehead", "nose", "cheeks", "features")


class Sealed:
    """A recognizer of which nothing but its declaration and its answers may be touched, and nothing differentiated."""

    def __init__(self):
        self.inner, self.seen = Pooled(), []

    def __getattribute__(self, name):
        if name == "__dict__":  # looked through for weights, to learn the device
            return {}
        allowed = {"face_size", "threshold", "metric", "template", "module", "inner", "seen", "__class__"}
        if name not in allowed:
            raise AssertionError(f"the attack touched {name}")
        if name in ("metric", "template", "module"):
            raise AttributeError(name)
        return getattr(Pooled(), name) if name in ("face_size", "threshold") else object.__getattribute__(self, name)

    def __call__(self, faces):
        assert not torch.is_grad_enabled()
        assert not faces.requires_grad
        self.seen.append(len(faces))
        return self.inner(faces)


class YesNo:
    """Says 1 or −1, and nothing else."""

    face_size, threshold = (112, 112), 0.0

    def __init__(self, comparison):
        self.inner = comparison

    def similarity(self, a, b):
        return torch.where(self.inner.score(a, self.inner.enrol(b)) >= self.inner.cut, 1.0, -1.0)


def pooled(threshold=0.5):
    return Comparison("pooled", Pooled(threshold), True)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_only_answers_are_asked_for_and_each_is_counted(kind, goal):
    sealed = Sealed()
    model = Comparison("sealed", sealed, white_box=False)
    attacked = made_up(goal, 3)
    examples = craft(kind(FaceMask("glasses")), model, attacked, queries=30)
    assert sum(sealed.seen) == len(attacked.targets) + sum(examples.details["asked"])
    assert examples.queries == max(examples.details["asked"]) <= 30


def test_two_models_cost_two_queries_and_the_worse_counts():
    attacked = made_up("impersonate", 3)
    easy, hard = pooled(-2.0), pooled(1.5)
    examples = craft(QueryFace(FaceMask("glasses")), [easy, hard], attacked, queries=31)
    assert examples.details["asked"] == [30, 30, 30]
    worst = torch.minimum(margins(easy, examples, attacked), margins(hard, examples, attacked))
    assert examples.history["margin"][-1] == pytest.approx(float(worst.mean()), abs=1e-5)


@settings(max_examples=6, deadline=None)
@given(
    kind=st.sampled_from(BOTH),
    name=st.sampled_from(NAMES),
    area=st.sampled_from((0.02, 0.1, 0.2)),
    goal=st.sampled_from(("impersonate", "dodge")),
    queries=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    threshold=st.floats(-0.9, 0.9),
)
def test_masks_regions_and_queries_are_kept_to(kind, name, area, goal, queries, seed, threshold):
    attacked = made_up(goal, 2, seed % 1000)
    examples = craft(kind(FaceMask(name, area)), pooled(threshold), attacked, seed=seed, queries=queries)
    where = changed(examples, attacked)
    assert not (where & ~examples.masks).any()
    assert all(regions(w) <= regions(m) for w, m in zip(where, examples.masks, strict=True))
    assert max(examples.details["asked"]) <= queries
    if kind is QueryFace:
        assert torch.equal(where, examples.masks)
    else:
        assert where.sum((1, 2)).tolist() == examples.details["area"]
    assert all(np.diff(examples.history["success"]) >= 0)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_a_seed_decides_whatever_the_batch_and_the_company(kind, goal):
    attacked = made_up(goal, 2)
    probe, model = kind(FaceMask("nose")), pooled(0.9)
    one = craft(probe, model, attacked, queries=24)
    assert torch.equal(one.images, craft(probe, model, attacked, queries=24, batch=3).images)
    assert not torch.equal(one.images, craft(probe, model, attacked, queries=24, seed=2).images)
    alone = replace(attacked, sources=attacked.sources[[1]], targets=attacked.targets[[1]])
    assert torch.equal(one.images[1:2], craft(probe, model, alone, queries=24).images)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_pairs_attacked_in_parts_are_attacked_alike(kind, goal, monkeypatch):
    attacked, shares = made_up(goal, 5), []
    probe, model, settings = kind(FaceMask("nose")), pooled(0.6), {"execution": Execution(), "seed": 1}
    whole = probe.craft([model], attacked, budget=effort(queries=24), **settings)
    monkeypatch.setattr(asking, "CHUNK", 2)
    parts = probe.craft(
        [model], attacked, budget=effort(queries=24), progress=lambda *a: shares.append(a[0]), **settings
    )
    assert torch.equal(parts.images, whole.images)
    assert torch.equal(parts.masks, whole.masks)
    assert parts.details == whole.details
    assert parts.queries == whole.queries
    assert parts.history.keys() == whole.history.keys()
    for name, values in whole.history.items():
        assert parts.history[name] == pytest.approx(values)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_part_that_is_done_stays_as_it_is():
    done, on = Curve(), Curve()
    done.add(2, torch.tensor([True, True]), torch.tensor([0.5, 0.5]))
    for i in range(5):
        on.add(2.0 * (i + 1), torch.tensor([i > 2]), torch.tensor([i / 10]))
    history = Curve.history([done, Curve(), on], 3, every=3, gauge="margin")
    assert history["queries"] == [2, 8, 10]
    assert history["success"] == pytest.approx([2 / 3, 1, 1])
    assert history["margin"] == pytest.approx([1 / 3, 1.3 / 3, 1.4 / 3])


@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_decisions_are_enough_for_the_attack_on_decisions(goal):
    attacked, scored = made_up(goal, 2), pooled(0.8)
    told = Comparison("yes or no", YesNo(scored), white_box=False)
    by_scores = craft(DecisionFace(FaceMask("features")), scored, attacked, queries=25)
    by_decisions = craft(DecisionFace(FaceMask("features")), told, attacked, queries=25)
    assert torch.equal(by_scores.images, by_decisions.images)
    assert by_scores.details["asked"] == by_decisions.details["asked"]


def test_a_model_that_only_compares_is_attacked_by_scores():
    class Compares:
        face_size, threshold = (112, 112), 0.9

        def similarity(self, a, b):
            return torch.cosine_similarity(Pooled()(a), Pooled()(b))

    attacked = made_up("impersonate", 2)
    examples = craft(QueryFace(FaceMask("glasses")), Comparison("compares", Compares(), False), attacked)
    assert examples.queries == 40
    assert examples.history["margin"][-1] > examples.history["margin"][0]


class Says:
    """Compares, and says the same whatever it is shown."""

    face_size, threshold = (112, 112), 0.5

    def __init__(self, said):
        self.said = said

    def similarity(self, a, b):
        return self.said.expand(len(a), *self.said.shape[1:])


def health(examples):
    return {d.name: d for d in examples.diagnostics}["search began"]


@pytest.mark.parametrize("kind", BOTH)
def test_a_model_that_never_moves_is_not_attacked(kind):
    attacked = made_up("impersonate", 3)
    deaf = Comparison("deaf", Says(torch.tensor([0.1])), False)
    found = health(craft(kind(FaceMask("glasses")), deaf, attacked, queries=30))
    assert (found.value, found.limit, found.raised) == (1.0, 0.1, True)
    # a pair that was won is not held against the attack
    given = Comparison("given", Says(torch.tensor([0.9])), False)
    assert health(craft(kind(FaceMask("glasses")), given, attacked, queries=30)).value == 0.0
    held = craft(kind(FaceMask("glasses", 0.02)), pooled(0.95), attacked, queries=30)
    assert held.history["success"][-1] < 1
    assert not health(held).raised


def test_of_the_pairs_that_held_out_the_still_ones_count():
    still = torch.tensor([True] * 3 + [False] * 9)
    assert never_began(torch.tensor([True] + [False] * 2 + [True] * 9), still).value == pytest.approx(0.1)
    assert not never_began(torch.tensor([True] + [False] * 2 + [True] * 9), still).raised
    assert never_began(torch.tensor([True] * 2 + [False] + [True] * 9), still).raised
    assert never_began(torch.zeros(12, dtype=torch.bool), still).value == 0.0


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("said", "match"), [(torch.tensor([torch.nan]), "not finite"), (torch.tensor([[0.1, 0.2]]), "shape")]
)
def test_scores_that_are_none_are_refused(kind, said, match):
    with pytest.raises(ModelError, match=match):
        craft(kind(FaceMask("glasses")), Comparison("broken", Says(said), False), made_up("dodge", 2))


@pytest.mark.parametrize(("name", "pieces"), [("nose", 1), ("cheeks", 2)])
def test_a_smaller_patch_is_in_no_more_pieces(name, pieces):
    given = Comparison("given", Says(torch.tensor([0.9])), False)
    attacked = made_up("impersonate", 3)
    examples = craft(DecisionFace(FaceMask(name)), given, attacked, queries=60)
    assert [regions(m) for m in examples.masks] == [pieces] * 3
    where = changed(examples, attacked)
    assert (where.sum((1, 2)) < examples.masks.sum((1, 2)) / 2).all()
    assert all(regions(w) <= pieces for w in where)


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["impersonate", "dodge"])
def test_scores_of_a_real_recognizer_are_searched(goal):
    attacked, mask = lfw(goal, 4), FaceMask("features")
    examples = craft(QueryFace(mask), real(), attacked, queries=36)
    found = margins(real(), examples, attacked)
    plain = [margins(real(), craft(p(mask), real(), attacked), attacked) for p in (NoiseFace, OtherFace)]
    assert float(found.mean()) > max(float(p.clamp(max=0.01).mean()) for p in plain) + 0.04
    if goal == "dodge":
        assert int((found >= 0).sum()) > max(int((p >= 0).sum()) for p in plain)
    # search, not only the best start
    starts = next(m for q, m in zip(examples.history["queries"], examples.history["margin"], strict=True) if q >= 6)
    assert examples.history["margin"][-1] > starts + 0.005
    assert examples.history["success"][-1] == pytest.approx(float((found >= 0).float().mean()))
    assert not health(examples).raised


@pytest.mark.slow
def test_decisions_of_a_real_recognizer_are_searched():
    attacked, mask = lfw("dodge", 4), FaceMask("features")
    examples = craft(DecisionFace(mask, shrink=15), real(), attacked, queries=45)
    found = margins(real(), examples, attacked) > 0
    plain = margins(real(), craft(NoiseFace(mask), real(), attacked), attacked) > 0
    assert int(found.sum()) > int(plain.sum())
    fade = torch.tensor(examples.details["fade"])
    assert torch.equal(found, fade == 0)
    assert (fade < 0.5).all()
    assert not health(examples).raised
    area, whole = torch.tensor(examples.details["area"]), examples.masks.sum((1, 2))
    assert (area[~found] == whole[~found]).all()
    assert float((area[found] / whole[found]).mean()) < 0.9


@given(seed=st.integers(0, 2**40), step=st.integers(0, 10**6), n=st.integers(1, 6), rows=st.data())
def test_numbers_belong_to_the_pair(seed, step, n, rows):
    names = [f"pair {i}" for i in range(n)]
    drawn = Numbers(seed, names).uniform(step, 50)
    assert drawn.shape == (n, 50)
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    i = rows.draw(st.integers(0, n - 1))
    assert torch.equal(drawn[i], Numbers(seed, names[i : i + 1]).uniform(step, 50)[0])
    assert torch.equal(drawn[i], Numbers(seed, names).uniform(step, 50, torch.tensor([i]))[0])


def test_numbers_are_even():
    drawn = Numbers(3, [str(i) for i in range(400)]).uniform(5, 50).flatten().numpy()
    count = np.histogram(drawn, 10, (0, 1))[0]
    assert abs(count - 2000).max() < 5 * (2000 * 0.9) ** 0.5
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03


@given(st.integers(0, 10**6), st.floats(0, 0.999999))
def test_places_are_pixels_of_the_mask(seed, share):
    masks = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(seed)) < 0.2
    masks[:, 4, 7] = True
    places = Places(masks)
    assert torch.equal(places.area, masks.sum((1, 2)))
    rows = torch.tensor([2, 0])
    y, x = places.draw(rows, torch.tensor([share, share]))
    for r, i, j in zip(rows.tolist(), y.tolist(), x.tolist(), strict=True):
        at = int(share * int(masks[r].sum()))
        assert masks[r].nonzero()[at].tolist() == [i, j]


@given(st.integers(0, 39), st.integers(0, 29), st.integers(1, 12))
def test_a_window_is_a_square_cut_at_the_edge(y, x, length):
    found = window(torch.tensor([y]), torch.tensor([x]), torch.tensor([length]), (40, 30))[0]
    rows = [i for i in range(40) if y - length // 2 <= i < y - length // 2 + length]
    columns = [j for j in range(30) if x - length // 2 <= j < x - length // 2 + length]
    expected = torch.zeros(40, 30, dtype=torch.bool)
    expected[np.ix_(rows, columns)] = True
    assert torch.equal(found, expected)
    assert found[y, x]


def test_squares_shrink():
    sides = [int(side(torch.tensor([1254]), 0.4, done)) for done in (0, 0.01, 0.03, 0.1, 0.3, 0.9)]
    assert sides == sorted(sides, reverse=True)
    assert (sides[0], sides[-1]) == (22, 2)


@pytest.mark.parametrize("lent", [True, False])
def test_a_proposal_changes_its_square_alone(lent):
    patches = torch.randint(0, 256, (64, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    square = torch.zeros(64, 20, 20, dtype=torch.bool)
    square[:, 5:9, 3:7] = True
    drawn = Numbers(0, [str(i) for i in range(64)]).uniform(0, DRAWS)
    made = propose(patches, 255 - patches if lent else None, square, drawn)
    assert torch.equal(made[:, :, ~square[0]], patches[:, :, ~square[0]])
    assert (made != patches).flatten(1).any(1).all()
    inside = made[:, :, 5:9, 3:7].flatten(2)
    flat = (inside == inside[:, :, :1]).all(2).all(1)
    assert abs(int(flat.sum()) - 32) <= 12


def test_a_face_is_laid_on_by_its_landmarks():
    given_, wanted = portraits(2, 5), portraits(2, 6)
    laid = onto(given_.images.float() / 255, given_.landmarks, wanted.landmarks, (120, 130))
    for i in range(2):
        there, here = (np.vstack([_least_squares(p[i].double().numpy()), [0, 0, 1]])
                       for p in (given_.landmarks, wanted.landmarks))  # fmt: skip
        matrix = np.linalg.inv(here) @ there
        image = given_.images[i].permute(1, 2, 0).numpy().astype(np.float32) / 255
        expected = cv2.warpAffine(image, matrix[:2], (130, 120), flags=cv2.INTER_LINEAR)
        inner = (slice(15, -15), slice(15, -15))
        assert np.abs(laid[i].permute(1, 2, 0).numpy() - expected)[inner].mean() < 0.004


def test_an_aligned_face_is_its_own_chip():
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(chips(image, ARCFACE[None]), image, atol=1e-4)
    at = chip_coordinates(ARCFACE[None] + torch.tensor([3.0, 5.0]), (112, 112))
    assert at[0, 5, 3].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_searching_on_while_it_pays_is_flagged():
    asked = [float(q) for q in range(1, 101)]
    rising = [q / 100 for q in asked]
    settled = [min(1.0, q / 50) for q in asked]
    late = [0.0] * 95 + [1.0] * 5
    assert still_gaining(asked, late, least=0.02, open_pairs=True).raised
    assert not still_gaining(asked, late, least=0.02, open_pairs=False).raised
    assert not still_gaining(asked, settled, least=0.02, open_pairs=True).raised
    assert still_gaining(asked, rising, least=0.02, open_pairs=True).value == pytest.approx(10 / 99, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(QueryFace, {"queries": 0}), (QueryFace, {"beyond": -1.0}), (QueryFace, {"square": 0.0}),
     (DecisionFace, {"queries": 0}), (DecisionFace, {"shrink": -1}), (DecisionFace, {"square": 2.0})],
)  # fmt: skip
def test_options_out_of_range_are_refused(kind, options):
    with pytest.raises(AuditError, match=next(iter(options))):
        kind(FaceMask("nose"), **options)


def _least_squares(points):
    """(2, 3) onto the usual places: x' = a·x − b·y + c, y' = b·x + a·y + d."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(points, ARCFACE.double().numpy(), strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])
