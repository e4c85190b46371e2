"""Up-sampling fingerprints: what the decoder of a generator leaves in the spectrum, without a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from audit.errors import AuditError
from audit.shifts import Frame
from probes.forgery.face_geometry import OUTLINE, Points, region
from probes.forgery.per_face import FaceForger, required, rounded

How = Literal["nearest", "bilinear", "transposed"]
Where = Literal["image", "face"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Upsampled(FaceForger):
    """The picture at half its size (means of 2 × 2 px), brought back as decoders bring up their features.

    ``nearest`` and ``bilinear`` interpolate. ``transposed`` puts zeros between the pixels and folds with a 3 × 3
    kernel, stride 2: its width is no multiple of the stride, so the four phases of the pixel grid are reached by 1, 2,
    2 and 4 of its weights (Odena et al. 2016). The weights are the bilinear ones, ¼, ½ and 1, each times 1 + e·z with
    z ~ N(0, 1) from the image's stream, and brought to a sum of 4: so the four gains differ about a mean of 1, which is
    a checkerboard and peaks at the Nyquist frequency (Zhang et al. 2019, Durall et al. 2020). One kernel for all
    colours.

    Args:
        how: the up-sampling. where: the whole picture, or within an outline of the face (with a hard edge).
        unevenness: e, the relative spread of the weights of ``transposed``; 0 is plain interpolation with no peaks.

    Raises:
        AuditError: another name, or an unevenness outside [0, 0.5].
    """

    how: How = "transposed"
    where: Where = "image"
    unevenness: float = 0.05

    imitates: ClassVar[str] = (
        "the last up-sampling step of a generator: missing or repeated high frequencies, and the peaks of a "
        "transposed convolution with uneven overlap"
    )
    lacks: ClassVar[str] = (
        "content made by a network, later convolutions that learn to hide the grid, and coarser grids of earlier steps"
    )
    refs: ClassVar[tuple[str, ...]] = ("Odena et al. 2016", "Zhang et al. 2019", "Durall et al. 2020")

    def __post_init__(self) -> None:
        for value, known in ((self.how, get_args(How)), (self.where, get_args(Where))):
            if value not in known:
                raise AuditError("up-sampling", expected=f"one of {', '.join(known)}", got=repr(value),
                                 mend="name one of those")  # fmt: skip
        if not 0 <= self.unevenness <= 0.5:
            raise AuditError("up-sampling", expected="an unevenness in [0, 0.5]", got=str(self.unevenness),
                             mend="give the relative spread of the weights")  # fmt: skip

    @property
    def name(self) -> str:
        return f"up-sampled, {self.how}" + ("" if self.where == "image" else " (face)")

    def spec(self) -> dict[str, Any]:
        uneven = {"unevenness": self.unevenness} if self.how == "transposed" else {}
        return {"forger": "up-sampled", "how": self.how, "where": self.where, **uneven}

    def forged(self, face: Frame, points: Points, draw: np.random.Generator) -> Frame:
        h, w = face.shape[:2]
        even = cv2.copyMakeBorder(face, 0, h % 2, 0, w % 2, cv2.BORDER_REPLICATE).astype(np.float64)
        small = even.reshape(len(even) // 2, 2, -1, 2, 3).mean((1, 3))
        if self.how == "transposed":
            large = transposed(small, uneven_kernel(self.unevenness, draw))
        else:
            how = cv2.INTER_NEAREST if self.how == "nearest" else cv2.INTER_LINEAR
            large = cv2.resize(small, (even.shape[1], even.shape[0]), interpolation=how)
        made = rounded(large[:h, :w])
        if self.where == "image":
            return made
        return np.asarray(np.where(required(region(OUTLINE, points, (h, w)))[..., None], made, face), np.uint8)


def uneven_kernel(unevenness: float, draw: np.random.Generator) -> Floats:
    """(3, 3) weights; the mean of the gains of the four phases is 1: the weights add up to 4."""
    weights = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]) * (1 + unevenness * draw.standard_normal((3, 3)))
    return np.asarray(weights * (4 / weights.sum()), np.float64)


def transposed(small: Floats, kernel: Floats) -> Floats:
    """(2h, 2w, C) from (h, w, C): zeros between the pixels, folded with a (3, 3) kernel; the edge is repeated.

    Pixel (2i, 2j) sees one weight, its neighbours in a row or column two, and (2i + 1, 2j + 1) the four corners.
    """
    h, w, c = small.shape
    wide = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
    apart = np.zeros((2 * h + 4, 2 * w + 4, c))
    apart[::2, ::2] = wide
    # filter2D correlates: turned by half a turn the kernel is laid down, not read off
    return np.asarray(cv2.filter2D(apart, -1, kernel[::-1, ::-1].copy())[2:-2, 2:-2], np.float64)
