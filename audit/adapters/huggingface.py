"""Hugging Face's detection transformers: each query is a candidate, and there is no suppression to leave out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audit.adapters import logodds
from audit.adapters.checks import class_names, frozen, images_like, readable, refuse, unit
from audit.adapters.modes import ordinary
from audit.adapters.preprocess import Geometry, Preprocess
from audit.adapters.suppress import Suppression, clipped
from audit.contracts import Candidates, Detections

_BILINEAR = 2
_PIXELS = 255

Scores = Literal["softmax", "sigmoid"]


def huggingface_detector(
    model: Any,
    *,
    score_threshold: float,
    processor: Any = None,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | Mapping[str, int] | None = None,
    scores: Scores | None = None,
    score_floor: float = 0.01,
    files: Iterable[str | Path] = (),
) -> HuggingFaceDetector:
    """A detection transformer of ``transformers`` as a white-box detector: DETR, Conditional, Deformable and RT-DETR,
    YOLOS and others that give ``logits`` and ``pred_boxes``.

    Args:
        model: a ``...ForObjectDetection``, put in evaluation mode, its weights frozen.
        score_threshold: the owner's operating point, in [0, 1].
        processor: the model's image processor; its size, mean and standard deviation are taken over and computed
            differentiably. None: that of the model's family with its default settings.
        classes: names in the model's order, without "no object"; the configuration's ``id2label`` unless given.
        size: (height, width) to stretch to, or a mapping such as ``{"shortest_edge": 480, "longest_edge": 640}``,
            instead of the processor's.
        scores: ``softmax`` over classes and a last column "no object", or ``sigmoid``; None tells them apart by the
            number of columns.
        score_floor: detections under this score are dropped.
        files: the weight files, for the report's digests.

    Returns:
        A ``WhiteBoxDetector``: one candidate per query; its logit is the model's own (sigmoid) or the log-odds of its
        class's softmax against all others. Detections are the queries themselves: under softmax each with its best
        class, under sigmoid the best pairs of query and class, as many as the processor's own post-processing keeps
        (100 for Deformable DETR, else as many as queries).

    Raises:
        ModelError: ``transformers`` is not installed, the model gives something else, or an argument does not fit.
    """
    config = getattr(model, "config", None)
    labels = getattr(config, "id2label", None)
    if not isinstance(model, nn.Module) or not isinstance(labels, Mapping) or hasattr(model, "classes"):
        refuse(
            "huggingface_detector",
            "a model of transformers for object detection",
            type(model).__name__,
            "load one with AutoModelForObjectDetection",
        )
    names = class_names([str(labels[i]) for i in sorted(labels)] if classes is None else classes)
    threshold, floor = unit("score_threshold", score_threshold), unit("score_floor", score_floor)
    if floor > threshold:
        refuse("score_floor", f"at most the score threshold {threshold}", f"{floor}", "lower it")
    if scores not in (None, "softmax", "sigmoid"):
        refuse("scores", "'softmax' or 'sigmoid'", repr(scores), "choose one of those")
    before = _Sizes(processor if processor is not None else _processor(config), size)
    frozen(model)
    columns, queries = _probed(model, before)
    kind = scores or ("softmax" if columns == len(labels) + 1 else "sigmoid")
    expected = columns - 1 if kind == "softmax" else columns
    if len(names) != expected:
        refuse("classes", f"{expected} names, without 'no object'", f"{len(names)}", "give them in the model's order")
    after = Suppression(floor, 1.0, top_k=before.most or queries, one_label=kind == "softmax")
    return HuggingFaceDetector(model, names, threshold, readable(files), before, after, kind)


class HuggingFaceDetector:
    """A detection transformer that meets the contract.

    Attributes: ``classes``, ``score_threshold``, ``module``, ``files``.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        score_threshold: float,
        files: tuple[Path, ...],
        before: _Sizes,
        after: Suppression,
        scores: str,
    ) -> None:
        self.module = net
        self.classes = classes
        self.score_threshold = score_threshold
        self.files = files
        self._before = before
        self._after = after
        self._scores = scores

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Detections]:
        """Detections per image, boxes in pixels of ``images`` (N, 3, H, W), cut off at its edge."""
        found = self.candidates(images)
        height, width = images.shape[-2:]
        return [clipped(d, height, width) for d in self._after(found.boxes, found.logits)]

    def candidates(self, images: Tensor) -> Candidates:
        """One per query, boxes in pixels of ``images`` (N, 3, H, W), not cut off; differentiable."""
        with ordinary():
            out = _asked(self.module, self._before(images_like(images)))
            logits, boxes = out.logits.float(), out.pred_boxes.float()
            if self._scores == "softmax":
                logits = logodds.from_softmax(logits)[..., :-1]
        height, width = images.shape[-2:]
        centre, sides = boxes.chunk(2, -1)
        corners = torch.cat((centre - sides / 2, centre + sides / 2), -1)
        # relative to the whole image, whatever it was stretched to
        return Candidates(Geometry(1 / width, 1 / height).back(corners), logits)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
        return f"white-box {type(self.module).__name__} of {names} at {self.score_threshold:g}"


