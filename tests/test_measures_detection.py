"""Matching and the detector's measures against pycocotools, scikit-learn and plainly written loops."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import fbeta_score, precision_recall_curve

from audit.contracts import Detections
from audit.data.scenes import Scene
from audit.measures import curves, detection
from audit.measures.intervals import Resampling
from audit.measures.matching import join, match, match_scene, overlaps

HOW = Resampling(seed=1, draws=200)


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def detections(rows, scores, labels=None):
    labels = [0] * len(scores) if labels is None else labels
    return Detections(boxes(*rows), torch.tensor(scores).float(), torch.tensor(labels, dtype=torch.int64))


def simple(dets, truth, ignore=None, **more):
    truth = boxes(*truth)
    ignore = torch.zeros(len(truth), dtype=torch.bool) if ignore is None else torch.tensor(ignore)
    return match(dets, truth, torch.zeros(len(truth), dtype=torch.int64), ignore, **more)


def random_image(rng, *, classes=3, truths=8, extra=10):
    """Objects in a tight frame, detections near them or anywhere, distinct scores; some objects ignored or crowds."""
    t = rng.integers(0, truths + 1)
    low = rng.uniform(0, 60, (t, 2))
    truth = np.concatenate([low, low + rng.uniform(10, 50, (t, 2))], 1)
    near = np.repeat(truth, 2, 0) + rng.normal(0, 5, (2 * t, 4))
    low = rng.uniform(0, 80, (extra, 2))
    found = np.concatenate([near, np.concatenate([low, low + rng.uniform(5, 30, (extra, 2))], 1)])
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    t_labels = rng.integers(0, classes, t)
    d_labels = np.concatenate([np.repeat(t_labels, 2), rng.integers(0, classes, extra)])
    scores = rng.permutation(2 * t + extra) / 1000 + rng.uniform(0, 0.0009) + 0.001
    kind = rng.choice(3, t, p=[0.7, 0.15, 0.15])
    return {
        "detections": Detections(
            torch.tensor(found).float(), torch.tensor(scores).float(), torch.tensor(d_labels).long()
        ),
        "boxes": torch.tensor(truth).float(),
        "labels": torch.tensor(t_labels).long(),
        "ignore": torch.tensor(kind > 0),
        "crowd": torch.tensor(kind == 2),
    }


def coco(images, classes=3):
    """COCOeval's own evaluation at IoU 0.5; an object is ignored there by an area out of range."""
    annotations, results = [], []
    for i, im in enumerate(images):
        for b, label, ignored, crowd in zip(
            im["boxes"].double().tolist(),
            im["labels"].tolist(),
            im["ignore"].tolist(),
            im["crowd"].tolist(),
            strict=True,
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label + 1,
                    "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]],
                    "area": 1e11 if ignored else 1.0,
                    "iscrowd": int(crowd),
                }
            )
        d = im["detections"]
        results += [
            {"image_id": i, "category_id": n + 1, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "score": s}
            for b, s, n in zip(d.boxes.double().tolist(), d.scores.double().tolist(), d.labels.tolist(), strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": c + 1} for c in range(classes)],
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.params.iouThrs = np.array([0.5])
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.params.maxDets = [10_000]
        run.evaluate()
        run.accumulate()
    return run


@pytest.fixture(scope="module")
def crowd_of_images():
    rng = np.random.default_rng(7)
    images = [random_image(rng) for _ in range(60)]
    return images, join([match(**im, group=str(i)) for i, im in enumerate(images)])


def test_ap_and_recall_are_those_of_cocoeval_with_ignored_objects_and_crowds(crowd_of_images):
    images, matches = crowd_of_images
    assert matches.ignored.sum() > 20
    assert matches.on_crowd.sum() > 10
    run = coco(images)
    precision = run.eval["precision"][0, :, :, 0, 0]
    assert curves.average_precision(matches, points="101") == pytest.approx(precision.mean(0).mean(), abs=1e-9)
    for label in range(3):
        e = detection.recall(matches, 0.0, HOW, label=label)
        assert e.value == pytest.approx(run.eval["recall"][0, label, 0, 0])


def test_every_single_detection_is_judged_as_cocoeval_judges_it(crowd_of_images):
    images, matches = crowd_of_images
    judged = {}
    for cell in coco(images).evalImgs:
        if cell is not None:
            for score, found, ignored in zip(cell["dtScores"], cell["dtMatches"][0], cell["dtIgnore"][0], strict=True):
                judged[cell["image_id"], round(score, 9)] = (found > 0 and not ignored, bool(ignored))
    assert len(judged) == len(matches.scores)
    for i, score, true, ignored in zip(matches.image, matches.scores, matches.true, matches.ignored, strict=True):
        assert judged[i, round(score, 9)] == (true, ignored)


def test_precision_recall_points_are_those_of_scikit_learn(crowd_of_images):
    """With every object found at some score, ranking detections is binary classification."""
    _, m = crowd_of_images
    use = ~m.ignored & (m.labels == 1)
    objects = int((~m.truth_ignored & (m.truth_labels == 1)).sum())
    y, s = m.true[use], np.round(m.scores[use], 2)  # rounding makes ties
    tied = replace(m, scores=np.round(m.scores, 2))
    scores, precision, recall = curves.precision_recall(tied, 1)
    p, r, t = precision_recall_curve(y, s)
    assert scores[::-1].tolist() == t.tolist()
    assert precision[::-1] == pytest.approx(p[:-1])
    assert recall[::-1] == pytest.approx(r[:-1] * y.sum() / objects)


def test_all_point_ap_is_the_area_under_the_best_precision(crowd_of_images):
    _, m = crowd_of_images
    values = []
    for label in range(3):
        objects = int((~m.truth_ignored & (m.truth_labels == label)).sum())
        use = sorted(
            ((s, t) for s, t, i, n in zip(m.scores, m.true, m.ignored, m.labels, strict=True) if not i and n == label),
            reverse=True,
        )
        points, hits = [], 0
        for rank, (_, true) in enumerate(use, 1):
            hits += true
            points.append((hits / objects, hits / rank))
        steps = np.linspace(0, 1, 20_001)[1:]
        values.append(np.mean([max((p for r, p in points if r >= at), default=0.0) for at in steps]))
    assert curves.average_precision(m) == pytest.approx(np.mean(values), abs=2e-4)


@pytest.mark.parametrize("threshold", [0.003, 0.01, 0.02])
def test_the_matching_of_the_best_is_part_of_the_matching_of_all(crowd_of_images, threshold):
    images, whole = crowd_of_images
    parts = []
    for i, im in enumerate(images):
        d = im["detections"]
        keep = d.scores >= threshold
        only = Detections(d.boxes[keep], d.scores[keep], d.labels[keep])
        parts.append(match(only, im["boxes"], im["labels"], im["ignore"], crowd=im["crowd"], group=str(i)))
    part = join(parts)
    over = whole.scores >= threshold
    assert 0 < over.sum() < len(over)
    assert part.true.tolist() == whole.true[over].tolist()
    assert part.ignored.tolist() == whole.ignored[over].tolist()
    assert part.found(threshold).tolist() == whole.found(threshold).tolist() == np.isfinite(part.truth_scores).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_images_and_of_detections_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(4)]
    for im in images:  # ties, which a detector may list in any order
        d = im["detections"]
        im["detections"] = Detections(d.boxes, (d.scores * 100).round() / 100, d.labels)
    straight = join([match(**im, group=str(i)) for i, im in enumerate(images)])
    mixed = []
    for i in rng.permutation(4):
        im, order = images[i], torch.tensor(rng.permutation(len(images[i]["detections"].scores)))
        d = im["detections"]
        shuffled = Detections(d.boxes[order], d.scores[order], d.labels[order])
        mixed.append(match(**{**im, "detections": shuffled}, group=str(i)))
    other = join(mixed)
    assert curves.average_precision(straight) == pytest.approx(curves.average_precision(other))
    for threshold in (0.0, 0.01, 0.02):
        assert detection.recall(straight, threshold, HOW) == detection.recall(other, threshold, HOW)
        assert detection.precision(straight, threshold, HOW) == detection.precision(other, threshold, HOW)
    assert curves.af_beta(straight, 0.5, HOW).value == pytest.approx(curves.af_beta(other, 0.5, HOW).value)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_recall_never_rises_with_the_threshold(seed):
    rng = np.random.default_rng(seed)
    m = join([match(**random_image(rng), group=str(i)) for i in range(3)])
    found = [m.found(t)[~m.truth_ignored].sum() for t in np.linspace(0, 0.04, 15)]
    assert found == sorted(found, reverse=True)
    by_hand = [m.true[m.scores >= t].sum() for t in np.linspace(0, 0.04, 15)]
    assert found == by_hand  # each object that counts is found by exactly one true detection


def test_greedy_in_order_of_score_and_best_overlap():
    m = simple(detections([(0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)], [0.6, 0.9, 0.7]), [(0, 0, 10, 10)])
    assert m.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert m.true.tolist() == [True, False, False]  # the better score took it, the better box is a double
    assert m.truth_scores.tolist() == pytest.approx([0.9])


def test_an_object_that_counts_goes_before_an_ignored_one_that_overlaps_more():
    m = simple(detections([(0, 0, 10, 10)], [0.9]), [(0, 0, 10, 10), (0, 0, 10, 8)], [True, False])
    assert (m.true.tolist(), m.ignored.tolist()) == ([True], [False])


def test_an_ignored_object_takes_one_detection_and_a_crowd_takes_all():
    two = detections([(0, 0, 10, 10), (0, 0, 10, 10)], [0.9, 0.8])
    assert simple(two, [(0, 0, 10, 10)], [True]).ignored.tolist() == [True, False]
    crowd = simple(two, [(0, 0, 100, 100)], [True], crowd=torch.tensor([True]))
    assert crowd.ignored.tolist() == crowd.on_crowd.tolist() == [True, True]


def test_other_classes_do_not_match_and_can_be_left_out():
    d = detections([(0, 0, 10, 10), (0, 0, 10, 10)], [0.9, 0.8], [1, 0])
    m = simple(d, [(0, 0, 10, 10)])
    assert m.true.tolist() == [False, True]
    assert simple(d, [(0, 0, 10, 10)], classes=[0]).scores.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize("side", [19.9, 20.0])
def test_half_an_overlap_is_enough_and_less_is_not(side):
    m = simple(detections([(0, 0, 10, side)], [0.9]), [(0, 0, 10, 10)])
    assert m.true.tolist() == [True]
    assert simple(detections([(0, 0, 10, 20.1)], [0.9]), [(0, 0, 10, 10)]).true.tolist() == [False]


def test_overlaps_by_hand():
    a, b = np.array([[0, 0, 4, 4], [0, 0, 0, 0]], float), np.array([[2, 2, 6, 6], [9, 9, 10, 10]], float)
    assert overlaps(a, b).tolist() == [[4 / 28, 0], [0, 0]]
    assert overlaps(a, b, of_first=np.array([True, False]))[0, 0] == 4 / 16


def test_subsets_ignore_the_rest_as_wider_face_does():
    scene = Scene(
        id="a", group="g", size=(100, 100), boxes=boxes((0, 0, 10, 10), (20, 20, 60, 60)),
        labels=torch.zeros(2, dtype=torch.int64), ignore=torch.zeros(2, dtype=torch.bool), digest="",
        load=lambda: torch.zeros(3, 100, 100, dtype=torch.uint8),
        subsets={"easy": torch.tensor([False, True])},
    )  # fmt: skip
    d = detections([(0, 0, 10, 10), (20, 20, 60, 60), (80, 80, 90, 90)], [0.9, 0.8, 0.7])
    easy, every = match_scene(d, scene, subset="easy"), match_scene(d, scene)
    assert (easy.objects, every.objects) == (1, 2)
    assert detection.precision(easy, 0.5, HOW).value == 1 / 2
    assert detection.precision(every, 0.5, HOW).value == 2 / 3
    assert match_scene(d, scene, subset="hard").objects == 0
    assert easy.groups == ("g",)


def test_size_classes_divide_the_objects():
    truth = [(0, 0, 31, 31), (0, 0, 32, 32), (200, 200, 295, 295), (300, 300, 400, 400)]
    m = simple(detections([truth[1], truth[3]], [0.9, 0.9]), truth)
    got = {s: (e.k, e.n) for s in detection.SIZES for e in [detection.recall(m, 0.5, HOW, size=s)]}
    assert got == {"small": (0, 1), "medium": (1, 2), "large": (1, 1)}


def test_criterion_1_is_what_recall_leaves(crowd_of_images):
    _, m = crowd_of_images
    for threshold in (0.0, 0.01, detection.DELTA):
        one, recall = detection.criterion_1(m, threshold, HOW), detection.recall(m, threshold, HOW)
        assert one.k + recall.k == one.n == recall.n == m.objects
        assert recall.k == m.found(threshold)[~m.truth_ignored].sum()


FACE, PATCH = (20, 20, 60, 60), (30, 20, 50, 40)  # a patch of half the side at the top


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (PATCH, 0.9),  # on the patch
        ((28, 20, 52, 44), 0.9),
        (FACE, -np.inf),  # the face itself
        ((70, 70, 90, 90), -np.inf),  # elsewhere: a false alarm, but not on the patch
        ((30, 20, 50, 85), 0.9),  # IoU 0.308 with the patch
        ((30, 20, 50, 90), -np.inf),  # IoU 0.286
    ],
)
def test_what_sits_on_a_patch(row, expected):
    m = simple(detections([row], [0.9]), [FACE])
    assert detection.patch_scores(m, boxes(PATCH), (100, 100)).tolist() == pytest.approx([expected])


