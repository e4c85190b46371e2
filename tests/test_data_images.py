"""Image files of every mode, and those that are none."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from audit.data.images import inspect, read, read_as
from audit.errors import DataError

UPRIGHT = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)

# How the upright picture U lies in the file, by EXIF 2.32, 4.6.4 (orientation): what row 0 and column 0 stand for.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def pixels(path):
    return read(path).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_turns_pixels_and_size(tmp_path, orientation):
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(path, exif=oriented(orientation))
    assert np.array_equal(pixels(path), UPRIGHT)
    assert inspect(path).size == (5, 7)


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_of_jpeg_though_it_is_checked_at_an_eighth(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    size = (40, 24) if orientation < 5 else (24, 40)
    Image.new("RGB", size, "red").save(path, exif=oriented(orientation))
    assert inspect(path).size == (24, 40)
    assert read(path).shape == (3, 24, 40)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientation_is_none(tmp_path, value):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(UPRIGHT).save(path, exif=exif)
    assert np.array_equal(pixels(path), UPRIGHT)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_cost_the_picture(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(UPRIGHT).save(path, exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff\0\1\2")
    assert inspect(path).size == (5, 7)


def test_grey(tmp_path):
    Image.fromarray(UPRIGHT[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.repeat(UPRIGHT[..., :1], 3, 2))


def test_one_bit(tmp_path):
    Image.fromarray(UPRIGHT[..., 0] > 128).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png")[..., 1], np.where(UPRIGHT[..., 0] > 128, 255, 0))


def test_palette(tmp_path):
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7), mode="L").convert("P")
    image.putpalette([c for i in range(256) for c in (i, 255 - i, 7)])
    image.save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[2, 3].tolist() == [17, 238, 7]


def test_transparent_palette_shows_white(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.gif", transparency=1)
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(tmp_path, mode):
    alpha = np.array([[0, 64, 255]], dtype=np.uint8)
    colour = np.full((1, 3), 100, dtype=np.uint8)
    Image.merge(mode, [Image.fromarray(colour)] * (len(mode) - 1) + [Image.fromarray(alpha)]).save(tmp_path / "a.png")
    expected = 255 + (100 - 255) * (alpha / 255.0)
    assert np.abs(pixels(tmp_path / "a.png") - expected[..., None]).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path, suffix):
    deep = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    assert pixels(tmp_path / f"a.{suffix}")[0, :, 2].tolist() == [round(v / 257) for v in deep[0].tolist()]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(
        tmp_path / f"a.{suffix}", **{"quality": 95} if suffix == "jpg" else {}
    )
    red, green, blue = pixels(tmp_path / f"a.{suffix}")[8, 8].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4), 3).save(tmp_path / "a.tif")
    for open_ in (inspect, read):
        with pytest.raises(DataError, match=f"pixels of mode {mode}"):
            open_(tmp_path / "a.tif")


def encoded(kind, **options):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (encoded("JPEG")[:40], "(not an image|decoded)"),
        (encoded("JPEG")[:-200], "truncated"),
        (encoded("JPEG", progressive=True)[:-900], "truncated"),
        (encoded("PNG")[:-2000], "(truncated|decoded)"),
        (encoded("BMP")[:-50], "truncated"),
        (encoded("WEBP")[:-50], "(not an image|decoded)"),
    ],
)  # fmt: skip
def test_a_broken_file_is_found_at_opening_and_at_reading(tmp_path, data, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    for open_ in (inspect, read):
        with pytest.raises(DataError, match=reason) as error:
            open_(path)
        assert "a.jpg" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_png_with_a_wrong_checksum_is_found_at_opening(tmp_path):
    data = encoded("PNG")
    (tmp_path / "a.png").write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    with pytest.raises(DataError, match="cannot be decoded"):
        inspect(tmp_path / "a.png")


def test_missing_file_folder_and_impossible_names(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        inspect(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be opened"):
        inspect(tmp_path)
    for name in ("a\0b.jpg", "a\ud800.jpg", "a" * 5000 + ".jpg"):
        with pytest.raises(DataError, match="cannot be opened"):
            inspect(tmp_path / name)


def test_digest_is_the_files(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(encoded("PNG"))
    assert inspect(path).digest == hashlib.sha256(encoded("PNG")).hexdigest()


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    with pytest.raises(DataError, match="decompression bomb"):
        inspect(tmp_path / "a.png")


def test_a_file_that_changed_size_since_opening_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert read_as(tmp_path / "a.png", (64, 64)).shape == (3, 64, 64)
    with pytest.raises(DataError, match="expected 32x64 px"):
        read_as(tmp_path / "a.png", (32, 64))
