"""Object detectors that follow the MAITE protocols, as black boxes. The package itself is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audit.adapters.callables import CallableDetector, as_detections
from audit.adapters.checks import class_names, frozen, readable, refuse, unit
from audit.adapters.preprocess import Preprocess
from audit.adapters.suppress import Suppression, clipped
from audit.contracts import Detections
from audit.tiny import tiny_images

DTYPES = ("float32", "uint8")
PLAIN_THRESHOLD = 0.5
"""The operating point of a MAITE model that a model file returns as it is, and that says none itself."""


def maite_detector(
    model: Callable[[Sequence[Any]], Sequence[Any]],
    *,
    score_threshold: float,
    classes: Sequence[str] | None = None,
    scale: float = 1.0,
    dtype: str = "float32",
    module: nn.Module | None = None,
    files: Iterable[str | Path] = (),
) -> MaiteDetector:
    """A ``maite.protocols.object_detection.Model`` as a detector.

    Args:
        model: called with a list of NumPy arrays (3, H, W), gives per image an object with ``boxes`` (K, 4) xyxy in
            pixels, ``labels`` (K,) and ``scores`` (K,) or (K, C); where there are C of them, the label's counts.
        score_threshold: the owner's operating point, in [0, 1].
        classes: names in the model's order; from ``model.metadata["index2label"]`` unless given.
        scale: the model sees ``image * scale``; MAITE leaves the range of values open: 1 for [0, 1], 255 for [0, 255].
        dtype: ``float32``, or ``uint8``, to which the scaled values are rounded and cut off at 255.
        module: the torch network in it, if any: put in evaluation mode, its weights frozen and watched.
        files: the weight files, for the report's digests.

    Returns:
        A ``Detector`` without candidates: it is attacked by queries.

    Raises:
        ModelError: an argument is not as said; when called, targets that are not.

    Example:
        >>> from types import SimpleNamespace
        >>> def model(images):
        ...     return [SimpleNamespace(boxes=[[1, 2, 5, 6]], labels=[0], scores=[[0.9, 0.1]]) for _ in images]
        >>> detector = maite_detector(model, score_threshold=0.5, classes=("cat", "dog"))
        >>> round(float(detector(torch.zeros(1, 3, 8, 8))[0].scores), 2)
        0.9
    """
    if not callable(model):
        refuse("maite_detector", "a model that can be called on a list of images", type(model).__name__, "hand it in")
    if dtype not in DTYPES:
        refuse("dtype", " or ".join(map(repr, DTYPES)), repr(dtype), "choose one of those")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or scale <= 0:
        refuse("scale", "a number above 0", repr(scale), "write 1.0 for images in [0, 1], 255 for [0, 255]")
    names = class_names(_index2label(model) if classes is None else classes)
    threshold = unit("score_threshold", score_threshold)
    module = frozen(module if module is not None else model if isinstance(model, nn.Module) else None)
    return MaiteDetector(model, names, threshold, module, readable(files), float(scale), dtype)


def follows_maite(model: Any, device: torch.device) -> bool:
    """Whether an object is a MAITE object detector: metadata with ``id`` and ``index2label``, and such targets."""
    metadata = getattr(model, "metadata", None)
    if not isinstance(metadata, Mapping) or not {"id", "index2label"} <= set(metadata) or not callable(model):
        return False
    out = model([_array(tiny_images((64, 96), device)[0], 1.0, "float32")])
    first = out[0] if isinstance(out, Sequence) and len(out) == 1 else None
    return all(hasattr(first, name) for name in ("boxes", "labels", "scores"))


def as_it_is(thing: Any, device: torch.device) -> Any:
    """What a model file returned: a plain MAITE object detector wrapped, everything else untouched."""
    if hasattr(thing, "classes") or not follows_maite(thing, device):
        return thing
    return maite_detector(thing, score_threshold=getattr(thing, "score_threshold", PLAIN_THRESHOLD))


class MaiteDetector(CallableDetector):
    """A MAITE object detector that meets the contract.

    Attributes: ``classes``, ``score_threshold``, ``module``, ``files``.
    """

    def __init__(
        self,
        model: Callable[[Sequence[Any]], Sequence[Any]],
        classes: tuple[str, ...],
        score_threshold: float,
        module: nn.Module | None,
        files: tuple[Path, ...],
        scale: float,
        dtype: str,
    ) -> None:
        def detect(images: Tensor) -> list[Detections]:
            found = model([_array(image, scale, dtype) for image in images])
            if not isinstance(found, Sequence) or len(found) != len(images):
                got = f"{len(found)}" if isinstance(found, Sequence) else type(found).__name__
                refuse("MAITE model", f"a sequence of targets, one for each of {len(images)} images", got, "mend it")
            return [_target(f, len(classes), images.device) for f in found]

        super().__init__(classes, score_threshold, module, files, Preprocess(), Suppression(score_floor=0.0), detect)

    def __call__(self, images: Tensor) -> list[Detections]:
        """Detections per image, boxes in pixels of ``images`` (N, 3, H, W), cut off at its edge."""
        height, width = images.shape[-2:]
        return [clipped(d, height, width) for d in super().__call__(images)]


def _array(image: Tensor, scale: float, dtype: str) -> np.ndarray[Any, Any]:
    """(3, H, W) as MAITE hands images over, a copy."""
    scaled = image.detach().float() * scale
    if dtype == "uint8":
        scaled = scaled.round().clamp(0, 255)
    return scaled.cpu().numpy().astype(dtype)


def _target(found: Any, classes: int, device: torch.device) -> Detections:
    absent = [name for name in ("boxes", "labels", "scores") if not hasattr(found, name)]
    if absent:
        refuse("MAITE model", "targets with boxes, labels and scores", f"no {absent[0]}", "return them per image")
    boxes, labels, scores = (_tensor(getattr(found, name)) for name in ("boxes", "labels", "scores"))
    if labels.numel() == 0:
        boxes, scores, labels = boxes.reshape(0, 4), scores.reshape(-1)[:0], labels.reshape(0)
    elif scores.ndim == 2:
        # the label's own score; a column that is not there is told by the check of the labels below
        fits = len(scores) == len(labels) and scores.shape[1] == classes
        if not fits:
            shape = tuple(scores.shape)
            refuse("MAITE model", f"scores (K,) or (K, {classes})", f"{shape}", "give one score per box and class")
        columns = labels.long().clamp(0, classes - 1)
        scores = scores.gather(1, columns[:, None])[:, 0]
    d = as_detections((boxes, scores, labels), classes)
    return Detections(d.boxes.to(device), d.scores.to(device), d.labels.to(device))


def _tensor(values: Any) -> Tensor:
    return values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _index2label(model: Any) -> Sequence[str]:
    metadata = getattr(model, "metadata", None)
    names = metadata.get("index2label") if isinstance(metadata, Mapping) else None
    if not isinstance(names, Mapping) or set(names) != set(range(len(names))):
        refuse(
            "classes",
            "names, or a model whose metadata has index2label from 0 on",
            "neither",
            "give the names in the order of the model's labels",
        )
    return [str(names[i]) for i in range(len(names))]
