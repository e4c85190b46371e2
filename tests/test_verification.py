"""Error rates of recognizers against scikit-learn and plain NumPy; intervals where pairs share people by simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import det_curve, roc_curve

from audit.measures import pairwise
from audit.measures.identification import fnir, fpir, identified, rank_one
from audit.measures.intervals import Resampling, clopper_pearson, cluster_bootstrap, wilson
from audit.measures.pairwise import people_of, share_of_pairs
from audit.measures.verification import (
    ScoredPairs,
    accuracy,
    attack_success,
    by_group,
    cut_at,
    det,
    eer,
    fmr,
    fnmr,
    impostor_pairs,
)

R = Resampling(seed=0)


def drawn(seed=0, genuine=120, impostors=200, people=60, apart=2.0, places=None):
    """Pairs of normal scores; ``places`` rounds them, so that there are ties."""
    rng = np.random.default_rng(seed)
    same = np.arange(genuine + impostors) < genuine
    scores = rng.normal(size=len(same)) + apart * same
    who = rng.integers(0, people, (len(same), 2))
    who[same, 1] = who[same, 0]
    who[~same, 1] = (who[~same, 0] + 1 + rng.integers(0, people - 1, impostors)) % people
    order = rng.permutation(len(same))
    return ScoredPairs((scores if places is None else scores.round(places))[order], same[order], who[order])


@pytest.mark.parametrize("cut", [-9.0, 0.0, 1.0, 1.25, 9.0])
@pytest.mark.parametrize("places", [None, 1])
def test_rates_at_a_cut_are_counts(cut, places):
    p = drawn(places=places)
    wrong = {True: 0, False: 0}
    for score, same in zip(p.scores.tolist(), p.same.tolist(), strict=True):
        wrong[same] += (score >= cut) != same
    assert (fmr(p, cut, R).k, fmr(p, cut, R).n) == (wrong[False], 200)
    assert (fnmr(p, cut, R).k, fnmr(p, cut, R).n) == (wrong[True], 120)
    both = accuracy(p, cut, R)
    assert (both.n - both.k, both.n) == (sum(wrong.values()), 320)
    for e in (fmr(p, cut, R), fnmr(p, cut, R), both):
        assert 0 <= e.low <= e.value <= e.high <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.sampled_from([None, 0, 1]))
def test_the_det_curve_is_scikit_learns(seed, genuine, impostors, places):
    p = drawn(seed, genuine, impostors, 20, 1.0, places)
    ours = det(p, most=10**6)
    fpr, tpr, cuts = roc_curve(p.same, p.scores, drop_intermediate=False)
    assert ours.fmr == pytest.approx(fpr[::-1])
    assert ours.fnmr == pytest.approx(1 - tpr[::-1])
    assert ours.cuts[:-1] == pytest.approx(cuts[::-1][:-1])
    inner = det_curve(p.same, p.scores)
    both = {tuple(x) for x in np.stack([ours.fmr, ours.fnmr], 1).round(9).tolist()}
    assert {tuple(x) for x in np.stack(inner[:2], 1).round(9).tolist()} <= both
    # where FMR + TPR = 1, read off scikit-learn's curve on a very fine grid
    grid = np.linspace(0, 1, 200_001)
    crossing = grid[np.argmin(np.abs(1 - np.interp(grid, fpr, tpr) - grid))]
    value = eer(p, R).value
    assert value == pytest.approx(crossing, abs=2e-5)
    assert eer(p, R).low <= value <= eer(p, R).high


def test_eer_by_hand():
    """Impostors 0.1 0.2 0.6, genuine 0.4 0.7 0.8: from 0.4 on one impostor of three is above, from 0.6 on one genuine
    below; both rates are a third between."""
    scores = np.array([0.1, 0.2, 0.6, 0.4, 0.7, 0.8])
    p = ScoredPairs(scores, np.arange(6) > 2, np.array([[0, 1], [2, 3], [4, 5], [6, 6], [7, 7], [8, 8]]))
    assert eer(p, R).value == pytest.approx(1 / 3)
    clean = ScoredPairs(np.where(scores == 0.6, 0.3, scores), p.same, p.people)
    e = eer(clean, R)
    assert (e.value, e.low) == (0, 0)
    assert e.high > 0.3, "three pairs of a kind cannot show an EER of 0"


def test_thinning_keeps_ends_and_stays_on_the_curve():
    p = drawn(3, 4000, 4000, 500)
    full, thin = det(p, 10**6), det(p, 50)
    assert 10 < len(thin.cuts) <= 50 < len(full.cuts)
    for curve in (full, thin):
        assert (curve.fmr[0], curve.fnmr[0], curve.fmr[-1], curve.fnmr[-1]) == (1, 0, 0, 1)
        assert (np.diff(curve.cuts) > 0).all()
        assert (np.diff(curve.fmr) <= 0).all()
        assert (np.diff(curve.fnmr) >= 0).all()
    places = np.searchsorted(full.cuts, thin.cuts)
    assert (full.cuts[places] == thin.cuts).all()
    assert (full.fmr[places] == thin.fmr).all()
    steps = np.hypot(*(np.diff(norm.ppf(np.clip(r, 1e-6, 1 - 1e-6))) for r in (thin.fmr, thin.fnmr)))
    assert steps.max() < 1.5, "no gap on normal deviates, but the steps of a single pair"


def test_empty_is_none_never_zero():
    p = drawn()
    for of, rates in ((p[p.same], (fmr,)), (p[~p.same], (fnmr,)), (p[:0], (fmr, fnmr, accuracy))):
        for rate in rates:
            e = rate(of, 0.5, R)
            assert (e.value, e.low, e.high, e.n) == (None, None, None, 0)
        assert eer(of, R).value is None
        assert len(det(of).cuts) == 0
    point = cut_at(p[p.same], 0.01, R)
    assert (point.cut.value, point.fmr.value) == (None, None)
    assert "no pair of two people" in point.note
    nobody = attack_success([True], [False], ["a"], ["b"], R)
    assert (nobody.value, nobody.n) == (None, 0)


# the cut at a declared FMR


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.001, 0.01, 0.1, 0.3]), st.sampled_from([None, 1]))
def test_the_cut_is_the_lowest_that_keeps_the_declared_fmr(seed, declared, places):
    p = drawn(seed, 1, 150, 40, places=places)
    point = cut_at(p, declared, R)
    impostors = p.scores[~p.same]
    assert point.fmr.value == (impostors >= point.cut.value).mean() <= declared
    lower = impostors[impostors < point.cut.value]
    assert (impostors >= lower.max()).mean() > declared, "one more would be too many"
    assert bool(point.note) is (declared * 150 < 1)
    if point.cut.low is not None:
        assert point.cut.low <= point.cut.value <= point.cut.high
        # Woodruff: at the ends of the interval the calibration shows the ends of the FMR's interval
        assert (impostors >= point.cut.low).mean() <= point.fmr.high + 1e-12
        assert (impostors >= point.cut.high).mean() <= point.fmr.low + 1e-12


def test_the_cut_holds_in_float32():
    p = ScoredPairs(np.array([0.1, 0.2, 0.3]), np.zeros(3, bool), np.array([[0, 1], [2, 3], [4, 5]]))
    cut = cut_at(p, 0.01, R).cut.value
    assert np.float32(0.3) < np.float32(cut) < 0.30001
    assert cut_at(p, 0.4, R).cut.value == pytest.approx(0.25), "half way between the two"


def test_a_declared_fmr_has_to_be_a_share():
    with pytest.raises(ValueError, match="declared FMR"):
        cut_at(drawn(), 0.0, R)


@pytest.mark.slow
def test_the_interval_of_the_cut_covers_the_true_one():
    """Scores with a part that belongs to each person: the true cut at an FMR of 5 % is known."""
    truth, hit, asked, trials = norm.ppf(0.95), 0, 0, 120
    rng = np.random.default_rng(8)
    for _ in range(trials):
        who, scores = people_and_scores(rng, 80, 900, 0.4)
        point = cut_at(ScoredPairs(scores, np.zeros(900, bool), who), 0.05, R)
        if point.cut.low is not None:
            asked += 1
            hit += point.cut.low <= truth <= point.cut.high
    assert asked > 0.9 * trials
    assert hit / asked >= 0.89


# all pairs from embeddings


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 7 * 31, 1 << 21])
def test_impostor_pairs_are_all_pairs_of_two_people(monkeypatch, metric, block):
    monkeypatch.setattr("audit.measures.verification._BLOCK", block)
    rng = np.random.default_rng(1)
    faces = rng.normal(size=(31, 8))
    if metric == "cosine":
        faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    names = [f"p{i % 9}" for i in range(31)]
    found = impostor_pairs(faces, names, metric)
    plain = [
        float(faces[i] @ faces[j]) if metric == "cosine" else -float(np.linalg.norm(faces[i] - faces[j]))
        for i, j in combinations(range(31), 2)
        if names[i] != names[j]
    ]
    assert sorted(found.scores.tolist()) == pytest.approx(sorted(plain))
    assert not found.same.any()
    assert (found.people[:, 0] != found.people[:, 1]).all()
    counts = np.bincount(found.people.ravel(), minlength=9)
    sizes = np.bincount([i % 9 for i in range(31)])
    assert counts.tolist() == [int(s * (31 - s)) for s in sizes]


def test_too_many_impostor_pairs_are_drawn_by_seed():
    faces = np.random.default_rng(1).normal(size=(200, 4))
    names = [str(i) for i in range(200)]
    part, again, other = (impostor_pairs(faces, names, "euclidean", most=2000, seed=s) for s in (3, 3, 4))
    assert abs(len(part) - 2000) < 200
    assert part.scores.tolist() == again.scores.tolist()
    assert part.scores.tolist() != other.scores.tolist()
    whole = impostor_pairs(faces, names, "euclidean").scores
    assert len(whole) == 200 * 199 // 2
    assert np.isin(part.scores, whole).all()
    assert len(impostor_pairs(faces[:0], [], "cosine")) == 0


# pairs that share people


def people_and_scores(rng, people, pairs, shared):
    """Pairs of two people; scores are standard normal, the share of the variance that is the people's own given."""
    own = rng.normal(size=people) * np.sqrt(shared / 2)
    i = rng.integers(0, people, pairs)
    j = (i + 1 + rng.integers(0, people - 1, pairs)) % people
    return np.stack([i, j], 1), own[i] + own[j] + rng.normal(size=pairs) * np.sqrt(1 - shared)


