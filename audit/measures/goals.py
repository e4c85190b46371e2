"""Whether an attack reached another goal than hiding: false objects, another class, a wrong place, a flood of boxes.

All compare what a detector finds in clean scenes with what it finds in the same scenes under a perturbation. Detections
count at a threshold where their score is at least it. Only scenes with an object that counts are trials, as nothing is
put anywhere else. Shares and means are resampled by the scenes' groups; of nothing they are ``None``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from audit.contracts import Detections
from audit.data.scenes import Scene
from audit.measures.detection import ON_PATCH
from audit.measures.intervals import Estimate, Resampling, bootstrap_statistic, cluster_bootstrap
from audit.measures.matching import IOU, Bools, Floats, Ints, group_index, match_scene, overlaps

TOUCH = 0.1
"""A displaced box still belongs to its object from this IoU on."""


@dataclass(frozen=True, slots=True)
class ClassKept:
    """Of the objects found clean in their class, the shares now found in it, found as another, and not found at all.

    ``wrong`` is the judged one: good for the attacker is 1.
    """

    right: Estimate
    wrong: Estimate
    lost: Estimate


@dataclass(frozen=True, slots=True)
class BoxShifted:
    """Of the objects found clean: the share displaced (judged) and lost, the mean IoU before and after.

    ``after`` is over the objects that still have a box; its ``n``, as that of ``before``, counts groups.
    """

    displaced: Estimate
    lost: Estimate
    before: Estimate
    after: Estimate


@dataclass(frozen=True, slots=True)
class Flooded:
    """Detections per scene before and after, after over before (judged), and the most in one scene.

    ``work``: pairs that the suppression of doubles compares at most in that scene, see :func:`comparisons`.
    """

    before: Estimate
    after: Estimate
    ratio: Estimate
    worst_before: int
    worst_after: int

    @property
    def work(self) -> int:
        return comparisons(self.worst_after)


def ghosts_anywhere(
    found: Sequence[Detections],
    scenes: Sequence[Scene],
    clean_found: Sequence[Detections],
    threshold: float,
    resampling: Resampling,
    *,
    classes: Collection[int] | None = None,
    iou: float = IOU,
) -> Estimate:
    """Share of the scenes in which a false object appears that was not there clean: criterion 2, wherever it lies.

    Args:
        found: per scene, under the perturbation; ``clean_found``: without it. Other arguments: :func:`new_ghosts`.
    """
    rows = [
        new_ghosts(d, s, c, threshold, classes=classes, iou=iou).any()
        for d, s, c in zip(found, scenes, clean_found, strict=True)
    ]
    tried = _tried(scenes, classes)
    return _share(np.asarray(rows, dtype=bool) & tried, tried, [s.group for s in scenes], resampling)


def new_ghosts(
    found: Detections,
    scene: Scene,
    clean: Detections,
    threshold: float,
    *,
    classes: Collection[int] | None = None,
    iou: float = IOU,
) -> Bools:
    """(D,) which detections of a perturbed scene are false objects that were not there clean.

    One at the threshold, of a class that counts (``classes``; ``None``: any), whose IoU with every listed object, of
    whatever class and counting or not, is at most ``ON_PATCH``, which is not half in a crowd region, and of which the
    clean scene shows none of the same class with IoU of at least ``iou`` at the threshold.
    """
    boxes, scores, labels = _arrays(found)
    old, old_scores, old_labels = _arrays(clean)
    truth = np.asarray(scene.boxes, dtype=np.float64).reshape(-1, 4)
    crowd = scene.subsets.get("crowd")
    held = np.zeros(len(truth), dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool)
    near = overlaps(boxes, truth, of_first=held)
    on_object = (near > np.where(held, IOU, ON_PATCH)[None]).any(1)
    known = (overlaps(boxes, old) >= iou) & (labels[:, None] == old_labels) & (old_scores >= threshold)
    wanted = np.ones(len(labels), dtype=bool) if classes is None else np.isin(labels, sorted(classes))
    return np.asarray((scores >= threshold) & wanted & ~on_object & ~known.any(1))


def class_kept(
    clean: Sequence[Detections],
    patched: Sequence[Detections],
    scenes: Sequence[Scene],
    threshold: float,
    resampling: Resampling,
    *,
    classes: Collection[int] | None = None,
    same: Collection[int] = (),
    iou: float = IOU,
) -> ClassKept:
    """What the objects found clean are taken for under the perturbation.

    An object is found in its class by the matching of ``matching.match``. It is found as another where it is not, and
    a detection of another class at the threshold has IoU of at least ``iou`` with it, more than with any other listed
    object, and did not itself find an object.

    Args:
        clean, patched: per scene. classes: objects of these labels are asked about; detections of all are read.
        same: labels that are as good as one another: an object of one that is found as another is found right.
    """
    right, wrong, counts, groups = [], [], [], []
    for c, d, s in zip(clean, patched, scenes, strict=True):
        before, after = match_scene(c, s, iou=iou), match_scene(d, s, iou=iou)
        near = overlaps(after.boxes, after.truth_boxes)
        stray = (after.scores >= threshold) & ~after.true & ~(after.ignored & ~after.on_crowd)
        alike = np.isin(after.labels, sorted(same))[:, None] & np.isin(after.truth_labels, sorted(same))
        other = (after.labels[:, None] != after.truth_labels) & ~alike
        near_enough = (near >= iou) & (near >= near.max(1, keepdims=True, initial=0)) & stray[:, None]
        seen = near_enough & other
        ask = before.found(threshold) & ~before.truth_ignored & _of(before.truth_labels, classes)
        held = after.found(threshold) | (near_enough & alike).any(0)
        counts.append(ask)
        right.append(ask & held)
        wrong.append(ask & ~held & seen.any(0))
        groups += [s.group] * len(ask)
    n, k, w = (_flat(x) for x in (counts, right, wrong))
    return ClassKept(*(_share(hit, n, groups, resampling) for hit in (k, w, n & ~k & ~w)))


def box_shift(
    clean: Sequence[Detections],
    patched: Sequence[Detections],
    scenes: Sequence[Scene],
    threshold: float,
    resampling: Resampling,
    *,
    classes: Collection[int] | None = None,
    iou: float = IOU,
) -> BoxShifted:
    """How well the boxes of the objects found clean still sit under the perturbation.

    The box of an object is, among the detections of its class at the threshold with IoU of at least :data:`TOUCH`
    (and, where the object is not found, that found no other object and overlap none of that class more), the one with
    the largest IoU. An object is displaced where it has such a box and is not found: all lie under ``iou``.

    Args:
        clean, patched: per scene. classes: objects of these labels are asked about.
    """
    first, last, displaced, lost, counts, groups = [], [], [], [], [], []
    for c, d, s in zip(clean, patched, scenes, strict=True):
        was, old = _places(c, s, threshold, iou)
        now, new = _places(d, s, threshold, iou)
        ask = was & ~np.asarray(s.ignore, dtype=bool) & _of(np.asarray(s.labels), classes)
        counts.append(ask)
        first.append(np.where(ask, old, 0))
        last.append(np.where(ask, new, 0))
        lost.append(ask & ~(new > 0))
        displaced.append(ask & ~now & (new > 0))
        groups += [s.group] * len(ask)
    n, gone = _flat(counts), _flat(lost)
    sums = [np.concatenate([*x, np.zeros(0)]) for x in (first, last)]
    return BoxShifted(
        displaced=_share(_flat(displaced), n, groups, resampling),
        lost=_share(gone, n, groups, resampling),
        before=_ratio(sums[0], n, groups, resampling, n),
        after=_ratio(sums[1], n & ~gone, groups, resampling, n & ~gone),
    )


def flood(
    clean: Sequence[Detections],
    patched: Sequence[Detections],
    scenes: Sequence[Scene],
    floor: float,
    resampling: Resampling,
) -> Flooded:
    """How many detections of score ``floor`` or more, of any class, a scene has before and after.

    The ratio is the sum after over the sum before; ``None`` where nothing was found before.
    """
    tried, groups = _tried(scenes, None), [s.group for s in scenes]
    counts = [np.array([(_arrays(d)[1] >= floor).sum() for d in found], dtype=np.int64) for found in (clean, patched)]
    if not len(clean) == len(patched) == len(scenes):
        raise ValueError(f"{len(clean)} clean and {len(patched)} patched answers to {len(scenes)} scenes")
    old, new = (np.where(tried, c, 0) for c in counts)
    return Flooded(
        before=_ratio(old, tried, groups, resampling, tried),
        after=_ratio(new, tried, groups, resampling, tried),
        ratio=_ratio(new, old, groups, resampling, tried),
        worst_before=int(old.max(initial=0)),
        worst_after=int(new.max(initial=0)),
    )


def candidate_share(
    over: Sequence[int], total: Sequence[int], groups: Sequence[str], resampling: Resampling
) -> Estimate:
    """Share of a detector's candidates that pass a threshold, which its suppression of doubles has to sort.

    Args:
        over, total: per image, candidates over the threshold and all. groups: per image.
    """
    index, clusters = group_index(groups)
    k, n = (np.bincount(index, weights=np.asarray(x, dtype=np.float64), minlength=clusters) for x in (over, total))
    return _interval(k, n, resampling)


def comparisons(boxes: int) -> int:
    """Pairs of boxes that greedy suppression of doubles compares at most: n(n − 1)/2."""
    return boxes * (boxes - 1) // 2


def _places(found: Detections, scene: Scene, threshold: float, iou: float) -> tuple[Bools, Floats]:
    """(T,) whether each object is found; (T,) IoU of its box, 0 where it has none."""
    m = match_scene(found, scene, iou=iou)
    same = (m.labels[:, None] == m.truth_labels) & (m.scores >= threshold)[:, None]
    near = np.where(same, overlaps(m.boxes, m.truth_boxes), 0)
    held = m.found(threshold)
    own = (near >= near.max(1, keepdims=True, initial=0)) & ~(m.true | m.ignored)[:, None]
    near = np.where((near >= TOUCH) & (held | own), near, 0)
    return held, np.asarray(near.max(0, initial=0), dtype=np.float64)


def _arrays(d: Detections) -> tuple[Floats, Floats, Ints]:
    boxes, scores = (np.asarray(x.detach().cpu(), dtype=np.float64) for x in (d.boxes, d.scores))
    return boxes.reshape(-1, 4), scores, np.asarray(d.labels.detach().cpu(), dtype=np.int64)


def _of(labels: Ints, classes: Collection[int] | None) -> Bools:
    return np.ones(len(labels), dtype=bool) if classes is None else np.isin(labels, sorted(classes))


def _tried(scenes: Sequence[Scene], classes: Collection[int] | None) -> Bools:
    """Per scene, whether it has an object that counts."""
    counts = [(~np.asarray(s.ignore, dtype=bool) & _of(np.asarray(s.labels), classes)).any() for s in scenes]
    return np.asarray(counts, dtype=bool)


def _flat(parts: Sequence[Bools]) -> Bools:
    return np.concatenate([*parts, np.zeros(0, dtype=bool)])


def _share(hit: Bools, counts: Bools, groups: Sequence[str], resampling: Resampling) -> Estimate:
    index, clusters = group_index(groups)
    k, n = (np.bincount(index[x], minlength=clusters) for x in (counts & hit, counts))
    return _interval(k, n, resampling)


def _interval(k: Ints | Floats, n: Ints | Floats, r: Resampling) -> Estimate:
    return cluster_bootstrap(k, n, level=r.level, draws=r.draws, seed=r.seed, cluster=r.cluster)


def _ratio(above: Ints | Floats, below: Ints | Bools, groups: Sequence[str], r: Resampling, counts: Bools) -> Estimate:
    """Σ above / Σ below with an interval over the groups that have anything that counts."""
    index, clusters = group_index(groups)
    rows = [np.bincount(index, weights=np.asarray(x, dtype=np.float64), minlength=clusters) for x in (above, below)]
    both = np.stack(rows, 1)[np.bincount(index[counts], minlength=clusters) > 0]

    def statistic(weights: Floats) -> Floats:
        sums = weights @ both
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan), dtype=np.float64)

    return bootstrap_statistic(statistic, len(both), level=r.level, draws=r.draws, seed=r.seed, cluster=r.cluster)
