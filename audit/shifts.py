"""What a shift of quality must offer: the same footage, as it looks after another camera, encoder or platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""uint8 (H, W, 3) RGB."""


class Shift(Protocol):
    """Changes footage without knowing any model.

    Attributes:
        level: ``video``: given all frames of a clip, whole, in order, before faces are cut out; ``image``: given cut
            out faces, each for itself.
    """

    @property
    def level(self) -> Literal["video", "image"]: ...

    @property
    def name(self) -> str:
        """A few words for tables, such as ``H.264 QP 40``."""
        ...

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside the footage and the seed, as JSON."""
        ...

    def apply(self, frames: Sequence[Frame], *, fps: float, seed: int) -> list[Frame]:
        """As many frames as were given; of another size only where ``level`` is ``video``: boxes are then scaled.

        Equal frames, rate and seed give equal bytes, on any number of threads.
        """
        ...
