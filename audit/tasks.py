"""Which task a model is for, what it must carry for it, and how far it lets an attacker look in."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit.contracts import TASKS
from audit.errors import ModelError
from audit.state import frozen
from audit.tiny import FACE, tiny_images

NEEDS = {
    "detector": ("classes", "score_threshold"),
    "recognizer": ("face_size", "threshold"),
    "forgery": ("face_size", "threshold"),
    "liveness": ("threshold",),
    "classifier": (),
    "attributor": ("face_size",),
}
"""The attributes that each task's contract asks for, beside the call itself."""


def input_size(thing: object) -> tuple[int, int]:
    """(height, width) that a model of faces or a classifier asks for, else a usual one."""
    size = getattr(thing, "face_size", None) or getattr(thing, "input_size", None) or FACE
    return int(size[0]), int(size[1])


def tiny_input(thing: object, device: torch.device | str) -> Tensor:
    """The tiny batch as a model takes it: (4, 3, height, width), or where it judges clips (``clip_frames``) four clips
    (4, T, 3, height, width), each of one picture that stands still but for a shift of two pixels per frame.
    """
    images = tiny_images(input_size(thing), device)
    frames = getattr(thing, "clip_frames", None)
    return images if frames is None else torch.stack([images.roll(2 * i, 3) for i in range(int(frames))], 1)


def find_task(path: Path, thing: Any, device: torch.device) -> str:
    """The task of an object that stands alone: what it says, else what its attributes and its output's shape say.

    ``classes`` and ``score_threshold`` make a detector; ``similarity`` or embeddings (N, D) with ``face_size`` and
    ``threshold`` a recognizer, with ``face_size`` alone an attributor; (N,) with ``face_size`` a forgery detector,
    without it a liveness detector; (N, K) with none of these a classifier.

    Raises:
        ModelError: nothing fits, or what is said is no task.
    """
    said = getattr(thing, "task", None)
    if isinstance(said, str):
        if said not in TASKS:
            near = difflib.get_close_matches(said, TASKS, 1)
            raise _wrong(path, f"`task` among {', '.join(TASKS)}", repr(said), f"write {(near or TASKS)[0]!r}")
        return said
    if hasattr(thing, "candidates") or hasattr(thing, "classes") or hasattr(thing, "score_threshold"):
        return "detector"
    if hasattr(thing, "similarity"):
        return "recognizer"
    if not callable(thing):
        raise _wrong(
            path,
            "model(device) to return a model that can be called on images",
            "nothing (None)" if thing is None else told(thing),
            "end the function with `return`" if thing is None else "return one of audit.adapters' models",
        )
    with torch.inference_mode(), frozen([thing] if isinstance(thing, nn.Module) else []):
        out = thing(tiny_input(thing, device)[:2])
    sized, judged = hasattr(thing, "face_size"), hasattr(thing, "threshold")
    if isinstance(out, Tensor) and out.ndim == 2 and len(out) == 2:
        if sized:
            return "recognizer" if judged else "attributor"
        if not sized and not judged:
            return "classifier"
    if isinstance(out, Tensor) and out.shape == (2,) and judged:
        return "forgery" if sized else "liveness"
    raise _wrong(
        path,
        "a model whose attributes and output tell its task",
        f"{told(thing)} that returns {told(out)}",
        _mend(thing, out),
    )


def conforms(path: Path, task: str, thing: Any) -> None:
    """Checks what can be seen without running the model.

    Raises:
        ModelError: an attribute of the task's contract is missing, or cannot be.
    """
    missing = [a for a in NEEDS[task] if not hasattr(thing, a)]
    if missing:
        raise _wrong(
            path,
            f"a {task} with {', '.join(f'`{a}`' for a in NEEDS[task])}",
            f"{told(thing)} without {', '.join(f'`{a}`' for a in missing)}",
            _mend(thing, None) if isinstance(thing, nn.Module) else f"set {missing[0]} on the object",
        )
    if not callable(thing) and not (task == "recognizer" and callable(getattr(thing, "similarity", None))):
        raise _wrong(path, f"a {task} that can be called on images", told(thing), "give it `__call__`")
    if task == "detector":
        _detector(path, thing)
    if "face_size" in NEEDS[task]:
        size = thing.face_size
        whole = isinstance(size, Sequence) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)
        if not whole:
            raise _wrong(path, "`face_size` as (height, width) in pixels", repr(size), "write (112, 112), say")
    frames = getattr(thing, "clip_frames", None)
    if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 1):
        raise _wrong(path, "`clip_frames` as a whole number of frames", repr(frames), "write 8, say, or leave it out")
    trained = getattr(thing, "trained_on", ())
    if isinstance(trained, str) or not all(isinstance(t, str) for t in trained):
        raise _wrong(path, "`trained_on` as a list of names", repr(trained)[:80], "write ['Deepfakes', 'c23'], say")
    if "threshold" in NEEDS[task]:
        distance = getattr(thing, "metric", "cosine") == "euclidean"
        low, high, what = -math.inf, math.inf, "a finite number"
        if task == "recognizer":
            low, high, what = (0.0, math.inf, "a distance above 0") if distance else (-1.0, 1.0, "a cosine in [-1, 1]")
        value = thing.threshold
        if not _number(value) or not low <= float(value) <= high:
            raise _wrong(path, f"`threshold` as {what}", repr(value), "set it to the owner's operating point")


def access_of(task: str, thing: Any, device: torch.device, modules: list[nn.Module]) -> str:
    """``white-box`` where gradients with respect to the images can be had, else ``query``."""
    if task == "detector":
        return "white-box" if callable(getattr(thing, "candidates", None)) else "query"
    if not callable(thing):
        return "query"
    with frozen(modules), torch.enable_grad():
        out = thing(tiny_input(thing, device)[:2].requires_grad_())
    return "white-box" if isinstance(out, Tensor) and out.requires_grad else "query"


def told(thing: object) -> str:
    """A value in words: its type, and for tensors the shape."""
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)}"
    if isinstance(thing, list | tuple):
        return f"a {type(thing).__name__} of {len(thing)}" + (f" ({told(thing[0])} first)" if thing else "")
    name = type(thing).__name__
    return "None" if thing is None else f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def _detector(path: Path, thing: Any) -> None:
    classes = thing.classes
    named = isinstance(classes, Sequence) and not isinstance(classes, str) and all(isinstance(c, str) for c in classes)
    if not named or not classes:
        got = "no class at all" if named else repr(classes)[:80]
        raise _wrong(path, "`classes` as a list of names", got, "write ['face'], say, in the order of the labels")
    if not _number(thing.score_threshold) or not 0 <= float(thing.score_threshold) <= 1:
        raise _wrong(
            path, "`score_threshold` in [0, 1]", repr(thing.score_threshold), "set it to the owner's operating point"
        )
    if hasattr(thing, "candidates") and not callable(thing.candidates):
        raise _wrong(path, "`candidates` as a method", told(thing.candidates), "make it a method, or leave it out")


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _mend(thing: object, out: object) -> str:
    dicts = isinstance(out, list) and bool(out) and isinstance(out[0], dict)
    if dicts or type(thing).__module__.startswith("torchvision.models.detection"):
        return "wrap it: `audit.adapters.torchvision_detector(net, classes=[...], score_threshold=0.5)`"
    return (
        "set `task` on it and its contract's attributes, or return {'detector': ...} with an adapter of audit.adapters"
    )


def _wrong(path: Path, expected: str, got: str, mend: str) -> ModelError:
    return ModelError(f"model file {path}", expected=expected, got=got, mend=mend)
