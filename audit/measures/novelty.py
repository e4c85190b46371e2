"""Was a sample made by a method that the gallery does not hold? Five scores, each the higher the newer, and their AUC.

After paper 000, section 2.3: the mean distance to the nearest neighbours, distances to cluster centres, the local
outlier factor and their fusion (AreYouFake, catalogue A3), and the entropy of the highest similarity to a centre
(hello world, A4). The paper leaves open what a distance is: here features are brought to length one, as retrieval
compares them, and distances between them are Euclidean. Clusters and outlier factors are scikit-learn's.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from audit.errors import AuditError
from audit.measures.intervals import Estimate, Resampling
from audit.measures.rates import Bools, Floats, Ints
from audit.measures.retrieval import Rows, at_length_one, features, lengths, top_k
from audit.measures.roc import auc

NEIGHBOURS = 5
"""K of the nearest neighbours: the rules give the gallery at least five samples of a method."""

DENSITY = 20
"""Neighbours that a density is estimated from: the default of Breunig et al. (2000) and of scikit-learn."""

PEAK = float(np.exp(-1))
"""−s log s is highest here, and so is its value: 1/e."""

LARGE = 3000
"""From so many samples on clusters are found by mini-batches, and features held in float32."""

FLAT = 1e-9
"""A centre shorter than this has no direction."""

SEVERAL = 1000
"""With fewer samples than this clusters are the best of ten starts, else of one."""

_BLOCK = 1 << 21


@dataclass(frozen=True, eq=False)
class Entropy:
    """−SIM log SIM.

    Attributes:
        score: (N,) in [0, 1/e]. similarity: (N,) the highest cosine with a centre. folded: how many are below 1/e,
            where the formula calls the less similar the less new. undefined: how many of them are not above 0, where
            it has no value.
    """

    score: Floats
    similarity: Floats
    folded: int
    undefined: int


def neighbours(probes: ArrayLike, gallery: ArrayLike, k: int = NEIGHBOURS) -> Floats:
    """(N,) mean distance to the k nearest samples of the gallery (A3), in [0, 2].

    Raises:
        ValueError, ModelError: as ``retrieval.top_k``.
    """
    found = top_k(probes, gallery, k)
    probe, entries = unit(probes, "the probes"), unit(gallery, "the gallery")
    out = np.empty(len(probe))
    step = max(1, _BLOCK // (k * probe.shape[1]))
    for at in range(0, len(probe), step):
        apart = probe[at : at + step, None].astype(np.float64) - entries[found.index[at : at + step]]
        out[at : at + step] = np.sqrt((apart**2).sum(2)).mean(1)
    return out


def clusters(
    probes: ArrayLike,
    gallery: ArrayLike,
    *,
    probe_clusters: int,
    gallery_clusters: int,
    weights: tuple[float, float] = (0.5, 0.5),
    seed: int = 0,
) -> Floats:
    """(N,) w1 · (distance of the probe to the nearest gallery centre) + w2 · (that of its own cluster's centre) (A3).

    Probes and gallery are clustered each by itself. The score of a probe so depends on the probes beside it, as in the
    paper, which gives neither the numbers of clusters nor the weights: the halves here are ours.

    Args:
        probe_clusters, gallery_clusters: at most as many as there are samples. weights: (w1, w2), none negative.
    """
    probe, entries = unit(probes, "the probes"), unit(gallery, "the gallery")
    if min(weights) < 0 or sum(weights) == 0:
        raise ValueError(f"expected weights of at least 0, not both 0, got {weights}")
    own, member = k_means(probe, probe_clusters, seed)
    centres, _ = k_means(entries, gallery_clusters, seed)
    return np.asarray(weights[0] * _nearest(probe, centres) + weights[1] * _nearest(own, centres)[member])


def outlier_factor(
    probes: ArrayLike, gallery: ArrayLike, *, k: int = DENSITY, most: int = 20_000, seed: int = 0
) -> Floats:
    """(N,) local outlier factor against the gallery (Breunig et al. 2000; A3): 1 is as dense as the neighbours.

    Args:
        k: neighbours, at most all of the gallery but one. most: of a larger gallery so many samples are drawn by
            ``seed``, since the densities of all of it take the distances between all.

    Raises:
        ValueError: a gallery of fewer than two.
    """
    probe, entries = unit(probes, "the probes"), unit(gallery, "the gallery")
    if len(entries) < 2:
        raise ValueError(f"expected a gallery of at least two, got {len(entries)}")
    if len(entries) > most:
        entries = entries[np.sort(np.random.default_rng(seed).choice(len(entries), most, replace=False))]
    if not len(probe):
        return np.zeros(0)
    model = _sklearn("neighbors").LocalOutlierFactor(
        n_neighbors=min(k, len(entries) - 1), algorithm="brute", novelty=True
    )
    model.fit(entries)
    return np.asarray(-model.score_samples(probe), dtype=np.float64)


def entropy(probes: ArrayLike, gallery: ArrayLike, *, seed: int = 0, per_cluster: int = 5) -> Entropy:
    """P = −SIM log SIM, SIM the highest cosine between the probe and the centres of |gallery| / 5 clusters (A4).

    Exactly as it is written, which is not always as it is meant: P rises as SIM falls from 1 to 1/e and falls again
    below it, so that what is like nothing in the gallery looks known. How many probes that concerns is told, and
    −SIM, which has the order that is meant, is there beside. For SIM <= 0, where the formula has no value, P is its
    maximum 1/e: nothing in the gallery is like that probe.

    Args:
        per_cluster: samples of the gallery for each cluster; there is one cluster at least.
    """
    probe, entries = unit(probes, "the probes"), unit(gallery, "the gallery")
    centres, _ = k_means(entries, max(1, len(entries) // per_cluster), seed)
    long = lengths(centres)
    centres = at_length_one(centres[long > FLAT], np.float64)
    similarity = np.full(len(probe), -1.0)
    step = max(1, _BLOCK // max(len(centres), 1))
    for at in range(0, len(probe) if len(centres) else 0, step):
        similarity[at : at + step] = (probe[at : at + step] @ centres.T).max(1)
    similarity = similarity.clip(-1, 1)
    known = similarity > 0
    score = np.full(len(probe), PEAK)
    score[known] = -similarity[known] * np.log(similarity[known]) + 0.0
    return Entropy(score, similarity, int((similarity < PEAK).sum()), int((~known).sum()))


def fuse(scores: Mapping[str, ArrayLike], how: Literal["rank", "z"] = "rank") -> Floats:
    """(N,) several scores of the same probes as one. The paper only says that they are fused.

    ``rank``: the mean of each probe's places, from 0 (exclusive) to 1, equal scores sharing the mean place: no score
    outweighs another by its scale, and an outlier of one is only one place higher. ``z``: the mean of (x − mean) /
    standard deviation; a score that is the same for all says nothing and counts as 0. Both depend on the probes that
    are scored together.

    Raises:
        ValueError: no score, lengths that differ, values that are not finite, another ``how``.
    """
    rows = [np.asarray(s, dtype=np.float64) for s in scores.values()]
    if not rows or any(r.shape != (len(rows[0]),) for r in rows) or not all(np.isfinite(r).all() for r in rows):
        raise ValueError(f"expected finite scores of the same probes, got shapes {[r.shape for r in rows]}")
    if how == "rank":
        parts = [stats.rankdata(r) / max(len(r), 1) for r in rows]
    elif how == "z":
        spread = [float(r.std()) if len(r) else 0.0 for r in rows]
        parts = [(r - r.mean()) / d if d > 0 else np.zeros(len(r)) for r, d in zip(rows, spread, strict=True)]
    else:
        raise ValueError(f"expected how to be rank or z, got {how!r}")
    return np.asarray(np.mean(parts, axis=0), dtype=np.float64)


def novelty_auc(scores: ArrayLike, new: ArrayLike, groups: Sequence[str], resampling: Resampling) -> Estimate:
    """AUC of "made by a new method" over all probes (A2), with the interval of ``roc.auc`` over their groups."""
    return auc(scores, new, groups, resampling)


def is_new(methods: Sequence[str], gallery_methods: Sequence[str]) -> Bools:
    """(N,) whether no sample of a probe's method is in the gallery."""
    there = set(gallery_methods)
    return np.array([m not in there for m in methods], dtype=bool)


def k_means(rows: Rows, count: int, seed: int) -> tuple[Rows, Ints]:
    """(C, D) centres and (N,) the cluster of each row: scikit-learn's KMeans, from ``LARGE`` rows on MiniBatchKMeans.

    Raises:
        ValueError: not 1 <= count <= N.
    """
    if not 1 <= count <= len(rows):
        raise ValueError(f"expected between 1 and {len(rows)} clusters, got {count}")
    module = _sklearn("cluster")
    if len(rows) < LARGE:
        model = module.KMeans(count, n_init=10 if len(rows) < SEVERAL else 1, random_state=seed)
    else:
        size = max(1024, min(2 * count, len(rows)))
        model = module.MiniBatchKMeans(count, init="random", n_init=1, batch_size=size, max_iter=5, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different rows than clusters: some centres then are one
        model.fit(rows)
    return np.asarray(model.cluster_centers_, dtype=rows.dtype), np.asarray(model.labels_, dtype=np.int64)


def unit(rows: ArrayLike, what: str) -> Rows:
    """(N, D) features at length one."""
    array = features(rows, what)
    return at_length_one(array, np.float32 if len(array) >= LARGE else np.float64)


def _nearest(rows: Rows, centres: Rows) -> Floats:
    """(N,) distance of each row to the nearest centre."""
    out = np.empty(len(rows))
    norm = (centres.astype(np.float64) ** 2).sum(1)
    step = max(1, _BLOCK // max(len(centres), rows.shape[1]))
    for at in range(0, len(rows), step):
        part = rows[at : at + step]
        best = centres[(norm - 2.0 * (part @ centres.T)).argmin(1)]
        out[at : at + step] = np.sqrt(((part.astype(np.float64) - best) ** 2).sum(1))
    return out


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise AuditError(
            "novelty by clusters and outlier factors",
            expected="the package scikit-learn",
            got=f"none that can be imported ({error})",
            mend="install the extra: pip install 'assay-audit[attribution]'",
        ) from error
