"""Detectors saved with ``torch.jit``: white-box where gradients flow, black-box otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from audit.adapters.callables import (
    CallableDetector,
    Options,
    WhiteBoxCallable,
    as_candidates,
    as_detections,
    split_options,
    unpack,
)
from audit.adapters.checks import class_names, frozen, readable, refuse, unit
from audit.adapters.modes import ordinary
from audit.adapters.outputs import Outputs
from audit.adapters.preprocess import Preprocess
from audit.adapters.suppress import Suppression, clipped
from audit.contracts import Candidates, Detections

Decoder = Callable[[Outputs], "tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]"]

BACKGROUND = "__background__"
_PROBE = (320, 320)
"""(height, width) of the image on which a network that takes any size is looked at."""


def torchscript_detector(
    path_or_module: str | Path | torch.jit.ScriptModule,
    classes: Sequence[str],
    score_threshold: float,
    *,
    decoder: Decoder | None = None,
    white_box: bool = True,
    device: torch.device | str = "cpu",
    files: Iterable[str | Path] = (),
    **options: Unpack[Options],
) -> CallableDetector:
    """A detector from a TorchScript file, scripted or traced, that takes images (N, 3, h, w) or a list of (3, h, w).

    Args:
        path_or_module: the file, or the module; put in evaluation mode, its weights frozen.
        classes: names in the model's order. Where the file gives detections of its own and the first name is
            ``__background__``, the name is dropped and labels are counted from 1, as torchvision does.
        score_threshold: the owner's operating point, in [0, 1].
        decoder: ``AnchorGrid``, ``Yolo``, ``CenterHeatmap`` or any callable ``Outputs -> (boxes, logits)``; the
            outputs are named by their place, or by their key where the file gives a dict. Activations cannot be taken
            off a TorchScript file: where it ends in a sigmoid, the decoder needs ``scores="probability"``, and a
            saturated score has no gradient. None: the file gives (boxes (N, A, 4) xyxy in pixels of its input,
            logits (N, A, C)), or detections of its own: a list of dicts with ``boxes``, ``scores`` and ``labels``, or
            such a list as the second of a pair, as torchvision's scripted detectors do.
        white_box: False hides candidates even where gradients flow.
        device: where the network lives. files: more weight files than the file itself.
        **options: the fields of ``Preprocess`` and ``Suppression``.

    Returns:
        A ``WhiteBoxDetector`` where the file gives candidates whose gradients reach the images, else a ``Detector``.

    Raises:
        ModelError: the file is not there or no TorchScript, an argument is not as said, the outputs do not fit.
    """
    sources = readable(files)
    if isinstance(path_or_module, str | Path):
        sources = (*readable([path_or_module]), *sources)
        path_or_module = _loaded(Path(path_or_module))
    if not isinstance(path_or_module, torch.jit.ScriptModule):
        got = type(path_or_module).__name__
        refuse("torchscript_detector", "a path or a torch.jit.ScriptModule", got, "use callable_detector for others")
    if decoder is not None and not callable(decoder):
        refuse("decoder", "a callable that takes Outputs", type(decoder).__name__, "hand in a decoder or a function")
    names, threshold = class_names(classes), unit("score_threshold", score_threshold)
    before, after = split_options(options)
    net = path_or_module.to(torch.device(device))
    frozen(net)
    run = _Run(net)
    probe = _probe(before, torch.device(device))
    detects = _detections(_tried(run, probe))
    if detects is not None and decoder is None:
        skipped = 1 if names[0] == BACKGROUND else 0
        return _Own(names[skipped:], threshold, net, sources, before, after, run, skipped)

    def candidates(inputs: Tensor) -> Any:
        shown = _decoded(run(inputs), decoder, (inputs.shape[-2], inputs.shape[-1]))
        return shown if shown[2] is not None else shown[:2]

    with ordinary(), torch.enable_grad():
        boxes, logits, *_ = candidates(probe.requires_grad_())
        boxes, logits = as_candidates(boxes, logits, len(probe), len(names))
        flows = logits.requires_grad and _reaches(logits, probe)
    if getattr(decoder, "scores", None) != "probability":
        _no_probabilities(logits.detach(), decoder)
    detector = _Shown(names, threshold, net, sources, before, after, None, candidates)
    return detector if white_box and flows else _Hidden(detector)


class _Run:
    """A TorchScript module called on a batch."""

    def __init__(self, net: Any) -> None:
        self.net = net
        arguments = net.forward.schema.arguments[1:]
        self.listed = bool(arguments) and arguments[0].type.kind() == "ListType"

    def __call__(self, inputs: Tensor) -> Any:
        with ordinary():
            return self.net(list(inputs) if self.listed else inputs)


class _Own(CallableDetector):
    """The file's own detections, cut off at the image's edge."""

    def __init__(
        self,
        classes: tuple[str, ...],
        score_threshold: float,
        module: nn.Module,
        files: tuple[Path, ...],
        before: Preprocess,
        after: Suppression,
        run: _Run,
        skipped: int,
    ) -> None:
        def detect(inputs: Tensor) -> list[Detections]:
            found = _detections(run(inputs))
            if found is None:
                refuse("TorchScript file", "a list of dicts on every image", "something else", "hand in a decoder")
            return [_counted(f, len(classes), skipped) for f in found]

        super().__init__(classes, score_threshold, module, files, before, after, detect)

    def __call__(self, images: Tensor) -> list[Detections]:
        height, width = images.shape[-2:]
        return [clipped(d, height, width) for d in super().__call__(images)]


class _Shown(WhiteBoxCallable):
    """Candidates through a decoder."""

    def candidates(self, images: Tensor) -> Candidates:
        with ordinary():
            return super().candidates(images)


class _Hidden(CallableDetector):
    """The same detections without the candidates that they are made of."""

    def __init__(self, shown: WhiteBoxCallable) -> None:
        after = shown.suppression
        super().__init__(shown.classes, shown.score_threshold, shown.module, shown.files, shown.preprocess, after, None)
        self._shown = shown

    def __call__(self, images: Tensor) -> list[Detections]:
        return self._shown(images)


def _loaded(path: Path) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather see exported programs
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-any-return, no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["unreadable"])[0]
        refuse(f"weight file {path}", "a file of torch.jit.save", reason, "save it with torch.jit.script or trace")


def _probe(before: Preprocess, device: torch.device) -> Tensor:
    """Two seeded noise images as the network would see them."""
    noise = torch.rand((2, 3, *(before.input_size or _PROBE)), generator=torch.Generator().manual_seed(0))
    return before(noise.to(device))[0].detach()


def _tried(run: _Run, probe: Tensor) -> Any:
    try:
        with torch.no_grad():
            return run(probe)
    except (RuntimeError, torch.jit.Error) as error:  # a scripted assert raises the latter, which is no RuntimeError
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        refuse(
            "TorchScript file",
            f"a network that takes {tuple(probe.shape)}",
            lines[-1] if lines else type(error).__name__,
            "say its size by input_size and resize; a traced file may be fixed to one batch: script it instead",
        )


def _detections(out: Any) -> list[Any] | None:
    """The list of dicts in an output, or None."""
    if isinstance(out, tuple) and len(out) == 2 and isinstance(out[0], Mapping):
        out = out[1]
    told = isinstance(out, list) and out and all(isinstance(o, Mapping) and {"boxes", "scores"} <= set(o) for o in out)
    return list(out) if told else None


def _counted(found: Mapping[str, Tensor], classes: int, skipped: int) -> Detections:
    if "labels" not in found:
        refuse("TorchScript file", "dicts with boxes, scores and labels", "no labels", "hand in a decoder")
    labels = found["labels"] - skipped
    named = labels >= 0 if skipped else torch.ones_like(labels, dtype=torch.bool)
    return as_detections((found["boxes"][named], found["scores"][named], labels[named]), classes)


def _decoded(out: Any, decoder: Decoder | None, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor | None]:
    if isinstance(out, Mapping):
        names, parts = [str(k) for k in out], list(out.values())
    else:
        parts = list(out) if isinstance(out, tuple | list) else [out]
        names = [f"output {i}" for i in range(len(parts))]
    if not parts or not all(isinstance(p, Tensor) for p in parts):
        got = ", ".join(type(p).__name__ for p in parts) or "nothing"
        refuse("TorchScript file", "tensors, or a list of dicts of boxes, scores and labels", got, "wrap it in another")
    if decoder is not None:
        return unpack(decoder(Outputs(tuple(p.float() for p in parts), tuple(names), size)))
    if len(parts) not in (2, 3):
        shapes = ", ".join(str(tuple(p.shape)) for p in parts)
        refuse("TorchScript file", "two outputs, boxes and logits", shapes, "hand in a decoder, AnchorGrid or Yolo say")
    return unpack(tuple(parts))


def _reaches(logits: Tensor, images: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(logits.sum(), images, allow_unused=True)
    return gradient is not None and bool((gradient != 0).any())


def _no_probabilities(logits: Tensor, decoder: Decoder | None) -> None:
    """Scores that are probabilities already would pass as log-odds near 0."""
    low, high = float(logits.min()), float(logits.max())
    if logits.numel() >= 16 and low >= 0 and high <= 1 and high > low:
        refuse(
            f"decoder {type(decoder).__name__}" if decoder is not None else "TorchScript file",
            "logits before the final activation",
            f"values from {low:.3g} to {high:.3g}, as probabilities are",
            "set scores='probability' on a decoder, or save the network without it",
        )
