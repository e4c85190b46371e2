"""Faces cut out of frames: where they are, square with a margin, of one size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from audit.contracts import Detector
from audit.data.clips import Clip
from audit.errors import DataError, ModelError
from audit.shifts import Frame

MARGIN = 1.3
"""Side of the square by the longer side of the face's box: the crop of FaceForensics++ (Rössler et al. 2019, §4)."""

_LARGEST = 8.0
"""A square of more than so many times the frame's longer side is no face."""


def face_boxes(
    clip: Clip,
    indices: Sequence[int],
    frames: Sequence[Frame] | None = None,
    detector: Detector | None = None,
    *,
    device: torch.device | str = "cpu",
    batch: int = 8,
) -> list[Tensor | None]:
    """Where the face is in each of these frames: (4,) float32 xyxy px, ``None`` where none was found.

    The whole frame where the clip is cropped already; else what the data says; for frames of which it says nothing,
    the detector. Of its detections with at least its own threshold, that with the largest area × score is the face; in
    later frames the one that overlaps the last face most (intersection over union), if any overlaps it.

    Args:
        indices: rising frame numbers. frames: those frames, if they are decoded already. device: where the detector
            wants its images. batch: frames per call of it.

    Raises:
        ModelError: the detector has several classes and none is called face.
        DataError: no box in the data for any of the frames, and no detector.
    """
    indices = list(indices)
    if clip.cropped:
        whole = clip.footage.read(indices) if frames is None else frames
        return [torch.tensor([0, 0, f.shape[1], f.shape[0]], dtype=torch.float32) for f in whole]
    boxes = [clip.boxes(i) if clip.boxes is not None else None for i in indices]
    open_ = [n for n, b in enumerate(boxes) if b is None]
    if not open_ or (detector is None and len(open_) < len(boxes)):
        return boxes
    if detector is None:
        raise DataError(
            f"clip {clip.id}",
            expected="boxes of the faces in the data, a detector of faces, or faces that are cut out already",
            got="none of them",
            mend="give boxes.csv, a detector in the model file, or say crops: in front of the path",
        )
    seen = clip.footage.read([indices[n] for n in open_]) if frames is None else [frames[n] for n in open_]
    found = dict(zip(open_, _detected(seen, detector, device, batch), strict=True))
    last: Tensor | None = None
    for n, known in enumerate(boxes):
        boxes[n] = _followed(*found[n], last) if known is None else known
        last = last if boxes[n] is None else boxes[n]
    return boxes


def square(box: Tensor, margin: float = MARGIN) -> Tensor:
    """The square about the centre of a box whose side is ``margin`` · max(width, height).

    Args:
        box: (..., 4) xyxy px. margin: above 0.

    Returns:
        (..., 4) xyxy px of the same type; it may reach over the frame.
    """
    centre = (box[..., :2] + box[..., 2:]) / 2
    half = (box[..., 2:] - box[..., :2]).amax(-1, keepdim=True) * margin / 2
    return torch.cat([centre - half, centre + half], -1)


def cut(frame: Frame, box: Tensor) -> Frame:
    """The part of a frame inside a box, in whole pixels, of the box's size.

    A box that reaches over an edge is shifted inside. Where it is larger than the frame it is shifted so that it covers
    the frame, and what lies outside repeats the edge.

    Args:
        frame: (H, W, 3). box: (4,) xyxy px; width and height are rounded, and at least 1.

    Raises:
        DataError: a box that is not finite, has no area, is 8 times larger than the frame, or lies outside of it.
    """
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in box)
    limit = _LARGEST * max(height, width)
    if not (0 < x2 - x1 <= limit and 0 < y2 - y1 <= limit and abs(x1) < 1e6 and abs(y1) < 1e6):
        raise DataError("face", expected=f"a box with an area, at most {limit:g} px long",
                        got=f"({x1:g}, {y1:g}, {x2:g}, {y2:g})", mend="correct the box")  # fmt: skip
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise DataError(
            "face",
            expected=f"a box that lies in its frame of {width}x{height} px",
            got=f"({x1:g}, {y1:g}, {x2:g}, {y2:g})",
            mend="give boxes in px of these frames; boxes.csv may have been made for another resolution",
        )
    left, right = _span(x1, x2, width)
    top, bottom = _span(y1, y2, height)
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    return np.ascontiguousarray(frame[rows[:, None], columns])


def resized(frame: Frame, size: tuple[int, int]) -> Tensor:
    """A frame as uint8 (3, *size), stretched: what shrinks is averaged over its area, what grows is bilinear (OpenCV).

    Args:
        frame: (H, W, 3). size: (height, width) px.
    """
    smaller = min(size[0], frame.shape[0]), min(size[1], frame.shape[1])
    out = frame
    if smaller != out.shape[:2]:
        out = cv2.resize(out, smaller[::-1], interpolation=cv2.INTER_AREA)
    if tuple(size) != out.shape[:2]:
        out = cv2.resize(out, tuple(size)[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(out.transpose(2, 0, 1)))


def scaled(box: Tensor, from_size: Sequence[int], to_size: Sequence[int]) -> Tensor:
    """A box (..., 4) xyxy px of a frame of ``from_size`` (height, width) in the same frame at ``to_size``."""
    y, x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return box * box.new_tensor([x, y, x, y])


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """[first, end) of a side, shifted inside [0, length), or over it where it is longer."""
    side = max(1, round(high - low))
    first = round((low + high - side) / 2)
    first = min(max(first, min(0, length - side)), max(0, length - side))
    return first, first + side


def _detected(
    frames: Sequence[Frame], detector: Detector, device: torch.device | str, batch: int
) -> list[tuple[Tensor, Tensor]]:
    """Per frame the confident faces: boxes (K, 4) and scores (K,). Runs of one size go together."""
    face = _face_class(detector)
    out: list[tuple[Tensor, Tensor]] = []
    while len(out) < len(frames):
        part = [frames[len(out)]]
        for f in frames[len(out) + 1 : len(out) + batch]:
            if f.shape != part[0].shape:
                break
            part.append(f)
        images = torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).to(device).float() / 255
        with torch.inference_mode():
            answers = detector(images)
        for a in answers:
            boxes, scores, labels = a.boxes.float().cpu(), a.scores.float().cpu(), a.labels.cpu()
            sound = boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
            keep = (labels == face) & (scores >= detector.score_threshold) & sound
            out.append((boxes[keep].clone(), scores[keep].clone()))
    return out


def _face_class(detector: Detector) -> int:
    names = [str(c).lower() for c in detector.classes]
    if "face" in names:
        return names.index("face")
    if len(names) == 1:
        return 0
    raise ModelError("detector that cuts out faces", expected="a class called face", got=", ".join(names)[:80],
                     mend="give a detector of faces, or boxes in the data")  # fmt: skip


def _followed(boxes: Tensor, scores: Tensor, last: Tensor | None) -> Tensor | None:
    if not len(boxes):
        return None
    if last is not None:
        overlap = _overlap(boxes, last)
        if overlap.amax() > 0:
            return boxes[int(overlap.argmax())]
    return boxes[int((_area(boxes) * scores).argmax())]


def _overlap(boxes: Tensor, one: Tensor) -> Tensor:
    """Intersection over union of (K, 4) with (4,)."""
    low, high = torch.maximum(boxes[:, :2], one[:2]), torch.minimum(boxes[:, 2:], one[2:])
    common = (high - low).clamp(min=0).prod(1)
    return common / (_area(boxes) + _area(one) - common)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
