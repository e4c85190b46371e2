"""What goes over the wire to a remote detector and what comes back, where its owner hands in no hooks.

Request: POST, multipart/form-data with one part ``images`` per image (PNG, image/png), or JSON
``{"images": ["<base64 of a PNG>", ...]}``. Answer: JSON ``{"detections": [{"boxes": [[x1, y1, x2, y2], ...],
"scores": [...], "labels": [...]}, ...]}``, one entry per image in order; boxes in pixels of the image that was sent,
scores in [0, 1], labels as indices into ``classes`` or as names; other keys are ignored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch
from torch import Tensor

from audit.adapters.callables import as_detections
from audit.contracts import Detections
from audit.errors import ModelError


class Garbage(Exception):
    """An answer that makes no sense: (what was expected, what came)."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.expected, self.got = expected, got


@dataclass(frozen=True)
class Answer:
    """A server's answer, for ``decode`` hooks.

    Attributes:
        body: its bytes. content_type: as the server says. sizes: (height, width) of each image that was sent.
    """

    body: bytes = field(repr=False)
    content_type: str
    sizes: tuple[tuple[int, int], ...]

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Garbage: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            # not cut off: half a credential that is echoed here would be no credential to the scrubber
            kind = self.content_type or "unknown content"
            raise Garbage("JSON", f"{len(self.body)} bytes of {kind} that are none") from None


def pictures(images: Tensor) -> list[Any]:
    """Images (N, 3, H, W) in [0, 1] as 8-bit RGB arrays (H, W, 3): what a camera would send."""
    pixels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().contiguous().numpy())


def png(picture: Any) -> bytes:
    """A picture (H, W, 3), 8-bit RGB, as PNG, without loss."""
    done, buffer = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(buffer)


def multipart(images: Sequence[Any]) -> dict[str, Any]:
    """One part ``images`` per image."""
    return {"files": [("images", (f"{i}.png", png(p), "image/png")) for i, p in enumerate(images)]}


def base64_json(images: Sequence[Any]) -> dict[str, Any]:
    """``{"images": [...]}`` of base64 texts."""
    return {"json": {"images": [base64.b64encode(png(p)).decode() for p in images]}}


def read(answer: Answer, classes: Sequence[str]) -> list[Any]:
    """The default answer's entries, names of classes turned into indices.

    Raises:
        Garbage: not as the module says.
    """
    said = answer.json()
    entries = said.get("detections") if isinstance(said, dict) else None
    if not isinstance(entries, list):
        raise Garbage('JSON {"detections": [...]}', f"{type(said).__name__} without such a list")
    return [_entry(e, classes) for e in entries]


def checked(found: Any, sizes: Sequence[tuple[int, int]], classes: int) -> list[Detections]:
    """What a decoder returned, as detections that keep the contract.

    Raises:
        Garbage: another number of entries than images; shapes, values or labels that cannot be.
    """
    if not isinstance(found, list | tuple) or len(found) != len(sizes):
        got = f"{len(found)}" if isinstance(found, list | tuple) else type(found).__name__
        raise Garbage(f"detections for {len(sizes)} images", got)
    return [_one(f, classes) for f in found]


def _entry(entry: Any, classes: Sequence[str]) -> dict[str, list[Any]]:
    if not isinstance(entry, dict):
        raise Garbage("an object per image", type(entry).__name__)
    parts: dict[str, list[Any]] = {}
    for key in ("boxes", "scores", "labels"):
        if not isinstance(entry.get(key), list):
            raise Garbage(f"a list `{key}` per image", type(entry.get(key)).__name__ if key in entry else "none")
        parts[key] = entry[key]
    numbers = {name: i for i, name in enumerate(classes)}
    labels = [numbers.get(label, label) if isinstance(label, str) else label for label in parts["labels"]]
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int):
            got = repr(label) if isinstance(label, str | float) else type(label).__name__
            raise Garbage("labels as names of `classes` or indices", got)
    if any(not isinstance(box, list) or len(box) != 4 for box in parts["boxes"]):
        raise Garbage("boxes of four numbers", "another number of them")
    return {**parts, "labels": labels}


def _one(found: Any, classes: int) -> Detections:
    try:
        one = as_detections(found, classes)
    except ModelError as error:
        raise Garbage(error.expected, error.got) from None
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Garbage("boxes, scores and labels as numbers", "something else") from None
    if not bool(one.boxes.isfinite().all()) or not bool(one.scores.isfinite().all()):
        raise Garbage("finite boxes and scores", "infinite values or NaN")
    if len(one.scores) and not 0 <= float(one.scores.min()) <= float(one.scores.max()) <= 1:
        raise Garbage("scores in [0, 1]", f"{float(one.scores.min()):.3g} to {float(one.scores.max()):.3g}")
    turned = (one.boxes[:, 2:] < one.boxes[:, :2]).any(1)
    if bool(turned.any()):
        first = [round(v, 2) for v in one.boxes[turned][0].tolist()]
        raise Garbage("boxes as x1, y1, x2, y2 with x1 <= x2 and y1 <= y2", f"{first}")
    return Detections(one.boxes.cpu(), one.scores.cpu(), one.labels.cpu())
