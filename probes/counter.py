"""Random numbers by place: each depends on the seed, the thing it is for, and which of its numbers it is, alone."""

from __future__ import annotations

import torch
from torch import Tensor


class Counter:
    """Numbers for ``count`` things of one kind, each by (seed, kind, thing, place) alone."""

    def __init__(self, seed: int, kind: int, count: int) -> None:
        self.keys = [_hashed(_hashed(_hashed(seed) ^ kind) ^ i) for i in range(count)]

    def uniform(self, place: int, low: float, high: float) -> Tensor:
        """(count,) float32 in [low, high]."""
        shares = ((_hashed(key ^ place) >> 11) * 2.0**-53 for key in self.keys)
        return torch.tensor([low + (high - low) * s for s in shares], dtype=torch.float32)

    def between(self, place: int, ends: tuple[float, float]) -> Tensor | None:
        """The same; ``None`` where the part is off."""
        return None if ends == (0.0, 0.0) else self.uniform(place, *ends)

    def stacked(self, places: range, ends: tuple[float, float], signs: range | None = None) -> Tensor | None:
        """(count, len(places)), with ``signs`` of either sign; ``None`` where the part is off."""
        if ends == (0.0, 0.0):
            return None
        made = torch.stack([self.uniform(p, *ends) for p in places], 1)
        if signs is not None:
            made = made * torch.where(torch.stack([self.uniform(p, -1, 1) for p in signs], 1) < 0, -1.0, 1.0)
        return made

    def seeds(self, place: int) -> Tensor:
        """(count,) int64 below 2^48, so that JSON keeps them exactly."""
        return torch.tensor([_hashed(key ^ place) >> 16 for key in self.keys], dtype=torch.int64)


def _hashed(x: int) -> int:
    """64 well mixed bits of 64 bits (the finaliser of SplitMix64)."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)
