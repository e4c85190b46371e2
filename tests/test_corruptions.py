"""Corruptions, each against a computation of another kind: plain loops, SciPy, scikit-image, Pillow."""

from __future__ import annotations

import io
import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from skimage import color, data

from audit.errors import DataError
from audit.shifts import Shift
from probes.forgery.blurs import DefocusBlur, GaussianBlur, MotionBlur, ZoomBlur
from probes.forgery.coding import JPEG, Pixelate, Resize, WebP
from probes.forgery.corruptions import COMMON, OWN, corruption
from probes.forgery.displacements import Elastic, GlassBlur
from probes.forgery.frame_shift import Draws
from probes.forgery.noises import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from probes.forgery.tones import Brightness, Contrast, Gamma, Hue, Saturate, WhiteBalance

ALL = COMMON | OWN
EVERY = [(name, severity) for name in ALL for severity in range(1, 6)]
PHOTO = cv2.resize(data.astronaut(), (96, 80), interpolation=cv2.INTER_AREA)
RANDOM = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)


def done(shift, frame, seed=0):
    return shift.apply([frame], seed=seed)[0]


def psnr(a, b):
    return 10 * math.log10(255**2 / max(float(np.mean((a.astype(float) - b) ** 2)), 1e-9))


def close(found, wanted, levels=0.51):
    """Within rounding of what a computation in double precision gives."""
    assert found.dtype == np.uint8
    apart = np.abs(found - np.clip(wanted, 0, 255))
    assert apart.max() <= levels, f"{apart.max():.3f} levels apart at {np.unravel_index(apart.argmax(), apart.shape)}"


def flat(level, side=200):
    return np.full((side, side, 3), level, np.uint8)


# Noise: moments of what is added to a flat frame, and the distribution itself


def test_gaussian_noise_has_the_distribution_asked_for():
    found = done(GaussianNoise(0.08), flat(128)).astype(float) - 128
    n, sigma = found.size, 0.08 * 255
    assert abs(found.mean()) < 4 * sigma / math.sqrt(n)
    assert abs(found.std() / math.hypot(sigma, 1 / math.sqrt(12)) - 1) < 4 / math.sqrt(2 * n)
    for level in (-40, -20, -5, 0, 5, 20, 40):
        share = stats.norm.cdf((level + 0.5) / sigma)
        assert abs((found <= level).mean() - share) < 4.5 * math.sqrt(share * (1 - share) / n)


def test_speckle_noise_grows_with_the_pixel():
    noise = SpeckleNoise(0.15)
    for level in (0, 40, 120):
        found = done(noise, flat(level)).astype(float)
        assert abs(found.mean() - level) < 4 * 0.15 * level / math.sqrt(found.size) + 1e-9
        wanted = math.hypot(0.15 * level, level and 1 / math.sqrt(12))
        assert found.std() == pytest.approx(wanted, rel=4 / math.sqrt(2 * found.size))


@pytest.mark.parametrize("photons", [60.0, 25.0, 12.0, 5.0, 3.0, 2.5, 0.4, 255.0])
@pytest.mark.parametrize("level", [0, 1, 90, 255])
def test_shot_noise_is_poisson(photons, level):
    found = done(ShotNoise(photons), flat(level))
    mean = level / 255 * photons
    wanted: dict[int, float] = {}
    for k in range(math.ceil(photons) + 1):
        share = stats.poisson.pmf(k, mean) if k < photons else stats.poisson.sf(k - 1, mean)
        to = round(min(k / photons, 1) * 255)
        wanted[to] = wanted.get(to, 0) + share
    values, counts = np.unique(found, return_counts=True)
    assert set(values.tolist()) <= set(wanted)
    for to, share in wanted.items():
        seen = counts[values == to].sum() / found.size
        assert abs(seen - share) < 4.5 * math.sqrt(share * (1 - share) / found.size) + 3e-5


@pytest.mark.parametrize("amount", [0.0, 0.03, 0.27, 1.0])
def test_impulse_noise_puts_as_much_salt_as_pepper(amount):
    found = done(ImpulseNoise(amount), flat(77))
    n = found.size
    assert set(np.unique(found).tolist()) <= {0, 77, 255}
    for value in (0, 255):
        assert abs((found == value).mean() - amount / 2) < 4.5 * math.sqrt(amount / 2 / n) + 2e-5
    if 0 < amount < 1:  # channels fall for themselves
        assert (found == 0).any(2).sum() > (found == 0).all(2).sum()


