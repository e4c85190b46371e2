"""What a blur may change, checked in NumPy: other code than that which blurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audit.labelled import Adversarial

ROUNDING = 0.5 + 0.01
"""Levels: half for 8 bits, and a little for the sums in float32."""


def blurred_again(
    image: NDArray[np.uint8], sigma: NDArray[np.float64], kernel: int, *, literal: bool
) -> NDArray[np.float64]:
    """Eq. 4 and 5 tap by tap: image (3, H, W) in levels, sigma (H, W) px to (3, H, W), clipped to [0, 255]."""
    r, (h, w) = kernel // 2, sigma.shape
    wide = np.pad(image.astype(np.float64), ((0, 0), (r, r), (r, r)), mode="edge")
    square = np.maximum(sigma, 0.08) ** 2
    total, weights = np.zeros((3, h, w)), np.zeros((h, w))
    for u in range(kernel):
        for v in range(kernel):
            g = np.exp(-((u - r) ** 2 + (v - r) ** 2) / (2 * square))
            total += g * wide[:, u : u + h, v : v + w]
            weights += g
    return np.clip(total / (2 * np.pi * square if literal else weights), 0, 255)


@dataclass(frozen=True)
class BlurRules:
    """Nothing but blurred: each image is blurred again by the recorded ``sigma``, and must agree within rounding.

    Attributes:
        kernel: k px. limits: smallest and largest σ, px. mean: largest mean σ of an image, px, if it is bounded;
            a tuple has one for each image.
        epsilon: L∞ in [0, 1] of what may be added to the blurred image. literal: eq. 4 with its own constant.
    """

    kernel: int
    limits: tuple[float, float] = (0.0, np.inf)
    mean: float | tuple[float, ...] | None = None
    epsilon: float = 0.0
    literal: bool = False

    def violations(self, clean: Tensor, changed: Adversarial) -> list[str]:
        """One sentence per broken rule and image."""
        images, sigma = changed.images, changed.maps.get("sigma")
        if str(images.dtype) != "torch.uint8" or images.shape != clean.shape:
            return [f"images {images.dtype} of shape {tuple(images.shape)}, uint8 {tuple(clean.shape)} are allowed"]
        if sigma is None or sigma.shape != (len(clean), *clean.shape[2:]):
            return ["no map sigma (N, H, W) was recorded"]
        means = self.mean if isinstance(self.mean, tuple) else (self.mean,) * len(clean)
        if len(means) != len(clean):
            return [f"{len(clean)} images, there are bounds for {len(means)}"]
        broken = []
        low, high = self.limits
        for i, (a, b, s) in enumerate(zip(clean.numpy(), images.numpy(), sigma.double().numpy(), strict=True)):
            if not np.isfinite(s).all() or s.min() < low - 1e-5 or s.max() > high * (1 + 1e-5):
                broken.append(f"image {i}: σ from {s.min():.6g} to {s.max():.6g} px, {low:g} to {high:g} is allowed")
                continue
            most = means[i]
            if most is not None and s.mean() > most * (1 + 1e-4):
                broken.append(f"image {i}: a mean σ of {s.mean():.6g} px, at most {most:g} is allowed")
            again = blurred_again(a, s, self.kernel, literal=self.literal)
            away = float(np.abs(again - b).max(initial=0))
            if away > ROUNDING + 255 * self.epsilon:
                allowed = f"rounding and {255 * self.epsilon:g} more are" if self.epsilon else "rounding is"
                broken.append(f"image {i}: {away:.4g} levels from what its σ gives, {allowed} allowed")
        return broken

    def describe(self) -> str:
        mean = ""
        if isinstance(self.mean, float | int):
            mean = f", on average at most {self.mean:g} px"
        elif self.mean is not None:
            mean = f", on average at most what each image is given, {max(self.mean, default=0.0):g} px or less"
        more = (
            f"; after that no value changes by more than {255 * self.epsilon:g} of 255 levels" if self.epsilon else ""
        )
        return f"images are blurred by {self.kernel} × {self.kernel} Gaussians, σ free at every pixel{mean}{more}"
