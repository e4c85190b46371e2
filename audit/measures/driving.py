"""The score of the driving track of the Artificial Intelligence Security Competition (paper 000, §3.1, eq. 5 and 6).

A patch hides a vehicle (or a mannequin) where a detector finds nothing of the attacked classes in the whole frame:

    score = 1/D Σ_i 1/S Σ_j 1/F_j Σ_f I(M_i(x_fj) = 0)  +  0.2 · (1 − ‖m/255‖₁ / (W·H))          (5)
    total = 0.8 · score_truck + 0.2 · score_person                                              (6)

over D detectors, S scenes of F_j frames, and the patch's mask m on a canvas of W × H px; in the competition D = 2,
S = 5, F_j = 240 and W × H = 2790 × 1260. A patch of more than 5 connected regions is void. Nothing measured gives
``None``, never 0. The controls use the same counting, except that what is known to stand beside the attacked object
does not count (:func:`frames_found`), and with an interval (:func:`frames_kept`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audit.contracts import Detections
from audit.data.scenes import Scene
from audit.measures.intervals import Estimate, Resampling, cluster_bootstrap
from audit.measures.matching import IOU, Bools, Floats, group_index, overlaps

CANVAS = (2790, 1260)
"""(width, height) of the competition's patch in px."""

MOST_REGIONS = 5
FRAMES, SCENES, DETECTORS = 240, 5, 2
"""What the competition scored over: frames of a scene, scenes of a task, detectors."""

ATTACKED = {"truck": ("car", "truck", "bus"), "person": ("person",)}
"""Per task the classes of which nothing may be found."""

AREA_WEIGHT = 0.2
TASK_WEIGHT = {"truck": 0.8, "person": 0.2}
INSIDE = 0.5
"""A detection sits on an ignored object where at least this share of the detection lies inside it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the competition and how a submission stands to it.

    Attributes:
        voids: a submission that breaks it has no score; without, the number is not comparable with the competition's.
    """

    name: str
    ok: bool
    expected: str
    got: str
    voids: bool = True


@dataclass(frozen=True, slots=True)
class SceneShare:
    """Frames of one scene in which one detector found nothing of the attacked classes.

    Attributes:
        clear: with the patch. clean: without any, ``None`` where that was not looked at.
    """

    detector: str
    scene: str
    frames: int
    clear: int
    clean: int | None = None

    @property
    def share(self) -> float | None:
        """Clear frames of all frames, in [0, 1]; ``None`` without frames."""
        return self.clear / self.frames if self.frames else None


@dataclass(frozen=True, slots=True)
class DrivingScore:
    """The score of one patch in one task, with all that it was made of.

    Attributes:
        task: ``truck`` or ``person``. rules: with their outcomes. shares: one per detector and scene.
        regions: connected regions of the mask. area: eq. 5's second term, in [0, 0.2]; ``None`` where there is no mask
            that could be counted.
    """

    task: str
    rules: tuple[Rule, ...]
    shares: tuple[SceneShare, ...]
    regions: int | None
    area: float | None

    @property
    def void(self) -> bool:
        """A rule is broken that voids a submission."""
        return any(r.voids and not r.ok for r in self.rules)

    @property
    def detection(self) -> float | None:
        """Eq. 5's first term, see :func:`detection_term`."""
        return detection_term(self.shares)

    @property
    def score(self) -> float | None:
        """Eq. 5, in [0, 1.2]; ``None`` where the patch is void or a term is not known."""
        detection = self.detection
        return None if self.void or detection is None or self.area is None else detection + self.area


def frame_clear(detections: Detections, attacked: Collection[int], threshold: float) -> bool:
    """I(M(x) = 0): no detection of a label in ``attacked`` has a score of at least ``threshold``."""
    return not bool(_counting(detections, attacked, threshold).any())


def detection_term(shares: Sequence[SceneShare]) -> float | None:
    """Eq. 5's first term: the share of clear frames, averaged over scenes, then over detectors; in [0, 1].

    Returns:
        ``None`` where there is no share at all, or a scene without frames.
    """
    rows: dict[str, list[float]] = {}
    for s in shares:
        if s.share is None:
            return None
        rows.setdefault(s.detector, []).append(s.share)
    return float(np.mean([np.mean(row) for row in rows.values()])) if rows else None


def area_term(mask: NDArray[np.uint8], canvas: tuple[int, int] = CANVAS) -> float:
    """Eq. 5's second term, 0.2 · (1 − ‖m/255‖₁ / (W·H)), in [0, 0.2]: 0.2 for an empty mask.

    Args:
        mask: (H, W) uint8. canvas: (W, H) px, the size that the mask has to have.

    Raises:
        ValueError: the mask is not uint8 or not of that size.
    """
    return AREA_WEIGHT * (1 - int(_sound(mask, canvas).sum(dtype=np.int64)) / 255 / (canvas[0] * canvas[1]))


def regions(mask: NDArray[np.uint8], connectivity: int = 8) -> int:
    """Number of connected regions of the pixels that are not 0.

    Args:
        mask: (H, W) uint8. connectivity: 8 joins pixels that touch at a corner, as OpenCV does unless told otherwise;
            4 does not. The paper does not say which; 8 never counts more.

    Raises:
        ValueError: not uint8 with two axes, or another connectivity.
    """
    if connectivity not in {4, 8}:
        raise ValueError(f"expected connectivity 4 or 8, got {connectivity}")
    binary = (_sound(mask, None) > 0).astype(np.uint8)
    return int(cv2.connectedComponents(binary, connectivity=connectivity)[0]) - 1 if binary.size else 0


