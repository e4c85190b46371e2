"""Any torch callable as a detector: the common ground of all adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from audit.adapters.checks import class_names, frozen, images_like, readable, refuse, unit
from audit.adapters.preprocess import Preprocess, Resize
from audit.adapters.suppress import Suppression, clipped
from audit.contracts import Candidates, Detections

Found = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
CandidateFunction = Callable[[Tensor], "Candidates | Found"]


class Options(TypedDict, total=False):
    """Keywords that adapters share: the fields of ``Preprocess`` and of ``Suppression``, explained there."""

    input_size: tuple[int, int] | None
    resize: Resize | None
    channels: Literal["rgb", "bgr"]
    scale: float
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    fill: float
    antialias: bool
    score_floor: float
    nms_iou: float
    top_k: int
    one_label: bool


def split_options(options: Options, **defaults: Any) -> tuple[Preprocess, Suppression]:
    """The two groups of keywords, each validated; a keyword that is in neither is refused."""
    given: dict[str, Any] = {**defaults, **options}
    before = {f.name for f in fields(Preprocess)}
    after = {f.name for f in fields(Suppression)}
    for name in given:
        if name not in before | after:
            refuse("adapter", "an option among " + ", ".join(sorted(before | after)), name, "check the spelling")
    return (
        Preprocess(**{k: v for k, v in given.items() if k in before}),
        Suppression(**{k: v for k, v in given.items() if k in after}),
    )


def callable_detector(
    fn: Callable[[Tensor], Sequence[Any]] | None,
    classes: Sequence[str],
    score_threshold: float,
    *,
    candidates: CandidateFunction | None = None,
    module: nn.Module | None = None,
    files: Iterable[str | Path] = (),
    **options: Unpack[Options],
) -> CallableDetector:
    """A detector from plain torch functions.

    Args:
        fn: network input (N, 3, h, w) -> per image ``Detections``, a dict with ``boxes``, ``scores``, ``labels``, or
            a tuple of those three. None: detections are derived from ``candidates`` by NMS.
        classes: names in the model's order. score_threshold: the owner's operating point, in [0, 1].
        candidates: network input -> (boxes (N, A, 4) xyxy in pixels of the network's input, logits (N, A, C)),
            differentiable, before NMS; optionally a third, (N, A, C) bool: candidates that the model's own rule lets
            through to NMS. A logit is the log-odds of the score. Without it the detector is a black box.
        module: the network; put in evaluation mode, its weights frozen. Found by itself where ``fn`` or
            ``candidates`` is a module or a method of one.
        files: the weight files, for the report's digests.
        **options: the fields of ``Preprocess`` and ``Suppression``.

    Returns:
        A ``Detector``; a ``WhiteBoxDetector`` where ``candidates`` is given.

    Raises:
        ModelError: an argument is not as said; when called, outputs of the wrong shape.

    Example:
        >>> import torch
        >>> def candidates(x):
        ...     boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]).expand(len(x), 1, 4)
        ...     return boxes, (20 * x.mean((1, 2, 3)) - 10)[:, None, None]
        >>> detector = callable_detector(None, ["bright"], 0.5, candidates=candidates)
        >>> [len(d.boxes) for d in detector(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))]
        [0, 1]
    """
    if fn is None and candidates is None:
        refuse("callable_detector", "fn or candidates, or both", "neither", "hand in at least one function")
    for name, function in (("fn", fn), ("candidates", candidates)):
        if function is not None and not callable(function):
            refuse(f"callable_detector {name}", "a callable", type(function).__name__, "hand in a function or module")
    before, after = split_options(options)
    module = module if module is not None else _module_of(fn) or _module_of(candidates)
    common = (class_names(classes), unit("score_threshold", score_threshold), frozen(module), readable(files))
    if candidates is None:
        return CallableDetector(*common, before, after, fn)
    return WhiteBoxCallable(*common, before, after, fn, candidates)


class CallableDetector:
    """A black-box detector. Attributes: ``classes``, ``score_threshold``, ``module``, ``files``."""

    def __init__(
        self,
        classes: tuple[str, ...],
        score_threshold: float,
        module: nn.Module | None,
        files: tuple[Path, ...],
        preprocess: Preprocess,
        suppression: Suppression,
        fn: Callable[[Tensor], Sequence[Any]] | None,
    ) -> None:
        self.classes = classes
        self.score_threshold = score_threshold
        self.module = module
        self.files = files
        self.preprocess = preprocess
        self.suppression = suppression
        self._fn = fn
        if suppression.score_floor > score_threshold:
            refuse(
                "score_floor",
                f"at most the score threshold {score_threshold}",
                f"{suppression.score_floor}",
                "lower it, or the owner's own detections are lost",
            )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Detections]:
        """Detections per image, boxes in pixels of ``images`` (N, 3, H, W)."""
        assert self._fn is not None
        inputs, geometry = self.preprocess(images_like(images))
        found = [as_detections(f, len(self.classes)) for f in self._fn(inputs)]
        if len(found) != len(images):
            refuse("detector", f"detections for {len(images)} images", f"{len(found)}", "return one entry per image")
        return [Detections(geometry.back(d.boxes), d.scores, d.labels) for d in found]

    def __repr__(self) -> str:
        kind = "white-box" if hasattr(self, "candidates") else "black-box"
        names = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
        return f"{kind} detector of {names} at {self.score_threshold:g}"


class WhiteBoxCallable(CallableDetector):
    """A detector that shows its candidates."""

    def __init__(
        self,
        classes: tuple[str, ...],
        score_threshold: float,
        module: nn.Module | None,
        files: tuple[Path, ...],
        preprocess: Preprocess,
        suppression: Suppression,
        fn: Callable[[Tensor], Sequence[Any]] | None,
        candidates: CandidateFunction,
    ) -> None:
        super().__init__(classes, score_threshold, module, files, preprocess, suppression, fn)
        self._candidates = candidates

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Detections]:
        """Detections per image: the owner's function's, or the candidates' after NMS, cut off at the image's edge."""
        if self._fn is not None:
            return super().__call__(images)
        found, keep = self._shown(images)
        height, width = images.shape[-2:]
        return [clipped(d, height, width) for d in self.suppression(found.boxes, found.logits, keep)]

    def candidates(self, images: Tensor) -> Candidates:
        """Candidates before NMS, boxes in pixels of ``images`` (N, 3, H, W), not cut off; differentiable."""
        return self._shown(images)[0]

    def _shown(self, images: Tensor) -> tuple[Candidates, Tensor | None]:
        inputs, geometry = self.preprocess(images_like(images))
        shown = self._candidates(inputs)
        boxes, logits, keep = unpack(shown)
        boxes, logits = as_candidates(boxes, logits, len(images), len(self.classes))
        return Candidates(geometry.back(boxes), logits), keep


def unpack(shown: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """(boxes, logits, keep or None) from what a candidate function or a decoder returned."""
    if isinstance(shown, Candidates):
        return shown.boxes, shown.logits, None
    if isinstance(shown, tuple | list) and len(shown) in (2, 3) and all(isinstance(s, Tensor) for s in shown):
        return shown[0], shown[1], shown[2] if len(shown) == 3 else None
    return refuse("candidates", "(boxes, logits), two tensors", _shape(shown), "return both from the function")


def as_candidates(boxes: Tensor, logits: Tensor, images: int, classes: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, A, 4) and logits (N, A, C) as float32, shapes checked."""
    if logits.ndim == 2 and classes == 1:
        logits = logits[..., None]
    if boxes.ndim != 3 or boxes.shape[0] != images or boxes.shape[2] != 4:
        refuse("candidate boxes", f"shape ({images}, A, 4)", _shape(boxes), "return xyxy boxes per image and candidate")
    if logits.ndim != 3 or logits.shape[:2] != boxes.shape[:2] or logits.shape[2] != classes:
        refuse(
            "candidate logits",
            f"shape {(*boxes.shape[:2], classes)}, one per box and class",
            _shape(logits),
            "check the decoder's settings and that classes are the model's own, without background",
        )
    return boxes.float(), logits.float()


