"""The features of a forgery detector, as an attributor."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Embedding:
    """``embed(faces) -> (N, D)`` of a forgery detector as ``audit.contracts.Attributor`` has it.

    It has ``clip_frames`` where the detector has: both judge clips then.
    """

    def __init__(self, detector: Any) -> None:
        self.detector = detector
        self.face_size: tuple[int, int] = detector.face_size
        self.files = tuple(getattr(detector, "files", ()))
        if hasattr(detector, "clip_frames"):
            self.clip_frames: int = detector.clip_frames

    def __call__(self, faces: Tensor) -> Tensor:
        """(N, D) of faces (N, 3, *face_size), or clips (N, T, 3, *face_size), in [0, 1]."""
        out: Tensor = self.detector.embed(faces)
        return out
