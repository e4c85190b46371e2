"""Which method made a fake, by the samples of a gallery most like it: precision@k, confusions, the competition's total.

After paper 000, section 2.1: a probe's features are compared with those of a gallery by their cosine, and precision@k
is the share of its k most similar entries that were made by the probe's own method (eq. 1, k = 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audit.errors import ModelError
from audit.measures.intervals import Estimate, Resampling, cluster_bootstrap
from audit.measures.rates import Floats, Ints, numbered
from audit.record import Grid

K = 5
WEIGHTS = (0.6, 0.3, 0.1)
"""Of precision@5, the AUC of novelty and the subjective score in the total: paper 000, eq. 2."""

TIE = 1e-9
"""Similarities that round to the same multiple of this are equal: what is left of the order then is rounding."""

_BLOCK = 1 << 23  # similarities in one block: 32 MiB
_ROWS = 1 << 17  # numbers of features in one block: 1 MiB, so that they stay in the cache

Rows = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Found:
    """The k entries of the gallery most similar to each of N probes.

    Attributes:
        index: (N, k) entries, the most similar first; of equal ones the one that comes first in the gallery.
        similarity: (N, k) cosines, in [−1, 1].
    """

    index: Ints
    similarity: Floats


def top_k(probes: ArrayLike, gallery: ArrayLike, k: int = K) -> Found:
    """The k most similar entries by cosine, the same ones whatever the size of the blocks and the order of sums.

    A float32 product finds all that can be among the k within its bound of error; their cosines are then computed
    anew in float64 and rounded to ``TIE``, and equal ones come in the order of the gallery.

    Args:
        probes: (N, D), gallery: (G, D), finite, none of length zero. Beside the two, as they were given, memory is
            taken for both in float32 and some 200 MiB: less than 0.7 GiB for a gallery of 100 000 × 512.

    Raises:
        ValueError: shapes that do not fit, or a gallery of fewer than k.
        ModelError: features that are not finite, or of length zero.
    """
    probe, entries = features(probes, "the probes"), features(gallery, "the gallery")
    (n, width), size = probe.shape, len(entries)
    if entries.shape[1] != width or not 1 <= k <= size:
        raise ValueError(f"expected (N, D) and (G, D) with 1 <= k <= G, got {probe.shape}, {entries.shape}, k={k}")
    unit, probe_length, length = at_length_one(entries, np.float32), lengths(probe), lengths(entries)
    slack = np.float32(2 * (width + 4) * 2.0**-23)  # twice what a sum of D products in float32 can be off
    index, similarity = np.zeros((n, k), dtype=np.int64), np.zeros((n, k))
    step = max(1, _BLOCK // size)
    for at in range(0, n, step):
        rough = at_length_one(probe[at : at + step], np.float32) @ unit.T
        least = np.partition(rough, size - k, axis=1)[:, size - k] - slack
        row, column = np.nonzero(rough >= least[:, None])
        del rough
        cosine = _products(probe, entries, row + at, column) / (probe_length[row + at] * length[column])
        order = np.lexsort((column, -np.rint(cosine / TIE), row))
        starts = np.searchsorted(row, np.arange(min(step, n - at)))
        best = order[starts[:, None] + np.arange(k)]
        index[at : at + step], similarity[at : at + step] = column[best], cosine[best]
    return Found(index, similarity.clip(-1, 1))


def precision(
    found: Found, methods: Sequence[str], gallery_methods: Sequence[str], groups: Sequence[str], resampling: Resampling
) -> Estimate:
    """precision@k = 1/(kN) Σ_i Σ_j [method of the j-th entry found for probe i = method of probe i] (eq. 1).

    The probes' groups go together in the interval. Leave probes of methods that the gallery cannot hold out before
    (``new`` ones, of which the AUC of novelty tells): here they would count as wrong.

    Args:
        methods, groups: N names of the probes. gallery_methods: G names.

    Returns:
        ``k`` and ``n`` count entries found, k of them for each probe.
    """
    right = _right(found, methods, gallery_methods)
    cluster, count = numbered(groups)
    if len(cluster) != len(right):
        raise ValueError(f"expected {len(right)} groups, got {len(cluster)}")
    hits = np.bincount(cluster, right.sum(1), count)
    r = resampling
    trials = np.bincount(cluster, minlength=count) * right.shape[1]
    return cluster_bootstrap(hits, trials, level=r.level, draws=r.draws, seed=r.seed, cluster=r.cluster)


def per_method(
    found: Found, methods: Sequence[str], gallery_methods: Sequence[str], groups: Sequence[str], resampling: Resampling
) -> dict[str, Estimate]:
    """precision@k of each method's probes, in order of name."""
    label = np.asarray(methods, dtype=str)
    parts = {}
    for m in np.unique(label):
        rows = np.flatnonzero(label == m)
        part = Found(found.index[rows], found.similarity[rows])
        names = [groups[i] for i in rows.tolist()]
        parts[str(m)] = precision(part, [str(m)] * len(rows), gallery_methods, names, resampling)
    return parts


