"""Footage that was sent on: each platform makes it smaller and encodes it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from audit.shifts import Frame
from probes.forgery.encoding import Codec, Encode


@dataclass(frozen=True)
class Step:
    """One platform: resized, then encoded.

    Attributes:
        name: for the record. longest: the longest side afterwards, px; what is smaller stays. scale: the share of each
            side instead, in (0, 1]. codec, quantiser: as of ``Encode``.

    Raises:
        ValueError: neither or both of ``longest`` and ``scale``, or one out of range.
    """

    name: str
    longest: int | None = None
    scale: float | None = None
    codec: Codec = "h264"
    quantiser: int = 30

    def __post_init__(self) -> None:
        if (self.longest is None) == (self.scale is None):
            raise ValueError("expected either the longest side or the scale of a step")
        if (self.longest is not None and self.longest < 2) or (self.scale is not None and not 0 < self.scale <= 1):
            raise ValueError(f"expected a longest side of at least 2 px or a scale in (0, 1], got {self}")
        _ = self.encoder

    @property
    def encoder(self) -> Encode:
        """The encoder of this step."""
        return Encode(self.codec, self.quantiser)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) afterwards: even, as platforms have it, where anything changes; never larger."""
        factor = self.scale if self.longest is None else min(1.0, self.longest / max(height, width))
        if factor is None or factor >= 1:
            return height, width
        even = [max(2, 2 * round(side * factor / 2)) for side in (height, width)]
        return min(even[0], height), min(even[1], width)


CHAIN = (Step("posted", longest=848, quantiser=30), Step("sent on", longest=640, quantiser=33))
"""Posted on a platform, then sent on by a messenger."""


@dataclass(frozen=True)
class Resend:
    """A chain of platforms, each of which resizes and encodes: resize, encode, resize, encode.

    An imitation: platforms publish neither their encoders nor their settings, which depend on app, device and day. The
    default is of their order of magnitude (848 px at QP 30, then 640 px at QP 33, H.264, constant quantiser). Not
    imitated: rate control by bit rate, changed frame rates, sharpening, cropping, added marks.

    Frames come out smaller where they were larger than a step allows; boxes are to be scaled. Pixels are averaged over
    their area where they are made smaller. Stills (a rate of 0) pass as single intra frames.

    Attributes:
        steps: at least one.
    """

    steps: tuple[Step, ...] = CHAIN

    level: ClassVar[Literal["video", "image"]] = "video"

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("expected at least one step, got none")

    @property
    def name(self) -> str:
        """Such as ``resent: 848 px H.264 QP 30, 640 px H.264 QP 33``."""
        each = [f"{s.longest} px" if s.longest is not None else f"{s.scale:g} x" for s in self.steps]
        return "resent: " + ", ".join(f"{e} {s.encoder.name}" for e, s in zip(each, self.steps, strict=True))

    def spec(self) -> dict[str, Any]:
        """Each step's name, size and encoder."""
        return {
            "shift": "resend",
            "steps": [
                {"name": s.name, "longest": s.longest, "scale": s.scale, "encode": s.encoder.spec()} for s in self.steps
            ],
        }

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a frame after all steps."""
        for step in self.steps:
            height, width = step.size(height, width)
        return height, width

    def apply(self, frames: Sequence[Frame], *, fps: float, seed: int) -> list[Frame]:
        """As many frames, each of ``size``; the seed changes nothing.

        Raises:
            DataError: as of ``Encode.apply``.
        """
        now = list(frames)
        for step in self.steps:
            now = step.encoder.apply([_resized(f, step) for f in now], fps=fps, seed=seed)
        return now


def _resized(frame: Frame, step: Step) -> Frame:
    height, width = step.size(*frame.shape[:2])
    if (height, width) == frame.shape[:2]:
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