def plain_variance(hits, who):
    """The dyadic variance as a double loop over all pairs of pairs."""
    e = np.asarray(hits, float) - np.mean(hits)
    shares = [[bool(set(a) & set(b)) for b in who.tolist()] for a in who.tolist()]
    return float((np.outer(e, e) * np.array(shares)).sum()) / len(e) ** 2, np.array(shares).sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 25))
def test_the_sum_over_people_is_the_sum_over_pairs_of_pairs(seed, n, people):
    rng = np.random.default_rng(seed)
    who, hits = rng.integers(0, people, (n, 2)), rng.random(n) < 0.5
    variance, together = plain_variance(hits, who)
    e = hits - hits.mean()
    assert pairwise._together(e, who) / n**2 == pytest.approx(variance, abs=1e-12)
    assert pairwise._together(np.ones(n), who) == together


def test_pairs_that_share_nobody_get_wilson():
    who = np.arange(40).reshape(20, 2)
    e = share_of_pairs([True] * 7 + [False] * 13, who, R)
    assert e == wilson(7, 20)
    alone = share_of_pairs([True] * 7 + [False] * 13, np.stack([np.arange(20)] * 2, 1), R)
    assert alone == wilson(7, 20)


def test_one_person_in_all_pairs_is_hardly_more_than_one_trial():
    who = np.stack([np.zeros(50, int), np.arange(1, 51)], 1)
    e = share_of_pairs([True] * 50, who, R)
    assert e.low == pytest.approx(clopper_pearson(1, 1).low)
    assert "effective pairs (51 people" in e.method


