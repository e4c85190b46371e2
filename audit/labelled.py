"""What an attack on a classifying model works on, and what it hands back to be judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from audit.record import Diagnostic


@dataclass(frozen=True, eq=False)
class Labelled:
    """N images with their labels.

    Attributes:
        images: (N, 3, H, W) uint8, of the size that the model takes. labels: (N,) int64, see ``audit.image_model``.
        ids: N names. groups: N names of what goes together (the source video). clips: N names of the video that each
            is a frame of. A model that judges clips of T frames is given runs of T images of one clip.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    clips: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | Sequence[int]) -> Labelled:
        at = torch.as_tensor(index)
        at = torch.nonzero(at)[:, 0] if at.dtype == torch.bool else at.long()
        rows = at.tolist()
        return Labelled(
            self.images[at], self.labels[at],
            tuple(self.ids[i] for i in rows), tuple(self.groups[i] for i in rows), tuple(self.clips[i] for i in rows),
        )  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """sha256 over images, labels and names, computed once."""
        h = hashlib.sha256(repr((tuple(self.images.shape), self.ids, self.groups, self.clips)).encode())
        h.update(self.images.contiguous().numpy().data)
        h.update(self.labels.contiguous().numpy().data)
        return h.hexdigest()


@dataclass(eq=False)
class Adversarial:
    """Changed images, as they are judged: 8 bits.

    Attributes:
        images: (N, 3, H, W) uint8. maps: name -> (N, …) float32, what the change stands on, such as ``sigma``
            (N, H, W) px or ``flow`` (N, 2, H, W) px: the rules are checked against them, and the report shows them.
        diagnostics: the attack's health. history: name -> values over the steps. details: facts, as JSON.
    """

    images: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Into an existing folder."""
        arrays: dict[str, Any] = {f"map:{k}": v.numpy() for k, v in self.maps.items()}
        np.savez_compressed(folder / "adversarial.npz", images=self.images.numpy(), **arrays)
        about = {
            "diagnostics": [d.model_dump() for d in self.diagnostics],
            "history": self.history,
            "details": self.details,
        }
        (folder / "adversarial.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Adversarial:
        """From what ``save`` wrote."""
        about = json.loads((folder / "adversarial.json").read_text())
        with np.load(folder / "adversarial.npz") as file:
            images = torch.from_numpy(file["images"])
            maps = {k.partition(":")[2]: torch.from_numpy(file[k]) for k in file.files if k.startswith("map:")}
        return cls(images, maps, [Diagnostic(**d) for d in about["diagnostics"]], about["history"], about["details"])


class ImageRules(Protocol):
    """What an attack on images may change; checked by other code than that which attacks."""

    def violations(self, clean: Tensor, changed: Adversarial) -> list[str]:
        """One sentence per rule broken; empty where all is allowed. ``clean``: (N, 3, H, W) uint8."""
        ...

    def describe(self) -> str:
        """The rules in words, for the report."""
        ...
