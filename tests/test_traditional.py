"""The traditional augmentations: that their numbers are drawn from the ranges stated, and are those applied."""

from __future__ import annotations

import io
import json
import math

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage import data

from audit.errors import DataError
from audit.shifts import Shift
from probes.forgery.frame_shift import Draws
from probes.forgery.traditional import (
    TraditionalBlur,
    TraditionalCombined,
    TraditionalJPEG,
    TraditionalNoise,
    traditional,
)

PHOTO = cv2.resize(data.astronaut(), (64, 48), interpolation=cv2.INTER_AREA)
MANY = 400


def applied(shift, frame, count=MANY, seed=0):
    return shift.apply([frame] * count, seed=seed)


def test_half_of_the_frames_get_noise_of_a_variance_uniform_up_to_thirty():
    frames = applied(TraditionalNoise(), np.full((64, 64, 3), 128, np.uint8))
    added = [f.astype(float) - 128 for f in frames]
    noisy = [a for a in added if a.any()]
    assert abs(len(noisy) / MANY - 0.5) < 4 * 0.5 / math.sqrt(MANY)
    # Rounding to whole levels adds 1/12 to the variance, where the noise is wide enough to be rounded at random.
    variances = np.array([a.var() - 1 / 12 for a in noisy])
    assert variances.max() < 30 * 1.06
    assert stats.kstest(variances / 30, "uniform").pvalue > 1e-3
    assert abs(np.mean([a.mean() for a in noisy])) < 0.02


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_probability_of_noise_holds(probability, share):
    frames = applied(TraditionalNoise(probability, 400.0), PHOTO, 20)
    assert np.mean([not np.array_equal(f, PHOTO) for f in frames]) == share


def test_blur_has_nine_pixels_and_a_variance_drawn_up_to_thirty():
    variances = []
    for seed in range(40):
        variance = 30 * Draws(seed, 0).uniform(0, 1)
        variances.append(variance)
        kernel = np.exp(-((np.arange(9) - 4) ** 2) / (2 * variance))
        kernel /= kernel.sum()
        wanted = ndimage.convolve1d(PHOTO.astype(float), kernel, axis=0, mode="nearest")
        wanted = ndimage.convolve1d(wanted, kernel, axis=1, mode="nearest")
        assert np.abs(TraditionalBlur().apply([PHOTO], seed=seed)[0] - wanted).max() <= 0.51
    assert min(variances) < 5
    assert max(variances) > 25


def test_jpeg_qualities_are_all_those_from_60_to_100():
    by_quality = {}
    for quality in range(55, 101):
        file = io.BytesIO()
        Image.fromarray(PHOTO).save(file, "JPEG", quality=quality)
        by_quality[quality] = np.asarray(Image.open(file)).astype(float)
    counts = dict.fromkeys(by_quality, 0)
    for frame in applied(TraditionalJPEG(), PHOTO, 820):
        counts[min(by_quality, key=lambda q: float(np.abs(by_quality[q] - frame).mean()))] += 1
    assert not any(counts[q] for q in range(55, 60))
    assert all(counts[q] for q in range(60, 101))
    assert stats.chisquare([counts[q] for q in range(60, 101)]).pvalue > 1e-4


def test_all_three_are_noise_then_blur_then_jpeg():
    whole = TraditionalCombined()
    for index, frame in enumerate(applied(whole, PHOTO, 8, seed=4)):
        draws = Draws(4, index)
        wanted = PHOTO
        for part in (TraditionalNoise(), TraditionalBlur(), TraditionalJPEG()):
            wanted = part.changed(wanted, draws)
        assert np.array_equal(frame, wanted)
    assert json.loads(json.dumps(whole.spec())) == {
        "shift": "traditional, combined",
        "noise": {"probability": 0.5, "variance": 30.0},
        "blur": {"size": 9, "variance": 30.0},
        "jpeg": {"lowest": 60, "highest": 100},
    }


@pytest.mark.parametrize("shift", traditional(), ids=lambda s: s.name)
def test_each_is_a_shift_of_images_and_repeats_itself(shift: Shift):
    assert shift.level == "image"
    assert json.loads(json.dumps(shift.spec())) == shift.spec()
    frames = [PHOTO, PHOTO[:1, :1].copy(), PHOTO[::-1].copy(), PHOTO]
    one, two = (shift.apply(frames, fps=25.0, seed=9) for _ in range(2))
    assert [f.shape for f in one] == [f.shape for f in frames]
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert any(not np.array_equal(f, one[0]) for f in applied(shift, PHOTO, 12, seed=9))
    assert not any(np.shares_memory(a, b) for a, b in zip(one, frames, strict=True))


def test_the_four_are_told_apart():
    assert len({s.name for s in traditional()}) == len({json.dumps(s.spec()) for s in traditional()}) == 4


def test_bounds_that_cannot_be_are_refused():
    with pytest.raises(DataError, match="lowest from 1 to 70"):
        TraditionalJPEG(80, 70)
    with pytest.raises(DataError, match="probability from 0 to 1"):
        TraditionalNoise(1.5)
