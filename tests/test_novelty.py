"""Scores of novelty against plain reimplementations on small sets: every partition tried, every distance by a loop."""

from __future__ import annotations

from math import dist, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from audit.errors import AuditError
from audit.measures import novelty
from audit.measures.intervals import Resampling
from audit.measures.novelty import (
    clusters,
    entropy,
    fuse,
    is_new,
    k_means,
    neighbours,
    novelty_auc,
    outlier_factor,
    unit,
)

SCORES = {
    "neighbours": neighbours,
    "clusters": lambda p, g: clusters(p, g, probe_clusters=6, gallery_clusters=4),
    "outlier factor": lambda p, g: outlier_factor(p, g, k=5),
    "entropy": lambda p, g: entropy(p, g).score,
}


def drawn(seed, n, width=3):
    return np.random.default_rng(seed).normal(size=(n, width))


def length_one(rows):
    return [[float(x) / sqrt(sum(float(y) ** 2 for y in r)) for x in r] for r in rows]


def partitions(n, k):
    """Every way to put n things into k cells, none empty, as labels."""

    def grow(labels, used):
        if len(labels) == n:
            if used == k:
                yield labels
            return
        for c in range(min(used + 1, k)):
            yield from grow([*labels, c], max(used, c + 1))

    return grow([], 0)


def best_clusters(rows, k):
    """Centres and labels of the partition with the least sum of squares, of all there are."""
    best = (float("inf"), None, None)
    for labels in partitions(len(rows), k):
        members = [[r for r, l in zip(rows, labels, strict=True) if l == c] for c in range(k)]
        centres = [[sum(x) / len(m) for x in zip(*m, strict=True)] for m in members]
        cost = sum(dist(r, centres[l]) ** 2 for r, l in zip(rows, labels, strict=True))
        if cost < best[0]:
            best = (cost, centres, labels)
    return best[1], best[2]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([1.0, 40.0]))
def test_the_mean_distance_to_the_nearest_is_a_loops(seed, k, scale):
    probes, gallery = drawn(seed, 4) * scale, np.round(drawn(seed + 1, 9), 0)
    gallery[~gallery.any(1), 0] = 1  # rounded: there are ties
    found = neighbours(probes, gallery, k)
    for p, value in zip(length_one(probes), found, strict=True):
        assert value == pytest.approx(sum(sorted(dist(p, g) for g in length_one(gallery))[:k]) / k, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 1.0), (0.0, 1.0)])
def test_the_distances_to_centres_are_those_of_the_best_partition(seed, weights):
    probes, gallery = drawn(seed, 7), drawn(seed + 10, 8)
    p, g = length_one(probes), length_one(gallery)
    own, labels = best_clusters(p, 3)
    centres, _ = best_clusters(g, 2)
    expected = [
        weights[0] * min(dist(row, c) for c in centres) + weights[1] * min(dist(own[l], c) for c in centres)
        for row, l in zip(p, labels, strict=True)
    ]
    found = clusters(probes, gallery, probe_clusters=3, gallery_clusters=2, weights=weights, seed=seed)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("seed", "k"), [(0, 2), (1, 3), (2, 5), (3, 50)])