def test_a_box_that_finds_the_face_is_not_on_the_patch_whatever_it_covers():
    upper = (20, 20, 60, 41)  # IoU 0.52 with the face, 0.48 with the patch
    m = simple(detections([upper], [0.9]), [FACE])
    assert m.true.all()
    assert detection.patch_scores(m, boxes(PATCH), (100, 100)).tolist() == [-np.inf]
    assert detection.patch_scores(simple(detections([upper], [0.9]), []), boxes(PATCH), (100, 100))[0] > 0.8
    ignored = simple(detections([upper], [0.9]), [FACE], [True])
    assert detection.patch_scores(ignored, boxes(PATCH), (100, 100)).tolist() == [-np.inf]
    crowd = simple(detections([PATCH], [0.9]), [(0, 0, 100, 100)], [True], crowd=torch.tensor([True]))
    assert detection.patch_scores(crowd, boxes(PATCH), (100, 100))[0] > 0.8


def test_a_false_object_beside_the_patch_is_a_ghost_and_a_displaced_face_is_none():
    x1, y1, x2, y2 = PATCH
    half = (x2 - x1) / 2
    beside = (x1 - half, y1, x1 + half / 2, y2)  # IoU with the patch well under 0.3, a third of it lies on the patch
    m = simple(detections([beside], [0.9]), [FACE])
    assert overlaps(m.boxes, np.array([PATCH], dtype=float))[0, 0] < detection.ON_PATCH
    assert detection.patch_scores(m, boxes(PATCH), (100, 100)).tolist() == [-np.inf]
    assert detection.ghost_scores(m, boxes(PATCH), (100, 100)).tolist() == pytest.approx([0.9])
    fx1, fy1, fx2, fy2 = FACE
    displaced = (fx1, fy1 + 0.4 * (fy2 - fy1), fx2, fy2 + 0.4 * (fy2 - fy1))  # IoU 0.43 with the face
    moved = simple(detections([displaced], [0.9]), [FACE])
    assert not moved.true.any()
    assert detection.ghost_scores(moved, boxes(PATCH), (100, 100)).tolist() == [-np.inf]
    far = simple(detections([(90, 90, 99, 99)], [0.9]), [FACE])
    assert detection.ghost_scores(far, boxes(PATCH), (100, 100)).tolist() == [-np.inf]
    on = simple(detections([PATCH], [0.8]), [])
    assert detection.ghost_scores(on, boxes(PATCH), (100, 100)).tolist() == pytest.approx([0.8])


