"""Ultralytics' YOLO detectors: candidates with the head's own class logits, before suppression.

The package is AGPL-3.0 and is the user's to install; nothing here needs it until a model of it is handed in.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from audit.adapters.callables import as_candidates
from audit.adapters.checks import class_names, frozen, images_like, readable, refuse, unit
from audit.adapters.modes import ordinary
from audit.adapters.preprocess import Geometry, Preprocess
from audit.adapters.suppress import Suppression, clipped
from audit.contracts import Candidates, Detections

_HEADS = ("Detect", "v10Detect")
_OWN_SIZE = 640
_STRIDE = 32  # the least that `predict` pads to
_GREY = 114 / 255


def ultralytics_detector(
    model_or_path: Any,
    *,
    score_threshold: float = 0.25,
    imgsz: int | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    end_to_end: bool | None = None,
    score_floor: float = 0.01,
    nms_iou: float = 0.7,
    files: Iterable[str | Path] = (),
) -> UltralyticsDetector:
    """A YOLO of the ``ultralytics`` package as a white-box detector: v5u, v8, v9, 11, 12, and the end-to-end v10, 26.

    Args:
        model_or_path: an ``ultralytics.YOLO``, its ``DetectionModel``, or the path of a ``.pt`` file. Nothing is ever
            downloaded. The network is put in evaluation mode, its weights frozen.
        score_threshold: the owner's operating point, in [0, 1]; the package's own is 0.25.
        imgsz: side of the input in pixels, or (height, width); the model's own, else 640. Images are scaled to fit,
            with grey 114 up to the next multiple of the largest stride, as ``predict`` does.
        classes: names in the model's order; the model's own unless given.
        device: where the network lives.
        end_to_end: of a model with both heads, True for the one without suppression, False for the other; None leaves
            it as it is, which depends on the package's version (in late ones, ``predict(nms=False)`` is True).
        score_floor, nms_iou: of detections, as in ``Suppression``; each candidate reports its best class only, as
            ``predict`` does. An end-to-end head has no suppression: its best 300 pairs of
            candidate and class are taken as they are.
        files: more weight files, for the report's digests; a path handed in is among them.

    Returns:
        A ``WhiteBoxDetector``. A candidate's logit is what goes into the head's sigmoid.

    Raises:
        ModelError: the package is not installed, the file is not there, the model has no such head, or an argument
            does not fit it.
    """
    sources = readable(files)
    if isinstance(model_or_path, str | Path):
        sources = (*readable([model_or_path]), *sources)
        model_or_path = _loaded(Path(model_or_path))
    _give_back_pillow()
    net, head = _parts(model_or_path)
    own = getattr(net, "names", None)
    names = class_names(_listed(own) if classes is None else classes)
    columns = int(head.nc)
    if len(names) != columns:
        refuse("classes", f"{columns} names, one per output", f"{len(names)}", "give them in the model's order")
    after = Suppression(unit("score_floor", score_floor), unit("nms_iou", nms_iou), top_k=30_000, one_label=True)
    threshold = unit("score_threshold", score_threshold)
    if score_floor > threshold:
        refuse("score_floor", f"at most the score threshold {threshold}", f"{score_floor}", "lower it")
    size = _size(imgsz if imgsz is not None else _trained_size(net), _stride(head))
    _choose(head, end_to_end)
    frozen(net.to(device))
    if any(p.is_inference() for p in net.parameters()):
        refuse(
            "ultralytics_detector",
            "weights that gradients can pass",
            "weights made in inference mode",
            "load the model anew, before its `predict` is called",
        )
    return UltralyticsDetector(net, names, threshold, sources, size, after)


class UltralyticsDetector:
    """An ultralytics YOLO that meets the contract.

    Attributes: ``classes``, ``score_threshold``, ``module``, ``files``.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        score_threshold: float,
        files: tuple[Path, ...],
        size: tuple[int, int],
        suppression: Suppression,
    ) -> None:
        self.module = net
        self.classes = classes
        self.score_threshold = score_threshold
        self.files = files
        self._size = size
        self._suppression = suppression
        self._head: Any = net.model[-1]  # type: ignore[index]
        self._stride = _stride(self._head)
        self._head.shape = None  # the head then makes its grid anew, and not from a `predict` in inference mode

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Detections]:
        """Detections per image, boxes in pixels of ``images`` (N, 3, H, W), cut off at its edge."""
        found = self.candidates(images)
        height, width = images.shape[-2:]
        kept = _best(found, self._head.max_det, self._suppression) if self._end_to_end else None
        kept = kept if kept is not None else self._suppression(found.boxes, found.logits)
        return [clipped(d, height, width) for d in kept]

    def candidates(self, images: Tensor) -> Candidates:
        """Every cell of every grid, boxes in pixels of ``images`` (N, 3, H, W), not cut off; differentiable."""
        with ordinary(), _whole(self._head), _heard(self._class_heads) as scores:
            inputs, geometry = self.letterbox(images_like(images))
            out = self.module(inputs)
        decoded = out[0] if isinstance(out, tuple | list) else out
        boxes = decoded[:, :, :4] if self._end_to_end else decoded[:, :4].transpose(1, 2)
        logits = torch.cat([s.flatten(2) for s in scores], 2).transpose(1, 2)
        if not self._end_to_end:
            centre, sides = boxes.chunk(2, -1)
            boxes = torch.cat((centre - sides / 2, centre + sides / 2), -1)
        boxes, logits = as_candidates(boxes, logits, len(images), len(self.classes))
        return Candidates(geometry.back(boxes), logits)

    def letterbox(self, images: Tensor) -> tuple[Tensor, Geometry]:
        """The network's input (N, 3, h, w): scaled to fit the size, in the middle of the least that strides allow."""
        height, width = images.shape[-2:]
        ratio = min(self._size[0] / height, self._size[1] / width)
        inner = max(1, round(height * ratio)), max(1, round(width * ratio))
        spare_h, spare_w = ((full - part) % self._stride for full, part in zip(self._size, inner, strict=True))
        scaled, geometry = Preprocess(inner, "stretch")(images)
        left, top = spare_w // 2, spare_h // 2
        padded = F.pad(scaled, (left, spare_w - left, top, spare_h - top), value=_GREY)
        return padded, Geometry(geometry.scale_x, geometry.scale_y, float(left), float(top))

    @property
    def _end_to_end(self) -> bool:
        return bool(getattr(self._head, "end2end", False))

    @property
    def _class_heads(self) -> Sequence[nn.Module]:
        heads = self._head.one2one_cv3 if self._end_to_end else self._head.cv3
        return list(heads)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
        return f"white-box ultralytics detector of {names} at {self.score_threshold:g}"


