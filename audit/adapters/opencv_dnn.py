"""Detectors from ONNX files as OpenCV's ``cv2.dnn`` computes them: black boxes, for what is deployed on OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import cv2
import numpy as np
import torch
from torch import Tensor

from audit.adapters.callables import CallableDetector, Options, as_candidates, split_options, unpack
from audit.adapters.checks import class_names, readable, refuse, unit
from audit.adapters.onnx_detectors import TOLERANCE, Decoder, _check_activation, _probe, _Runtime
from audit.adapters.onnx_graph import Served, batch_free, package, served
from audit.adapters.outputs import Outputs
from audit.contracts import Detections
from audit.errors import ModelError

_SIZES = 8
"""Networks that are kept, one per input size; ``cv2.dnn`` plans its memory for one size."""


def opencv_detector(
    model_path: str | Path,
    classes: Sequence[str],
    score_threshold: float,
    *,
    decoder: Decoder,
    files: Iterable[str | Path] = (),
    **options: Unpack[Options],
) -> CallableDetector:
    """A black-box detector from an ONNX file with one float32 input (N, 3, H, W), computed by ``cv2.dnn`` on the CPU.

    Images pass one by one, so that a result does not depend on its batch. OpenCV gets as many threads as torch has
    (``cv2.setNumThreads``, which holds for the whole process). The extra ``onnx`` is needed to prepare the graph.

    Args:
        model_path: the file. Its input's sizes are set to those of the images, a batch fixed by the exporter is freed.
        classes: names in the model's order, without background. score_threshold: the owner's operating point.
        decoder: ``AnchorGrid``, ``Yolo``, ``CenterHeatmap`` or any callable ``Outputs -> (boxes, logits)``, as for
            ``onnx_detector``: final Sigmoid and Softmax nodes are taken off the outputs first, unless it has an
            attribute ``scores`` that is ``"probability"``.
        files: more weight files than the ONNX file and its external data.
        **options: the fields of ``Preprocess`` and ``Suppression``. Where the file fixes its input's size,
            ``input_size`` is that size unless given, and ``resize`` has to be.

    Returns:
        A ``Detector`` without ``candidates``.

    Raises:
        ModelError: the extra is not installed; the file or an argument is not as said; OpenCV cannot run the graph;
            the decoder does not fit the outputs.
    """
    names = class_names(classes)
    threshold = unit("score_threshold", score_threshold)
    if not callable(decoder):
        refuse("decoder", "a callable that takes Outputs", type(decoder).__name__, "hand in a decoder or a function")
    package("onnx")
    graph = served(model_path, strip=getattr(decoder, "scores", None) != "probability")
    chosen = dict(options)
    if graph.size is not None and "input_size" not in chosen and chosen.get("resize") != "multiple-of-32":
        chosen["input_size"] = graph.size
    before, after = split_options(chosen)  # type: ignore[arg-type]
    probe = _probe(before, graph)
    run = _nets(Path(model_path), graph, probe)

    def decode(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        outputs = Outputs(run(inputs), graph.names, (inputs.shape[-2], inputs.shape[-1]))
        boxes, logits, keep = unpack(decoder(outputs))
        boxes, logits = as_candidates(boxes, logits, len(inputs), len(names))
        return boxes, logits, keep

    def detect(inputs: Tensor) -> list[Detections]:
        return after(*decode(inputs))

    _check_activation(decoder, graph, decode(probe)[1])
    return _Runtime(names, threshold, None, (*graph.files, *readable(files)), before, after, detect)


class Nets:
    """One graph as ``cv2.dnn`` networks, one per size of its input.

    Args:
        path: the file, for messages. model: a ModelProto with free sizes. batch: how many images a network takes.
    """

    def __init__(self, path: Path, model: Any, batch: int) -> None:
        self._path = path
        self._model = _ranked(model)
        self._batch = batch
        self._nets: dict[tuple[int, int], Any] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs for images (N, 3, H, W), float32, each image on its own."""
        same_threads()
        net = self._net(images.shape[-2], images.shape[-1])
        names = [o.name for o in self._model.graph.output]
        each = []
        for x in images.detach().float().cpu():
            try:
                net.setInput(x[None].expand(self._batch, -1, -1, -1).contiguous().numpy())
                found = net.forward(names)
            except cv2.error as error:
                refuse(
                    f"ONNX file {self._path}",
                    f"a graph that OpenCV {cv2.__version__} runs on input of shape {tuple(x[None].shape)}",
                    said(error),
                    "give the input_size that it was exported for, or use onnx_detector",
                )
            # a copy: the network's memory is used again for the next image
            each.append([torch.from_numpy(np.array(o, np.float32)) for o in found])
        parts = zip(*each, strict=True)
        return tuple(torch.cat([t[: max(1, len(t) // self._batch)] for t in p]).to(images.device) for p in parts)

    def _net(self, height: int, width: int) -> Any:
        if (height, width) not in self._nets:
            if len(self._nets) >= _SIZES:
                self._nets.pop(next(iter(self._nets)))
            copy = type(self._model)()
            copy.CopyFrom(self._model)
            dims = copy.graph.input[0].type.tensor_type.shape.dim
            for dim, size in zip(dims, (self._batch, 3, height, width), strict=True):
                dim.dim_value = size
            try:
                with quiet():
                    net = cv2.dnn.readNetFromONNX(np.frombuffer(copy.SerializeToString(), np.uint8))
            except cv2.error as error:
                refuse(
                    f"ONNX file {self._path}",
                    f"a graph that OpenCV {cv2.__version__} can read",
                    said(error),
                    "export it at another opset, or use onnx_detector",
                )
            self._nets[height, width] = net
        return self._nets[height, width]


def same_threads() -> None:
    """Give OpenCV as many threads as torch has, since sums depend on their number in the last bit."""
    if cv2.getNumThreads() != torch.get_num_threads():
        cv2.setNumThreads(torch.get_num_threads())


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV's log is silent inside: what goes wrong comes as an exception."""
    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has it on the module itself
    before = log.getLogLevel()
    log.setLogLevel(0)
    try:
        yield
    finally:
        log.setLogLevel(before)


def said(error: cv2.error) -> str:
    """OpenCV's own words, without the place in its sources."""
    text = str(getattr(error, "err", "") or error).strip() or type(error).__name__
    return " ".join(text.split())[:200]


def _nets(path: Path, graph: Served, probe: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Image by image where the graph allows; else in batches of copies, as the exporter fixed it."""
    copies = graph.batch or 1
    fixed = Nets(path, graph.model, copies)
    expected = fixed(probe)
    if copies == 1:
        return fixed
    single = Nets(path, batch_free(graph.model, copies), 1)
    return single if _agrees(single, probe, expected) else fixed


def _agrees(run: Nets, probe: Tensor, expected: tuple[Tensor, ...]) -> bool:
    try:
        found = run(probe)
    except ModelError:  # a shape that only the exporter's own batch fits
        return False
    return all(
        f.shape == e.shape and float((f - e).abs().amax()) <= TOLERANCE * float(e.abs().amax().clamp(min=1))
        for f, e in zip(found, expected, strict=True)
    )


def _ranked(model: Any) -> Any:
    """A copy whose outputs say how many dimensions they have; OpenCV 5 reads no file in which they do not."""
    onnx = package("onnx")
    copy = type(model)()
    copy.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(copy)
    for output, known in zip(copy.graph.output, inferred.graph.output, strict=True):
        rank = len(known.type.tensor_type.shape.dim)
        output.type.tensor_type.shape.Clear()
        output.type.tensor_type.shape.SetInParent()
        for i in range(rank):
            output.type.tensor_type.shape.dim.add().dim_param = f"{output.name}_{i}"
    return copy
