"""PSNR and SSIM against their formulas, and how they are summed up."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import ModelError
from audit.measures.imperceptibility import imperceptibility, psnr, ssim
from audit.measures.intervals import Resampling

RESAMPLING = Resampling(seed=0, draws=300)


def images(seed, n, height=20, width=24, reach=12):
    """Clean ones and changed ones, each by another strength; the first stays as it is."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 256, (n, 3, height, width))
    noise = rng.integers(-reach, reach + 1, clean.shape) * np.linspace(0, 1, n)[:, None, None, None]
    changed = np.clip(np.rint(clean + noise), 0, 255)
    return torch.from_numpy(clean.astype(np.uint8)), torch.from_numpy(changed.astype(np.uint8))


def row(found, name):
    """``PSNR, mean`` is the row ``mean`` of PSNR's own table."""
    measure, _, part = name.rpartition(", ")
    return next(r for r in found.rows if r.name == part and (not measure or measure in r.group))


def by_formula(a, b):
    """SSIM of one channel, window by window: 7 x 7, sample covariances, constants 0.01 and 0.03 of 255."""
    c1, c2, out = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for y in range(a.shape[0] - 6):
        for x in range(a.shape[1] - 6):
            p, q = a[y : y + 7, x : x + 7].ravel(), b[y : y + 7, x : x + 7].ravel()
            cov = np.cov(p, q)
            m, n = p.mean(), q.mean()
            out.append((2 * m * n + c1) * (2 * cov[0, 1] + c2) / ((m * m + n * n + c1) * (cov[0, 0] + cov[1, 1] + c2)))
    return float(np.mean(out))


def test_psnr_is_its_formula():
    clean, changed = images(0, 6)
    found = psnr(clean, changed)
    assert found[0] == math.inf
    for i in range(1, 6):
        total = 0
        for p, q in zip(clean[i].flatten().tolist(), changed[i].flatten().tolist(), strict=True):
            total += (p - q) ** 2
        assert found[i] == pytest.approx(20 * math.log10(255) - 10 * math.log10(total / clean[i].numel()), abs=1e-9)


def test_psnr_is_the_same_however_many_images_go_together():
    clean, changed = images(5, 70)
    assert psnr(clean, changed).tolist() == [psnr(clean[i : i + 1], changed[i : i + 1])[0] for i in range(70)]
    assert psnr(clean[:0], changed[:0]).shape == (0,)


def test_psnr_holds_32_images_at_a_time():
    """A float64 copy of all of them would be 108 MiB here, that of a block is 7 MiB."""
    clean = torch.zeros(512, 3, 96, 96, dtype=torch.uint8)
    changed = clean + 1
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        psnr(clean, changed)
    largest = max(e.cpu_memory_usage for e in seen.events())
    assert 0 < largest <= 32 * 3 * 96 * 96 * 8


def test_ssim_is_its_formula():
    clean, changed = images(1, 4, 11, 13, reach=90)
    found = ssim(clean, changed)
    assert found[0] == 1
    for i in range(1, 4):
        pairs = zip(clean[i].double().numpy(), changed[i].double().numpy(), strict=True)
        assert found[i] == pytest.approx(statistics.mean(by_formula(a, b) for a, b in pairs), abs=1e-9)
    assert found[3] < found[1] < 1


def test_opposites_have_the_lowest_psnr():
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert psnr(white, torch.zeros_like(white))[0] == pytest.approx(0)