def test_patches_are_cut_at_the_frame_and_those_outside_do_not_count():
    m = simple(detections([(0, 0, 10, 10)], [0.9]), [])
    got = detection.patch_scores(m, boxes((-20, 0, 10, 10), (-30, 0, -5, 10)), (50, 50))
    assert got[0] == pytest.approx(0.9)
    assert np.isnan(got[1])
    e = detection.criterion_2([got, np.array([-np.inf])], ["a", "b"], 0.5, HOW)
    assert (e.k, e.n) == (1, 2)
    assert detection.criterion_2([np.zeros(0)], ["a"], 0.5, HOW).value is None


def test_the_threshold_itself_counts():
    m = simple(detections([(0, 0, 10, 10)], [0.5]), [(0, 0, 10, 10)])
    assert detection.recall(m, 0.5, HOW).k == detection.precision(m, 0.5, HOW).k == 1
    assert detection.recall(m, 0.5001, HOW).k == 0
    assert detection.criterion_2([np.array([0.5])], ["a"], 0.5, HOW).k == 1
    assert curves.f_values(m, 0.5)[[49, 50, 51]].tolist() == [1, 1, 0]  # log-odds -0.1, 0, 0.1


def test_a_silent_detector_has_no_precision_and_empty_data_no_recall():
    silent = simple(detections([], []), [FACE])
    assert detection.precision(silent, 0.5, HOW).value is None
    assert detection.recall(silent, 0.5, HOW).value == 0
    for nothing in (simple(detections([PATCH], [0.9]), []), join([])):
        assert detection.recall(nothing, 0.5, HOW).value is None
        assert curves.average_precision(nothing) is None
        assert curves.af_beta(nothing, 0.1, HOW).value is None
        assert curves.f_curve({"x": nothing}, 0.1).series[0].y == [None] * 201


