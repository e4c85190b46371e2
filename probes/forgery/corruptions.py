"""Corruptions of five severities each, the numbers of the common-corruptions benchmark where it has them.

Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"; the
numbers are those of its ImageNet-C. Values are rounded here where the published code cuts off what is behind the point,
so that it is darker by half a level.
"""

from __future__ import annotations

from audit.errors import DataError
from probes.forgery.blurs import DefocusBlur, GaussianBlur, MotionBlur, ZoomBlur
from probes.forgery.coding import JPEG, Pixelate, Resize, WebP
from probes.forgery.displacements import Elastic, GlassBlur
from probes.forgery.frame_shift import FrameShift
from probes.forgery.noises import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from probes.forgery.tones import Brightness, Contrast, Gamma, Hue, Saturate, WhiteBalance

COMMON: dict[str, tuple[FrameShift, ...]] = {
    "gaussian_noise": tuple(GaussianNoise(s) for s in (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": tuple(ShotNoise(c) for c in (60.0, 25.0, 12.0, 5.0, 3.0)),
    "impulse_noise": tuple(ImpulseNoise(a) for a in (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": tuple(SpeckleNoise(s) for s in (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": tuple(GaussianBlur(s) for s in (1.0, 2.0, 3.0, 4.0, 6.0)),
    "defocus_blur": tuple(DefocusBlur(r, s) for r, s in ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": tuple(
        GlassBlur(s, r, n) for s, r, n in ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    ),
    "motion_blur": tuple(MotionBlur(r, s) for r, s in ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))),
    "zoom_blur": tuple(
        ZoomBlur(stop, step) for stop, step in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    ),
    "brightness": tuple(Brightness(m) for m in (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": tuple(Contrast(k) for k in (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturate": tuple(Saturate(t, m) for t, m in ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))),
    "jpeg_compression": tuple(JPEG(q) for q in (25, 18, 15, 10, 7)),
    "pixelate": tuple(Pixelate(s) for s in (0.6, 0.5, 0.4, 0.3, 0.25)),
    "elastic_transform": tuple(Elastic(250 * g) for g in (0.05, 0.065, 0.085, 0.1, 0.12)),
}
"""By the benchmark's names, severities 1 to 5 each. Weather (snow, frost, fog, spatter) is left out."""

OWN: dict[str, tuple[FrameShift, ...]] = {
    "webp_compression": tuple(WebP(q) for q in (50, 30, 20, 10, 5)),
    "resize": tuple(Resize(s) for s in (0.75, 0.5, 0.375, 0.25, 0.125)),
    "hue": tuple(Hue(t) for t in (0.02, 0.05, 0.1, 0.2, 0.4)),
    "gamma": tuple(Gamma(g) for g in (1.25, 1.5, 2.0, 2.5, 3.0)),
    "white_balance": tuple(WhiteBalance(w) for w in (0.1, 0.2, 0.3, 0.4, 0.5)),
}
"""What the benchmark does not have; the steps are ours."""


def corruption(name: str, severity: int) -> FrameShift:
    """One of ``COMMON`` or ``OWN``.

    Args:
        severity: 1 to 5.

    Raises:
        DataError: another name or severity.
    """
    known = COMMON | OWN
    if name not in known:
        raise DataError("corruption", expected=f"one of {', '.join(known)}", got=repr(name), mend="correct the name")
    if severity not in range(1, 6):
        raise DataError(f"corruption {name}", expected="a severity of 1 to 5", got=repr(severity),
                        mend="choose one of these")  # fmt: skip
    return known[name][severity - 1]
