"""Printing: colours, ICC profiles, true sizes; files are read back by other means than they were written."""

from __future__ import annotations

import io
import itertools
import math
import re
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from scipy import ndimage

from audit.errors import AuditError, DataError
from probes.blur import gaussian_blur
from probes.printing import (
    PRINTABLE,
    Printing,
    PrintSize,
    as_printed,
    export_print,
    gamut_of,
    printable_colours,
    printer_table,
    texels_for,
)

# ---- colours ---------------------------------------------------------------------------------------------------------


def test_the_default_list_is_made_as_it_says():
    paper = (0.96, 0.96, 0.94)
    inks = [(0.10, 0.62, 0.86), (0.86, 0.12, 0.50), (0.97, 0.90, 0.14), (0.13, 0.13, 0.14)]
    covers = [(c, m, y, 0) for c in (0, 0.5, 1) for m in (0, 0.5, 1) for y in (0, 0.5, 1)]
    covers += [(0, 0, 0, k) for k in (0.25, 0.5, 0.75, 1)]
    expected = [
        [paper[i] * math.prod(1 - a * (1 - ink[i]) for a, ink in zip(cover, inks, strict=True)) for i in range(3)]
        for cover in covers
    ]
    np.testing.assert_allclose(PRINTABLE.numpy(), expected, atol=1e-6)
    assert PRINTABLE.shape == (31, 3)
    assert len(PRINTABLE.unique(dim=0)) == 31
    assert PRINTABLE[0].tolist() == pytest.approx(paper)
    assert PRINTABLE.min() > 0.05  # no printer gives the black or the pure colours of a screen


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("0,0.5,1\n1 1 1\n", [[0, 0.5, 1], [1, 1, 1]]),
        ("r,g,b\n255;0;51\n# grey\n\n 102, 102 ,102 # same\n255;0;51", [[1, 0, 0.2], [0.4, 0.4, 0.4]]),
        ("\ufeffr\tg\tb\n0\t1\t0\n", [[0, 1, 0]]),
    ],
    ids=["shares", "bytes", "bom"],
)
def test_lists_are_read(tmp_path, text, colours):
    path = tmp_path / "colours.csv"
    path.write_text(text, encoding="utf-8")
    assert printable_colours(path).tolist() == [pytest.approx(c) for c in colours]
    assert printable_colours(str(path)).dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "rows of r, g, b, got none"),
        (b"r,g,b\n", "got none"),
        (b"1,2\n", "in row 1"),
        (b"1,2,3\n4,5,red\n", "in row 2"),
        (b"1,2,300\n", "from 0 to 255 in row 1"),
        (b"0,-1,0\n", "in row 1"),
        (b"nan,0,0 1\n", "in row 1"),
        (b"\xff\xfe\x00", "no UTF-8"),
    ],
    ids=["empty", "heading", "two", "word", "large", "negative", "nan", "binary"],
)
def test_a_bad_list_is_named(tmp_path, text, says):
    path = tmp_path / "colours.txt"
    path.write_bytes(text)
    with pytest.raises(DataError, match=says) as caught:
        printable_colours(path)
    assert str(path) in str(caught.value)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        printable_colours(tmp_path / "none.txt")


# ---- ICC -------------------------------------------------------------------------------------------------------------


def icc(device, space, tags):
    """An ICC profile of version 2 out of its tags."""
    body, table, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        data = content + b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    white = struct.pack(">iii", 63190, 65536, 54061)
    pcs, date = (b"XYZ " if device == b"mntr" else b"Lab "), struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI4s4s4s12s4s", 0, b"    ", 0x02400000, device, space, pcs, date, b"acsp")
    head = (head + b"\0" * 28 + white).ljust(128, b"\0")
    whole = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def described(name):
    return b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * 79