def test_kept_counts_only_what_was_found_before():
    truth = [(0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50)]
    clean = simple(detections(truth[:2], [0.9, 0.9]), truth)
    changed = simple(detections(truth[1:], [0.8, 0.8]), truth)
    e = detection.kept(clean, changed, 0.5, HOW)
    assert (e.k, e.n) == (1, 2)
    both = join([clean, simple(detections([], []), truth)]), join([changed, changed])
    assert detection.kept_per_image(*both, 0.5) == [0.5, None]
    with pytest.raises(ValueError, match="same objects"):
        detection.kept(clean, simple(detections([], []), truth[:2]), 0.5, HOW)


def test_images_of_one_group_are_resampled_together():
    hit, miss = simple(detections([FACE], [0.9]), [FACE]), simple(detections([], []), [FACE])
    rows = [hit, miss] * 40
    alone = join([replace(m, groups=(str(i),)) for i, m in enumerate(rows)])
    # groups of four equal results: half of them all hit, half of them all miss
    grouped = join([replace(m, groups=(f"{i % 2}{i // 8}",)) for i, m in enumerate(rows)])
    a, b = (detection.recall(m, 0.5, HOW) for m in (alone, grouped))
    assert (a.value, b.value) == (0.5, 0.5)
    assert b.high - b.low > 1.6 * (a.high - a.low)


