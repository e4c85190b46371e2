"""Detectors from ONNX files: white-box through onnx2torch, black-box through onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from audit.adapters.callables import (
    CallableDetector,
    Options,
    WhiteBoxCallable,
    as_candidates,
    split_options,
    unpack,
)
from audit.adapters.checks import class_names, frozen, readable, refuse, unit
from audit.adapters.onnx_graph import Served, batch_free, opset_of, package, served, upgraded
from audit.adapters.onnx_tidy import tidied
from audit.adapters.outputs import Outputs
from audit.adapters.preprocess import Preprocess
from audit.adapters.suppress import clipped
from audit.contracts import Detections

Decoder = Callable[[Outputs], "tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]"]
Run = Callable[[Tensor], "tuple[Tensor, ...]"]

OPSETS = (13, 16, 11)
"""Opsets that onnx2torch knows well, in the order in which they are tried after the file's own."""
TOLERANCE = 1e-3
"""How far the torch copy may be from onnxruntime, in parts of an output's largest value or 1."""

_log = logging.getLogger(__name__)


def onnx_detector(
    path: str | Path,
    decoder: Decoder,
    classes: Sequence[str],
    score_threshold: float,
    *,
    white_box: bool = True,
    device: torch.device | str = "cpu",
    files: Iterable[str | Path] = (),
    **options: Unpack[Options],
) -> CallableDetector:
    """A detector from an ONNX file with one float32 input (N, 3, H, W).

    Args:
        path: the file. Opsets that onnx2torch does not know are converted; a batch fixed by the exporter is freed.
        decoder: ``AnchorGrid``, ``Yolo``, ``CenterHeatmap`` or any callable ``Outputs -> (boxes, logits)``. Final
            Sigmoid and Softmax nodes are taken off the outputs first, so that it receives the model's own logits,
            unless it has an attribute ``scores`` that is ``"probability"``.
        classes: names in the model's order, without background. score_threshold: the owner's operating point.
        white_box: False serves the file through onnxruntime alone; the detector then has no ``candidates``.
        device: where the torch copy lives, or the provider that onnxruntime is asked for.
        files: more weight files than the ONNX file and its external data.
        **options: the fields of ``Preprocess`` and ``Suppression``. Where the file fixes its input's size,
            ``input_size`` is that size unless given, and ``resize`` has to be.

    Returns:
        A ``WhiteBoxDetector``, or a plain ``Detector`` where ``white_box`` is False.

    Raises:
        ModelError: the extra is not installed; the file or an argument is not as said; an operator is unknown to
            onnx2torch; the torch copy does not compute what onnxruntime computes on a seeded noise image; the
            decoder does not fit the outputs.
    """
    names = class_names(classes)
    threshold = unit("score_threshold", score_threshold)
    if not callable(decoder):
        refuse("decoder", "a callable that takes Outputs", type(decoder).__name__, "hand in a decoder or a function")
    graph = served(path, strip=getattr(decoder, "scores", None) != "probability")
    chosen = dict(options)
    if graph.size is not None and "input_size" not in chosen and chosen.get("resize") != "multiple-of-32":
        chosen["input_size"] = graph.size
    before, after = split_options(chosen)  # type: ignore[arg-type]
    place = torch.device(device)
    probe = _probe(before, graph)
    reference = _Session(graph.model, graph.batch, torch.device("cpu"))
    expected = reference.one_by_one(probe)

    def decode(outputs: Iterable[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor | None]:
        return unpack(decoder(Outputs(tuple(o.float() for o in outputs), graph.names, size)))

    boxes, logits, _ = decode(expected, (probe.shape[2], probe.shape[3]))
    _, logits = as_candidates(boxes, logits, len(probe), len(names))
    _check_activation(decoder, graph, logits)
    sources = (*graph.files, *readable(files))
    if not white_box:
        session = _Session(batch_free(graph.model, graph.batch), graph.batch, place)
        run: Run = session if _agree(session, probe, expected) else reference.one_by_one

        def detect(inputs: Tensor) -> list[Detections]:
            height, width = inputs.shape[-2:]
            boxes, logits, keep = decode(run(inputs), (height, width))
            boxes, logits = as_candidates(boxes, logits, len(inputs), len(names))
            return after(boxes, logits, keep)

        return _Runtime(names, threshold, None, sources, before, after, detect)
    module = _torch_copy(Path(path), graph, probe, expected).to(place)

    def candidates(inputs: Tensor) -> Any:
        boxes, logits, keep = decode(module(inputs), (inputs.shape[-2], inputs.shape[-1]))
        return (boxes, logits) if keep is None else (boxes, logits, keep)

    return WhiteBoxCallable(names, threshold, frozen(module), sources, before, after, None, candidates)


class _Runtime(CallableDetector):
    """Detections from onnxruntime, cut off at the image's edge as the torch copy's are."""

    def __call__(self, images: Tensor) -> list[Detections]:
        height, width = images.shape[-2:]
        return [clipped(d, height, width) for d in super().__call__(images)]


class OnnxModule(nn.Module):
    """The torch copy of an ONNX graph; ``forward`` gives its outputs as a tuple.

    Attributes:
        batched: False where the graph fixes its batch in a way that could not be freed; images then pass one by one.
    """

    def __init__(self, net: nn.Module, batch: int | None, *, batched: bool) -> None:
        super().__init__()
        self.net = net
        self.batch = batch
        self.batched = batched

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.batched:
            return _tuple(self.net(images))
        copies = self.batch or 1
        each = [_tuple(self.net(x[None].expand(copies, -1, -1, -1))) for x in images]
        return tuple(torch.cat([_share(t, copies) for t in parts]) for parts in zip(*each, strict=True))


class _Session:
    """An onnxruntime session that speaks torch."""

    def __init__(self, model: Any, batch: int | None, device: torch.device) -> None:
        runtime = package("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong comes as an exception
        # as many threads as torch was given, and none that spins while torch works
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [p for p in wanted if p in runtime.get_available_providers()] + ["CPUExecutionProvider"]
        try:
            self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=providers)
        except Exception as error:  # noqa: BLE001 - onnxruntime's own errors share no public base class
            refuse("ONNX file", "a graph that onnxruntime can run", str(error).splitlines()[0], "export it again")
        self._input = self._session.get_inputs()[0].name
        self._batch = batch

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        try:
            found = self._session.run(None, {self._input: images.detach().float().cpu().numpy()})
        except Exception as error:  # noqa: BLE001 - as above
            refuse(
                "ONNX file",
                f"a graph that runs on input of shape {tuple(images.shape)}",
                str(error).splitlines()[0],
                "give the input_size that it was exported for",
            )
        return tuple(torch.from_numpy(o).to(images.device) for o in found)

    def one_by_one(self, images: Tensor) -> tuple[Tensor, ...]:
        """Each image in the batch that the file was exported with, filled with copies of it."""
        copies = self._batch or 1
        each = [self(x[None].expand(copies, -1, -1, -1)) for x in images]
        return tuple(torch.cat([_share(t, copies) for t in parts]) for parts in zip(*each, strict=True))


def _torch_copy(path: Path, graph: Served, probe: Tensor, expected: tuple[Tensor, ...]) -> OnnxModule:
    """The graph in torch, proven equal to onnxruntime on the probe, batched where the graph allows."""
    convert = package("onnx2torch").convert
    reasons = []
    own = opset_of(graph.model)
    for opset in dict.fromkeys((*((own,) if own >= min(OPSETS) else ()), *OPSETS)):
        try:
            model = graph.model if opset == own else upgraded(graph.model, opset)
            freed = tidied(convert(batch_free(model, graph.batch)))
            plain = freed if graph.batch is None else tidied(convert(batch_free(model, None)))
        except Exception as error:  # noqa: BLE001 - two packages' own errors; the first goes into the sentence below
            reasons.append(f"opset {opset}: {str(error).strip().splitlines()[0] if str(error) else error!r}")
            continue
        for net, batched in ((freed, True), (plain, False)):
            module = OnnxModule(net.eval(), graph.batch, batched=batched)
            if _agree(module, probe, expected):
                _log.debug("%s: torch copy at opset %d, batched=%s", path.name, opset, batched)
                return module
        reasons.append(f"opset {opset}: outputs differ from onnxruntime's")
    return refuse(
        f"ONNX file {path}",
        "a graph that onnx2torch turns into the same network",
        reasons[0],
        "audit it as a black box with white_box=False, or hand the torch network to callable_detector",
    )


def _agree(run: Run, probe: Tensor, expected: tuple[Tensor, ...]) -> bool:
    try:
        with torch.no_grad():
            found = run(probe)
    except Exception as error:  # noqa: BLE001 - whatever a fixed shape makes of another batch: then it does not agree
        _log.debug("the graph does not take a batch of %d: %s", len(probe), error)
        return False
    return len(found) == len(expected) and all(
        f.shape == e.shape and bool(((f - e).abs().amax() <= TOLERANCE * e.abs().amax().clamp(min=1)).item())
        for f, e in zip(found, expected, strict=True)
    )


def _probe(preprocess: Preprocess, graph: Served) -> Tensor:
    """Two seeded noise images as the network would see them."""
    size = preprocess.input_size or graph.size or (320, 320)
    noise = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0))
    return preprocess(noise)[0]


def _check_activation(decoder: Decoder, graph: Served, logits: Tensor) -> None:
    """Scores that stayed probabilities although the decoder wants logits would pass as log-odds near 0."""
    kind = {"softmax": "Softmax", "sigmoid": "Sigmoid"}.get(str(getattr(decoder, "scores", "")))
    if kind is None or any(graph.activations) or kind not in {n.op_type for n in graph.model.graph.node}:
        return
    if float(logits.abs().amax()) <= 1:
        refuse(
            f"decoder {type(decoder).__name__}",
            f"logits before a final {kind}",
            f"probabilities, since that {kind} is not the last thing in the file",
            "set scores='probability', or export the network's logits",
        )


def _share(t: Tensor, copies: int) -> Tensor:
    """The first image's part of an output for ``copies`` of it."""
    return t[: max(1, len(t) // copies)]


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