def test_the_outlier_factor_is_that_of_its_definition(seed, k):
    """Reachability distances and densities by loops, Breunig et al. 2000."""
    probes, gallery = drawn(seed, 5), drawn(seed + 20, 12)
    p, g = length_one(probes), length_one(gallery)
    k_used = min(k, 11)

    def near(row, rows):
        return sorted((dist(row, r), i) for i, r in enumerate(rows) if r is not row)[:k_used]

    reach = [near(r, g)[-1][0] for r in g]

    def density(row):
        return k_used / sum(max(d, reach[i]) for d, i in near(row, g))

    expected = [sum(density(g[i]) for _, i in near(row, g)) / k_used / density(row) for row in p]
    assert outlier_factor(probes, gallery, k=k) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_entropy_is_the_papers_formula_on_a_fifth_as_many_centres(seed):
    probes, gallery = drawn(seed, 30), drawn(seed + 30, 11)
    centres, _ = best_clusters(length_one(gallery), 2)  # 11 // 5
    found = entropy(probes, gallery, seed=seed)
    highest = []
    for p, value in zip(length_one(probes), found.score, strict=True):
        sim = max(sum(a * b for a, b in zip(p, c, strict=True)) / sqrt(sum(x * x for x in c)) for c in centres)
        highest.append(sim)
        assert value == pytest.approx(-sim * log(sim) if sim > 0 else 1 / np.e, abs=1e-9)
    assert found.similarity == pytest.approx(highest, abs=1e-9)
    assert found.folded == sum(s < 1 / np.e for s in highest)
    assert found.undefined == sum(s <= 0 for s in highest)


def test_the_entropy_is_not_monotone_and_tells_how_many_that_concerns():
    gallery = np.tile([[1.0, 0.0]], (5, 1))
    sims = np.array([1.0, 0.9, 1 / np.e, 0.1, 0.0, -0.5, -1.0])
    probes = np.stack([sims, np.sqrt(1 - sims**2)], 1)
    found = entropy(probes, gallery)
    assert found.similarity == pytest.approx(sims, abs=1e-12)
    assert found.score[:4] == pytest.approx([0, -0.9 * log(0.9), 1 / np.e, -0.1 * log(0.1)], abs=1e-9)
    assert found.score[2] > found.score[3]  # less similar, and yet less new: as the paper writes it
    assert found.score[5:] == pytest.approx([1 / np.e] * 2)
    assert found.undefined >= 2
    assert found.folded >= found.undefined + 1
    assert (found.score >= 0).all()


def test_a_gallery_of_opposites_has_no_centre_and_everything_is_new():
    found = entropy([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-1.0, 0.0]])
    assert found.score.tolist() == [pytest.approx(1 / np.e)] * 2
    assert found.undefined == 2


