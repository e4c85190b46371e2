"""Forgery detectors, liveness detectors, attributors and classifiers from any torch network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from audit.adapters.checks import frozen, readable, refuse
from audit.adapters.logodds import from_probability, from_softmax
from audit.adapters.preprocess import Preprocess

Numbers = float | tuple[float, ...]
Output = Literal["logit", "probability", "logits", "probabilities"]
OUTPUTS = ("logit", "probability", "logits", "probabilities")
Net = Callable[[Tensor], Tensor]


class ImageNetwork:
    """A network with its pre-processing, and how its output is read.

    Attributes: those of the task's contract (``face_size``, ``input_size``, ``threshold``, ``trained_on``,
    ``clip_frames``, ``classes``, as far as the task has them), ``task``, ``module``, ``files``, ``preprocess``.
    """

    task: str

    def __init__(
        self,
        net: Net,
        read: Callable[[Tensor], Tensor],
        preprocess: Preprocess,
        files: Iterable[str | Path],
        **said: Any,
    ) -> None:
        if not callable(net):
            refuse("network", "a callable", type(net).__name__, "hand in a network or a function")
        owner = net if isinstance(net, nn.Module) else getattr(net, "__self__", None)
        self.module = frozen(owner) if isinstance(owner, nn.Module) else None
        self.files = readable(files)
        self.preprocess = preprocess
        self._net, self._read = net, read
        for name, value in said.items():
            setattr(self, name, value)

    def __call__(self, images: Tensor) -> Tensor:
        """What the task's contract says, of images (N, 3, H, W) in [0, 1], or clips (N, T, 3, H, W) where it judges
        clips.
        """
        out = self._net(_seen(self.preprocess, images))
        if not isinstance(out, Tensor):
            refuse(f"{self.task} network", "a tensor", type(out).__name__,
                   "hand in a function that picks the output, such as lambda x: net(x)[0]")  # fmt: skip
        return self._read(out).float()

    def __repr__(self) -> str:
        return f"{self.task} network"


def forgery_detector(
    net: Net,
    *,
    face_size: tuple[int, int] = (256, 256),
    threshold: float = 0.0,
    output: Output = "logit",
    fake: int | None = None,
    trained_on: Sequence[str] = (),
    clip_frames: int | None = None,
    embed: Net | None = None,
    scale: float = 1.0,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    channels: Literal["rgb", "bgr"] = "rgb",
    files: Iterable[str | Path] = (),
) -> ImageNetwork:
    """A forgery detector from a torch network.

    Args:
        net: (N, 3, height, width), or (N, T, 3, height, width) with ``clip_frames``, -> what ``output`` says. Put in
            evaluation mode, its weights frozen.
        face_size: (height, width) px. threshold: the fake logit from which a face is called fake; 0 is an even chance.
        output: ``logit`` (N,) or (N, 1); ``logits`` (N, K) before softmax; ``probability`` (N,) or (N, 1) and
            ``probabilities`` (N, K), whose gradients vanish where the network is sure: hand in what is before the
            softmax or sigmoid where that can be had.
        fake: which class is fake, of K (1 by default); of a single output 0 where it speaks for real, 1 for fake.
        trained_on: names of manipulation methods and qualities, as the data call them: the in-domain cells.
        clip_frames: T, where it judges clips.
        embed: network input -> features (N, D), by which methods can be told apart; of clips with ``clip_frames``.
        scale, mean, std, channels: the network sees ``(face * scale - mean) / std``, as ``Preprocess`` has them.
        files: the weight files, for the report's digests.

    Raises:
        ModelError: an argument is not as said; when called, an output of another shape.

    Example:
        >>> import torch
        >>> model = forgery_detector(lambda x: x.mean((1, 2, 3)) - 0.5, face_size=(8, 8), output="logit", fake=0)
        >>> model(torch.ones(1, 3, 8, 8)).tolist()
        [-0.5]
    """
    before = Preprocess(scale=scale, mean=mean, std=std, channels=channels)
    said: dict[str, Any] = {
        "task": "forgery", "face_size": _size(face_size, "face_size"), "threshold": _number(threshold),
        "trained_on": tuple(trained_on),
    }  # fmt: skip
    if clip_frames is not None:
        said["clip_frames"] = clip_frames
    if embed is not None:
        said["embed"] = lambda faces: embed(_seen(before, faces))
    return ImageNetwork(net, reader(output, 1 if fake is None else fake), before, files, **said)


def liveness_detector(
    net: Net,
    *,
    threshold: float = 0.0,
    face_size: tuple[int, int] | None = None,
    output: Output = "logit",
    live: int | None = None,
    trained_on: Sequence[str] = (),
    scale: float = 1.0,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    channels: Literal["rgb", "bgr"] = "rgb",
    files: Iterable[str | Path] = (),
) -> ImageNetwork:
    """A liveness detector from a torch network; ``live`` is to live what ``fake`` is in ``forgery_detector``.

    Args:
        face_size: (height, width) px to which photographs are resized; without it they come in their own size, one by
            one, and the network crops what it wants. Others: as in ``forgery_detector``.
    """
    said: dict[str, Any] = {"task": "liveness", "threshold": _number(threshold), "trained_on": tuple(trained_on)}
    if face_size is not None:
        said["face_size"] = _size(face_size, "face_size")
    before = Preprocess(scale=scale, mean=mean, std=std, channels=channels)
    return ImageNetwork(net, reader(output, 1 if live is None else live), before, files, **said)


def attributor(
    net: Net,
    *,
    face_size: tuple[int, int] = (256, 256),
    scale: float = 1.0,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    channels: Literal["rgb", "bgr"] = "rgb",
    files: Iterable[str | Path] = (),
) -> ImageNetwork:
    """An attributor from a torch network (N, 3, height, width) -> features (N, D), compared by their cosine."""
    before = Preprocess(scale=scale, mean=mean, std=std, channels=channels)
    size = _size(face_size, "face_size")
    return ImageNetwork(net, lambda out: out.flatten(1), before, files, task="attributor", face_size=size)


def classifier(
    net: Net,
    *,
    input_size: tuple[int, int] = (224, 224),
    classes: Sequence[str] | None = None,
    scale: float = 1.0,
    mean: Numbers = 0.0,
    std: Numbers = 1.0,
    channels: Literal["rgb", "bgr"] = "rgb",
    files: Iterable[str | Path] = (),
) -> ImageNetwork:
    """A classifier from a torch network (N, 3, height, width) -> logits (N, K) before softmax.

    Args:
        input_size: (height, width) px. classes: names of the K classes in the order of the logits, where the folders of
            the data are called so; by default the folders' names, sorted. Others: as in ``forgery_detector``.
    """
    before = Preprocess(scale=scale, mean=mean, std=std, channels=channels)
    said: dict[str, Any] = {"task": "classifier", "input_size": _size(input_size, "input_size")}
    if classes is not None:
        said["classes"] = tuple(classes)
    return ImageNetwork(net, lambda out: out, before, files, **said)


def _seen(preprocess: Preprocess, images: Tensor) -> Tensor:
    """What the network is given of images (N, 3, H, W), or clips (N, T, 3, H, W)."""
    if images.ndim != 5:
        return preprocess(images)[0]
    frames = preprocess(images.flatten(0, 1))[0]
    return frames.reshape(*images.shape[:2], *frames.shape[1:])


def reader(output: str, which: int) -> Callable[[Tensor], Tensor]:
    """How an output becomes log-odds (N,) of class ``which``."""
    if output not in OUTPUTS:
        refuse("output", f"one of {', '.join(OUTPUTS)}", repr(output), "say what the network returns")
    if isinstance(which, bool) or not isinstance(which, int) or which < 0 or (output in OUTPUTS[:2] and which > 1):
        refuse("class", "the number of a class, 0 or 1 of a single output", repr(which), "correct it")

    def read(out: Tensor) -> Tensor:
        if output in ("logit", "probability"):
            flat = out[:, 0] if out.ndim == 2 and out.shape[1] == 1 else out
            if flat.ndim != 1:
                refuse("network's output", "shape (N,) or (N, 1)", f"shape {tuple(out.shape)}", 'say output="logits"')
            odds = flat if output == "logit" else _odds(flat)
            return odds if which else -odds
        if out.ndim != 2 or out.shape[1] < 2 or which >= out.shape[1]:
            refuse("network's output", f"shape (N, K) with K above {max(which, 1)}", f"shape {tuple(out.shape)}",
                   "correct output or the number of the class")  # fmt: skip
        return from_softmax(out)[:, which] if output == "logits" else _odds(out[:, which])

    return read


def _odds(p: Tensor) -> Tensor:
    low, high = float(p.detach().min()), float(p.detach().max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        refuse("network's output", "probabilities in [0, 1]", f"{low:.3g} to {high:.3g}", 'say output="logit"')
    return from_probability(p)


def _size(size: Any, name: str) -> tuple[int, int]:
    whole = isinstance(size, tuple | list) and len(size) == 2
    if not whole or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in size):
        refuse(name, "(height, width), two positive whole numbers", repr(size), "write (256, 256), say")
    return int(size[0]), int(size[1])


def _number(threshold: Any) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        refuse("threshold", "a finite number", repr(threshold), "give the owner's operating point, as log-odds")
    return float(threshold)
