"""The measures of other goals than hiding, against plainly written loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.contracts import Detections
from audit.data.scenes import Scene
from audit.measures.goals import box_shift, candidate_share, class_kept, comparisons, flood, ghosts_anywhere, new_ghosts
from audit.measures.intervals import Resampling
from audit.measures.matching import match_scene

HOW = Resampling(seed=1, draws=200)
T = 0.5


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def detections(*rows):
    """Rows of (box, score, label)."""
    return Detections(
        boxes(*[r[0] for r in rows]),
        torch.tensor([float(r[1]) for r in rows]),
        torch.tensor([int(r[2]) for r in rows], dtype=torch.int64),
    )


def scene(*objects, group="a", ignore=None, crowd=None):
    """Objects as (box, label)."""
    count = len(objects)
    return Scene(
        id=group, group=group, size=(100, 200), boxes=boxes(*[o[0] for o in objects]),
        labels=torch.tensor([o[1] for o in objects], dtype=torch.int64),
        ignore=torch.tensor(ignore or [False] * count, dtype=torch.bool), digest="", load=torch.Tensor,
        subsets={} if crowd is None else {"crowd": torch.tensor(crowd)},
    )  # fmt: skip


def iou(a, b):
    both = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def random_answers(rng, count=6):
    """Scenes of up to five objects of three classes in four groups, with clean and perturbed detections near them."""
    scenes, answers = [], ([], [])
    for i in range(count):
        k = int(rng.integers(0, 6))
        low = rng.uniform(0, 60, (k, 2))
        true = np.concatenate([low, low + rng.uniform(15, 50, (k, 2))], 1)
        kind = rng.choice(3, k, p=[0.7, 0.2, 0.1])
        labels = rng.integers(0, 3, k)
        scenes.append(
            scene(
                *zip(true.tolist(), labels.tolist(), strict=True),
                group=f"g{i % 4}", ignore=(kind > 0).tolist(), crowd=(kind == 2).tolist(),
            )
        )  # fmt: skip
        for found, wide in zip(answers, (3, 12), strict=True):
            near = np.repeat(true, 2, 0) + rng.normal(0, wide, (2 * k, 4))
            start = rng.uniform(0, 120, (4, 2))
            rows = np.concatenate([near, np.concatenate([start, start + 25], 1)])
            rows[:, 2:] = np.maximum(rows[:, 2:], rows[:, :2] + 1)
            names = np.concatenate([np.where(rng.random(2 * k) < 0.7, np.repeat(labels, 2), 1), rng.integers(0, 3, 4)])
            scores = rng.uniform(0.2, 1, len(rows))
            found.append(detections(*zip(rows.tolist(), scores.tolist(), names.tolist(), strict=True)))
    return scenes, *answers


def rows(d):
    return [(b, s, n) for b, s, n in zip(d.boxes.double().tolist(), d.scores.tolist(), d.labels.tolist(), strict=True)]


def matched(d, s):
    """Per object the detection over T that found it, by loops: best score first, objects that count before others."""
    true, labels = s.boxes.double().tolist(), s.labels.tolist()
    crowd, ignored = s.subsets["crowd"].tolist() if "crowd" in s.subsets else [False] * len(true), s.ignore.tolist()
    taken, by = {}, {}
    seen = rows(d)
    for i in sorted(range(len(seen)), key=lambda i: -seen[i][1]):
        box, score, label = seen[i]
        if score < T:
            continue
        best = None
        for k, t in enumerate(true):
            if labels[k] != label or (k in taken and not crowd[k]):
                continue
            shared = iou(box, t)
            if crowd[k]:
                both = max(0, min(box[2], t[2]) - max(box[0], t[0])) * max(0, min(box[3], t[3]) - max(box[1], t[1]))
                shared = both / ((box[2] - box[0]) * (box[3] - box[1]))
            key = (not ignored[k], shared)
            if shared >= 0.5 and (best is None or key > best[0]):
                best = key, k
        if best is not None:
            taken.setdefault(best[1], i)
            by[i] = best[1]
    return taken, by, crowd


def by_groups(counts, hits, groups):
    return sum(hits), sum(counts), len({g for g, c in zip(groups, counts, strict=True) if c})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_ghosts_are_those_of_a_loop(seed):
    scenes, clean, changed = random_answers(np.random.default_rng(seed))
    for classes in (None, (0, 2)):
        tried = hit = 0
        for s, c, d in zip(scenes, clean, changed, strict=True):
            crowd = s.subsets["crowd"].tolist()
            wanted = []
            for b, score, n in rows(d):
                good = score >= T and (classes is None or n in classes)
                for t, region in zip(s.boxes.double().tolist(), crowd, strict=True):
                    if region:
                        both = max(0, min(b[2], t[2]) - max(b[0], t[0])) * max(0, min(b[3], t[3]) - max(b[1], t[1]))
                        good &= both / ((b[2] - b[0]) * (b[3] - b[1])) <= 0.5
                    else:
                        good &= iou(b, t) <= 0.3
                good &= not any(iou(b, o) >= 0.5 and m == n and z >= T for o, z, m in rows(c))
                wanted.append(good)
            assert new_ghosts(d, s, c, T, classes=classes).tolist() == wanted
            objects = [n for n, g in zip(s.labels.tolist(), s.ignore.tolist(), strict=True) if not g]
            counts = any(classes is None or n in classes for n in objects)
            tried, hit = tried + counts, hit + (counts and any(wanted))
        e = ghosts_anywhere(changed, scenes, clean, T, HOW, classes=classes)
        assert (e.k, e.n) == (hit, tried)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_classes_kept_are_those_of_a_loop(seed):
    scenes, clean, changed = random_answers(np.random.default_rng(seed))
    for classes, same in ((None, ()), ((0, 2), ()), ((0, 1), (0, 1))):
        n = right = wrong = 0
        for s, c, d in zip(scenes, clean, changed, strict=True):
            true, labels = s.boxes.double().tolist(), s.labels.tolist()
            before, (after, by, crowd) = matched(c, s)[0], matched(d, s)
            for k, t in enumerate(true):
                if k not in before or s.ignore[k] or (classes is not None and labels[k] not in classes):
                    continue
                n += 1
                if k in after:
                    right += 1
                    continue
                others = [
                    m for i, (b, z, m) in enumerate(rows(d))
                    if z >= T and m != labels[k] and iou(b, t) >= 0.5 and iou(b, t) == max(iou(b, o) for o in true)
                    and (i not in by or crowd[by[i]])
                ]  # fmt: skip
                alike = [m in same and labels[k] in same for m in others]
                right += any(alike)
                wrong += bool(others) and not any(alike)
        e = class_kept(clean, changed, scenes, T, HOW, classes=classes, same=same)
        assert [(x.k, x.n) for x in (e.right, e.wrong, e.lost)] == [(right, n), (wrong, n), (n - right - wrong, n)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_shifts_are_those_of_a_loop(seed):
    scenes, clean, changed = random_answers(np.random.default_rng(seed))
    n, displaced, lost, old, new = 0, 0, 0, [], []
    for s, c, d in zip(scenes, clean, changed, strict=True):
        true, labels = s.boxes.double().tolist(), s.labels.tolist()
        places = []
        for found in (c, d):
            held, by, _ = matched(found, s)
            best = []
            for k, t in enumerate(true):
                of_class = [o for o, m in zip(true, labels, strict=True) if m == labels[k]]
                near = [
                    iou(b, t)
                    for i, (b, z, m) in enumerate(rows(found))
                    if z >= T and m == labels[k] and iou(b, t) >= 0.1
                    and (k in held or (i not in by and iou(b, t) == max(iou(b, o) for o in of_class)))
                ]  # fmt: skip
                best.append(max(near, default=0.0))
            places.append((held, best))
        (was, first), (now, last) = places
        for k in range(len(true)):
            if k in was and not s.ignore[k]:
                n += 1
                old.append(first[k])
                new += [last[k]] if last[k] else []
                displaced += k not in now and last[k] > 0
                lost += not last[k]
    e = box_shift(clean, changed, scenes, T, HOW)
    assert [(x.k, x.n) for x in (e.displaced, e.lost)] == [(displaced, n), (lost, n)]
    for mean, values in ((e.before, old), (e.after, new)):
        assert mean.value == (pytest.approx(sum(values) / len(values)) if values else None)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_floods_are_those_of_a_loop(seed):
    scenes, clean, changed = random_answers(np.random.default_rng(seed))
    use = [i for i, s in enumerate(scenes) if not all(s.ignore.tolist())]
    old, new = ([sum(z >= T for _, z, _ in rows(found[i])) for i in use] for found in (clean, changed))
    e = flood(clean, changed, scenes, T, HOW)
    if not use:
        assert (e.before.value, e.after.value, e.ratio.value, e.worst_after, e.work) == (None, None, None, 0, 0)
        return
    assert e.before.value == pytest.approx(sum(old) / len(use))
    assert e.after.value == pytest.approx(sum(new) / len(use))
    assert e.ratio.value == (pytest.approx(sum(new) / sum(old)) if sum(old) else None)
    assert (e.worst_before, e.worst_after) == (max(old), max(new))
    assert e.work == sum(1 for i in range(max(new)) for _ in range(i))
    for x in (e.before, e.after, e.ratio):
        assert x.low is None or x.low <= x.value <= x.high


A, B = (0, 0, 20, 20), (60, 0, 80, 20)


def test_each_outcome_by_hand():
    truth = [scene((A, 0), (B, 1))]
    clean = [detections((A, 0.9, 0), (B, 0.9, 1))]
    changed = [detections((A, 0.9, 2), ((60, 8, 80, 28), 0.8, 1), ((130, 0, 150, 20), 0.7, 0))]
    kept = class_kept(clean, changed, truth, T, HOW)
    assert [e.value for e in (kept.right, kept.wrong, kept.lost)] == [0, 0.5, 0.5]
    shift = box_shift(clean, changed, truth, T, HOW)
    assert [shift.displaced.value, shift.lost.value, shift.before.value] == [0.5, 0.5, 1]
    assert shift.after.value == pytest.approx(12 / 28)
    assert ghosts_anywhere(changed, truth, clean, T, HOW).value == 1
    assert flood(clean, changed, truth, T, HOW).ratio.value == pytest.approx(1.5)


def test_a_second_object_on_the_same_spot_is_no_change_of_class():
    truth = [scene((A, 0), ((0, 2, 20, 20), 1))]
    clean = [detections((A, 0.9, 0), ((0, 2, 20, 20), 0.9, 1))]
    gone = [detections(((0, 2, 20, 20), 0.9, 1))]
    assert class_kept(clean, gone, truth, T, HOW).wrong.k == 0
    assert class_kept(clean, gone, truth, T, HOW, classes=(0,)).lost.value == 1
    ignored = [scene((A, 0), ((0, 2, 20, 20), -1), ignore=[False, True])]
    assert class_kept(clean, gone, ignored, T, HOW).lost.value == 1, "the one that is listed without a class is real"


def test_a_neighbours_box_is_no_displaced_one():
    near = (14, 0, 34, 20)
    truth = [scene((A, 0), (near, 0))]
    clean = [detections((A, 0.9, 0), (near, 0.9, 0))]
    assert iou(A, near) > 0.1
    gone = box_shift(clean, [detections((near, 0.9, 0))], truth, T, HOW)
    assert (gone.displaced.k, gone.lost.k, gone.after.value) == (0, 1, 1)


def test_a_ghost_that_was_there_clean_or_lies_on_any_object_is_none():
    far = (130, 0, 150, 20)
    truth = [scene((A, 0), (B, -1), ignore=[False, True])]
    clean = [detections((A, 0.9, 0), (far, 0.6, 0))]
    for row, count in (((far, 0.9, 0), 0), ((far, 0.9, 1), 1), ((B, 0.9, 0), 0), (((100, 0, 120, 20), 0.4, 0), 0)):
        assert new_ghosts(detections(row), truth[0], clean[0], T).sum() == count
    herd = scene((A, 0), ((100, 0, 200, 100), 0), ignore=[False, True], crowd=[False, True])
    assert new_ghosts(detections((far, 0.9, 0)), herd, detections(), T).tolist() == [False]


def test_groups_are_resampled_together():
    truth = [scene((A, 0), group=f"v{i // 5}") for i in range(60)]
    clean = [detections((A, 0.9, 0))] * 60
    changed = [detections((A, 0.9, 0), *([((130, 0, 150, 20), 0.9, 0)] * (i // 5 % 2))) for i in range(60)]
    share = ghosts_anywhere(changed, truth, clean, T, HOW)
    alone = [scene((A, 0), group=f"f{i}") for i in range(60)]
    assert share.value == 0.5
    single = ghosts_anywhere(changed, alone, clean, T, HOW)
    assert share.high - share.low > 1.5 * (single.high - single.low)
    means = flood(clean, changed, truth, T, HOW)
    assert means.ratio.n == 12
    assert means.ratio.low < 1.5 < means.ratio.high


def test_nothing_is_none_and_never_zero():
    empty = [scene()]
    for scenes, answers in (([], []), (empty, [detections((A, 0.9, 0))])):
        kept, shift = (f(answers, answers, scenes, T, HOW) for f in (class_kept, box_shift))
        many = flood(answers, answers, scenes, T, HOW)
        every = [kept.right, kept.wrong, kept.lost, shift.displaced, shift.lost, shift.before, shift.after]
        every += [many.before, many.after, many.ratio, ghosts_anywhere(answers, scenes, answers, T, HOW)]
        assert all(e.value is e.low is e.high is None for e in every)
    assert candidate_share([], [], [], HOW).value is None
    quiet = flood([detections()], [detections((A, 0.9, 0))], [scene((A, 0))], T, HOW)
    assert (quiet.before.value, quiet.after.value, quiet.ratio.value) == (0, 1, None)


def test_answers_and_scenes_must_be_as_many():
    one, two = [detections()], [scene((A, 0)), scene((B, 0))]
    for measure in (class_kept, box_shift, flood):
        with pytest.raises(ValueError):
            measure(one, one, two, T, HOW)


def test_candidates_over_a_threshold_and_what_sorting_them_costs():
    e = candidate_share([3, 0, 9], [10, 10, 12], ["a", "b", "a"], HOW)
    assert (e.k, e.n, e.value) == (12, 32, 12 / 32)
    assert [comparisons(n) for n in (0, 1, 2, 3, 8400)] == [0, 0, 1, 3, 35_275_800]


def test_the_loops_matching_is_that_of_the_measures():
    """The loops above stand on ``matched``; this ties it to the matching that the rest of the audit uses."""
    scenes, clean, _ = random_answers(np.random.default_rng(3), 20)
    assert sum(len(matched(d, s)[0]) for s, d in zip(scenes, clean, strict=True)) > 20
    for s, d in zip(scenes, clean, strict=True):
        assert match_scene(d, s).found(T).tolist() == [k in matched(d, s)[0] for k in range(len(s.boxes))]
