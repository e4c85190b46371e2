"""Noise with the spectrum of what generators leave behind: a residue, without the content it belongs to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audit.errors import AuditError
from audit.shifts import Frame
from probes.forgery.face_geometry import Points
from probes.forgery.per_face import FaceForger, checked, frames, rounded

BINS = 64
HIGHEST = math.sqrt(0.5)
"""Cycles per px: the corner of the spectrum, ½ in both directions."""
GRID = ((0.0, 0.5), (0.5, 0.0), (0.5, 0.5))
"""Cycles per px, down and across: where a grid of 2 px shows."""

Floats = NDArray[np.float64]


def radius_bins(size: tuple[int, int], bins: int) -> tuple[NDArray[np.int64], Floats]:
    """The bin of each frequency of an (H, W) picture (in the order of ``numpy.fft.fft2``), and its cycles per px.

    Bins are even in [0, √½]; the constant part is frequency 0 and in bin 0.
    """
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])
    radius = np.hypot(fy, fx)
    return np.minimum((radius / HIGHEST * bins).astype(np.int64), bins - 1), radius


def radial_power(residues: Floats, bins: int = BINS) -> Floats:
    """(bins,): mean of |DFT|² over the frequencies of each bin, the constant part left out, and over (N, H, W).

    NaN in a bin that holds no frequency of this size.
    """
    which, radius = radius_bins((residues.shape[1], residues.shape[2]), bins)
    power = np.square(np.abs(np.fft.fft2(residues))).mean(0)
    varies = radius > 0
    total = np.bincount(which[varies], power[varies], bins)
    count = np.bincount(which[varies], minlength=bins)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)


@dataclass(frozen=True)
class ResidueSpectrum:
    """The power of a residue by its frequency.

    Args:
        power: one value per bin, even in [0, √½] cycles per px, in any unit.
        peaks: share of the whole power that stands, over and above that, at the three frequencies of a grid of 2 px:
            (0, ½), (½, 0) and (½, ½) cycles per px.

    Raises:
        AuditError: power below 0, not finite or nothing but 0, or peaks outside [0, 1).
    """

    power: tuple[float, ...]
    peaks: float = 0.0

    def __post_init__(self) -> None:
        if not self.power or min(self.power) < 0 or not math.isfinite(sum(self.power)) or not sum(self.power):
            raise AuditError("spectrum of a residue", expected="finite power, somewhere above 0", got=repr(self.power),
                             mend="measure it on at least one picture")  # fmt: skip
        if not 0 <= self.peaks < 1:
            raise AuditError("spectrum of a residue", expected="a share of peaks in [0, 1)", got=str(self.peaks),
                             mend="give the share of the power that the peaks have")  # fmt: skip

    @classmethod
    def falling(cls, exponent: float = 1.0, peaks: float = 0.1, bins: int = BINS) -> ResidueSpectrum:
        """Power f^(−exponent), with peaks."""
        middle = (np.arange(bins) + 0.5) / bins * HIGHEST
        return cls(tuple((middle**-exponent).tolist()), peaks)

    @classmethod
    def measured(cls, faces: Tensor, bins: int = BINS) -> ResidueSpectrum:
        """That of pictures, uint8 (N, 3, H, W) of a generator: of their mean grey less its 3 × 3 median.

        What a denoiser takes away, averaged over pictures, is the usual estimate of a fingerprint (Marra et al. 2019).
        Peaks are part of their bins.
        """
        checked(faces, [""] * len(faces))
        greys = [f.mean(2).astype(np.float32) for f in frames(faces)]
        power = radial_power(np.stack([g - cv2.medianBlur(g, 3) for g in greys]).astype(np.float64), bins)
        return cls(tuple(np.nan_to_num(power).tolist()))

    def amplitude(self, size: tuple[int, int]) -> Floats:
        """(H, W) ≥ 0, in the order of ``numpy.fft.fft2``, of mean square 1; 0 for the constant part."""
        which, radius = radius_bins(size, len(self.power))
        power = np.where(radius > 0, np.asarray(self.power)[which], 0.0)
        power /= max(power.sum(), 1e-300)
        for fy, fx in GRID:
            # an odd number of pixels has no frequency of exactly ½: the next one, and its twin of the other sign
            at = [(round(s * fy * size[0]), round(s * fx * size[1])) for s in (1, -1)]
            for y, x in at:
                power[y, x] += self.peaks / (1 - self.peaks) / len(GRID) / len(at)
        return np.asarray(np.sqrt(power / power.sum() * power.size), np.float64)

    def noise(self, size: tuple[int, int], draw: np.random.Generator) -> Floats:
        """(H, W) with exactly this amplitude, phases of white noise, mean 0 and mean square 1."""
        phases = np.fft.fft2(draw.standard_normal(size))
        phases /= np.maximum(np.abs(phases), 1e-300)
        return np.asarray(np.fft.ifft2(phases * self.amplitude(size)).real * math.sqrt(size[0] * size[1]), np.float64)


@dataclass(frozen=True)
class SpectralNoise(FaceForger):
    """A residue with a given spectrum, the same in the three colours, at a given distance from the face.

    x + r · noise, rounded to 8 bits, with r² = 255² / 10^(psnr / 10): the PSNR is as given but for what rounding adds
    and clipping takes.

    Args:
        spectrum: ``falling()`` by default: power 1/f and a tenth of all in the peaks, a plain stand-in for what is
            seen in residues of generators (Durall et al. 2020, Corvi et al. 2023). ``measured`` on fakes is better.
        psnr: dB.

    Raises:
        AuditError: a PSNR outside [20, 60] dB.
    """

    spectrum: ResidueSpectrum = field(default_factory=ResidueSpectrum.falling)
    psnr: float = 40.0

    imitates: ClassVar[str] = "the residue of a generator: how its power is spread over the frequencies, and its grid"
    lacks: ClassVar[str] = (
        "phases: a fingerprint that all pictures of one generator share, residue that follows the content, and colour"
    )
    refs: ClassVar[tuple[str, ...]] = ("Marra et al. 2019", "Durall et al. 2020", "Corvi et al. 2023")

    def __post_init__(self) -> None:
        if not 20 <= self.psnr <= 60:
            raise AuditError("noise of a spectrum", expected="a PSNR in [20, 60] dB", got=str(self.psnr),
                             mend="40 dB is hardly seen; above 59 dB rounding to 8 bits is louder")  # fmt: skip

    @property
    def name(self) -> str:
        return f"spectral noise, {self.psnr:g} dB"

    def spec(self) -> dict[str, Any]:
        spectrum = {"power": list(self.spectrum.power), "peaks": self.spectrum.peaks}
        return {"forger": "spectral noise", "spectrum": spectrum, "psnr": self.psnr}

    def forged(self, face: Frame, points: Points, draw: np.random.Generator) -> Frame:
        del points
        residue = self.spectrum.noise((face.shape[0], face.shape[1]), draw)
        return rounded(face + residue[..., None] * (255 / 10 ** (self.psnr / 20)))