# Blur


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.0, 3.0, 6.0])
def test_gaussian_blur_is_scipys(sigma):
    wanted = ndimage.gaussian_filter(RANDOM.astype(float), (sigma, sigma, 0), mode="nearest", truncate=4)
    close(done(GaussianBlur(sigma), RANDOM), wanted)


def test_gaussian_blur_of_a_stated_size_sums_to_one():
    away = np.arange(9) - 4
    kernel = np.exp(-(away**2) / (2 * 30.0))
    kernel /= kernel.sum()
    wanted = ndimage.convolve1d(RANDOM.astype(float), kernel, axis=0, mode="nearest")
    wanted = ndimage.convolve1d(wanted, kernel, axis=1, mode="nearest")
    close(done(GaussianBlur(math.sqrt(30), 9), RANDOM), wanted)


@pytest.mark.parametrize(("radius", "smooth"), [(0, 0.0), (1, 0.5), (3, 0.1), (4, 0.5), (8, 0.5), (10, 0.5), (13, 1.0)])
def test_defocus_is_a_convolution_with_a_disk(radius, smooth):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    t = 1 if radius <= 8 else 2
    g = np.array([math.exp(-0.5 * (d / smooth) ** 2) if smooth else float(d == 0) for d in range(-t, t + 1)])
    kernel = ndimage.convolve(np.pad(disk / disk.sum(), t), np.outer(g, g) / g.sum() ** 2, mode="constant")
    wanted = np.stack([ndimage.convolve(RANDOM[..., c].astype(float), kernel, mode="mirror") for c in range(3)], -1)
    close(done(DefocusBlur(radius, smooth), RANDOM), wanted)


def test_motion_blur_adds_copies_along_a_drawn_line():
    found, angles = [], []
    for seed in range(8):
        angle = math.radians(-45 + 90 * Draws(seed, 0).uniform(0, 1))
        wanted, whole = np.zeros(RANDOM.shape), 0.0
        height, width = RANDOM.shape[:2]
        for i in range(21):
            weight = math.exp(-(i**2) / (2 * 3.0**2))
            whole += weight
            dy, dx = math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)
            for y in range(height):
                wanted[y] += (
                    weight * RANDOM[min(max(y + dy, 0), height - 1)][np.minimum(np.arange(width) + dx, width - 1)]
                )
        found.append(done(MotionBlur(10, 3.0), RANDOM, seed))
        angles.append(angle)
        close(found[-1], wanted / whole)
    assert min(angles) < 0 < max(angles)


@pytest.mark.parametrize(("stop", "step"), [(1.11, 0.01), (1.31, 0.03)])
def test_zoom_blur_is_the_mean_of_scipys_zooms(stop, step):
    square, wanted, count = PHOTO[:, :80], PHOTO[:, :80].astype(float), 1
    for factor in np.arange(1, stop, step):
        crop = math.ceil(80 / factor)
        start = (80 - crop) // 2
        part = square[start : start + crop, start : start + crop].astype(float)
        wanted = wanted + ndimage.zoom(part, (factor, factor, 1), order=1)[:80, :80]
        count += 1
    close(done(ZoomBlur(stop, step), square), wanted / count, levels=1.0)  # OpenCV may know 1/32 of a pixel only


# Displacements


def test_glass_blur_takes_colours_over_one_after_the_other():
    glass, seed = GlassBlur(0.0, 2, 2), 5
    wanted = RANDOM.copy()
    draws = Draws(seed, 0)
    height, width = RANDOM.shape[:2]
    rows, columns = range(3, height - 1), range(3, width - 1)
    for _ in range(2):
        words = draws.words(2, len(rows), len(columns)).astype(int)
        dy, dx = words * 4 // 65536 - 2
        assert (dy.min(), dy.max(), dx.min(), dx.max()) == (-2, 1, -2, 1)
        for y in reversed(rows):
            for x in reversed(columns):
                at = y - rows[0], x - columns[0]
                wanted[y, x] = wanted[y + dy[at], x + dx[at]]
    assert np.array_equal(done(glass, RANDOM, seed), wanted)
    assert not np.array_equal(wanted, RANDOM)


def test_glass_blur_blurs_before_and_after():
    once = done(GaussianBlur(1.1), PHOTO)
    assert np.array_equal(done(GlassBlur(1.1, 2, 0), PHOTO), done(GaussianBlur(1.1), once))


