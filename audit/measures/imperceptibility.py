"""How far changed images are from what they were: PSNR, SSIM, and LPIPS where its network is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import metrics
from torch import Tensor

from audit.errors import ModelError
from audit.measures.intervals import Resampling, bootstrap_statistic
from audit.record import Condition

Values = NDArray[np.float64]
Distance = Callable[[Tensor, Tensor], Tensor]
"""Two float batches (N, 3, H, W) in [0, 1] to (N,) distances, such as LPIPS with weights of the user's."""

GROUP = "Imperceptibility"
UNITS = {"PSNR": "PSNR, dB", "SSIM": "SSIM", "LPIPS": "LPIPS"}
WINDOW = 7
"""px; scikit-image's own choice."""
_similarity: Callable[..., float] = metrics.structural_similarity
_BATCH = 32
_CELLS = 1 << 21


@dataclass(frozen=True, eq=False)
class Imperceptibility:
    """Of N images, those that were changed.

    Attributes:
        changed: (N,) bool. psnr: (N,) dB, ``inf`` where nothing was changed. ssim: (N,) in [-1, 1], 1 where nothing was
            changed; ``None`` where images are less than 7 px high or wide. lpips: (N,) or ``None`` where it is not
            measured.
        rows: for the report, see ``imperceptibility``.
    """

    changed: NDArray[np.bool_]
    psnr: Values
    ssim: Values | None
    lpips: Values | None
    rows: list[Condition]

    @property
    def untouched(self) -> int:
        """Images that are what they were, to the bit."""
        return int((~self.changed).sum())


def imperceptibility(
    clean: Tensor,
    changed: Tensor,
    groups: Sequence[str],
    *,
    resampling: Resampling,
    lpips: Distance | None = None,
) -> Imperceptibility:
    """PSNR, SSIM and LPIPS of each image, with their mean, median and worst over the images that were changed.

    An image that was not changed has an infinite PSNR: it is part of no mean, and counted in the row ``images left as
    they were``. The intervals of mean and median are those of a bootstrap over the groups; an extreme has none. A row
    without images has no value.

    Args:
        clean, changed: (N, 3, H, W) uint8. groups: N names of what goes together.
        lpips: see ``Distance``; called with batches of 32 images without gradients.

    Raises:
        ValueError: shapes or types differ. ModelError: ``lpips`` answers with another shape or with values that are
        not finite.
    """
    if clean.dtype != torch.uint8 or changed.dtype != torch.uint8 or clean.shape != changed.shape:
        raise ValueError(f"expected uint8 images of one shape, got {clean.dtype} {tuple(clean.shape)} and "
                         f"{changed.dtype} {tuple(changed.shape)}")  # fmt: skip
    if len(groups) != len(clean):
        raise ValueError(f"expected a group for each of {len(clean)} images, got {len(groups)}")
    touched = (clean != changed).flatten(1).any(1).numpy() if clean.numel() else np.zeros(len(clean), bool)
    noise, likeness = psnr(clean, changed), ssim(clean, changed)
    distance = None if lpips is None else _distances(lpips, clean, changed)
    tables = {("PSNR", "lowest"): noise, ("SSIM", "lowest"): likeness, ("LPIPS", "highest"): distance}
    rows = []
    names = [g for g, t in zip(groups, touched, strict=True) if t]
    for (measure, worst), values in tables.items():
        if values is not None:
            rows += _summary(measure, worst, values[touched], names, resampling)
    kept, n = int((~touched).sum()), len(touched)
    rows.append(Condition(name="images left as they were", group=GROUP, k=kept, n=n, value=kept / n if n else None))
    return Imperceptibility(touched, noise, likeness, distance, rows)


def psnr(clean: Tensor, changed: Tensor) -> Values:
    """10 log10(255^2 / MSE) in dB for each of N uint8 images, the MSE over all its values; ``inf`` where it is 0."""
    errors = np.empty(len(clean))
    for i in range(0, len(clean), _BATCH):
        apart = clean[i : i + _BATCH].to(torch.int32) - changed[i : i + _BATCH].to(torch.int32)
        errors[i : i + _BATCH] = apart.flatten(1).double().square().mean(1).numpy()
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255**2 / errors), np.float64)


def ssim(clean: Tensor, changed: Tensor) -> Values | None:
    """Structural similarity (Wang et al. 2004) of each of N uint8 images, the mean over channels.

    scikit-image's, in windows of 7 x 7 px of even weight and with a range of 255; ``None`` where no window fits.
    """
    if min(clean.shape[2:]) < WINDOW:
        return None
    pairs = zip(clean.numpy(), changed.numpy(), strict=True)
    return np.array([_similarity(a, b, win_size=WINDOW, channel_axis=0, data_range=255) for a, b in pairs], np.float64)


def _distances(lpips: Distance, clean: Tensor, changed: Tensor) -> Values:
    out = []
    for i in range(0, len(clean), _BATCH):
        a, b = (images[i : i + _BATCH].float() / 255 for images in (clean, changed))
        with torch.inference_mode():
            found = lpips(a, b).detach().double().cpu().reshape(-1)
        if len(found) != len(a) or not bool(found.isfinite().all()):
            raise ModelError("LPIPS", expected=f"{len(a)} finite distances", got=f"{len(found)}, or not finite ones",
                             mend="give a callable of two batches of images in [0, 1]")  # fmt: skip
        out.append(found.numpy())
    return np.concatenate(out) if out else np.zeros(0)


def _summary(
    measure: str, worst: str, values: Values, groups: Sequence[str], resampling: Resampling
) -> list[Condition]:
    names, of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    order = np.argsort(values, kind="stable")
    sums, counts = np.bincount(of, values, len(names)), np.bincount(of, minlength=len(names)).astype(np.float64)

    def mean(weights: Values) -> Values:
        return np.asarray(weights @ sums / (weights @ counts), np.float64)

    def median(weights: Values) -> Values:
        step = max(1, _CELLS // max(len(values), 1))
        return np.concatenate([_medians(values[order], weights[i : i + step, of[order]])
                               for i in range(0, len(weights), step)])  # fmt: skip

    rows = []
    for name, statistic in (("mean", mean), ("median", median)):
        e = bootstrap_statistic(statistic, len(names), level=resampling.level, draws=resampling.draws,
                                seed=resampling.seed, cluster=resampling.cluster)  # fmt: skip
        rows.append(Condition(name=name, group=f"{GROUP}: {UNITS[measure]}", n=len(values), value=e.value, low=e.low,
                              high=e.high))  # fmt: skip
    end = None if not len(values) else float(values.min() if worst == "lowest" else values.max())
    return [*rows, Condition(name=worst, group=f"{GROUP}: {UNITS[measure]}", n=len(values), value=end)]


def _medians(rising: Values, weights: Values) -> Values:
    """(B,) medians of values (N,) counted ``weights`` (B, N) times: the mean of the two in the middle."""
    below = weights.cumsum(1)
    total = below[:, -1:]
    low = (below < (total + 1) // 2).sum(1)
    high = (below < total // 2 + 1).sum(1)
    return np.asarray((rising[low] + rising[high]) / 2, np.float64)