class _Sizes:
    """What an image processor does to images of one size: found by asking it, then computed differentiably."""

    def __init__(self, processor: Any, size: tuple[int, int] | Mapping[str, int] | None) -> None:
        if not callable(processor) or not hasattr(processor, "image_mean"):
            refuse("processor", "an image processor", type(processor).__name__, "load one with AutoImageProcessor")
        resample = getattr(processor, "resample", _BILINEAR)
        if getattr(processor, "do_resize", True) and resample is not None and int(resample) != _BILINEAR:
            refuse("processor", "bilinear resizing", f"resample {resample}", "use callable_detector with your own code")
        self._processor = processor
        after = inspect.signature(getattr(processor, "post_process_object_detection", processor)).parameters
        own = after["top_k"].default if "top_k" in after else None
        self.most = own if isinstance(own, int) else None
        if size is not None and not isinstance(size, Mapping):
            whole = (
                isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)
            )
            if not whole:
                refuse("size", "(height, width), or a mapping as the processor's", repr(size), "write (480, 640), say")
            size = {"height": size[0], "width": size[1]}
        self._size = size
        self.made = lru_cache(maxsize=64)(self._made)
        """The preprocessing of images of (height, width)."""

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return self.made(height, width)(images)[0]

    def _made(self, height: int, width: int) -> Preprocess:
        p = self._processor
        chosen = {} if self._size is None else {"size": dict(self._size)}
        blank = torch.zeros((3, height, width), dtype=torch.uint8)
        try:
            seen = p(images=blank, return_tensors="pt", **chosen)
        except (ValueError, TypeError, KeyError) as error:
            refuse("size", "a size that the processor takes", str(error).splitlines()[0], "write (480, 640), say")
        mask = seen.get("pixel_mask")
        if mask is not None and not bool(mask.all()):
            refuse("processor", "no padding of a single image", "padding", "set its do_pad to False, or give `size`")
        normal = bool(getattr(p, "do_normalize", True))
        rescale = float(p.rescale_factor) if getattr(p, "do_rescale", True) else 1.0
        return Preprocess(
            (int(seen["pixel_values"].shape[-2]), int(seen["pixel_values"].shape[-1])),
            "stretch",
            scale=_PIXELS * rescale,
            mean=tuple(p.image_mean) if normal else 0.0,
            std=tuple(p.image_std) if normal else 1.0,
            antialias=True,
        )


def _asked(net: Any, inputs: Tensor) -> Any:
    """The model's output. Images of a batch are of one size, so that nothing is padded and the mask is all ones."""
    if "pixel_mask" in inspect.signature(net.forward).parameters:
        n, _, height, width = inputs.shape
        mask = torch.ones((n, height, width), dtype=torch.int64, device=inputs.device)
        return net(pixel_values=inputs, pixel_mask=mask, return_dict=True)
    return net(pixel_values=inputs, return_dict=True)


def _probed(net: Any, before: _Sizes) -> tuple[int, int]:
    """(columns of the logits, queries) on a grey image."""
    place = next((p.device for p in net.parameters()), torch.device("cpu"))
    with ordinary(), torch.no_grad():
        out = _asked(net, before(torch.full((1, 3, 96, 128), 0.5, device=place)))
    logits, boxes = getattr(out, "logits", None), getattr(out, "pred_boxes", None)
    fits = isinstance(logits, Tensor) and isinstance(boxes, Tensor) and logits.ndim == 3 == boxes.ndim
    if not fits or boxes.shape[:2] != logits.shape[:2] or boxes.shape[2] != 4:  # type: ignore[union-attr]
        refuse(
            "huggingface_detector",
            "a model that gives logits (N, A, C) and pred_boxes (N, A, 4)",
            f"{type(net).__name__} with {type(out).__name__}",
            "load one with AutoModelForObjectDetection, or use callable_detector",
        )
    return logits.shape[2], logits.shape[1]  # type: ignore[union-attr]


def _processor(config: Any) -> Any:
    """The image processor of the model's family, with its default settings."""
    try:
        mapping = import_module("transformers.models.auto.image_processing_auto").IMAGE_PROCESSOR_MAPPING
    except ImportError as error:
        refuse("huggingface_detector", "the package transformers", str(error), 'pip install "assay-audit[huggingface]"')
    try:
        found = mapping[type(config)]
    except KeyError:
        found = None
    if isinstance(found, Mapping):
        found = found.get("torchvision") or found.get("pil")
    elif isinstance(found, tuple):
        found = next((f for f in reversed(found) if f is not None), None)
    if found is None:
        refuse("processor", f"the image processor of {type(config).__name__}", "None", "hand in the model's own")
    return found()