def test_images_without_room_for_a_window_have_no_ssim():
    clean, changed = images(2, 3, 6, 20)
    assert ssim(clean, changed) is None
    found = imperceptibility(clean, changed, list("abc"), resampling=RESAMPLING)
    assert found.ssim is None
    assert not any("SSIM" in r.group for r in found.rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_summaries_are_those_of_the_changed_images(seed, n, sources):
    clean, changed = images(seed, n, 8, 9)
    groups = [f"video {i % sources}" for i in range(n)]
    found = imperceptibility(clean, changed, groups, resampling=RESAMPLING)
    moved = [i for i in range(n) if not torch.equal(clean[i], changed[i])]
    assert found.untouched == n - len(moved)
    assert found.changed.tolist() == [i in moved for i in range(n)]
    kept = row(found, "images left as they were")
    assert (kept.k, kept.n, kept.value) == (n - len(moved), n, (n - len(moved)) / n)
    for name, values in {"PSNR": found.psnr, "SSIM": found.ssim}.items():
        own = [float(values[i]) for i in moved]
        for summed, r in {f: row(found, f"{name}, {f}") for f in ("mean", "median", "lowest")}.items():
            assert r.n == len(moved)
            if not own:
                assert (r.value, r.low, r.high) == (None, None, None)
                continue
            wanted = {"mean": statistics.mean, "median": statistics.median, "lowest": min}[summed](own)
            assert r.value == pytest.approx(wanted, abs=1e-9)
            if summed == "lowest" or len({groups[i] for i in moved}) < 2:
                assert (r.low, r.high) == (None, None)
            elif r.low is not None:
                assert r.low <= r.high


def test_intervals_are_of_the_groups_and_not_of_the_frames():
    """Forty frames of one video tell as much as one; the interval over eight videos covers what they differ by."""
    rng = np.random.default_rng(3)
    clean = torch.full((80, 3, 8, 8), 128, dtype=torch.uint8)
    strength = np.repeat(rng.integers(1, 60, 8), 10)
    changed = clean + torch.from_numpy(strength.astype(np.uint8))[:, None, None, None]
    one = imperceptibility(clean, changed, ["a"] * 80, resampling=RESAMPLING)
    assert row(one, "PSNR, mean").low is None
    eight = row(
        imperceptibility(clean, changed, [str(i // 10) for i in range(80)], resampling=RESAMPLING), "PSNR, mean"
    )
    all_alone = row(imperceptibility(clean, changed, [str(i) for i in range(80)], resampling=RESAMPLING), "PSNR, mean")
    assert eight.low < eight.value < eight.high
    assert eight.high - eight.low > 2 * (all_alone.high - all_alone.low)


def test_nothing_at_all_has_no_values():
    none = torch.zeros((0, 3, 9, 9), dtype=torch.uint8)
    found = imperceptibility(none, none, [], resampling=RESAMPLING)
    assert {r.value for r in found.rows} == {None}
    assert row(found, "PSNR, mean").n == 0


def test_lpips_is_asked_in_batches_where_it_is_given():
    clean, changed = images(4, 40, 8, 8)
    sizes = []

    def distance(a, b):
        sizes.append(len(a))
        assert 0 <= float(a.min()) <= float(a.max()) <= 1
        return (a - b).abs().mean((1, 2, 3))[:, None, None, None]  # the shape that the package answers with

    found = imperceptibility(clean, changed, ["a"] * 40, resampling=RESAMPLING, lpips=distance)
    assert sizes == [32, 8]
    wanted = np.abs(clean.double().numpy() - changed.double().numpy()).mean((1, 2, 3)) / 255
    assert np.allclose(found.lpips, wanted, atol=1e-6)
    assert row(found, "LPIPS, highest").value == pytest.approx(wanted.max(), abs=1e-6)
    assert imperceptibility(clean, changed, ["a"] * 40, resampling=RESAMPLING).lpips is None


@pytest.mark.parametrize("answer", [torch.zeros(1), torch.full((3,), torch.nan)], ids=["too few", "not numbers"])
def test_an_lpips_that_answers_nonsense_is_refused(answer):
    with pytest.raises(ModelError, match="finite distances"):
        imperceptibility(*images(5, 3), list("abc"), resampling=RESAMPLING, lpips=lambda *_: answer)


def test_what_does_not_fit_is_refused():
    clean, changed = images(6, 3)
    with pytest.raises(ValueError, match="of one shape"):
        imperceptibility(clean, changed[:2], list("abc"), resampling=RESAMPLING)
    with pytest.raises(ValueError, match="of one shape"):
        imperceptibility(clean.float(), changed.float(), list("abc"), resampling=RESAMPLING)
    with pytest.raises(ValueError, match="a group for each of 3"):
        imperceptibility(clean, changed, ["a"], resampling=RESAMPLING)
