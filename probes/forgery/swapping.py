"""A face swap without learning: another person's inner face laid on by the landmarks, toned, and blended."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audit.errors import DataError
from audit.shifts import Frame
from probes.forgery.face_geometry import INNER, Mask, Points, carried, from_template, located, region
from probes.forgery.per_face import checked, frames, required, stacked

_EDGE = 2


@dataclass(frozen=True)
class SwappedFace:
    """The inner face of the nearest other person, by landmarks.

    Of the others the one is taken whose landmarks, after the best turn, scale and shift, lie nearest to the face's own
    (as for the blended images of Li et al. 2020); a tie is broken by the seed. It is laid on by the affine that brings
    its five landmarks nearest to the face's own, given mean and spread of each CIELAB channel of what it covers
    (Reinhard et al. 2001), and blended within the outline of the inner face (Pérez et al. 2003: gradients of the
    donor, boundary of the face). Outside of the outline nothing changes.
    """

    imitates: ClassVar[str] = (
        "FaceSwap: another person's face fitted by landmarks, toned, and blended with the gradients of its own"
    )
    lacks: ClassVar[str] = (
        "a fit in three dimensions, the expression of the face that is replaced, texture made by a network, and what a "
        "video shows from frame to frame; five landmarks fit less well than the 68 of the original"
    )
    refs: ClassVar[tuple[str, ...]] = ("Pérez et al. 2003", "Reinhard et al. 2001", "Li et al. 2020")
    needs_others: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "swapped face"

    def spec(self) -> dict[str, Any]:
        return {"forger": self.name}

    def forge(
        self,
        faces: Tensor,
        landmarks: Tensor | None = None,
        others: Tensor | None = None,
        other_landmarks: Tensor | None = None,
        *,
        ids: Sequence[str],
        seed: int,
        groups: Sequence[str] | None = None,
        other_groups: Sequence[str] | None = None,
    ) -> Tensor:
        """The forgeries, uint8 (N, 3, H, W); see ``probes.forgery.forgers.Forger``.

        Args:
            groups, other_groups: N and M names of persons or source videos; a face is never given one of its own.
                Without them ``others`` has to hold other people only; exact copies of a face are passed over.

        Raises:
            DataError: nobody else to take a face from.
        """
        checked(faces, ids)
        if others is None or not len(others):
            raise DataError(self.name, expected="faces of other people", got="none", mend="give others")
        checked(others, [""] * len(others))
        own = located(landmarks, len(faces), (faces.shape[2], faces.shape[3]))
        theirs = located(other_landmarks, len(others), (others.shape[2], others.shape[3]))
        targets, donors = frames(faces), frames(others)
        marks = [hashlib.sha256(d.tobytes()).hexdigest() for d in donors]
        shapes = np.stack([_upright(p) for p in theirs])
        made = []
        for i, (face, points, id) in enumerate(zip(targets, own, ids, strict=True)):
            mine = hashlib.sha256(face.tobytes()).hexdigest()
            strangers = [
                j for j, mark in enumerate(marks)
                if mark != mine and (groups is None or other_groups is None or groups[i] != other_groups[j])
            ]  # fmt: skip
            if not strangers:
                raise DataError(self.name, expected=f"a face of somebody else than {id}", got="only faces of the same",
                                mend="give faces of other people")  # fmt: skip
            away = np.linalg.norm(shapes[strangers] - _upright(points), axis=(1, 2)).round(6).tolist()
            ties = [hashlib.sha256(f"{seed}\0{id}\0{marks[j]}".encode()).digest() for j in strangers]
            chosen = min(zip(away, ties, strangers, strict=True))[2]
            made.append(swapped(face, points, donors[chosen], theirs[chosen]))
        return stacked(made, faces)


def swapped(face: Frame, points: Points, donor: Frame, donor_points: Points) -> Frame:
    """``face`` with the inner face of ``donor``; landmarks (5, 2) px of both."""
    size = (face.shape[0], face.shape[1])
    mask = region(INNER, points, size)
    mask[:_EDGE], mask[-_EDGE:], mask[:, :_EDGE], mask[:, -_EDGE:] = False, False, False, False
    required(mask)
    matrix = _nearest_affine(donor_points, points)
    laid = cv2.warpAffine(donor, matrix, (size[1], size[0]), borderMode=cv2.BORDER_REPLICATE)
    toned = _toned(np.asarray(laid, np.uint8), face, mask)
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    cloned = cv2.seamlessClone(toned, face, mask.astype(np.uint8) * 255, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)
    return np.asarray(np.where(mask[..., None], cloned, face), np.uint8)


def _upright(points: Points) -> Points:
    """Landmarks as they lie in the usual alignment: their shape, without place, size and turn."""
    matrix = from_template(points)
    turn = np.linalg.inv(matrix[:, :2])
    return carried(np.column_stack([turn, -turn @ matrix[:, 2]]), points)


def _nearest_affine(points: Points, onto: Points) -> NDArray[np.float64]:
    """(2, 3) in least squares over the five."""
    known = np.column_stack([points, np.ones(len(points))])
    return np.asarray(np.linalg.lstsq(known, onto, rcond=None)[0].T, np.float64)


def _toned(laid: Frame, face: Frame, mask: Mask) -> Frame:
    """``laid`` with the mean and the standard deviation of ``face`` over the mask, in CIELAB."""
    ours, theirs = (cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in (face, laid))
    a, b = theirs[mask], ours[mask]
    gain = b.std(0) / np.maximum(a.std(0), 1e-3)
    toned = (theirs - a.mean(0)) * gain + b.mean(0)
    rgb = cv2.cvtColor(toned.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255), np.uint8)


__all__ = ["SwappedFace", "swapped"]