def narrow_rgb(pale):
    """A display whose primaries are mixed with ``pale`` of white, gamma 2.2 as a curve."""
    srgb = np.array([[0.4361, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])
    white = srgb.sum(0)
    primaries = (1 - pale) * srgb + pale * white / 3

    def xyz(v):
        return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(x * 65536) for x in v))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    tags = {b"desc": described(b"narrow"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=True))
    return icc(b"mntr", b"RGB ", tags | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def grey_cmyk():
    """A CMYK printer with black ink only: L* falls from 100 on paper to 20 at full cover; other inks leave no trace."""

    def lut(inputs, outputs, grid, values):
        matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        ramp = bytes(range(256))
        return (
            b"mft1\0\0\0\0"
            + bytes([inputs, outputs, grid, 0])
            + matrix
            + ramp * inputs
            + bytes(values)
            + ramp * outputs
        )

    seen = [(round(255 * (0.2 if k else 1.0)), 128, 128) for _, _, _, k in itertools.product((0, 1), repeat=4)]
    grid = range(17)
    ink = [(0, 0, 0, round(255 * min(1.0, (1 - l / 16) / 0.8))) for l, _, _ in itertools.product(grid, grid, grid)]
    there, back = lut(4, 3, 2, sum(seen, ())), lut(3, 4, 17, sum(ink, ()))
    tags = {b"desc": described(b"grey"), b"cprt": b"text\0\0\0\0none\0"}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    tags |= {b"A2B0": there, b"A2B1": there, b"B2A0": back, b"B2A1": back}
    return icc(b"prtr", b"CMYK", tags)


def test_a_screen_prints_all_its_own_colours(tmp_path):
    path = tmp_path / "srgb.icc"
    path.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = printer_table(path, 5)
    steps = torch.tensor([0, 64, 128, 191, 255]) / 255
    assert (table - torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1)).abs().max() <= 1.01 / 255
    assert len(gamut_of(path, 5)) == 125
    assert gamut_of(str(path), 2).shape == (8, 3)


def test_a_narrow_device_pulls_colours_in(tmp_path):
    path = tmp_path / "narrow.icc"
    path.write_bytes(narrow_rgb(0.3))
    table = printer_table(path, 5)
    red, white, black = table[4, 0, 0], table[4, 4, 4], table[0, 0, 0]
    assert (white - 1).abs().max() <= 2 / 255
    assert black.abs().max() <= 2 / 255
    # The narrow red in linear light is 0.7·red + 0.3·(white/3): 0.8, 0.1, 0.1; encoded 0.906, 0.349, 0.349.
    assert red.tolist() == pytest.approx([0.906, 0.349, 0.349], abs=0.01)
    greys = table[range(5), range(5), range(5)]
    assert (greys - torch.tensor([0, 64, 128, 191, 255])[:, None] / 255).abs().max() <= 3 / 255
    inside = gamut_of(path, 5)
    assert (inside.amax(1) - inside.amin(1)).max() < 0.65
    assert len(inside) <= 125


def test_a_cmyk_printer_with_black_ink_prints_greys(tmp_path):
    path = tmp_path / "grey.icc"
    path.write_bytes(grey_cmyk())
    gamut = gamut_of(path, 5)
    assert (gamut.amax(1) - gamut.amin(1)).max() <= 3 / 255
    # L* = 20 is Y = ((20 + 16)/116)³ = 0.0299, encoded 1.055·Y^(1/2.4) − 0.055 = 0.1894.
    assert gamut.min() == pytest.approx(0.189, abs=0.02)
    assert gamut.max() > 0.98


@pytest.mark.parametrize("content", [None, b"", b"no profile at all" * 20], ids=["missing", "empty", "text"])
def test_what_is_no_profile_is_named(tmp_path, content):
    path = tmp_path / "printer.icc"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="ICC profile") as caught:
        gamut_of(path)
    assert str(path) in str(caught.value)


def test_a_profile_without_colours_to_print_is_named(tmp_path):
    path = tmp_path / "lab.icc"
    path.write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    with pytest.raises(DataError, match="colour space Lab"):
        gamut_of(path)
    for levels, intent in ((1, 1), (40, 1), (5, 7)):
        with pytest.raises(AuditError, match="levels"):
            printer_table(path, levels, intent)


# ---- how a print looks -----------------------------------------------------------------------------------------------


def texture(seed=0, p=7, q=9, dtype=torch.float64):
    return torch.rand(3, p, q, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_paper_and_blur_are_their_formulas():
    x = texture()
    np.testing.assert_allclose(as_printed(x, black=0.1, white=0.8).numpy(), 0.1 + 0.7 * x.numpy())
    soft = ndimage.gaussian_filter(x.numpy(), (0, 0.8, 0.8), mode="nearest", radius=(0, 3, 3))
    np.testing.assert_allclose(as_printed(x, black=0, white=1, spread=0.8).numpy(), soft, atol=1e-12)
    assert gaussian_blur(x, 0.0) is x


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), strength=st.floats(0, 1), softness=st.floats(0.03, 1))
def test_colours_move_to_the_printable_ones(seed, strength, softness):
    x, inks = texture(seed, 3, 4), PRINTABLE.double().numpy()
    out = as_printed(x, PRINTABLE, black=0, white=1, strength=strength, softness=softness)
    for i, j in np.ndindex(3, 4):
        colour = x[:, i, j].numpy()
        weights = np.exp(-((inks - colour) ** 2).sum(1) / (2 * softness**2))
        expected = (1 - strength) * colour + strength * weights @ inks / weights.sum()
        np.testing.assert_allclose(out[:, i, j].numpy(), expected, atol=1e-9)


