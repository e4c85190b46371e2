"""Aligned pictures painted into photographs, at the pixels of a mask and nowhere else, and the best one kept.

Every image that a model is asked about here has 8 bits already, and gradients pass the rounding as if it were not
there: the best image seen is the very image that is judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from audit.alignment import CHIP, Alignment
from audit.data.faces import Portraits
from audit.examples import Attacked, Examples
from probes.recognition.soundness import Course


@dataclass(frozen=True, eq=False)
class Canvas:
    """N photographs with, for every pixel in their masks, where it lies in an aligned picture of 112 × 112.

    Attributes:
        clean: (N, 3, H, W) float32 in [0, 1]. masks: (N, H, W) bool.
        own: (M, 3) the photographs' colours at the M pixels in the masks. pixel: (M, 3) flat indices of their values in
            ``clean``. cells, weights: (M, 4) flat indices into N·112·112 and the shares of a bilinear sample.
    """

    clean: Tensor
    masks: Tensor
    own: Tensor
    pixel: Tensor
    cells: Tensor
    weights: Tensor

    @classmethod
    def of(cls, portraits: Portraits, masks: Tensor, device: torch.device) -> Canvas:
        """The photographs with masks (N, H, W); a pixel outside the aligned picture reads its nearest edge."""
        clean, masks = portraits.images.to(device).float() / 255, masks.to(device)
        h, w = portraits.size
        matrix = Alignment.by_landmarks(portraits.landmarks, (h, w), (CHIP, CHIP)).matrix.to(device)
        image, y, x = masks.nonzero(as_tuple=True)
        points = torch.stack([x, y, torch.ones_like(x)], 1).double()
        at = (matrix[image] @ points[:, :, None])[:, :, 0].clamp(0, CHIP - 1)
        low = at.floor().clamp(max=CHIP - 2)
        part = at - low
        left, top = low.long().unbind(1)
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
        cells = torch.stack([image * CHIP * CHIP + (top + j) * CHIP + left + i for j, i in corners], 1)
        share = [(part[:, 1] if j else 1 - part[:, 1]) * (part[:, 0] if i else 1 - part[:, 0]) for j, i in corners]
        pixel = torch.stack([((image * 3 + c) * h + y) * w + x for c in range(3)], 1)
        return cls(clean, masks, clean.flatten()[pixel], pixel, cells, torch.stack(share, 1).float())

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px of the photographs."""
        return int(self.clean.shape[2]), int(self.clean.shape[3])

    def read(self, pictures: Tensor) -> Tensor:
        """(M, C) what the pixels in the masks see of aligned pictures (N, C, 112, 112)."""
        flat = pictures.movedim(1, -1).reshape(-1, pictures.shape[1])
        return (flat[self.cells] * self.weights[:, :, None]).sum(1)

    def paint(self, colours: Tensor) -> Tensor:
        """(N, 3, H, W): the photographs with colours (M, 3) in their masks, as 8 bits in [0, 1].

        A pixel that came out as it was is moved by one level in green: otherwise a patch of one piece would count as
        several regions of change.
        """
        cut = colours.clamp(0, 1)
        with torch.no_grad():
            level, own = (cut * 255).round(), (self.own * 255).round()
            same = (level == own).all(1)
            level[:, 1] += same * (1 - 2 * (own[:, 1] >= 128).float())
        value = level / 255 + (cut - cut.detach())
        return self.clean.flatten().index_put((self.pixel,), value).view_as(self.clean)


@dataclass(eq=False)
class Kept:
    """The best image seen of each pair, that of the greatest margin of the worst model, and how the search went.

    Attributes:
        images: (N, 3, H, W) uint8. best, first, late: (N,) margins: of all, of the start, after nine tenths.
        zero, broken, taken: (N,) int64 steps: with a gradient of zero, not finite, and all.
        curve: mean over the pairs of ``best``, per step.
    """

    images: Tensor
    best: Tensor
    first: Tensor
    late: Tensor
    zero: Tensor
    broken: Tensor
    taken: Tensor
    curve: list[float] = field(default_factory=list)
    succeeded: list[float] = field(default_factory=list)

    @classmethod
    def nothing(cls, canvas: Canvas) -> Kept:
        """Before the first look."""
        n, device = len(canvas), canvas.clean.device
        none = torch.full((n,), -torch.inf, device=device)
        count = torch.zeros(n, dtype=torch.int64, device=device)
        images = (canvas.clean * 255).round().to(torch.uint8)
        return cls(images, none, none.clone(), none.clone(), count, count.clone(), count.clone())

    def see(self, images: Tensor, margins: Tensor, share: float) -> Tensor:
        """Looks at images (N, 3, H, W) with margins (K, N) after this share of the steps; (N,) which are the best."""
        worst = margins.detach().amin(0)
        if bool(self.first.isinf().all()):
            self.first = worst.clone()
        better = worst > self.best
        self.images[better] = (images.detach()[better] * 255).round().to(torch.uint8)
        self.best = torch.where(better, worst, self.best)
        if share <= 0.9:
            self.late = self.best.clone()
        return better

    def note(self) -> None:
        """One point more on the curves."""
        self.curve.append(float(self.best.mean()))
        self.succeeded.append(float((self.best > 0).float().mean()))

    def usable(self, slope: Tensor) -> Tensor:
        """A gradient (N, L) with what is not finite as zero; both are counted."""
        finite = slope.isfinite().all(1)
        self.broken += (~finite).long()
        self.zero += (finite & ~(slope != 0).any(1)).long()
        self.taken += 1
        return torch.where(finite[:, None], slope, torch.zeros_like(slope))

    def course(self) -> Course:
        """What the diagnostics ask for."""
        parts = (self.first, self.late, self.best, self.zero, self.broken, self.taken)
        return Course(*(p.cpu() for p in parts))


def examples(parts: Sequence[tuple[Kept, Tensor]], details: dict[str, Any]) -> Examples:
    """What was kept of the batches, with their masks, as one."""
    kept = [k for k, _ in parts]
    count = [len(k.best) for k in kept]
    curves = {
        name: (torch.tensor([getattr(k, of) for k in kept]) * torch.tensor(count)[:, None]).sum(0) / sum(count)
        for name, of in (("margin of the worst model, best so far", "curve"),
                         ("share beyond the threshold", "succeeded"))
    }  # fmt: skip
    return Examples(
        torch.cat([k.images.cpu() for k in kept]),
        torch.cat([m.cpu() for _, m in parts]),
        Course.joined([k.course() for k in kept]).diagnostics(),
        {name: c.tolist() for name, c in curves.items()},
        details=details,
    )


@dataclass(eq=False)
class Ascent:
    """Adam, each number by itself, upwards; the step falls along half a cosine (Kingma and Ba 2015)."""

    rate: float
    steps: int
    _mean: Tensor | None = None
    _square: Tensor | None = None
    _taken: int = 0

    def step(self, slope: Tensor) -> Tensor:
        """What to add, for a gradient of any shape."""
        mean = torch.zeros_like(slope) if self._mean is None else self._mean
        square = torch.zeros_like(slope) if self._square is None else self._square
        self._mean, self._square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope.square()
        now = self.rate * (1 + math.cos(math.pi * self._taken / max(1, self.steps))) / 2
        self._taken += 1
        root = (self._square / (1 - 0.999**self._taken)).sqrt().clamp(min=1e-12)
        return now * self._mean / (1 - 0.9**self._taken) / root


def only(attacked: Attacked, rows: Tensor) -> Attacked:
    """Some of the pairs."""
    return replace(attacked, sources=attacked.sources[rows], targets=attacked.targets[rows])
