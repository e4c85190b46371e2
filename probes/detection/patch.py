"""A patch as it would be printed: 8-bit pixels and where they go. What is saved is what is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from audit.contracts import Areas, Constraint
from audit.errors import AuditError
from audit.record import Diagnostic
from probes.geometry import Placement, Removal
from probes.probe import digest
from probes.wear import Wear

SCHEMA = "assay-patch-1"


@dataclass(frozen=True, eq=False, repr=False)
class Patch:
    """An ``audit.contracts.Perturbation``: one picture on every object.

    Attributes:
        pixels: uint8 (3, P, P) RGB on the CPU.
        placement: how it is worn: by the box (``Placement``) or in perspective (``AreaPlacement``).
        name: a few words. origin: the spec of the probe that made it, with its seed.
        diagnostics: whether the attack that made it was sound; empty for a patch that was not optimised.
        history: named curves of the optimisation, e.g. ``steps`` and ``height``.
    """

    pixels: Tensor
    placement: Wear
    name: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    history: Mapping[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 3 or self.pixels.shape[0] != 3:
            raise AuditError(
                f"patch {self.name}",
                expected="pixels uint8 (3, height, width)",
                got=f"{self.pixels.dtype} {tuple(self.pixels.shape)}",
                mend="round with Patch.rounded",
            )

    @staticmethod
    def rounded(value: Tensor) -> Tensor:
        """uint8 (3, P, P) on the CPU from values in [0, 1]."""
        return (value.detach() * 255).round().clamp(0, 255).to("cpu", torch.uint8)

    @property
    def value(self) -> Tensor:
        """float32 (3, P, P) in [0, 1], from the 8-bit pixels."""
        return self.pixels.float() / 255

    @property
    def digest(self) -> str:
        """sha256 of the pixels."""
        return digest(self.pixels)

    @property
    def identity(self) -> str:
        """sha256 of pixels and placement: all that decides what ``apply`` does."""
        where = json.dumps(self.placement.spec(), sort_keys=True)
        return hashlib.sha256(f"{self.digest} {where}".encode()).hexdigest()

    def __repr__(self) -> str:
        where = str(self.placement)
        return f"Patch({self.name})" if where in self.name else f"Patch({self.name}; {where})"

    @cached_property
    def constraint(self) -> Constraint:
        """What this patch may change, checked without its own geometry."""
        return self.placement.constraint((self.pixels.shape[1], self.pixels.shape[2]))

    def apply(self, images: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None) -> Tensor:
        """Images (N, 3, H, W) with the patch on every box; ``boxes[i]`` is (K_i, 4) xyxy px, K_i may be 0."""
        return self.placement.prepare(images, boxes, areas).place(images, self.value.to(images.device))

    def regions(self, boxes: Tensor, size: tuple[int, int], areas: Areas | None = None) -> Tensor:
        """(K, 4) xyxy px of what is left of the patch on each box, not clipped to the image of ``size``."""
        del size
        return self.placement.regions(boxes, areas)

    def picture(self) -> NDArray[np.uint8]:
        """uint8 (P, P, 3) RGB as it would be printed; a removed part is left out."""
        return self.placement.shown(self.pixels)

    def with_placement(self, placement: Wear) -> Patch:
        """The same picture elsewhere or in another size."""
        return replace(self, placement=placement)

    def removed(self, part: Removal) -> Patch:
        """The same patch with a part cut away, e.g. ``half-top``."""
        assert isinstance(self.placement, Placement)
        return replace(self, placement=replace(self.placement, remove=part))

    def save(self, folder: str | Path) -> Path:
        """Writes ``patch.png`` and ``patch.json`` into a folder, which is made if need be.

        Raises:
            AuditError: the folder cannot be written.
        """
        folder = Path(folder)
        about = {
            "schema": SCHEMA,
            "name": self.name,
            "sha256_pixels": self.digest,
            "placement": self.placement.to_json(),
            "origin": dict(self.origin),
            "diagnostics": [d.model_dump() for d in self.diagnostics],
            "history": {k: list(v) for k, v in self.history.items()},
        }
        text = json.dumps(about, indent=2, sort_keys=True, allow_nan=False) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(self.pixels.permute(1, 2, 0).contiguous().numpy()).save(folder / "patch.png")
            (folder / "patch.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise AuditError(
                f"patch folder {folder}",
                expected="a folder that can be written",
                got=str(error),
                mend="choose another folder or mend its rights",
            ) from error
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Patch:
        """A saved patch.

        Raises:
            AuditError: a file is missing or the picture is not the one that was saved.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "patch.json").read_text(encoding="utf-8"))
            with Image.open(folder / "patch.png") as picture:
                pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()
        except (OSError, ValueError) as error:
            raise _unusable(folder, "patch.png and patch.json as Patch.save writes them", str(error)) from error
        if about.get("schema") != SCHEMA:
            raise _unusable(folder, f"schema {SCHEMA}", repr(about.get("schema")))
        patch = cls(
            pixels,
            _wear(about["placement"]),
            about["name"],
            about["origin"],
            [Diagnostic(**d) for d in about["diagnostics"]],
            about["history"],
        )
        if patch.digest != about["sha256_pixels"]:
            raise _unusable(folder, f"pixels with sha256 {about['sha256_pixels']}", patch.digest)
        return patch


def _wear(about: dict[str, Any]) -> Wear:
    if about.get("wear") != "area":
        return Placement(**about)
    from probes.areas import AreaPlacement

    return AreaPlacement.from_json(about)


def _unusable(folder: Path, expected: str, got: str) -> AuditError:
    return AuditError(f"saved patch {folder}", expected=expected, got=got, mend="craft it again")
