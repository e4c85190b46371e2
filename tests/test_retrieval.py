"""Retrieval against plain loops, with ties; the competition's total against its own table; memory at full size."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import ModelError
from audit.measures.intervals import Estimate, Resampling, cluster_bootstrap
from audit.measures.retrieval import confusion, per_method, precision, similarities, top_k, total

R = Resampling(seed=0, draws=300, cluster="sources")


def by_loops(probes, gallery, k):
    """Indices of the k most similar by exact fractions where they are whole numbers; equal ones by place."""
    found = []
    for p in probes:
        cosines = []
        for g in gallery:
            dot = sum(float(a) * float(b) for a, b in zip(p, g, strict=True))
            length = sum(float(a) ** 2 for a in p) * sum(float(b) ** 2 for b in g)
            cosines.append(np.sign(dot) * dot * dot / length)  # rises with the cosine; ties of whole numbers are exact
        found.append(sorted(range(len(gallery)), key=lambda i: (-round(cosines[i], 10), i))[:k])
    return np.array(found)


def drawn(seed, n, size, width, places=None, kind=np.float64):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n + size, width))
    if places is not None:
        rows = rows.round(places)
        rows[~rows.any(1), 0] = 1
    return rows[:n].astype(kind), rows[n:].astype(kind)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5), st.sampled_from([None, 0]), st.integers(1, 5))
def test_the_most_similar_are_those_of_a_loop_ties_and_all(seed, size, width, places, k):
    probes, gallery = drawn(seed, 6, size, width, places)
    k = min(k, size)
    found = top_k(probes, gallery, k)
    assert found.index.tolist() == by_loops(probes, gallery, k).tolist()
    for i, row in enumerate(found.index):
        for j, g in enumerate(row):
            cosine = probes[i] @ gallery[g] / np.linalg.norm(probes[i]) / np.linalg.norm(gallery[g])
            assert found.similarity[i, j] == pytest.approx(cosine, abs=1e-12)
    assert (np.diff(found.similarity, axis=1) <= 1e-9).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("width", [7, 64, 513])
def test_equal_entries_come_in_the_order_of_the_gallery_whatever_the_blocks(kind, width, monkeypatch):
    probes, few = drawn(1, 20, 30, width, kind=kind)
    copies = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 9))
    gallery = few[copies]
    whole = top_k(probes, gallery, 12)
    for i in range(20):
        best = [int(copies[j]) for j in whole.index[i]]
        assert best[:9] == [best[0]] * 9
        assert best[9:] == [best[9]] * 3
        for piece in (whole.index[i][:9], whole.index[i][9:]):
            assert piece.tolist() == np.flatnonzero(copies == copies[piece[0]])[: len(piece)].tolist()
    monkeypatch.setattr("audit.measures.retrieval._BLOCK", 61)
    parts = top_k(probes, gallery, 12)
    assert (parts.index == whole.index).all()
    assert parts.similarity == pytest.approx(whole.similarity, abs=1e-12)
    lengths = np.random.default_rng(1).uniform(0.1, 9, (270, 1))  # a cosine knows no length, and rounding does not tell
    scaled = top_k(probes.astype(np.float64) * 3.7, gallery.astype(np.float64) * lengths, 12)
    assert (scaled.index == whole.index).all()


def test_near_ties_are_told_apart_beyond_the_rounding_of_float32():
    """Cosines 1e-8 apart: a product in float32 cannot order them, the answer still is right."""
    angles = 0.5 + np.random.default_rng(2).permutation(40) * 1e-8
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1)
    probes = np.array([[1.0, 0.0]])
    assert len(np.unique(gallery.astype(np.float32) @ probes.astype(np.float32).T)) < 5
    assert top_k(probes, gallery, 10).index[0].tolist() == np.argsort(angles)[:10].tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0]), st.integers(1, 5))
def test_precision_is_equation_1(seed, places, k):
    probes, gallery = drawn(seed, 12, 15, 3, places)
    rng = np.random.default_rng(seed)
    methods, there = (["abc"[i] for i in rng.integers(0, 3, n)] for n in (12, 15))
    groups = [f"s{i}" for i in rng.integers(0, 5, 12)]
    found = top_k(probes, gallery, k)
    right = [[there[j] == methods[i] for j in row] for i, row in enumerate(by_loops(probes, gallery, k))]
    e = precision(found, methods, there, groups, R)
    assert (e.k, e.n) == (sum(map(sum, right)), 12 * k)
    assert e.value == pytest.approx(np.mean(right))
    of = sorted(set(groups))
    hits = [sum(sum(right[i]) for i in range(12) if groups[i] == g) for g in of]
    assert e == cluster_bootstrap(hits, [k * groups.count(g) for g in of], seed=0, draws=300, cluster="sources")
    each = per_method(found, methods, there, groups, R)
    assert list(each) == sorted(set(methods))
    for m, one in each.items():
        assert (one.k, one.n) == (sum(sum(right[i]) for i in range(12) if methods[i] == m), k * methods.count(m))
    table = confusion(found, methods, there)
    assert table.rows == sorted(set(methods))
    for m, row in zip(table.rows, table.values, strict=True):
        names = [there[j] for i in range(12) if methods[i] == m for j in found.index[i]]
        assert row == pytest.approx([names.count(c) / len(names) for c in table.columns])
    assert all(table.rows[i] == table.columns[j] for i, j in table.marks)


def test_a_method_that_the_gallery_does_not_hold_is_never_found():
    probes, gallery = drawn(0, 4, 10, 3)
    found = top_k(probes, gallery)
    assert precision(found, ["new"] * 4, ["a"] * 10, list("abcd"), R).value == 0
    assert confusion(found, ["new"] * 4, ["a"] * 10).marks == []
    nothing = top_k(probes[:0], gallery)
    e = precision(nothing, [], ["a"] * 10, [], R)
    assert (e.value, e.low, e.n) == (None, None, 0)
    assert confusion(nothing, [], ["a"] * 10).rows == []


def test_similarity_between_methods_is_the_mean_over_pairs():
    probes, gallery = drawn(3, 9, 7, 4)
    methods, there = list("aabbbbccd"), list("aabbccc")
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    across = similarities(probes, methods, gallery, there)
    for i, m in enumerate(across.rows):
        for j, n in enumerate(across.columns):
            pairs = [cosine(p, g) for p, a in zip(probes, methods, strict=True) if a == m
                     for g, b in zip(gallery, there, strict=True) if b == n]  # fmt: skip
            assert across.values[i][j] == pytest.approx(np.mean(pairs), abs=1e-6)
    within = similarities(probes, methods)
    assert within.rows == within.columns == list("abcd")
    for i, m in enumerate("abcd"):
        for j, n in enumerate("abcd"):
            pairs = [cosine(probes[a], probes[b]) for a in range(9) for b in range(9)
                     if a != b and (methods[a], methods[b]) == (m, n)]  # fmt: skip
            assert within.values[i][j] == (pytest.approx(np.mean(pairs), abs=1e-6) if pairs else None)
    assert within.values[3][3] is None
    assert (across.marks, across.unit) == ([(0, 0), (1, 1), (2, 2)], "cosine")


def known(value, low=None, high=None):
    return Estimate(value, None, 10, low, high, 0.95, "drawn")


@pytest.mark.parametrize(
    ("team", "precision_at_5", "auc", "subjective", "printed", "off"),
    [
        ("AreYouFake", 0.9820, 0.9944, 1.0, 0.9875, 5e-5),
        ("hello world", 0.9742, 0.9784, 0.9, 0.9680, 5e-5),
        # paper 000 prints 0.8850 and 0.8796 where its own columns give 0.88528 and 0.87966
        ("Forgery identification right?", 0.8927, 0.8822, 0.85, 0.8850, 3e-4),
        ("CanCanNeed", 0.8673, 0.9165, 0.85, 0.8803, 5e-5),
        ("TianQuan & DaHua", 0.8708, 0.8906, 0.9, 0.8796, 1e-4),
    ],
)
def test_the_total_is_that_of_table_1(team, precision_at_5, auc, subjective, printed, off):
    found = total(known(precision_at_5), known(auc), subjective)
    assert found.estimate.value == pytest.approx(printed, abs=off), team
    assert (found.most, found.complete, found.note) == (pytest.approx(1), True, "")
    alone = total(known(precision_at_5), known(auc))
    assert alone.estimate.value == pytest.approx(printed - 0.1 * subjective, abs=off)
    assert (alone.most, alone.complete) == (pytest.approx(0.9), False)
    assert alone.note == "without the subjective part: at most 0.9, not 1"


def test_a_total_of_what_is_missing_is_none_and_ends_are_weighted():
    found = total(known(0.8, 0.7, 0.9), known(0.6, 0.5, 0.8), 0.5).estimate
    assert (found.value, found.low, found.high) == tuple(pytest.approx(x) for x in (0.71, 0.62, 0.83))
    assert total(known(0.8, 0.7, 0.9), known(0.6)).estimate.low is None
    for one, other in ((known(None), known(0.6)), (known(0.6), known(None))):
        missing = total(one, other)
        assert (missing.estimate.value, missing.estimate.low) == (None, None)
        assert "no total" in missing.estimate.method
    with pytest.raises(ValueError, match="subjective"):
        total(known(0.5), known(0.5), 1.1)


def test_features_that_have_no_cosine_are_refused():
    probes, gallery = drawn(0, 3, 6, 4)
    for bad in (0.0, np.nan, np.inf):
        broken = gallery.copy()
        broken[2] = bad
        with pytest.raises(ModelError, match=r"features of the gallery: .*got 1 of 6 rows"):
            top_k(probes, broken)
    with pytest.raises(ValueError, match="1 <= k <= G"):
        top_k(probes, gallery, 7)
    with pytest.raises(ValueError, match="expected"):
        top_k(probes[:, :3], gallery)
    with pytest.raises(ValueError, match="a method for each"):
        precision(top_k(probes, gallery), ["a"] * 3, ["a"] * 5, list("abc"), R)
    with pytest.raises(ValueError, match="3 groups"):
        precision(top_k(probes, gallery), ["a"] * 3, ["a"] * 6, list("ab"), R)


_FULL = """
import re
from pathlib import Path
import numpy as np
from audit.measures.retrieval import top_k

def peak():  # KiB of this program alone: getrusage's peak is inherited from the process that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
gallery = np.random.default_rng(0).standard_normal((100_000, 512), dtype=np.float32)
gallery[1::2] = gallery[::2]
found = top_k(gallery[:400:4], gallery, 5)
assert (found.index[:, :2] == np.arange(0, 400, 4)[:, None] + [0, 1]).all()
print((peak() - before) // 1024)
"""


@pytest.mark.slow
def test_a_gallery_of_100_000_by_512_takes_less_than_1_gib():
    """The growth of a process, gallery (195 MiB) included; half of the gallery is a copy of the other half."""
    done = subprocess.run([sys.executable, "-c", _FULL], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 195 < int(done.stdout) < 1024, done.stdout
