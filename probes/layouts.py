"""Where on an object the ink of a print goes."""

from __future__ import annotations

import torch

from audit.errors import AuditError
from probes.areas import AreaPlacement

ROWS, COLUMNS, COUNT = 100, 50, 5
"""Texels of the canvas of bands, a person being about twice as high as wide; and how many bands there are."""


def bands(area: AreaPlacement) -> AreaPlacement:
    """The ink of ``area``'s print as five bands across the whole object, evenly spread from top to bottom.

    A square in the middle leaves head, legs and outline as they were, and those are enough for a detector; bands of no
    more ink lie on all of them, in the five pieces that the driving competition allows (paper 000 §3.1). They are as
    thick as the ink allows in whole texels: at most ``area.share`` of the canvas is printed.

    Raises:
        AuditError: too little ink for bands of one texel.
    """
    thick = _thick(area)
    if not thick:
        raise AuditError(
            "bands of a print",
            expected=f"a share of at least {COUNT / ROWS:g} of the object's box",
            got=repr(area.share),
            mend="raise the profile's patch_share, or leave the variant out",
        )
    mask = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    for i in range(COUNT):
        top = (2 * i + 1) * ROWS // (2 * COUNT) - (thick + 1) // 2
        mask[top : top + thick] = True
    return AreaPlacement(1.0, COLUMNS / ROWS, mask=mask, light=area.light, condition=area.condition, fill=True)


def plain_rows(area: AreaPlacement) -> int:
    """Texels, either way, of an unoptimised print that is worn as the bands of ``area``: the ink is then the same.

    Half the canvas' rows where the bands are an even number of them thick, so that a texel of noise can be seen.
    """
    return ROWS if _thick(area) % 2 else ROWS // 2


def _thick(area: AreaPlacement) -> int:
    # The share is a decimal fraction, a fifth of it not always a binary one.
    return int(area.share * ROWS / COUNT + 1e-9)
