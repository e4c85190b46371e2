"""Evidence of a measurement: clean, patched and difference pictures of telling scenes, and the patches themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from audit.contracts import Perturbation
from audit.data.scenes import Scene
from audit.evidence import EvidenceStore, difference, draw_matches, pick_cases, window
from audit.execution import areas_of
from audit.measures.evaluation import Evaluation
from audit.record import Evidence


def picture_cases(
    store: EvidenceStore,
    clean: Evaluation,
    patched: Evaluation,
    perturbation: Perturbation | None,
    threshold: float,
    kept: Sequence[float | None] | None = None,
) -> list[Evidence]:
    """Pictures of the worst, the median and a surviving scene: clean, patched and difference, with drawn boxes.

    Args:
        kept: per scene, what the scenes are ranked by (1 is best); recall on the patched images if not given.
    """
    shares = [m.found(threshold)[~m.truth_ignored].mean() if m.objects else None for m in patched.per_scene]
    out: list[Evidence] = []
    for case, i in pick_cases(kept if kept is not None else shares).items():
        scene = clean.scenes[i]
        image = scene.load()
        pixels = _hwc(image)
        part = window(scene.boxes[~scene.ignore].numpy(), scene.size)
        told = f"{case}: scene {scene.id}"
        shown = draw_matches(pixels, clean.per_scene[i], threshold, window=part)
        out.append(store.picture(shown, "clean", f"{told}, clean", case))
        if perturbation is None:
            continue
        changed = _apply(perturbation, scene, image)
        regions = patched.regions[i].numpy()
        shown = draw_matches(changed, patched.per_scene[i], threshold, regions=regions, window=part)
        out.append(store.picture(shown, "patched", f"{told}, with the patch", case))
        shown = difference(pixels, changed, window=part)
        out.append(store.picture(shown, "difference", f"{told}, what was changed", case))
        out.append(store.picture(changed, "file", f"{told}, patched, as the detector saw it", case))
    return out


def picture_patches(store: EvidenceStore, patch: Perturbation, beside: Mapping[str, Perturbation]) -> list[Evidence]:
    """The trained patch and the unoptimised ones, as they would be printed."""
    out = [store.picture(patch.picture(), "patch", f"the patch: {patch!r}")]
    return out + [store.picture(p.picture(), "control", f"unoptimised: {name}") for name, p in beside.items()]


def _hwc(image: torch.Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _apply(perturbation: Perturbation, scene: Scene, image: torch.Tensor) -> NDArray[np.uint8]:
    areas = areas_of([scene], torch.device("cpu"))
    changed = perturbation.apply(image[None].float() / 255, [scene.boxes[~scene.ignore]], areas)[0]
    return _hwc((changed * 255).round().clamp(0, 255).to(torch.uint8))
