"""Evidence of an attack on a model of images: clean, what it stands on (σ map, flow), adversarial, difference."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.evidence import EvidenceStore, difference, pick_cases
from audit.labelled import Adversarial, Labelled
from audit.record import Evidence

Pixels = NDArray[np.uint8]


def strips(
    store: EvidenceStore,
    attacked: Labelled,
    made: Adversarial,
    before: NDArray[np.bool_],
    clean_margin: NDArray[np.float64],
    margin: NDArray[np.float64],
) -> list[Evidence]:
    """The worst, the median and a surviving image of those decided rightly when clean, one strip each.

    Args:
        before: (N,) which were. clean_margin, margin: (N,) by how much, before and under attack.
    """
    rows = np.flatnonzero(before)
    if not len(rows):
        return []
    chosen = torch.from_numpy(rows)
    clean, changed = attacked.images[chosen], made.images[chosen]
    first, last = clean_margin[rows], margin[rows]
    reach = float(np.abs(last).max()) or 1.0
    # what survives comes after all that fell; among either the margin decides
    kept = [float(0.5 * (m >= 0) + 0.25 * (1 + m / reach)) for m in last]
    out: list[Evidence] = []
    for case, i in pick_cases(kept).items():
        if case == "survivor" and last[i] < 0:
            continue
        a, b = _hwc(clean[i]), _hwc(changed[i])
        out.append(store.picture(a, "clean", f"{attacked.ids[rows[i]]}: margin {first[i]:+.2f}", case))
        for name, values in made.maps.items():
            drawn, words = picture_of(name, values[chosen[i]])
            out.append(store.picture(drawn, "map", words, case))
        fell = "decided wrongly" if last[i] < 0 else "still decided rightly"
        out.append(store.picture(b, "adversarial", f"margin {last[i]:+.2f}, {fell}", case))
        out.append(store.picture(difference(a, b), "difference", "what was changed", case))
    return out


def picture_of(name: str, values: Tensor) -> tuple[Pixels, str]:
    """A map as a grey picture, white the largest value, and its range in words.

    ``values``: (H, W), or (C, …, H, W) of which the length over the leading axes is shown.
    """
    flat = values.float()
    while flat.ndim > 2:
        flat = flat.square().sum(0).sqrt()
    low, high = float(flat.min()), float(flat.max())
    grey = ((flat - low) / (high - low) if high > low else torch.zeros_like(flat)) * 255
    # as many digits as tell the two ends apart
    digits = 3 if high <= low or f"{low:.3g}" != f"{high:.3g}" else 6
    ends = f"black {low:.{digits}g}, white {high:.{digits}g}" + (" px" if name in _PX else "")
    words = f"{'σ' if name == 'sigma' else name}: {ends}"
    return np.ascontiguousarray(grey.round().to(torch.uint8).numpy()), words


_PX = ("sigma", "flow")


def _hwc(image: Tensor) -> Pixels:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