def total(truck: float | None, person: float | None) -> float | None:
    """Eq. 6: 0.8 · truck + 0.2 · person; ``None`` where one of them is."""
    if truck is None or person is None:
        return None
    return TASK_WEIGHT["truck"] * truck + TASK_WEIGHT["person"] * person


def comparable(detectors: int, frames: Mapping[str, int]) -> list[Rule]:
    """The competition's numbers of detectors, scenes and frames; other ones give a score that it did not give.

    Args:
        frames: scene -> its number of frames.
    """
    others = {n: f for n, f in frames.items() if f != FRAMES}
    got = f"{FRAMES} in each of {len(frames)}"
    if others:
        got = ", ".join(f"{n}: {f}" for n, f in sorted(others.items())[:3]) + (", …" if len(others) > 3 else "")
    return [
        Rule("detectors", detectors == DETECTORS, str(DETECTORS), str(detectors), voids=False),
        Rule("scenes", len(frames) == SCENES, str(SCENES), str(len(frames)), voids=False),
        Rule("frames of a scene", bool(frames) and not others, str(FRAMES), got if frames else "none", voids=False),
    ]


def frames_found(
    found: Sequence[Detections],
    scenes: Sequence[Scene],
    attacked: Collection[int],
    threshold: float,
    iou: float = IOU,
) -> Bools:
    """(F,) whether in each frame something of the attacked labels is found that is no ignored object.

    A detection sits on an ignored object where their IoU is at least ``iou`` or at least :data:`INSIDE` of the
    detection lies inside it; one whose IoU with an object that counts is at least ``iou`` is that object, whatever
    ignored region it also lies in. An ignored object's label is not asked for.

    Args:
        found: per frame. scenes: the same frames.

    Raises:
        ValueError: not as many detections as frames.
    """
    if len(found) != len(scenes):
        raise ValueError(f"expected detections for {len(scenes)} frames, got {len(found)}")
    out = np.zeros(len(scenes), dtype=bool)
    for i, (detections, scene) in enumerate(zip(found, scenes, strict=True)):
        boxes = _floats(detections.boxes).reshape(-1, 4)[_counting(detections, attacked, threshold)]
        objects, ignored = _floats(scene.boxes).reshape(-1, 4), scene.ignore.cpu().numpy().astype(bool)
        counted, beside = objects[~ignored], objects[ignored]
        inside = overlaps(boxes, beside, of_first=np.ones(len(beside), dtype=bool)) >= INSIDE
        on_ignored = (inside | (overlaps(boxes, beside) >= iou)).any(axis=1)
        on_object = (overlaps(boxes, counted) >= iou).any(axis=1)
        out[i] = bool((on_object | ~on_ignored).any())
    return out


def carriers_found(
    found: Sequence[Detections],
    scenes: Sequence[Scene],
    attacked: Collection[int],
    threshold: float,
    iou: float = IOU,
) -> Bools:
    """(F,) whether in each frame an object that counts is found, as whatever attacked class: IoU of at least ``iou``.

    Unlike :func:`frames_found` it asks about what carries the print alone; bystanders and false objects do not count.
    """
    if len(found) != len(scenes):
        raise ValueError(f"expected detections for {len(scenes)} frames, got {len(found)}")
    out = np.zeros(len(scenes), dtype=bool)
    for i, (detections, scene) in enumerate(zip(found, scenes, strict=True)):
        boxes = _floats(detections.boxes).reshape(-1, 4)[_counting(detections, attacked, threshold)]
        carriers = _floats(scene.boxes).reshape(-1, 4)[~scene.ignore.cpu().numpy().astype(bool)]
        out[i] = bool((overlaps(boxes, carriers) >= iou).any())
    return out


def frames_kept(clean: Bools, patched: Bools, groups: Sequence[str], resampling: Resampling) -> Estimate:
    """Share of the frames found clean that are still found with the patch; ``None`` where none was found clean.

    Args:
        clean, patched: (F,) of :func:`frames_found`, of the same frames. groups: per frame what it is resampled with.

    Raises:
        ValueError: not of the same length.
    """
    if not len(clean) == len(patched) == len(groups):
        raise ValueError(f"expected frames in step, got {len(clean)}, {len(patched)} and {len(groups)}")
    index, clusters = group_index(groups)
    return cluster_bootstrap(
        np.bincount(index[clean & patched], minlength=clusters),
        np.bincount(index[clean], minlength=clusters),
        level=resampling.level,
        draws=resampling.draws,
        seed=resampling.seed,
        cluster=resampling.cluster,
    )


def _counting(detections: Detections, attacked: Collection[int], threshold: float) -> Bools:
    labels = np.asarray(detections.labels.detach().cpu(), dtype=np.int64).reshape(-1)
    wanted = np.array(sorted(attacked), dtype=np.int64)
    return np.asarray((_floats(detections.scores) >= threshold) & np.isin(labels, wanted), dtype=bool)


def _floats(values: Tensor) -> Floats:
    return np.asarray(values.detach().cpu(), dtype=np.float64)


def _sound(mask: NDArray[np.uint8], canvas: tuple[int, int] | None) -> NDArray[np.uint8]:
    fits = mask.ndim == 2 and mask.dtype == np.uint8
    if not fits or (canvas is not None and mask.shape != (canvas[1], canvas[0])):
        size = "two axes" if canvas is None else f"{canvas[1]} rows and {canvas[0]} columns"
        raise ValueError(f"expected a uint8 mask of {size}, got {mask.dtype} {mask.shape}")
    return mask
