"""Where the ink of a print goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from audit.errors import AuditError
from probes.areas import AreaPlacement, fitted
from probes.detection.scene_patch import BANDS
from probes.layouts import COLUMNS, ROWS, bands, plain_rows
from probes.physical import CONDITIONS


@given(st.floats(0.05, 1))
def test_bands_take_no_more_ink_than_the_print_in_at_most_five_pieces(share):
    mask = bands(AreaPlacement(share)).mask.numpy()
    assert share - 5 / ROWS <= mask.mean() <= share + 1e-6, "as thick as whole texels allow"
    assert ndimage.label(mask)[1] == (5 if mask.mean() < 1 else 1)
    assert (mask == mask[:, :1]).all(), "from side to side"


def test_they_lie_on_the_whole_box_under_the_same_light_in_the_attacks_texels():
    area = AreaPlacement(0.2, 1.0, (0.5, 0.3), light=True, condition=CONDITIONS["dark"])
    placement = bands(area)
    assert placement.fill
    assert placement.printed == pytest.approx(0.2)
    assert (placement.light, placement.condition) == (area.light, area.condition)
    assert replace(BANDS, placement=placement).texels == (ROWS, COLUMNS)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15, 0.2, 0.25, 0.6])
def test_unoptimised_bands_have_the_same_ink(share):
    area = AreaPlacement(share)
    rows = plain_rows(area)
    assert float(fitted(bands(area).mask, (rows, rows)).float().mean()) == pytest.approx(share)


def test_too_little_ink_is_said():
    with pytest.raises(AuditError, match="patch_share"):
        bands(AreaPlacement(0.04))