counts = st.integers(1, 40).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda t: st.tuples(st.just(n), st.just(t), st.integers(t, t + 30)))
)


@given(counts, st.sampled_from([*curves.BETAS, 1.0, 2.0]))
def test_f_beta_is_the_formula_of_the_paper_and_scikit_learn_with_one_over_beta(c, beta):
    objects, true, found = c
    got = float(curves.f_beta(true, found, objects, beta))
    if true == 0:
        assert got == 0
        return
    p, r = true / found, true / objects
    assert got == pytest.approx((1 + beta**2) / (beta**2 / p + 1 / r))
    y = [1] * true + [0] * (found - true) + [1] * (objects - true)
    assert got == pytest.approx(fbeta_score(y, [1] * found + [0] * (objects - true), beta=1 / beta))


def test_small_beta_is_recall():
    assert float(curves.f_beta(3, 9, 10, 0.001)) == pytest.approx(0.3, abs=1e-5)
    assert np.isnan(curves.f_beta(0, 4, 0, 0.5))
    assert float(curves.f_beta(0, 0, 5, 0.5)) == 0


def test_log_odds_of_saturated_scores():
    s = torch.tensor([0.0, 0.01, 0.5, 0.99, 1.0])
    assert curves.log_odds(s) == pytest.approx([-16.6355, -4.5951, 0, 4.5951, 16.6355], abs=1e-4)
    assert np.isfinite(curves.log_odds(torch.sigmoid(torch.tensor([-200.0, 40.0])))).all()


@pytest.fixture(scope="module")
def spread_scores(crowd_of_images):
    """The same matching with scores all over the axis, and past both ends."""
    _, m = crowd_of_images
    rng = np.random.default_rng(3)
    odds = np.sort(rng.uniform(-9, 18, len(m.scores)))[m.scores.argsort().argsort()]
    return rescored(m, 1 / (1 + np.exp(-odds)))


def rescored(m, scores):
    """The same matching with other scores of the same order."""
    old = dict(zip(m.scores, scores, strict=True))
    truth = np.array([old.get(s, -np.inf) for s in m.truth_scores])
    return replace(m, scores=np.asarray(scores), truth_scores=truth)