def confusion(found: Found, methods: Sequence[str], gallery_methods: Sequence[str]) -> Grid:
    """Method of the probes × method of the entries found: the shares of what was found, each row of sum 1."""
    _right(found, methods, gallery_methods)
    (row, rows), (column, columns) = numbered(methods), numbered(gallery_methods)
    k = found.index.shape[1]
    cells = np.bincount(np.repeat(row, k) * columns + column[found.index].ravel(), minlength=rows * columns)
    table = cells.reshape(rows, columns) / np.maximum(np.bincount(row, minlength=rows), 1)[:, None] / k
    names, there = sorted(set(methods)), sorted(set(gallery_methods))
    return Grid(
        title=f"Methods of the {k} most similar",
        row_label="method of the probe",
        column_label="found in the gallery",
        rows=names,
        columns=there,
        values=table.tolist(),
        higher_is_better=None,
        marks=[(i, there.index(m)) for i, m in enumerate(names) if m in there],
        mark_label="right",
    )


def similarities(
    probes: ArrayLike, methods: Sequence[str], gallery: ArrayLike | None = None, gallery_methods: Sequence[str] = ()
) -> Grid:
    """Mean cosine between the samples of two methods: those that are close are easily taken for each other.

    Args:
        gallery: of the columns; without it the probes are compared with each other, none with itself, and a method of
            one sample has no similarity with itself.
    """
    alone = gallery is None
    first, sizes, names = _means(probes, methods, "the probes")
    second, _, there = (first, sizes, names) if gallery is None else _means(gallery, gallery_methods, "the gallery")
    table = first @ second.T
    values: list[list[float | None]] = table.clip(-1, 1).tolist()
    if alone:
        for i, n in enumerate(sizes):
            own = (n * n * table[i, i] - n) / (n * (n - 1)) if n > 1 else None
            values[i][i] = own
    return Grid(
        title="Similarity between methods",
        row_label="method",
        column_label="method",
        rows=names,
        columns=there,
        values=values,
        unit="cosine",
        higher_is_better=None,
        marks=[(i, there.index(m)) for i, m in enumerate(names) if m in there],
        mark_label="the same method",
        note="Mean cosine over all pairs of samples" + (", none with itself." if alone else "."),
    )


@dataclass(frozen=True, slots=True)
class Total:
    """The competition's score.

    Attributes:
        estimate: the score, with the interval that the ends of its parts give: too wide rather than too narrow. most:
            what it can be at most. complete: whether the subjective part is in it. note: a sentence where it is not.
    """

    estimate: Estimate
    most: float
    complete: bool
    note: str


