"""Face recognizers: any torch network, and ONNX files white-box through onnx2torch or black-box through onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from audit.adapters.checks import frozen, images_like, readable, refuse
from audit.adapters.preprocess import Preprocess
from audit.alignment import CHIP, template_for
from audit.errors import DataError

Metric = Literal["cosine", "euclidean"]
Numbers = float | tuple[float, ...]
Embed = Callable[[Tensor], Tensor]


class FaceRecognizer:
    """A recognizer of faces, as ``audit.contracts.Recognizer`` has it.

    Attributes: ``face_size``, ``threshold``, ``metric``, ``template`` ((5, 2) px, or None for the usual one),
    ``module``, ``files``, ``preprocess``.
    """

    def __init__(
        self,
        embed: Embed,
        *,
        face_size: tuple[int, int],
        threshold: float,
        metric: Metric,
        template: Tensor | None,
        preprocess: Preprocess,
        module: nn.Module | None,
        files: tuple[Path, ...],
    ) -> None:
        self.face_size = face_size
        self.threshold = threshold
        self.metric = metric
        self.template = template
        self.preprocess = preprocess
        self.module = module
        self.files = files
        self._embed = embed

    def __call__(self, faces: Tensor) -> Tensor:
        """Embeddings (N, D) float32 of aligned faces (N, 3, *face_size) in [0, 1]."""
        faces = images_like(faces)
        if tuple(faces.shape[2:]) != self.face_size:
            self._wrong("faces", "x".join(map(str, self.face_size)) + " px", "x".join(map(str, faces.shape[2:])),
                        "align them to the recognizer's face_size")  # fmt: skip
        out = self._embed(self.preprocess(faces)[0])
        if not isinstance(out, Tensor):
            self._wrong("embeddings", "a tensor (N, D)", type(out).__name__,
                        "say with embed= how the network gives them, e.g. embed=lambda x: net(x)[0]")  # fmt: skip
        if out.ndim == 4 and out.shape[2:] == (1, 1):  # a network that ends in a convolution
            out = out.flatten(1)
        if out.ndim != 2 or len(out) != len(faces):
            self._wrong("embeddings", f"shape ({len(faces)}, D)", f"shape {tuple(out.shape)}",
                        "say with embed= how the network gives them")  # fmt: skip
        return out.float()

    def __repr__(self) -> str:
        said = "a cosine of at least" if self.metric == "cosine" else "a distance of at most"
        return f"recognizer of {self.face_size[0]}x{self.face_size[1]} faces, one person at {said} {self.threshold:g}"

    def _wrong(self, name: str, expected: str, got: str, mend: str) -> NoReturn:
        refuse(f"recognizer's {name}", expected, got, mend)


def recognizer(
    net: Embed,
    *,
    threshold: float,
    face_size: tuple[int, int] = (CHIP, CHIP),
    metric: Metric = "cosine",
    template: Sequence[Sequence[float]] | Tensor | None = None,
    scale: float = 1.0,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    channels: Literal["rgb", "bgr"] = "rgb",
    embed: Embed | None = None,
    files: Iterable[str | Path] = (),
) -> FaceRecognizer:
    """A recognizer from a torch network (N, 3, height, width) -> (N, D).

    Args:
        net: the network; put in evaluation mode, its weights frozen. Any callable will do.
        threshold: the owner's operating point: two faces are one person from this cosine on, or up to this distance.
        face_size: (height, width) px. metric: ``cosine`` of the embeddings, or their ``euclidean`` distance as they
            are.
        template: (5, 2) (x, y) px in a face: eyes, nose, corners of the mouth, left to right as the viewer sees them;
            by default the usual one, see ``audit.alignment.ARCFACE``.
        scale, mean, std, channels: the network sees ``(face * scale - mean) / std``, as ``Preprocess`` has them.
        embed: network input -> embeddings, where calling the network gives something else.
        files: the weight files, for the report's digests.

    Raises:
        ModelError: an argument is not as said; when called, faces or embeddings of the wrong shape.

    Example:
        >>> import torch
        >>> model = recognizer(torch.nn.Flatten(), threshold=0.4, face_size=(2, 2), scale=2, mean=1)
        >>> model(torch.ones(1, 3, 2, 2)).shape, model(torch.zeros(1, 3, 2, 2)).unique().tolist()
        (torch.Size([1, 12]), [-1.0])
    """
    for name, function in (("net", net), ("embed", embed)):
        if not callable(function) and not (name == "embed" and function is None):
            refuse(f"recognizer {name}", "a callable", type(function).__name__, "hand in a network or a function")
    owner = net if isinstance(net, nn.Module) else getattr(net, "__self__", None)
    before = Preprocess(scale=scale, mean=mean, std=std, channels=channels)
    common = _checked(face_size, threshold, metric, template)
    return FaceRecognizer(
        embed or net,
        **common,
        preprocess=before,
        module=frozen(owner) if isinstance(owner, nn.Module) else None,
        files=readable(files),
    )


def onnx_recognizer(
    path: str | Path,
    *,
    threshold: float,
    face_size: tuple[int, int] | None = None,
    metric: Metric = "cosine",
    template: Sequence[Sequence[float]] | Tensor | None = None,
    scale: float = 1.0,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    channels: Literal["rgb", "bgr"] = "rgb",
    output: str | None = None,
    white_box: bool = True,
    device: torch.device | str = "cpu",
    files: Iterable[str | Path] = (),
) -> FaceRecognizer:
    """A recognizer from an ONNX file with one float32 input (N, 3, height, width).

    Args:
        face_size: by default what the file declares, else 112 × 112.
        output: the name of the output with the embeddings, where the file has several.
        white_box: False serves the file through onnxruntime alone, which shows no gradients.
        device: where the torch copy lives, or the provider that onnxruntime is asked for.
        Others: as in ``recognizer``.

    Raises:
        ModelError: the extra is not installed; the file or an argument is not as said; an operator is unknown to
            onnx2torch; the torch copy does not compute what onnxruntime computes on seeded noise.
    """
    from audit.adapters.onnx_detectors import _agree, _Session, _torch_copy
    from audit.adapters.onnx_graph import batch_free, served

    graph = served(path, strip=False)
    if graph.size and face_size and tuple(face_size) != graph.size:
        refuse("face_size", f"{graph.size}, as the file declares", repr(face_size), "leave it out")
    before = Preprocess(scale=scale, mean=mean, std=std, channels=channels)
    common = _checked(face_size or graph.size or (CHIP, CHIP), threshold, metric, template)
    if (output is None and len(graph.names) > 1) or (output is not None and output not in graph.names):
        refuse(f"ONNX file {path}", "the name of the output with the embeddings", f"output={output!r}",
               f"choose one of {', '.join(graph.names)}")  # fmt: skip
    at = 0 if output is None else graph.names.index(output)
    place = torch.device(device)
    noise = torch.rand((2, 3, *common["face_size"]), generator=torch.Generator().manual_seed(0))
    probe = before(noise)[0]
    reference = _Session(graph.model, graph.batch, torch.device("cpu"))
    expected = reference.one_by_one(probe)
    sources = (*graph.files, *readable(files))
    if white_box:
        module = _torch_copy(Path(path), graph, probe, expected).to(place)
        frozen(module)
        return FaceRecognizer(lambda x: module(x)[at], **common, preprocess=before, module=module, files=sources)
    session = _Session(batch_free(graph.model, graph.batch), graph.batch, place)
    run = session if _agree(session, probe, expected) else reference.one_by_one
    return FaceRecognizer(lambda x: run(x)[at], **common, preprocess=before, module=None, files=sources)


def _checked(face_size: Any, threshold: Any, metric: Any, template: Any) -> dict[str, Any]:
    """The arguments that both kinds share, checked."""
    whole = isinstance(face_size, tuple | list) and len(face_size) == 2
    if not whole or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in face_size):
        refuse("face_size", "(height, width), two positive whole numbers", repr(face_size), "write (112, 112), say")
    if metric not in ("cosine", "euclidean"):
        refuse("metric", "'cosine' or 'euclidean'", repr(metric), "choose one of the two")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool) and math.isfinite(threshold)
    if not number or (not -1 <= threshold <= 1 if metric == "cosine" else threshold < 0):
        what = "a cosine in [-1, 1]" if metric == "cosine" else "a distance of at least 0"
        refuse("threshold", what, repr(threshold), "give the owner's operating point in the metric's own terms")
    try:
        own = None if template is None else template_for(face_size, template)
    except (DataError, TypeError, ValueError) as error:
        refuse("template", "(5, 2) finite (x, y) px: eyes, nose, corners of the mouth", str(error)[:80],
               "write five points")  # fmt: skip
    return {
        "face_size": (int(face_size[0]), int(face_size[1])),
        "threshold": float(threshold),
        "metric": metric,
        "template": own,
    }