def as_detections(found: Any, classes: int) -> Detections:
    """Detections from what the owner's function returned for one image."""
    if isinstance(found, dict):
        missing = {"boxes", "scores", "labels"} - set(found)
        if missing:
            refuse("detections", "the keys boxes, scores and labels", f"no {min(missing)}", "add it to the dict")
        parts = (found["boxes"], found["scores"], found["labels"])
    elif isinstance(found, tuple | list) and len(found) == 3:
        parts = (found[0], found[1], found[2])
    elif all(hasattr(found, name) for name in ("boxes", "scores", "labels")):
        parts = (found.boxes, found.scores, found.labels)
    else:
        refuse("detections", "Detections, a dict or (boxes, scores, labels)", _shape(found), "return one of those")
    boxes, scores, labels = (torch.as_tensor(p) for p in parts)
    boxes = boxes.reshape(0, 4) if boxes.numel() == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1] or labels.shape != boxes.shape[:1]:
        refuse(
            "detections",
            "boxes (K, 4), scores (K,) and labels (K,)",
            f"{_shape(boxes)}, {_shape(scores)} and {_shape(labels)}",
            "return as many scores and labels as boxes",
        )
    labels = labels.to(torch.int64)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        refuse(
            "detection labels",
            f"indices into the {classes} classes",
            f"{int(labels.min())} to {int(labels.max())}",
            "number the classes from 0, without background",
        )
    return Detections(boxes.float(), scores.float(), labels)


def _module_of(function: Any) -> nn.Module | None:
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _shape(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