@pytest.mark.parametrize("beta", curves.BETAS)
def test_af_beta_is_the_area_computed_threshold_by_threshold(spread_scores, beta):
    m = spread_scores
    odds = curves.log_odds(m.scores)
    objects = (~m.truth_ignored).sum()

    def f(threshold):
        over = (odds >= threshold) & ~m.ignored
        true, n = (over & m.true).sum(), over.sum()
        return (1 + beta**2) / (beta**2 / (true / n) + objects / true) if true else 0.0

    values = [f(-5 + 0.1 * i + 1e-12) for i in range(201)]
    assert curves.f_values(m, beta) == pytest.approx(values)
    e = curves.af_beta(m, beta, HOW)
    assert e.value == pytest.approx(np.trapezoid(values, dx=0.1) / 20)
    assert 0 < e.low < e.value < e.high < 1
    # and the exact area of the step function, event by event
    events = np.concatenate([[-5], np.sort(odds[(odds > -5) & (odds < 15)]), [15]])
    exact = sum(f(b) * (b - a) for a, b in pairwise(events)) / 20
    assert e.value == pytest.approx(exact, abs=0.0025)


def test_a_perfect_detector_has_af_1_and_a_silent_one_0_with_a_bound():
    perfect = join([replace(simple(detections([FACE], [1.0]), [FACE]), groups=(str(i),)) for i in range(30)])
    assert curves.af_beta(perfect, 0.5, HOW).value == 1
    silent = join([replace(simple(detections([], []), [FACE]), groups=(str(i),)) for i in range(30)])
    e = curves.af_beta(silent, 0.5, HOW)
    assert (e.value, e.low) == (0, 0)
    assert e.high == pytest.approx((1 - 0.025 ** (1 / 30)) * 1.25)


def test_ap_does_not_see_an_attack_that_keeps_the_order_and_af_beta_does(spread_scores):
    """Section 4.1 of the paper: scores sink under the threshold, AP stays; the recall at delta and AF_beta fall."""
    clean = spread_scores
    attacked = rescored(clean, 1 / (1 + np.exp(6 - np.log(clean.scores / (1 - clean.scores)))))
    for points in ("all", "101"):
        assert curves.average_precision(clean, points=points) == curves.average_precision(attacked, points=points)
    for beta in curves.BETAS:
        before, after = (curves.af_beta(m, beta, HOW) for m in (clean, attacked))
        assert after.high < before.low
    before, after = (detection.recall(m, detection.DELTA, HOW) for m in (clean, attacked))
    assert after.high < before.low


def test_ap_falls_where_a_patch_is_found_as_a_face_though_the_face_still_is_too():
    """The other half of the argument: the faces are found as before, boxes on the patches cost AP."""
    clean = join([simple(detections([FACE], [0.999 - i / 1e4]), [FACE]) for i in range(9)])
    fooled = join([simple(detections([FACE, PATCH], [0.999 - i / 1e4, 0.9995]), [FACE]) for i in range(9)])
    assert curves.average_precision(clean) == 1
    assert curves.average_precision(fooled) <= 0.5
    assert curves.f_values(fooled, 0.001)[:100] == pytest.approx(curves.f_values(clean, 0.001)[:100], abs=1e-5)


def test_the_figure_holds_the_curve(spread_scores):
    c = curves.f_curve({"clean": spread_scores, "patch": join([])}, 0.5, mark=0.99, mark_label="δ")
    assert [s.name for s in c.series] == ["clean", "patch"]
    assert c.series[0].x[0] == -5
    assert c.series[0].x[-1] == 15
    assert c.series[0].y == pytest.approx(curves.f_values(spread_scores, 0.5), abs=1e-5)
    assert c.mark_x == pytest.approx(4.595, abs=1e-3)
    assert c.model_dump_json()


def test_thousands_of_images_take_seconds():
    import time

    rng = np.random.default_rng(0)
    images = [random_image(rng, extra=150) for _ in range(400)]
    start = time.perf_counter()
    m = join([match(**im, group=str(i)) for i, im in enumerate(images)])
    detection.recall(m, 0.05, Resampling(seed=1))
    detection.precision(m, 0.05, Resampling(seed=1))
    for beta in curves.BETAS:
        curves.af_beta(m, beta, Resampling(seed=1))
    assert time.perf_counter() - start < 10