def test_elastic_follows_a_smooth_field():
    seed, height, width = 3, *PHOTO.shape[:2]
    noise = (Draws(seed, 0).words(2, height, width) + 0.5) / 65536 * 2 - 1
    sigma = (0.01 * height, 0.01 * width)
    dx, dy = (ndimage.gaussian_filter(0.005 * height * n, sigma, mode="reflect", truncate=3) * 12.5 for n in noise)
    y, x = np.mgrid[:height, :width].astype(float)
    wanted = np.stack(
        [ndimage.map_coordinates(PHOTO[..., c].astype(float), [y + dy, x + dx], order=1, mode="reflect")
         for c in range(3)], -1)  # fmt: skip
    found = done(Elastic(12.5), PHOTO, seed)
    close(found, wanted, levels=4.5)  # OpenCV may know 1/32 of a pixel only
    assert np.abs(found - wanted).mean() < 0.5
    assert psnr(found, PHOTO) < 30


# Tones


@pytest.mark.parametrize("more", [0.1, 0.5, -0.3, 1.0])
def test_brightness_adds_to_the_value(more):
    frame = np.concatenate([RANDOM, np.zeros_like(RANDOM[:1])])
    hsv = color.rgb2hsv(frame)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    close(done(Brightness(more), frame), color.hsv2rgb(hsv) * 255, levels=0.502)


@pytest.mark.parametrize(("times", "more"), [(0.3, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2), (1.0, -0.5)])
def test_saturate_scales_the_saturation(times, more):
    grey = np.repeat(np.arange(45, dtype=np.uint8)[None, :, None] * 5, 3, 2)
    frame = np.concatenate([RANDOM, grey])
    hsv = color.rgb2hsv(frame)
    hsv[..., 1] = np.clip(hsv[..., 1] * times + more, 0, 1)
    close(done(Saturate(times, more), frame), color.hsv2rgb(hsv) * 255, levels=0.502)


def test_contrast_draws_values_to_the_mean_of_their_channel():
    mean = RANDOM.reshape(-1, 3).mean(0)
    close(done(Contrast(0.3), RANDOM), (RANDOM - mean) * 0.3 + mean)


def test_gamma_and_white_balance_are_their_formulas():
    close(done(Gamma(2.2), RANDOM), 255 * (RANDOM / 255) ** 2.2)
    close(done(WhiteBalance(0.2), RANDOM), RANDOM * np.array([1.2, 1, 0.8]))


def test_hue_turns_and_nothing_else():
    hsv = color.rgb2hsv(RANDOM)
    hsv[..., 0] = (hsv[..., 0] + 0.2) % 1
    close(done(Hue(0.2), RANDOM), color.hsv2rgb(hsv) * 255, levels=0.51)
    assert np.array_equal(done(Hue(1 / 3), np.array([[[200, 10, 10]]], np.uint8)), [[[10, 200, 10]]])


# Coding


@pytest.mark.parametrize("quality", [7, 25, 90])
def test_jpeg_is_what_pillow_writes(quality):
    """Both stand on libjpeg's tables; other builds may round another way, so that single levels may differ."""
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    apart = np.abs(done(JPEG(quality), PHOTO).astype(int) - np.asarray(Image.open(file)))
    assert apart.max() <= 3
    assert apart.mean() < 0.2


@pytest.mark.parametrize("quality", [5, 50])
def test_webp_is_what_pillow_writes(quality):
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "WEBP", quality=quality)
    assert psnr(done(WebP(quality), PHOTO), np.asarray(Image.open(file))) > 35


@pytest.mark.parametrize("scale", [0.6, 0.5, 0.4, 0.3, 0.25, 0.01, 1.0])
@pytest.mark.parametrize("frame", [PHOTO, RANDOM, RANDOM[:1], np.tile(RANDOM[:, :1], (13, 1, 1))])
def test_pixelate_is_pillows_box_and_nearest(scale, frame):
    height, width = frame.shape[:2]
    small = (max(1, int(width * scale)), max(1, int(height * scale)))
    blocks = Image.fromarray(frame).resize(small, Image.Resampling.BOX)
    wanted = np.asarray(blocks.resize((width, height), Image.Resampling.NEAREST))
    assert np.abs(done(Pixelate(scale), frame).astype(int) - wanted).max() <= 1  # Pillow's fixed point


def test_resize_by_area_is_a_mean_of_blocks():
    means = PHOTO.reshape(40, 2, 48, 2, 3).mean((1, 3))
    found = done(Resize(0.5, up="nearest"), PHOTO)
    close(found, np.repeat(np.repeat(means, 2, 0), 2, 1), levels=0.501)
    assert np.array_equal(done(Resize(0.5, down="nearest", up="nearest"), PHOTO)[::2, ::2], PHOTO[::2, ::2])
    assert np.array_equal(done(Resize(1.0), PHOTO), PHOTO)


