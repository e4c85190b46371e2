"""What an attack on a recognizer works on, and what it hands back to be judged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from audit.data.faces import Portraits
from audit.record import Diagnostic

Goal = Literal["impersonate", "dodge"]


@dataclass(frozen=True, eq=False)
class Attacked:
    """N pairs under attack.

    Attributes:
        goal: ``impersonate``: source i is to be taken for target i, who is somebody else; ``dodge``: it is no longer
            to be taken for target i, who is the same person.
        sources, targets: N portraits each; the patch is worn in the sources. One size.
        background: portraits of other people, of whom none is attacked: what a universal patch or a generator may be
            made from.
    """

    goal: Goal
    sources: Portraits
    targets: Portraits
    background: Portraits


@dataclass(eq=False)
class Examples:
    """Adversarial photographs, as they are judged: 8 bits.

    Attributes:
        images: (N, 3, H, W) uint8, the sources with the patch on. masks: (N, H, W) bool, where it may be.
        diagnostics: the attack's health. history: name -> values over the steps, for the report's curves.
        queries: comparisons asked per pair; 0 where gradients were used. details: facts for the record, as JSON.
    """

    images: Tensor
    masks: Tensor
    diagnostics: list[Diagnostic] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    queries: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Into an existing folder."""
        np.savez_compressed(
            folder / "examples.npz", images=self.images.numpy(), masks=np.packbits(self.masks.numpy(), axis=None)
        )
        about = {
            "diagnostics": [d.model_dump() for d in self.diagnostics],
            "history": self.history,
            "queries": self.queries,
            "details": self.details,
        }
        (folder / "examples.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Examples:
        """From what ``save`` wrote."""
        about = json.loads((folder / "examples.json").read_text())
        with np.load(folder / "examples.npz") as file:
            images = torch.from_numpy(file["images"])
            n, _, h, w = images.shape
            bits = np.unpackbits(file["masks"])[: n * h * w].astype(bool).reshape(n, h, w)
        return cls(
            images,
            torch.from_numpy(bits),
            [Diagnostic(**d) for d in about["diagnostics"]],
            about["history"],
            about["queries"],
            about["details"],
        )