def test_pairs_of_one_person_each_are_clusters():
    """Faces of one person: the variance between whole clusters, so about the same interval as their bootstrap."""
    rng = np.random.default_rng(2)
    sizes, rates = rng.integers(1, 6, 250), rng.beta(2, 2, 250)
    k = rng.binomial(sizes, rates)
    who = np.repeat(np.arange(250), sizes)
    hits = np.concatenate([np.arange(s) < x for s, x in zip(sizes, k, strict=True)])
    ours, theirs = share_of_pairs(hits, np.stack([who, who], 1), R), cluster_bootstrap(k, sizes, seed=0)
    assert ours.value == theirs.value
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)
    assert ours.high - ours.low > 1.15 * (wilson(ours.k, ours.n).high - wilson(ours.k, ours.n).low)


def test_one_hit_never_says_more_than_none():
    rng = np.random.default_rng(4)
    who, _ = people_and_scores(rng, 30, 200, 0)
    none, one = (share_of_pairs(np.arange(200) < k, who, R) for k in (0, 1))
    assert 0 == none.low == one.low or one.low < 1e-3
    assert one.high >= none.high > wilson(0, 200).high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("people", "pairs", "rate", "shared"), [(60, 200, 0.1, 0.5), (100, 1000, 0.02, 0.5), (100, 1000, 0.5, 0.9)]
)
def test_intervals_cover_though_pairs_share_people(people, pairs, rate, shared):
    rng, trials = np.random.default_rng(5), 250
    cut, ours, naive = norm.isf(rate), 0, 0
    for _ in range(trials):
        who, scores = people_and_scores(rng, people, pairs, shared)
        hits = scores >= cut
        e, w = share_of_pairs(hits, who, R), wilson(int(hits.sum()), pairs)
        ours += e.low <= rate <= e.high
        naive += w.low <= rate <= w.high
    assert ours / trials >= 0.91
    assert ours > naive
    if pairs == 1000:
        assert naive / trials < 0.88, "pairs as independent are too sure: there was something to mend"