def total(precision_at_5: Estimate, novelty: Estimate, subjective: float | None = None) -> Total:
    """0.6 precision@5 + 0.3 AUC + 0.1 subjective (eq. 2); without a subjective score the first two, at most 0.9.

    Nothing is made up for a part that nobody gave, and the sum is not scaled up to 1.

    Args:
        subjective: what experts gave, in [0, 1]; it has no interval.

    Raises:
        ValueError: a subjective score outside [0, 1].
    """
    if subjective is not None and not 0 <= subjective <= 1:
        raise ValueError(f"expected a subjective score in [0, 1], got {subjective}")
    p, a, s = WEIGHTS
    given = 0.0 if subjective is None else s * subjective
    most = p + a + (0.0 if subjective is None else s)
    n, level = precision_at_5.n, precision_at_5.level
    note = "" if subjective is not None else f"without the subjective part: at most {most:.1f}, not 1"

    def weighted(x: float | None, y: float | None) -> float | None:
        return None if x is None or y is None else p * x + a * y + given

    value = weighted(precision_at_5.value, novelty.value)
    low, high = weighted(precision_at_5.low, novelty.low), weighted(precision_at_5.high, novelty.high)
    method = "weighted ends of both intervals"
    if value is None:
        method = "no total: " + ("no precision" if precision_at_5.value is None else novelty.method)
        low = high = None
    return Total(Estimate(value, None, n, low, high, level, method), most, subjective is not None, note)


def features(rows: ArrayLike, what: str) -> Rows:
    """(N, D) float features as they are, never copied where they are floats.

    Raises:
        ValueError: not two axes. ModelError: values that are not finite, or a row of length zero.
    """
    array = np.asarray(rows)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if array.ndim != 2:
        raise ValueError(f"expected (N, D) features of {what}, got {array.shape}")
    length = lengths(array)
    if not np.isfinite(length).all() or bool((length == 0).any()):
        raise ModelError(
            f"features of {what}",
            expected="finite values, no row of length zero",
            got=f"{int((~np.isfinite(length) | (length == 0)).sum())} of {len(array)} rows otherwise",
            mend="mend `embed`: a cosine with such a row does not exist",
        )
    return array


def lengths(rows: Rows) -> Floats:
    """(N,) Euclidean lengths in float64, a block at a time."""
    step = max(1, _ROWS // max(rows.shape[1], 1))
    parts = [np.zeros(0)]
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(rows), step):
            block = rows[at : at + step].astype(np.float64)
            parts.append(np.sqrt((block * block).sum(1)))
    return np.concatenate(parts)


def at_length_one(rows: Rows, kind: type[np.floating]) -> Rows:
    """(N, D) the rows at length one, as ``kind``, a block at a time."""
    unit = np.empty(rows.shape, dtype=kind)
    step = max(1, _ROWS // max(rows.shape[1], 1))
    for at in range(0, len(rows), step):
        block = rows[at : at + step].astype(np.float64)
        unit[at : at + step] = block / np.sqrt((block * block).sum(1, keepdims=True))
    return unit


def _products(first: Rows, second: Rows, i: Ints, j: Ints) -> Floats:
    """(M,) first[i] · second[j] in float64; equal rows give equal products wherever they stand."""
    step = max(1, _ROWS // first.shape[1])
    out = np.empty(len(i))
    for at in range(0, len(i), step):
        a, b = (x[y[at : at + step]].astype(np.float64) for x, y in ((first, i), (second, j)))
        out[at : at + step] = (a * b).sum(1)
    return out


def _right(found: Found, methods: Sequence[str], gallery_methods: Sequence[str]) -> NDArray[np.bool_]:
    own, there = np.asarray(methods, dtype=str), np.asarray(gallery_methods, dtype=str)
    if own.shape != found.index.shape[:1] or (found.index.size and len(there) <= int(found.index.max())):
        raise ValueError(f"expected a method for each of {len(found.index)} probes and of all entries, "
                         f"got {len(own)} and {len(there)}")  # fmt: skip
    if not len(own):
        return np.zeros(found.index.shape, dtype=bool)
    return np.asarray(there[found.index] == own[:, None])


def _means(rows: ArrayLike, methods: Sequence[str], what: str) -> tuple[Floats, list[int], list[str]]:
    """(M, D) mean of the unit features of each method: the mean cosine of two methods is the product of two rows."""
    unit = at_length_one(features(rows, what), np.float32)
    index, count = numbered(methods)
    if len(index) != len(unit):
        raise ValueError(f"expected a method for each of {len(unit)} features of {what}, got {len(index)}")
    means = np.stack([unit[index == m].mean(0, dtype=np.float64) for m in range(count)]) if count else np.zeros((0, 0))
    return means, np.bincount(index, minlength=count).tolist(), sorted(set(methods))
