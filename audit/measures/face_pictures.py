"""Evidence of an attack on a recognizer: source, adversarial photograph and target, with their scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audit.evidence import EvidenceStore, difference, pick_cases
from audit.examples import Attacked, Examples
from audit.record import Evidence


def picture_triples(
    store: EvidenceStore,
    attacked: Attacked,
    examples: Examples,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    success: NDArray[np.bool_],
    cut: float,
) -> list[Evidence]:
    """The worst, the median and a surviving pair: source, adversarial, target and what was changed.

    Pairs are ranked by how the recognizer stands to them: a pair that the attack did not win survives.
    """
    out: list[Evidence] = []
    gain = after - before if attacked.goal == "impersonate" else before - after
    reach = float(np.abs(gain).max()) if len(gain) else 0.0
    # Survivors come after all that fell; among either the score moved decides.
    kept = [0.5 * (1 - g / (reach or 1.0)) * 0.5 + 0.5 * (not s) for g, s in zip(gain, success, strict=True)]
    for case, i in pick_cases(kept).items():
        if case == "survivor" and success[i]:
            continue
        source, changed, target = (
            _hwc(x[i]) for x in (attacked.sources.images, examples.images, attacked.targets.images)
        )
        was, now = (f"score {s:.3f}, {'accepted' if s >= cut else 'rejected'}" for s in (before[i], after[i]))
        out += [
            store.picture(source, "clean", f"{attacked.sources.ids[i]}: {was} as the target (from {cut:.3f})", case),
            store.picture(changed, "patched", f"with the patch: {now}", case),
            store.picture(target, "target", attacked.targets.ids[i], case),
            store.picture(difference(source, changed), "difference", "what was changed", case),
        ]
    return out


def picture_patches(
    store: EvidenceStore, attacked: Attacked, examples: Examples, beside: Mapping[str, Examples]
) -> list[Evidence]:
    """One patch and its unoptimised likes, cut out of the first photograph; what was not changed is white."""
    if not len(attacked.sources):
        return []
    out = [store.picture(_cut(attacked, examples), "patch", f"the patch on {attacked.sources.ids[0]}")]
    return out + [store.picture(_cut(attacked, x), "control", f"unoptimised: {n}") for n, x in beside.items()]


def _cut(attacked: Attacked, examples: Examples) -> NDArray[np.uint8]:
    clean, changed = _hwc(attacked.sources.images[0]), _hwc(examples.images[0])
    touched = (clean != changed).any(2)
    picture = np.where(touched[..., None], changed, 255).astype(np.uint8)
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    if not len(rows):
        return picture
    return np.ascontiguousarray(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _hwc(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