def test_attack_success_counts_the_eligible_alone():
    first, second = ["a", "b", "c", "d"], ["e", "f", "g", "h"]
    e = attack_success([True, True, False, True], [True, False, True, True], first, second, R)
    assert e == wilson(2, 3)
    shared = attack_success([True, True, False, True], [True, False, True, True], ["a"] * 4, second, R)
    assert (shared.k, shared.n) == (2, 3)
    assert shared.high - shared.low > e.high - e.low


def test_people_are_numbers_by_name():
    assert people_of(["b", "a"], ["a", "c"]).tolist() == [[1, 0], [0, 2]]
    assert people_of([], []).shape == (0, 2)
    for wrong in ((["a"], []), ([""], ["a"])):
        with pytest.raises(ValueError, match="two names per pair"):
            people_of(*wrong)


def test_groups_and_the_worst():
    p = drawn(genuine=0, seed=1)
    groups = np.array(["old", "young", "", "few"])[np.minimum(np.arange(200) % 4, 3)].tolist()
    found = by_group(groups, lambda mask: fmr(p[mask], 1.0, R))
    plain = {g: (p.scores[np.array(groups) == g] >= 1.0).mean() for g in ("old", "young", "few")}
    assert {g: e.value for g, e in found.rates.items()} == pytest.approx(plain)
    assert found.worst == max(plain, key=plain.get)
    better = by_group(groups, lambda mask: accuracy(p[mask], 1.0, R), higher_is_better=True)
    assert better.worst == found.worst
    none = by_group(groups, lambda mask: fnmr(p[mask], 1.0, R))
    assert none.worst is None
    assert {e.value for e in none.rates.values()} == {None}


@pytest.mark.parametrize(
    ("scores", "same", "people"),
    [
        ([0.1, np.nan], [True, False], [[0, 0], [0, 1]]),
        ([0.1], [True, False], [[0, 0]]),
        ([0.1], [True], [[0, 1]]),
        ([0.1], [False], [[1, 1]]),
    ],
)
def test_pairs_that_cannot_be_are_refused(scores, same, people):
    with pytest.raises(ValueError, match="expected"):
        ScoredPairs(np.array(scores), np.array(same), np.array(people))


# 1:N


def test_identification_by_hand():
    """Entries 0, 1, 2. Found; beaten by another; too faint; tied; a stranger accepted; a stranger refused."""
    scores = [[0.9, 0.1, 0.2], [0.7, 0.6, 0.1], [0.1, 0.2, 0.3], [0.8, 0.8, 0.1], [0.1, 0.7, 0.1], [0.1, 0.2, 0.3]]
    seen = identified(scores, [0, 1, 2, 1, -1, -1], 0.5)
    assert seen.first.tolist() == [True, False, True, False, False, False]
    assert seen.best.tolist() == [0, 0, 2, 0, 1, 2]
    assert seen.found.tolist() == [True, False, False, False, False, False]
    assert seen.hidden.tolist() == [False, True, True, True, False, False]
    assert seen.intruding.tolist() == [False] * 4 + [True, False]
    names = list("abcdef")
    assert (rank_one(seen, names, R).k, rank_one(seen, names, R).n) == (2, 4)
    assert (fnir(seen, names, R).k, fnir(seen, names, R).n) == (3, 4)
    assert (fpir(seen, names, R).k, fpir(seen, names, R).n) == (1, 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 6), st.floats(-1, 1))
def test_identification_against_sorting(seed, n, size, cut):
    rng = np.random.default_rng(seed)
    scores, truth = rng.uniform(-1, 1, (n, size)), rng.integers(-1, size, n)
    seen = identified(scores, truth, cut)
    for i in range(n):
        order = sorted(range(size), key=lambda g, i=i: -scores[i, g])
        top = scores[i, order[0]] >= cut
        assert seen.best[i] == order[0]
        assert seen.found[i] == (order[0] == truth[i] and top)
        assert seen.intruding[i] == (truth[i] == -1 and top)


def test_an_empty_gallery_accepts_nobody():
    seen = identified(np.zeros((2, 0)), [-1, -1], 0.5)
    assert not seen.intruding.any()
    assert fnir(seen, ["a", "b"], R).value is None
    assert fpir(seen, ["a", "b"], R).value == 0
    for scores, truth in (([[0.1]], [1]), ([[np.nan]], [0]), ([0.1], [0])):
        with pytest.raises(ValueError, match="expected"):
            identified(scores, truth, 0.5)
