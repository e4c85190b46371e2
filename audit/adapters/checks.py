"""What every adapter asks of its arguments, in one sentence where it is not met."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from audit.errors import ModelError


def refuse(subject: str, expected: str, got: str, mend: str) -> NoReturn:
    """Raise the one sentence."""
    raise ModelError(subject, expected=expected, got=got, mend=mend)


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names, at least one, each a string."""
    if isinstance(classes, str):
        refuse("classes", "a sequence of class names", f"the text {classes!r}", f"write ({classes!r},)")
    names = tuple(classes)
    if not names:
        refuse("classes", "at least one class name", "none", "name what the model detects, in the model's order")
    for name in names:
        if not isinstance(name, str):
            refuse("classes", "names, each a string", f"{name!r}", "give the names in the model's order")
    return names


def unit(name: str, value: float) -> float:
    """A number in [0, 1]."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1 or math.isnan(value):
        refuse(name, "a number from 0 to 1", repr(value), "give a probability, not a percentage or a logit")
    return float(value)


def readable(files: Iterable[str | Path]) -> tuple[Path, ...]:
    """Paths of files that are there and can be read."""
    paths = tuple(Path(f) for f in ([files] if isinstance(files, str | Path) else files))
    for path in paths:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            refuse(f"weight file {path}", "a file that can be read", found, "check the path")
        try:
            path.open("rb").close()
        except OSError as error:
            refuse(f"weight file {path}", "a file that can be read", str(error.strerror), "check its permissions")
    return paths


def frozen(module: nn.Module | None) -> nn.Module | None:
    """The module in evaluation mode with frozen weights: the backward pass then costs only the input's part."""
    if module is None:
        return None
    if not isinstance(module, nn.Module):
        refuse("module", "a torch.nn.Module", type(module).__name__, "hand in the network whose weights are audited")
    with contextlib.suppress(NotImplementedError):  # an exported program has no modes to choose from
        module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def images_like(images: Any) -> Tensor:
    """A batch of images as the contracts have it."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        refuse("images", "a float tensor (N, 3, H, W) in [0, 1]", got, "stack images of one size, RGB, divided by 255")
    return images
