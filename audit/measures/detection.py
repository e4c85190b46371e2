"""What a detector finds: recall, precision and the two attack criteria at a threshold, each with its interval.

A detection counts at a threshold where its score is at least the threshold. All shares are resampled by the groups of
the images (:class:`~audit.measures.intervals.Resampling`); a share of nothing has the value ``None``.

Source of the criteria: Yang et al., "Design and Interpretation of Universal Adversarial Patches in Face Detection",
ECCV 2020, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from audit.measures.intervals import Estimate, Resampling, cluster_bootstrap
from audit.measures.matching import Bools, Floats, Ints, Matches, group_index, overlaps

DELTA = 0.99
"""The score threshold of the paper, high enough that a detector raises next to no false alarm."""

ON_PATCH = 0.3
"""A detection lies on a patch where their intersection over union is greater (lambda 2 of the paper's samples)."""

AT_SIDE = 0.05
"""A detection is at the side of a patch where they share this much of the smaller of the two."""

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""Object areas in square pixels, from (inclusive) and to (exclusive), as COCO divides them."""


def recall(
    matches: Matches, threshold: float, resampling: Resampling, *, size: str | None = None, label: int | None = None
) -> Estimate:
    """Share of the objects that count which are found at the threshold.

    Args:
        size: count objects of that class of :data:`SIZES` only. label: count objects of that label only. For the
            subsets of WIDER FACE match with ``match_scene(..., subset=...)``, which precision needs as well.
    """
    counts = _counted(matches, size, label)
    return _share(matches.found(threshold), counts, matches.truth_image, matches, resampling)


def precision(matches: Matches, threshold: float, resampling: Resampling, *, label: int | None = None) -> Estimate:
    """Share of the detections at the threshold that found an object that counts.

    Detections on ignored objects are left out on both sides. Without any detection the value is ``None``: a silent
    detector has no precision.
    """
    counts = (matches.scores >= threshold) & ~matches.ignored
    if label is not None:
        counts &= matches.labels == label
    return _share(matches.true, counts, matches.image, matches, resampling)


def criterion_1(matches: Matches, threshold: float, resampling: Resampling) -> Estimate:
    """Share of the objects that count whose score is under the threshold: 1 - recall. Good for the attacker: 1."""
    counts = _counted(matches, None, None)
    return _share(~matches.found(threshold), counts, matches.truth_image, matches, resampling)


def criterion_2(scores: Sequence[Floats], groups: Sequence[str], threshold: float, resampling: Resampling) -> Estimate:
    """Share of the patches placed on which a detection sits at the threshold: the patch itself was taken for an object.

    Good for the attacker: 0. It has to be set beside :func:`criterion_1`: an attack that hides the face but shows one
    of its own has failed as "nobody seen here", and a detector that reports such a box has still not found the face.

    Args:
        scores: per image the (K,) scores of :func:`patch_scores`; NaN (a patch out of sight) is not counted.
        groups: per image what it is resampled with.
    """
    index, clusters = group_index(groups)
    image = np.repeat(index, [len(s) for s in scores]).astype(np.int64)
    flat = np.concatenate([*scores, np.zeros(0)])
    seen = ~np.isnan(flat)
    k = np.bincount(image[seen & (flat >= threshold)], minlength=clusters)
    n = np.bincount(image[seen], minlength=clusters)
    return _interval(k, n, resampling)


def ghost_scores(matches: Matches, regions: Tensor, size: tuple[int, int]) -> Floats:
    """For each patch of one image the best score of a detection on it or at its side that shows no real object.

    As :func:`patch_scores`, and besides any detection that overlaps the patch by at least :data:`AT_SIDE` of the
    smaller of the two and is no displaced box of a real object (IoU with each at most :data:`ON_PATCH`). An attack that
    brings down what lies on the patch may push it to the patch's edge; to whoever reads the boxes that is a false
    object all the same.
    """
    on = patch_scores(matches, regions, size)
    patches = _visible(regions, size)
    apart = overlaps(matches.boxes, matches.truth_boxes).max(axis=1, initial=0.0) <= ON_PATCH
    touching = _share_of_smaller(matches.boxes, patches) >= AT_SIDE
    stray = ~matches.true & ~matches.ignored & apart
    side = np.where(touching & stray[:, None], matches.scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
    return np.asarray(np.where(np.isnan(on), on, np.maximum(on, side)), dtype=np.float64)


def patch_scores(matches: Matches, regions: Tensor, size: tuple[int, int], *, iou: float = ON_PATCH) -> Floats:
    """For each patch of one image the best score of a detection that sits on it, -inf where there is none.

    A detection sits on a patch if its IoU with the patch's rectangle, cut at the frame, is greater than ``iou`` and it
    did not find a real object. The second half is needed because patch and face overlap by design: a detection that
    matches the face is the detector at its best, whatever it also covers; an object that is found but does not count
    (``ignored``) is real too. A detection in a crowd region matched no single object, so it may sit on a patch. With a
    square patch of half the face's side the box of the whole face has IoU 0.25 with the patch, so that a second box on
    the face does not pass for one on the patch. A label is not asked for: any class on the patch is a false alarm.

    Args:
        matches: of this image alone. regions: (K, 4) xyxy px as placed, may leave the frame. size: (height, width).

    Returns:
        (K,) scores; NaN for a patch that lies wholly out of the frame.
    """
    patches = _visible(regions, size)
    stray = ~matches.true & ~(matches.ignored & ~matches.on_crowd)
    on = (overlaps(matches.boxes, patches) > iou) & stray[:, None]
    best = np.where(on, matches.scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
    visible = (patches[:, 2:] > patches[:, :2]).all(axis=1)
    return np.asarray(np.where(visible, best, np.nan), dtype=np.float64)


def kept(clean: Matches, changed: Matches, threshold: float, resampling: Resampling) -> Estimate:
    """Share of the objects found in the clean images that are still found in the changed ones.

    Raises:
        ValueError: the two are not of the same objects in the same order.
    """
    before = _same(clean, changed).found(threshold) & ~clean.truth_ignored
    return _share(changed.found(threshold), before, clean.truth_image, clean, resampling)


def kept_per_image(clean: Matches, changed: Matches, threshold: float) -> list[float | None]:
    """:func:`kept` image by image, ``None`` where nothing was found in the clean one: for choosing evidence."""
    before = _same(clean, changed).found(threshold) & ~clean.truth_ignored
    images = len(clean.groups)
    k = np.bincount(clean.truth_image[before & changed.found(threshold)], minlength=images)
    n = np.bincount(clean.truth_image[before], minlength=images)
    return [float(a / b) if b else None for a, b in zip(k, n, strict=True)]


def _visible(regions: Tensor, size: tuple[int, int]) -> Floats:
    """Patches cut at the frame."""
    height, width = size
    frame = np.array([width, height, width, height], dtype=np.float64)
    return np.asarray(np.clip(np.asarray(regions.detach().cpu(), dtype=np.float64).reshape(-1, 4), 0, frame))


def _share_of_smaller(first: Floats, second: Floats) -> Floats:
    """(D, K) intersection over the smaller of two areas; 0 where one is empty."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    both = np.prod(np.clip(np.minimum(first[:, None, 2:], second[None, :, 2:]) - low, 0, None), axis=2)
    areas = [np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=1) for b in (first, second)]
    smaller = np.minimum(areas[0][:, None], areas[1][None])
    return np.asarray(np.divide(both, smaller, out=np.zeros_like(both), where=smaller > 0))


