"""How a patch is worn, whatever the geometry: what every attack asks of a placement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audit.contracts import Areas, Constraint


class Worn(Protocol):
    """Which pixels of a batch the patches cover, worked out once for the batch; depends on no patch.

    Attributes:
        shape: (N, H, W) of the batch. pixel: (M,) int64 n·H·W + y·W + x of the covered pixels, ascending, each once.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def pixel(self) -> Tensor: ...

    def place(self, images: Tensor, patch: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] with the patch (3, P, Q) in [0, 1] on every object; differentiable in both."""
        ...


class Wear(Protocol):
    """How a patch is worn on an object: ``Placement`` by its box, ``probes.areas.AreaPlacement`` in perspective."""

    def spec(self) -> Any:
        """All that determines it, as JSON."""
        ...

    def constraint(self, texels: tuple[int, int]) -> Constraint:
        """What a patch of (P, Q) texels worn so may change, checked without this geometry."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Everything to build it again."""
        ...

    def shown(self, pixels: Tensor) -> NDArray[np.uint8]:
        """uint8 (h, w, 3) RGB as it would be printed, from pixels uint8 (3, P, Q)."""
        ...

    def prepare(self, images: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None) -> Worn:
        """The map for images (N, 3, H, W), per image boxes (K_i, 4) xyxy px and, where known, areas."""
        ...

    def regions(self, boxes: Tensor, areas: Areas | None = None) -> Tensor:
        """(K, 4) xyxy px around the patch on each object, not clipped to the image."""
        ...