def _best(found: Candidates, most: int, rule: Suppression) -> list[Detections]:
    """An end-to-end head's own choice: the best pairs of candidate and class, none removed as a double."""
    out = []
    for boxes, logits in zip(found.boxes, found.logits, strict=True):
        scores, index = logits.sigmoid().flatten().topk(min(most, len(logits)))
        some = scores > rule.score_floor
        row, label = index[some] // logits.shape[1], index[some] % logits.shape[1]
        out.append(Detections(boxes[row], scores[some], label))
    return out


@contextlib.contextmanager
def _heard(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of layers while the net runs, in order."""
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, o: found.append(o)) for layer in layers]  # noqa: ARG005
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _whole(head: Any) -> Iterator[None]:
    """An end-to-end head hands on every candidate while this holds, not its best few."""
    head.postprocess = lambda decoded, *_: decoded
    try:
        yield
    finally:
        del head.postprocess


def _give_back_pillow() -> None:
    """Undo what importing the package does to ``PIL.Image.open``: with it, a broken picture would install software."""
    patches = sys.modules.get("ultralytics.utils.patches")
    original = getattr(patches, "_image_open", None)
    if original is not None:
        Image.open = original


def _loaded(path: Path) -> Any:
    if path.suffix != ".pt":
        refuse(f"weight file {path}", "a .pt file of ultralytics", path.suffix or "no ending", "use onnx_detector, say")
    try:
        maker = import_module("ultralytics").YOLO
    except ImportError as error:
        refuse(
            "ultralytics_detector",
            "the package ultralytics (AGPL-3.0)",
            str(error),
            "read its licence and install it: pip install ultralytics",
        )
    try:
        return maker(str(path))
    except Exception as error:  # noqa: BLE001 - pickle and the package raise what they like
        reason = str(error).strip().splitlines() or [type(error).__name__]
        refuse(f"weight file {path}", "a model that ultralytics can load", reason[0], "save it with that version anew")


def _parts(model: Any) -> tuple[nn.Module, Any]:
    """The network and its head."""
    net = model if isinstance(model, nn.Module) and type(model).__name__ != "YOLO" else getattr(model, "model", None)
    layers = getattr(net, "model", None)
    head = layers[-1] if isinstance(layers, nn.Sequential) else None
    if not isinstance(net, nn.Module) or type(head).__name__ not in _HEADS:
        refuse(
            "ultralytics_detector",
            "a YOLO, a DetectionModel or a .pt file with the head " + " or ".join(_HEADS),
            type(model if head is None else head).__name__,
            "use a model of the task 'detect', or callable_detector with candidates of your own",
        )
    return net, head


def _listed(names: Any) -> Sequence[str]:
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        return [str(names[i]) for i in range(len(names))]
    if isinstance(names, list | tuple):
        return names
    return refuse("classes", "the model's own `names`, or yours", "neither", "give them in the model's order")


def _stride(head: Any) -> int:
    return max(_STRIDE, *(int(s) for s in head.stride))


def _choose(head: Any, end_to_end: bool | None) -> None:
    if end_to_end and getattr(head, "one2one_cv3", None) is None:
        refuse("end_to_end", "a model with an end-to-end head", type(head).__name__, "leave it out")
    if end_to_end is False and head.cv3 is None:
        refuse("end_to_end", "a model that still has its other head", "one that was fused", "load it anew")
    if end_to_end is not None:
        head.end2end = end_to_end


def _trained_size(net: Any) -> int | Sequence[int]:
    args = getattr(net, "args", None) or {}
    size = args.get("imgsz") if isinstance(args, dict) else getattr(args, "imgsz", None)
    return size if size is not None else _OWN_SIZE


def _size(imgsz: int | Sequence[int], stride: int) -> tuple[int, int]:
    size = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz) if isinstance(imgsz, Sequence) else ()
    if len(size) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 or s % stride for s in size):
        near = math.ceil(imgsz / stride) * stride if isinstance(imgsz, int) and imgsz > 0 else _OWN_SIZE
        refuse("imgsz", f"a multiple of {stride}, or two as (height, width)", repr(imgsz), f"write {near}, say")
    return size[0], size[1]