def _counted(matches: Matches, size: str | None, label: int | None) -> Bools:
    counts = ~matches.truth_ignored
    if label is not None:
        counts &= matches.truth_labels == label
    if size is not None:
        low, high = SIZES[size]
        area = np.prod(matches.truth_boxes[:, 2:] - matches.truth_boxes[:, :2], axis=1)
        counts &= (area >= low) & (area < high)
    return counts


def _same(clean: Matches, changed: Matches) -> Matches:
    if not (
        np.array_equal(clean.truth_boxes, changed.truth_boxes)
        and np.array_equal(clean.truth_labels, changed.truth_labels)
        and np.array_equal(clean.truth_image, changed.truth_image)
        and np.array_equal(clean.truth_ignored, changed.truth_ignored)
    ):
        raise ValueError("clean and changed matches are not of the same objects in the same order")
    return clean


def _share(hit: Bools, counts: Bools, image: Ints, matches: Matches, resampling: Resampling) -> Estimate:
    index, clusters = group_index(matches.groups)
    where = index[image]
    k = np.bincount(where[counts & hit], minlength=clusters)
    return _interval(k, np.bincount(where[counts], minlength=clusters), resampling)


def _interval(k: Ints, n: Ints, resampling: Resampling) -> Estimate:
    return cluster_bootstrap(
        k,
        n,
        level=resampling.level,
        draws=resampling.draws,
        seed=resampling.seed,
        cluster=resampling.cluster,
    )
