"""Which detection found which object: greedy matching, one image at a time, joined into one table for all counts.

A matching is made once, over all detections in order of score. Because a detection is matched without regard to those
of lower score, the matching of the detections over a threshold is a part of it: recall and precision at every threshold
follow from one table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.contracts import Detections
from audit.data.scenes import Scene

IOU = 0.5
"""Least intersection over union at which a detection has found an object (COCO, VOC, WIDER FACE)."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections and objects of one or more images, and which found which.

    Detections (D,), in order of score within each image:

    Attributes:
        boxes: (D, 4) xyxy px. scores: in [0, 1]. labels: class index. image: index into ``groups``.
        true: it found an object that counts. ignored: it found one that does not, so it is neither right nor wrong; all
            others are false alarms. on_crowd: ignored because it lies in a crowd region rather than on one object.

    Objects (T,), in the order of the scenes:

    Attributes:
        truth_boxes: (T, 4). truth_labels, truth_image: as above. truth_ignored: it does not count.
        truth_scores: the score of the detection that found it, -inf where none did.
        groups: per image, the name of what must be resampled together.
    """

    boxes: Floats
    scores: Floats
    labels: Ints
    image: Ints
    true: Bools
    ignored: Bools
    on_crowd: Bools
    truth_boxes: Floats
    truth_labels: Ints
    truth_image: Ints
    truth_ignored: Bools
    truth_scores: Floats
    groups: tuple[str, ...]

    @property
    def objects(self) -> int:
        """Number of objects that count."""
        return int((~self.truth_ignored).sum())

    def found(self, threshold: float) -> Bools:
        """(T,) whether each object is found by a detection whose score is at least ``threshold``."""
        return self.truth_scores >= threshold


def match(
    detections: Detections,
    boxes: Tensor,
    labels: Tensor,
    ignore: Tensor,
    *,
    crowd: Tensor | None = None,
    classes: Collection[int] | None = None,
    iou: float = IOU,
    group: str = "",
) -> Matches:
    """Match one image's detections to its objects, class by class, best score first.

    A detection takes the object that is still free and overlaps it most, if the overlap is at least ``iou``; objects
    that count go before ignored ones. That is the rule of the COCO evaluation (Lin et al. 2014), with two settlings of
    our own: equal scores are taken in order of their boxes' coordinates, so that the result does not hang on the order
    in which a detector lists them, and there is no limit on the number of detections.

    Args:
        detections: of the image. boxes: (T, 4) xyxy px. labels: (T,). ignore: (T,) bool, objects that do not count.
        crowd: (T,) bool, ignored regions that may hold many objects: they take any number of detections, and overlap is
            measured against the detection's own area. classes: labels that count; detections and objects of other
            labels are left out. group: what the image is resampled with.

    Returns:
        Matches of one image.
    """
    d_boxes, d_scores, d_labels = _numpy(detections.boxes, 4), _numpy(detections.scores), _ints(detections.labels)
    t_boxes, t_labels, t_ignored = _numpy(boxes, 4), _ints(labels), np.asarray(ignore.cpu(), dtype=bool)
    t_crowd = np.zeros(len(t_boxes), dtype=bool) if crowd is None else np.asarray(crowd.cpu(), dtype=bool)
    t_ignored = t_ignored | t_crowd
    if classes is not None:
        wanted = np.array(sorted(classes), dtype=np.int64)
        d = np.isin(d_labels, wanted)
        t = np.isin(t_labels, wanted)
        d_boxes, d_scores, d_labels = d_boxes[d], d_scores[d], d_labels[d]
        t_boxes, t_labels, t_ignored, t_crowd = t_boxes[t], t_labels[t], t_ignored[t], t_crowd[t]
    order = np.lexsort((*d_boxes.T[::-1], -d_scores))
    d_boxes, d_scores, d_labels = d_boxes[order], d_scores[order], d_labels[order]

    overlap = overlaps(d_boxes, t_boxes, of_first=t_crowd)
    overlap[d_labels[:, None] != t_labels[None]] = 0
    near = overlap >= iou
    taken = np.full(len(d_boxes), -1, dtype=np.int64)
    free = np.ones(len(t_boxes), dtype=bool)
    # objects that count come first whatever the overlap: 2 is more than any overlap can make up for
    wish = np.where(near, overlap + 2.0 * ~t_ignored, 0.0)
    for row in np.flatnonzero(near.any(1)):
        choice = wish[row] * free
        best = int(choice.argmax())
        if choice[best] > 0:
            taken[row] = best
            free[best] = bool(t_crowd[best])

    hit = taken >= 0
    on_ignored = hit & t_ignored[taken] if len(t_boxes) else hit
    truth_scores = np.full(len(t_boxes), -np.inf)
    np.maximum.at(truth_scores, taken[hit], d_scores[hit])
    return Matches(
        boxes=d_boxes,
        scores=d_scores,
        labels=d_labels,
        image=np.zeros(len(d_boxes), dtype=np.int64),
        true=hit & ~on_ignored,
        ignored=on_ignored,
        on_crowd=on_ignored & t_crowd[taken] if len(t_boxes) else on_ignored,
        truth_boxes=t_boxes,
        truth_labels=t_labels,
        truth_image=np.zeros(len(t_boxes), dtype=np.int64),
        truth_ignored=t_ignored,
        truth_scores=truth_scores,
        groups=(group,),
    )


def match_scene(
    detections: Detections,
    scene: Scene,
    *,
    subset: str | None = None,
    classes: Collection[int] | None = None,
    iou: float = IOU,
) -> Matches:
    """:func:`match` for a scene.

    Args:
        subset: one of ``scene.subsets``, e.g. ``easy``: all other objects are ignored, as WIDER FACE does it; a scene
            that does not have the subset has no object that counts. ``scene.subsets["crowd"]``, where there is one,
            marks crowd regions.
    """
    ignore = scene.ignore
    if subset is not None:
        ignore = ignore | ~scene.subsets[subset] if subset in scene.subsets else ignore | True
    crowd = scene.subsets.get("crowd")
    return match(
        detections, scene.boxes, scene.labels, ignore, crowd=crowd, classes=classes, iou=iou, group=scene.group
    )


def join(parts: Sequence[Matches]) -> Matches:
    """One table of several images; nothing gives a table without images."""
    if not parts:
        none = match(_NOTHING, _NOTHING.boxes, _NOTHING.labels, _NOTHING.labels.bool())
        return replace(none, groups=())
    first = np.cumsum([0, *(len(p.groups) for p in parts)])
    image, truth_image = (
        np.concatenate([getattr(p, name) + start for p, start in zip(parts, first, strict=False)])
        for name in ("image", "truth_image")
    )
    return Matches(
        boxes=np.concatenate([p.boxes for p in parts]),
        scores=np.concatenate([p.scores for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        image=image,
        true=np.concatenate([p.true for p in parts]),
        ignored=np.concatenate([p.ignored for p in parts]),
        on_crowd=np.concatenate([p.on_crowd for p in parts]),
        truth_boxes=np.concatenate([p.truth_boxes for p in parts]),
        truth_labels=np.concatenate([p.truth_labels for p in parts]),
        truth_image=truth_image,
        truth_ignored=np.concatenate([p.truth_ignored for p in parts]),
        truth_scores=np.concatenate([p.truth_scores for p in parts]),
        groups=tuple(g for p in parts for g in p.groups),
    )


def group_index(groups: Sequence[str]) -> tuple[Ints, int]:
    """Per image the index of its group, in order of name, and the number of groups."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return index.reshape(-1).astype(np.int64), len(names)


def overlaps(first: Floats, second: Floats, *, of_first: Bools | None = None) -> Floats:
    """Intersection over union of each of (D, 4) with each of (T, 4) boxes xyxy: (D, T); 0 where the union is empty.

    Args:
        of_first: (T,) bool, columns in which the intersection is divided by the first box's own area instead.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area_first, area_second = _area(first), _area(second)
    below = area_first[:, None] + area_second[None] - both
    if of_first is not None:
        below = np.where(of_first[None], area_first[:, None], below)
    ratio = np.zeros_like(both)
    np.divide(both, below, out=ratio, where=below > 0)
    return np.asarray(ratio, dtype=np.float64)


def _area(boxes: Floats) -> Floats:
    return np.asarray(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1), dtype=np.float64)


def _numpy(values: Tensor, columns: int | None = None) -> Floats:
    array = np.asarray(values.detach().cpu(), dtype=np.float64)
    return array.reshape(-1, columns) if columns else array.reshape(-1)


def _ints(values: Tensor) -> Ints:
    return np.asarray(values.detach().cpu(), dtype=np.int64).reshape(-1)


_NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