def planted(seed=0, width=16, spread=0.25):
    """A gallery of four methods; probes of those and of two it does not hold."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(6, width))
    gallery_methods = [f"m{i % 4}" for i in range(80)]
    methods = [f"m{i % 6}" for i in range(60)]
    gallery = np.stack([means[int(m[1])] + rng.normal(size=width) * spread for m in gallery_methods])
    probes = np.stack([means[int(m[1])] + rng.normal(size=width) * spread for m in methods])
    return probes, gallery, methods, gallery_methods


@pytest.mark.parametrize("name", SCORES)
def test_each_score_is_higher_for_a_method_that_the_gallery_does_not_hold(name):
    probes, gallery, methods, there = planted()
    new = is_new(methods, there)
    assert new.tolist() == [m in {"m4", "m5"} for m in methods]
    score = SCORES[name](probes, gallery)
    assert SCORES[name](probes, gallery) == pytest.approx(score, abs=1e-12)
    e = novelty_auc(score, new, [f"s{i // 6}" for i in range(60)], Resampling(seed=0, draws=200))
    assert e.value == pytest.approx(roc_auc_score(new, score))
    assert e.value > 0.95
    assert e.low > 0.5


@pytest.mark.parametrize("name", SCORES)
def test_lengths_of_features_and_size_of_blocks_change_nothing(name, monkeypatch):
    probes, gallery, *_ = planted(1)
    whole = SCORES[name](probes, gallery)
    longer = SCORES[name](probes * np.linspace(0.5, 9, 60)[:, None], gallery * 3.0)
    assert longer == pytest.approx(whole, abs=1e-9)
    monkeypatch.setattr("audit.measures.novelty._BLOCK", 33)
    assert SCORES[name](probes, gallery) == pytest.approx(whole, abs=1e-12)


def test_fused_ranks_are_means_of_places_and_z_of_deviations():
    a, b = [3.0, 1.0, 1.0, 2.0], [10.0, 1000.0, 20.0, 30.0]
    # places of a: 4, 1.5, 1.5, 3; of b: 1, 4, 2, 3
    assert fuse({"a": a, "b": b}) == pytest.approx([5 / 8, 5.5 / 8, 3.5 / 8, 6 / 8])
    z = [(np.array(x) - np.mean(x)) / np.std(x) for x in (a, b)]
    assert fuse({"a": a, "b": b}, "z") == pytest.approx((z[0] + z[1]) / 2)
    assert fuse({"a": a, "same": [1.0] * 4}, "z") == pytest.approx(z[0] / 2)
    huge = fuse({"a": a, "b": [10.0, 1e9, 20.0, 30.0]})
    assert huge == pytest.approx(fuse({"a": a, "b": b}))
    assert fuse({"a": []}).tolist() == []
    for scores in ({}, {"a": a, "b": [1.0]}, {"a": [np.nan]}):
        with pytest.raises(ValueError, match="expected finite"):
            fuse(scores)
    with pytest.raises(ValueError, match="rank or z"):
        fuse({"a": a}, "mean")


def test_the_fusion_of_three_scores_beats_the_worst_of_them():
    probes, gallery, methods, there = planted(2, spread=1.5)
    new = is_new(methods, there)
    scores = {
        "knn": neighbours(probes, gallery),
        "cluster": clusters(probes, gallery, probe_clusters=6, gallery_clusters=4),
        "lof": outlier_factor(probes, gallery),
    }
    each = {n: roc_auc_score(new, s) for n, s in scores.items()}
    for how in ("rank", "z"):
        assert min(each.values()) < roc_auc_score(new, fuse(scores, how))


def test_clusters_of_a_large_gallery_by_batches_are_as_good(monkeypatch):
    probes, gallery, methods, there = planted(3)
    new = is_new(methods, there)
    monkeypatch.setattr(novelty, "LARGE", 50)
    assert unit(gallery, "x").dtype == np.float32
    centres, labels = k_means(unit(gallery, "x"), 8, 0)
    assert (centres.shape, centres.dtype, labels.shape) == ((8, 16), np.float32, (80,))
    one, other = entropy(probes, gallery).score, entropy(probes, gallery).score
    assert one == pytest.approx(other, abs=1e-6)
    assert roc_auc_score(new, one) > 0.9
    thinned = outlier_factor(probes, gallery, most=40, seed=1)
    assert thinned == pytest.approx(outlier_factor(probes, gallery, most=40, seed=1), abs=1e-9)
    assert thinned != pytest.approx(outlier_factor(probes, gallery), abs=1e-3)
    assert roc_auc_score(new, thinned) > 0.9


def test_what_cannot_be_clustered_is_refused():
    probes, gallery = drawn(0, 3), drawn(1, 4)
    for sizes in ({"probe_clusters": 4, "gallery_clusters": 1}, {"probe_clusters": 1, "gallery_clusters": 0}):
        with pytest.raises(ValueError, match="clusters, got"):
            clusters(probes, gallery, **sizes)
    with pytest.raises(ValueError, match="weights"):
        clusters(probes, gallery, probe_clusters=1, gallery_clusters=1, weights=(0, 0))
    with pytest.raises(ValueError, match="at least two"):
        outlier_factor(probes, gallery[:1])
    assert outlier_factor(probes[:0], gallery).tolist() == []
    same = entropy(probes, np.ones((10, 3)))  # two clusters of one point: no warning, no failure
    assert np.isfinite(same.score).all()


def test_without_scikit_learn_it_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(novelty.importlib, "import_module", missing)
    with pytest.raises(AuditError, match=r"pip install 'assay-audit\[attribution\]'"):
        outlier_factor(drawn(0, 3), drawn(1, 4))
    with pytest.raises(AuditError, match=r"scikit-learn"):
        entropy(drawn(0, 3), drawn(1, 9))
    assert len(neighbours(drawn(0, 3), drawn(1, 9))) == 3  # needs none
