"""A bare folder of images, labelled by the audited model's own confident detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from audit.contracts import Detections
from audit.data.assemble import Entry, Progress, assemble, images_below, printable, sound
from audit.data.scenes import Scene, Scenes
from audit.errors import DataError


def read_folder(path: Path, *, progress: Progress | None = None) -> Scenes:
    """All images in and below a folder, without boxes; ``labelled_by`` is ``self``, see ``self_label``.

    Raises:
        DataError: no usable image.
    """
    path = Path(path)
    entries = [Entry(name=n) for n in images_below(path)]
    return assemble(
        entries,
        path,
        classes=(),
        name=path.name or str(path),
        source=f"folder of images {printable(str(path))}",
        labelled_by="self",
        progress=progress,
    )


def self_label(
    scenes: Scenes,
    detect: Callable[[Tensor], Sequence[Detections]],
    classes: Sequence[str],
    confidence: float,
    *,
    doubtful: float = 0.3,
    batch: int = 8,
    progress: Progress | None = None,
) -> Scenes:
    """The same images with the model's own clean detections for boxes.

    A detection with a score of at least ``confidence`` is an object. One between ``doubtful`` and ``confidence`` may be
    an object or not, so it is ignored: neither missed nor a false alarm.

    Args:
        detect: (N, 3, H, W) float32 in [0, 1], one size, to one ``Detections`` per image.
        classes: the detector's classes, in its order. confidence, doubtful: scores in [0, 1].
        batch: images per call.

    Raises:
        DataError: not one detection reaches ``confidence``.
    """
    sizes: dict[tuple[int, int], list[Scene]] = defaultdict(list)
    for s in scenes:
        sizes[s.size].append(s)
    groups = [same[i : i + batch] for same in sizes.values() for i in range(0, len(same), batch)]
    labelled: dict[str, Scene] = {}
    for number, group in enumerate(groups, start=1):
        images = torch.stack([s.load() for s in group]).float() / 255
        for scene, found in zip(group, detect(images), strict=True):
            labelled[scene.id] = _labelled(scene, found, confidence, doubtful)
        if progress is not None:
            progress(number / len(groups), "labelling the images by the model's own detections")
    note = (
        f"self-labelled: the objects are the model's own clean detections with a score of at least {confidence:g}; "
        f"those from {doubtful:g} up to that are ignored; what the model never found is not in the data"
    )
    out = replace(
        scenes,
        scenes=tuple(labelled[s.id] for s in scenes),
        classes=tuple(classes),
        labelled_by="self",
        notes=(*scenes.notes, note),
    )
    if out.objects == 0:
        raise DataError(
            f"data {scenes.name}",
            expected=f"images in which the model finds something with a score of at least {confidence:g}",
            got=f"{len(scenes)} images and no such detection",
            mend="give images that show what the model detects, or labelled data",
        )
    return out


def _labelled(scene: Scene, found: Detections, confidence: float, doubtful: float) -> Scene:
    keep = found.scores.cpu() >= min(doubtful, confidence)
    scores = found.scores.cpu()[keep]
    rows = [(float(a), float(b), float(c), float(d)) for a, b, c, d in found.boxes.cpu()[keep]]
    boxes, bad, _ = sound(rows, scene.size)
    return replace(
        scene,
        boxes=boxes,
        labels=found.labels.cpu()[keep].long(),
        ignore=(scores < confidence) | bad,
        subsets={},
    )
