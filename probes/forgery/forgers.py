"""Forgeries from real faces alone: what a generator of them must offer, and those that there are.

They shift the method without a new data set: each makes one kind of trace that forgeries have, and none the whole of
a forgery. A detector that misses one of them does not see that trace; one that finds it need not find the forgeries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from torch import Tensor

from probes.forgery.blending import SelfBlended
from probes.forgery.inpainting import InpaintedPart
from probes.forgery.spectrum import SpectralNoise
from probes.forgery.swapping import SwappedFace
from probes.forgery.upsampling import Upsampled
from probes.forgery.warping import WarpedFace


class Forger(Protocol):
    """Makes a forgery of each real face, without a model.

    Attributes:
        imitates, lacks: one sentence each: which traces of forgeries it makes, and what of them it does not have.
        refs: the papers. needs_others: whether it takes faces of other people.
    """

    imitates: ClassVar[str]
    lacks: ClassVar[str]
    refs: ClassVar[tuple[str, ...]]
    needs_others: ClassVar[bool]

    @property
    def name(self) -> str:
        """A few words for tables."""
        ...

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside the faces and the seed, as JSON."""
        ...

    def forge(
        self,
        faces: Tensor,
        landmarks: Tensor | None = None,
        others: Tensor | None = None,
        other_landmarks: Tensor | None = None,
        *,
        ids: Sequence[str],
        seed: int,
    ) -> Tensor:
        """A forgery of each face, uint8 (N, 3, H, W); ``faces`` stays as it is.

        Random choices come from the seed, the generator's name and the image's id alone: a result does not depend on
        which other faces are forged with it, nor on their order.

        Args:
            faces: uint8 (N, 3, H, W), real, cut out with a margin, of at least 16 px. landmarks: (N, 5, 2) px. Where
                there are none (or NaN) they are taken to lie where they usually do in a face cut out with a margin of
                1.3; ``face_geometry.unlocated`` says for which.
            others: uint8 (M, 3, H', W') faces of other people. other_landmarks: (M, 5, 2) px.
            ids: N names.

        Raises:
            DataError: another shape or type, landmarks outside of the picture, or nobody else where others are needed.
        """
        ...


FORGERS: dict[str, Callable[[], Forger]] = {
    "self-blended": SelfBlended,
    "warped face": WarpedFace,
    "swapped face": SwappedFace,
    "up-sampled, nearest": partial(Upsampled, "nearest"),
    "up-sampled, bilinear": partial(Upsampled, "bilinear"),
    "up-sampled, transposed": partial(Upsampled, "transposed"),
    "inpainted part": InpaintedPart,
    "spectral noise, 40 dB": SpectralNoise,
}
"""Name -> the generator with its published or stated parameters."""