# What holds for all of them


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(EVERY), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**63), st.data())
def test_any_frame_is_changed_alone_and_the_same_way_each_time(which, height, width, seed, drawn):
    fill = drawn.draw(st.sampled_from(["black", "white", "any"]))
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = {"black": frame * 0, "white": frame * 0 + 255, "any": frame}[fill].astype(np.uint8)
    before, shift = frame.copy(), corruption(*which)
    others = [frame[::-1, ::-1].copy()] * 2
    frames = shift.apply([frame, *others], fps=25.0, seed=seed)
    assert [f.shape for f in frames] == [frame.shape] * 3
    assert all(f.dtype == np.uint8 and not np.shares_memory(f, frame) for f in frames)
    assert np.array_equal(frame, before)
    assert np.array_equal(shift.apply([frame], fps=0.0, seed=seed)[0], frames[0])
    strided = np.repeat(frame, 2, 1)[:, ::2]
    assert np.array_equal(done(shift, strided, seed), frames[0])


@pytest.mark.parametrize("name", ALL)
def test_threads_change_nothing(name):
    frame, found = cv2.resize(data.astronaut(), (301, 211)), []
    before = cv2.getNumThreads()
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            found.append(done(corruption(name, 4), frame, 11))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("name", [n for n in ALL if n not in {"saturate", "glass_blur"}])
def test_more_severe_is_further_from_the_photograph(name):
    ranks = [psnr(done(corruption(name, s), PHOTO), PHOTO) for s in range(1, 6)]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] - ranks[4] > 2


def test_the_order_of_the_published_numbers_where_it_is_none():
    """Saturate takes colour away at 1 and 2 and adds it from 3 on; glass is stronger at 5 than at 1."""
    saturation = [color.rgb2hsv(done(corruption("saturate", s), PHOTO))[..., 1].mean() for s in range(1, 6)]
    own = color.rgb2hsv(PHOTO)[..., 1].mean()
    assert saturation[1] < saturation[0] < own < saturation[2] < saturation[3] < saturation[4]
    glass = [psnr(done(corruption("glass_blur", s), PHOTO), PHOTO) for s in range(1, 6)]
    assert glass[0] > glass[4]


DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur"}
DRAWN |= {"elastic_transform"}


@pytest.mark.parametrize("name", ALL)
def test_each_frame_has_a_stream_of_its_own(name):
    shift = corruption(name, 3)
    one, two, three = shift.apply([PHOTO] * 3, seed=1)
    assert np.array_equal(one, two) is (name not in DRAWN)
    assert np.array_equal(one, done(shift, PHOTO, 2)) is (name not in DRAWN)
    assert np.array_equal(shift.apply([PHOTO] * 2, seed=1)[1], two)
    assert np.array_equal(two, three) is (name not in DRAWN)


@pytest.mark.parametrize("which", EVERY, ids=str)
def test_specs_are_json_and_tell_all_apart(which):
    shift: Shift = corruption(*which)
    assert shift.level == "image"
    assert json.loads(json.dumps(shift.spec())) == shift.spec()
    others = [s for n in ALL for s in ALL[n] if s is not shift]
    assert shift.spec() not in [s.spec() for s in others]
    assert shift.name not in [s.name for s in others]


def test_words_are_even_and_streams_unlike():
    words = Draws(1, 2).words(300, 301)
    assert stats.kstest(words.ravel() / 65536, "uniform").pvalue > 1e-3
    other = Draws(2, 1).words(300, 301)
    assert abs(np.corrcoef(words.ravel(), other.ravel())[0, 1]) < 4 / 300
    assert Draws(0, 0).words(0, 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: corruption("fog", 1), "one of gaussian_noise"),
        (lambda: corruption("resize", 0), "a severity of 1 to 5"),
        (lambda: JPEG(0), "quality from 1 to 100"),
        (lambda: Resize(0.5, up="spline"), "one of nearest"),
        (lambda: ShotNoise(0.0), "photons from 0.001 to 255"),
        (lambda: Pixelate(1.5), "scale from 0 to 1"),
        (lambda: GaussianBlur(1.0, 8), "size to be an odd number"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make, said):
    with pytest.raises(DataError, match=said):
        make()


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_frames_of_another_kind_are_refused(frame):
    with pytest.raises(ValueError, match="uint8 frames"):
        done(JPEG(50), frame)