def test_a_hard_snap_is_the_nearest_colour_and_stays_in_the_gamut():
    x = texture(3)
    out = as_printed(x, PRINTABLE, black=0, white=1, softness=1e-3).flatten(1).T
    apart = np.linalg.norm(x.flatten(1).T.numpy()[:, None] - PRINTABLE.double().numpy(), axis=2)
    np.testing.assert_allclose(out.numpy(), PRINTABLE.double().numpy()[apart.argmin(1)], atol=1e-6)


def test_a_table_is_read_between_its_nodes():
    steps = torch.linspace(0, 1, 6, dtype=torch.float64)
    identity = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1)
    x = texture(4)
    np.testing.assert_allclose(as_printed(x, identity, black=0, white=1).numpy(), x.numpy(), atol=1e-12)
    mixed = identity @ torch.tensor([[0.5, 0.1, 0.0], [0.2, 0.6, 0.3], [0.1, 0.0, 0.4]], dtype=torch.float64)
    expected = torch.einsum(
        "cpq,cd->dpq", x, torch.tensor([[0.5, 0.1, 0.0], [0.2, 0.6, 0.3], [0.1, 0.0, 0.4]]).double()
    )
    np.testing.assert_allclose(as_printed(x, mixed, black=0, white=1).numpy(), expected.numpy(), atol=1e-12)


def test_gradients_agree_with_finite_differences():
    x = (texture(5, 4, 5) * 0.9 + 0.05).requires_grad_()
    table = texture(6, 3, 9).reshape(3, 3, 3, 3).contiguous()
    assert torch.autograd.gradcheck(lambda t: as_printed(t, PRINTABLE, spread=0.6, strength=0.7), x)
    assert torch.autograd.gradcheck(lambda t: as_printed(t, table), x)


@pytest.mark.parametrize(
    "parts",
    [
        {"black": (0.5, 0.9)},
        {"white": (0.9, 1.2)},
        {"spread": (-1, 0)},
        {"strength": 2},
        {"softness": 0},
        {"colours": ()},
        {"colours": ((0.1, 0.2),)},
    ],
    ids=str,
)
def test_bad_printing_is_named(parts):
    with pytest.raises(AuditError, match="printing: expected"):
        Printing(**parts)


# ---- size and files --------------------------------------------------------------------------------------------------


def test_sizes_by_hand():
    size = PrintSize(21.0, 29.7, 300)
    assert size.pixels == (2480, 3508)  # A4
    assert size.dot_cm == pytest.approx(0.00846667)
    assert size.texel_cm((99, 70)) == (pytest.approx(0.3), pytest.approx(0.3))
    assert texels_for(size, 0.3) == (99, 70)
    assert texels_for(size, 0.31) == (95, 67)
    assert texels_for(size, 1e-9) == (3507, 2480)  # no texel below a dot; 3507.87 dots fit in 29.7 cm
    assert texels_for(size, 100) == (1, 1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: PrintSize(0, 10),
        lambda: PrintSize(10, 6000),
        lambda: PrintSize(math.nan, 10),
        lambda: PrintSize(10, 10, 5),
        lambda: PrintSize(1000, 250, 300),
        lambda: PrintSize(0.001, 10, 300),
        lambda: texels_for(PrintSize(10, 10), 0),
    ],
    ids=["zero", "huge", "nan", "dpi", "dots", "dot", "feature"],
)
def test_an_absurd_size_is_named(ask):
    with pytest.raises(AuditError, match="expected"):
        ask()


