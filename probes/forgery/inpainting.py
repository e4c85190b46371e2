"""Inpainted parts: eyes, nose or mouth taken out and filled from around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import cv2
import numpy as np

from audit.errors import AuditError
from audit.shifts import Frame
from probes.forgery.face_geometry import PARTS, Mask, Part, Points, part_of
from probes.forgery.per_face import FaceForger, required

How = Literal["telea", "navier-stokes"]
_FLAGS = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}


@dataclass(frozen=True)
class InpaintedPart(FaceForger):
    """One part of the face, drawn evenly, is removed and filled by one of the methods, drawn evenly.

    Args:
        parts: of ``eyes`` (both), ``nose``, ``mouth``. methods: ``telea`` (Telea 2004: fast marching) and
            ``navier-stokes`` (Bertalmio et al. 2001: transport along edges). radius: px of what is known around a
            pixel that ``telea`` and ``navier-stokes`` look at.

    Raises:
        AuditError: none or an unknown one of them, or a radius below 1 px.
    """

    parts: tuple[Part, ...] = PARTS
    methods: tuple[How, ...] = ("telea", "navier-stokes")
    radius: float = 3.0

    imitates: ClassVar[str] = "local edits: a part of the face is painted over smoothly from what is around it"
    lacks: ClassVar[str] = (
        "a plausible part in its place: the part is smeared, not exchanged, and a person sees that it is missing"
    )
    refs: ClassVar[tuple[str, ...]] = ("Telea 2004", "Bertalmio et al. 2001")

    def __post_init__(self) -> None:
        for given, known in ((self.parts, PARTS), (self.methods, get_args(How))):
            if not given or not set(given) <= set(known):
                raise AuditError("inpainting", expected=f"some of {', '.join(known)}", got=repr(given),
                                 mend="name at least one of those")  # fmt: skip
        if not self.radius >= 1:
            raise AuditError("inpainting", expected="a radius of at least 1 px", got=str(self.radius),
                             mend="give px")  # fmt: skip

    @property
    def name(self) -> str:
        return "inpainted part" if self.parts == PARTS else f"inpainted {' or '.join(self.parts)}"

    def spec(self) -> dict[str, Any]:
        methods = {"parts": list(self.parts), "methods": list(self.methods)}
        return {"forger": "inpainted part", **methods, "radius": self.radius}

    def forged(self, face: Frame, points: Points, draw: np.random.Generator) -> Frame:
        mask, how = self.hole(face, points, draw)
        return np.asarray(cv2.inpaint(face, mask.astype(np.uint8), self.radius, _FLAGS[how]), np.uint8)

    def hole(self, face: Frame, points: Points, draw: np.random.Generator) -> tuple[Mask, How]:
        """The pixels (H, W) that are taken out, and the method drawn to fill them."""
        part = self.parts[int(draw.integers(len(self.parts)))]
        mask = required(part_of(part, points, (face.shape[0], face.shape[1])))
        return mask, self.methods[int(draw.integers(len(self.methods)))]
