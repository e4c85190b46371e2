"""What the generators of forgeries share: one face after the other, each with a random stream of its own."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from audit.errors import DataError
from audit.shifts import Frame
from probes.forgery.face_geometry import Mask, Points, located


@dataclass(frozen=True)
class FaceForger(ABC):
    """Makes a forgery of each real face; see ``probes.forgery.forgers.Forger``."""

    imitates: ClassVar[str]
    lacks: ClassVar[str]
    refs: ClassVar[tuple[str, ...]]
    needs_others: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """A few words for tables."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """All that determines the result beside the faces and the seed, as JSON."""

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
        """The forgeries, uint8 (N, 3, H, W); see ``probes.forgery.forgers.Forger``."""
        del others, other_landmarks
        checked(faces, ids)
        places = located(landmarks, len(faces), (faces.shape[2], faces.shape[3]))
        made = [
            self.forged(frame, points, stream(seed, self.name, id))
            for frame, points, id in zip(frames(faces), places, ids, strict=True)
        ]
        return stacked(made, faces)

    @abstractmethod
    def forged(self, face: Frame, points: Points, draw: np.random.Generator) -> Frame:
        """The forgery of one face.

        Args:
            face: uint8 (H, W, 3), a copy. points: its landmarks, (5, 2) px. draw: where its random choices come from.

        Raises:
            DataError: landmarks that lie so far out that no pixel of the face is in the picture.
        """


def checked(faces: Tensor, ids: Sequence[str]) -> None:
    """Raises ``DataError`` unless there are uint8 (N, 3, H, W) faces of at least 16 px and as many names."""
    if faces.dtype != torch.uint8 or faces.dim() != 4 or faces.shape[1] != 3 or min(faces.shape[2:]) < 16:
        raise DataError("faces to forge", expected="uint8 (N, 3, H, W) of at least 16 px",
                        got=f"{faces.dtype} {tuple(faces.shape)}", mend="give images of 8 bits")  # fmt: skip
    if len(ids) != len(faces):
        raise DataError("faces to forge", expected=f"{len(faces)} names", got=str(len(ids)),
                        mend="name each face once")  # fmt: skip


def frames(faces: Tensor) -> list[Frame]:
    """N copies, (H, W, 3) each."""
    return list(faces.permute(0, 2, 3, 1).contiguous().cpu().numpy().copy())


def stacked(made: Sequence[Frame], faces: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) on the device of ``faces``."""
    if not made:
        return torch.empty_like(faces)
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous().to(faces.device)


def stream(seed: int, name: str, id: str) -> np.random.Generator:
    """The random stream of one image: it depends on nothing but the seed, the generator and the image's name."""
    text = "\0".join((str(seed), name, id))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def required(mask: Mask) -> Mask:
    """The mask; ``DataError`` if it has no pixel: a forgery that equals its face would be counted as a miss."""
    if not bool(mask.any()):
        raise DataError("landmarks of a face", expected="a face within the picture", got="none of its pixels",
                        mend="give landmarks in px of the cut out face")  # fmt: skip
    return mask


def rounded(values: np.ndarray[Any, np.dtype[np.floating[Any]]]) -> Frame:
    """To 8 bits."""
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