def colours(p=5, q=8):
    return torch.randint(0, 256, (3, p, q), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def middles(image, p, q):
    """The colours in the middle of each texel, by the share of the picture."""
    h, w = image.shape[:2]
    return image[[int((i + 0.5) * h / p) for i in range(p)]][:, [int((j + 0.5) * w / q) for j in range(q)]]


@pytest.mark.parametrize("dpi", [96, 300, 299.5])
def test_a_png_has_true_size_and_exact_colours(tmp_path, dpi):
    size, path, pixels = PrintSize(4.0, 2.5, dpi), tmp_path / "patch.png", colours()
    facts = export_print(pixels, path, size)
    width, height = round(4 / 2.54 * dpi), round(2.5 / 2.54 * dpi)
    raw = path.read_bytes()
    assert struct.unpack(">II", raw[16:24]) == (width, height)
    at = raw.index(b"pHYs")
    x, y, unit = struct.unpack(">IIB", raw[at + 4 : at + 13])
    assert (x, y, unit) == (round(dpi / 0.0254), round(dpi / 0.0254), 1)
    assert width / x * 100 == pytest.approx(4.0, abs=2.54 / dpi)
    image = np.asarray(Image.open(path))
    assert image.shape == (height, width, 3)
    np.testing.assert_array_equal(middles(image, 5, 8), pixels.permute(1, 2, 0).numpy())
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 40  # nothing between the texels
    changes = (np.diff(image.astype(int), axis=1) != 0).any((0, 2)).nonzero()[0] + 1
    assert np.abs(changes - np.arange(1, 8) * width / 8).max() <= 0.5
    assert facts == {
        "format": "PNG",
        "width_cm": 4.0,
        "height_cm": 2.5,
        "dpi": dpi,
        "pixels": [width, height],
        "texels": [8, 5],
        "texel_cm": [0.5, 0.5],
        "printed": 1.0,
    }


def test_a_masked_png_is_transparent_there(tmp_path):
    mask = torch.zeros(5, 8, dtype=torch.bool)
    mask[1:3, 2:6] = True
    facts = export_print(colours(), tmp_path / "patch.PNG", PrintSize(4, 2.5), mask)
    image = middles(np.asarray(Image.open(tmp_path / "patch.PNG")), 5, 8)
    np.testing.assert_array_equal(image[..., 3], mask.numpy() * 255)
    np.testing.assert_array_equal(image[mask.numpy()][:, :3], colours().permute(1, 2, 0).numpy()[mask.numpy()])
    assert facts["printed"] == 8 / 40


def test_a_pdf_page_is_as_large_as_the_print(tmp_path):
    mask = torch.ones(5, 8, dtype=torch.bool)
    mask[0, 0] = False
    size, path = PrintSize(12.3, 7.7, 150), tmp_path / "patch.pdf"
    assert export_print(colours(), path, size, mask)["format"] == "PDF"
    raw = path.read_bytes()
    box = [float(v) for v in re.search(rb"/MediaBox\s*\[([^\]]*)\]", raw)[1].split()]
    assert box == pytest.approx([0, 0, 12.3 / 2.54 * 72, 7.7 / 2.54 * 72], abs=0.0284)  # 0.01 mm in points
    drawn = re.search(rb"q ([\d.]+) 0 0 ([\d.]+) 0 0 cm /image Do", raw)
    assert [float(v) for v in drawn.groups()] == pytest.approx(box[2:], abs=1e-3)
    start = raw.index(b"\xff\xd8\xff")
    image = np.asarray(Image.open(io.BytesIO(raw[start:])))
    assert image.shape == (*reversed(size.pixels), 3)
    expected = np.where(mask[..., None], colours().permute(1, 2, 0), 255)
    assert np.abs(middles(image, 5, 8).astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    ("pixels", "name", "mask", "says"),
    [
        (colours().float(), "a.png", None, "uint8"),
        (colours()[:1], "a.png", None, "uint8"),
        (colours(), "a.jpg", None, ".png or .pdf"),
        (colours(), "a.png", torch.ones(5, 8), "bool mask"),
        (colours(), "a.png", torch.ones(8, 5, dtype=torch.bool), "bool mask"),
        (colours(2, 400), "a.png", None, "a dot per texel"),
        (colours(), "none/a.png", None, "No such file"),
    ],
    ids=["float", "grey", "suffix", "mask", "shape", "fine", "folder"],
)
def test_a_print_that_cannot_be_made_is_named(tmp_path, pixels, name, mask, says):
    with pytest.raises(AuditError, match=says):
        export_print(pixels, tmp_path / name, PrintSize(2, 2, 100), mask)
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "a.pdf").mkdir()
    with pytest.raises(AuditError, match="can be written"):
        export_print(colours(), tmp_path / "a.pdf", PrintSize(2, 2, 100))
