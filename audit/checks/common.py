"""What the checks of all tasks share: calling the model with care, and saying what is wrong in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.record import Precondition
from audit.tasks import told

JITTER = 1e-2
"""Relative difference between two equal calls above which a model is random, and refused."""
ARITHMETIC = 1e-3
"""Relative difference up to which it is the order of sums; between the two no pass can stand on it."""


@dataclass(frozen=True)
class Looker:
    """A model under check."""

    path: Path
    task: str
    thing: Any
    device: torch.device

    def wrong(self, expected: str, got: str, mend: str) -> ModelError:
        """The error that says so."""
        return ModelError(f"{self.task} of {self.path}", expected=expected, got=got, mend=mend)

    def call(self, function: Callable[[Tensor], Any], images: Tensor, *, gradient: bool = False) -> Any:
        """The function's word on the images, which it must leave as they are."""
        given = images.clone().requires_grad_(gradient)
        kept = images.clone()
        with torch.enable_grad() if gradient else torch.inference_mode():
            out = function(given)
        if not torch.equal(given.detach(), kept):
            raise self.wrong(
                "images to be left as they are", "images changed in place", "work on a copy: images.clone()"
            )
        return out

    def finite(self, tensor: Tensor, name: str) -> None:
        """Raises unless every value is a finite number."""
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise self.wrong(
                f"finite {name}",
                f"{bad} of {tensor.numel()} values infinite or not a number",
                "look for a division by zero, a log of zero or half precision in the model",
            )

    def tensor(self, thing: object, name: str, shape: tuple[int | None, ...], words: str) -> Tensor:
        """The thing, if it is a floating tensor of that shape (``None``: any length)."""
        fits = (
            isinstance(thing, Tensor)
            and thing.ndim == len(shape)
            and all(want is None or want == have for want, have in zip(shape, thing.shape, strict=True))
        )
        if not fits:
            raise self.wrong(f"{name} as a tensor {words}", told(thing), "reshape it in the model file")
        assert isinstance(thing, Tensor)
        if not thing.is_floating_point():
            raise self.wrong(f"{name} as floating-point numbers", f"{thing.dtype}", "return .float()")
        return thing

    def fact(self, name: str, ok: bool, value: float | None, expected: str, meaning: str) -> Precondition:
        """A line for the report."""
        return Precondition(name=f"{self.task}: {name}", ok=ok, value=value, expected=expected, meaning=meaning)


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference between two tensors of one shape, relative to 1 + their size."""
    if a.numel() == 0:
        return 0.0
    a, b = a.detach().double(), b.detach().double()
    return float(((a - b).abs() / (1 + torch.maximum(a.abs(), b.abs()))).max())


def scaled(a: Tensor, b: Tensor) -> float:
    """Norm of the difference between two tensors of one shape, relative to the larger of their norms; 0 to 2."""
    a, b = a.detach().double(), b.detach().double()
    size = float(torch.maximum(a.norm(), b.norm()))
    return float((a - b).norm()) / size if size else 0.0


def gradient_facts(look: Looker, function: Callable[[Tensor], Tensor], images: Tensor) -> list[Precondition]:
    """Whether the gradient of the outputs with respect to the images is there, finite, and the same twice.

    Args:
        function: images -> the outputs that an attack would push.
    """
    with torch.enable_grad():
        first, second = (_gradient(function, images) for _ in range(2))
    if first is None or second is None:
        raise look.wrong(
            "outputs that are differentiable in the images",
            "outputs without gradient",
            "remove no_grad(), detach() and numpy from the way, or leave `candidates` out to be attacked by queries",
        )
    sound = bool(torch.isfinite(first).all())
    size = float(first.abs().max()) if sound else None
    again = scaled(first, second) if sound and bool(torch.isfinite(second).all()) else None
    reached = bool(size) and all(bool(g.abs().max() > 0) for g in first)
    return [
        look.fact(
            "gradients reach the images",
            reached,
            size,
            "a finite gradient that is not zero",
            "largest absolute gradient of the outputs with respect to the pixels of the tiny batch; where it is zero "
            "or not finite, a gradient attack proves nothing",
        ),
        look.fact(
            "same images, same gradient",
            again is not None and again <= JITTER,
            again,
            f"at most {JITTER}",
            "norm of the difference between two gradients of the same batch, relative to their own",
        ),
    ]


def _gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor | None:
    given = images.clone().requires_grad_()
    out = function(given)
    if not out.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(out.float().sum(), given, allow_unused=True)
    return torch.zeros_like(images) if gradient is None else gradient
