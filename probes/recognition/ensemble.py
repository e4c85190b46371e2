"""Several recognizers attacked at once, each through its own alignment and against its own threshold (R3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from audit.alignment import Alignment
from audit.comparison import Comparison
from audit.errors import AuditError, ModelError
from audit.examples import Attacked
from audit.execution import Execution
from probes.recognition.transforms import Pipeline

Weights = Literal["fixed", "dynamic"] | tuple[float, ...]
CALL = 64
"""Faces per call of a model that enrols, or sees several copies of a batch as far as one batch does not hold more."""


@dataclass(frozen=True, eq=False)
class Aimed:
    """K recognizers aimed at a batch of N pairs.

    Attributes:
        alignments: of the sources, per model. enrolled: per model (N, D), the targets' embeddings.
        sign: 1 where the attack impersonates, -1 where it dodges.
    """

    models: tuple[Comparison, ...]
    alignments: tuple[Alignment, ...]
    enrolled: tuple[Tensor, ...]
    sign: float
    execution: Execution

    @classmethod
    def at(cls, models: Sequence[Comparison], attacked: Attacked, execution: Execution) -> Aimed:
        """At all pairs of ``attacked``."""
        device, enrolled = execution.device, []
        with torch.inference_mode(), execution.autocast():
            for m in models:
                parts = [
                    m.enrol(m.aligned(attacked.targets.images[rows], attacked.targets.landmarks[rows]))
                    for rows in torch.split(torch.arange(len(attacked.targets)), CALL)
                ]
                enrolled.append(torch.cat(parts))
        where = attacked.sources.landmarks.to(device)
        return cls(
            tuple(models),
            tuple(m.align(where, attacked.sources.size) for m in models),
            # out of inference mode: autograd saves them for the backward pass
            tuple(e.to(device).clone() for e in enrolled),
            1.0 if attacked.goal == "impersonate" else -1.0,
            execution,
        )

    def __getitem__(self, index: Tensor) -> Aimed:
        """At these pairs only."""
        return replace(
            self,
            alignments=tuple(a[index] for a in self.alignments),
            enrolled=tuple(e[index] for e in self.enrolled),
        )

    def margins(self, images: Tensor) -> Tensor:
        """(K, N) sign · (score − cut) of photographs (N, 3, H, W) in [0, 1]: beyond the threshold above 0."""
        with torch.inference_mode(), self.execution.autocast():
            each = [self._margin(k, a.faces(images), self.enrolled[k]).float() for k, a in enumerate(self.alignments)]
        return torch.stack(each)

    def gradient(
        self, images: Tensor, pipeline: Pipeline, stream: torch.Generator, weights: Weights
    ) -> tuple[Tensor, Tensor | None]:
        """Gradient of the weighted margins in the photographs, averaged over the pipeline's copies.

        Args:
            images: (N, 3, H, W) in [0, 1]. stream: of this step's draws.

        Returns:
            (N, 3, H, W), and the margins (K, N) of the photographs as they are, where one copy is left unchanged.
        """
        images = images.detach().requires_grad_()
        pulls: list[Tensor] = []
        shown: list[Tensor | None] = []
        mean: list[Tensor] = []
        state = stream.get_state()
        for k, alignment in enumerate(self.alignments):
            with torch.enable_grad(), self.execution.autocast():
                faces = alignment.faces(images)
                # a fifth to a third faster on a CPU: convolutions of few channels like a pixel's channels together
                leaf = faces.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
                stream.set_state(state)  # every model sees the same draws
                margins, plain, pull = self._copies(k, leaf, pipeline, stream)
                if faces is not images:
                    (pull,) = torch.autograd.grad(faces, images, pull)
            pulls.append(pull)
            shown.append(plain)
            mean.append(margins.mean(0))
        share = self.shares(torch.stack(mean), weights)
        total = sum(w[:, None, None, None] * g for w, g in zip(share, pulls, strict=True))
        assert isinstance(total, Tensor)
        seen = [m for m in shown if m is not None]
        return total, torch.stack(seen) if len(seen) == len(shown) else None

    def shares(self, margins: Tensor, weights: Weights) -> Tensor:
        """(K, N) weights, summing to one over the models.

        ``dynamic``: impersonating 1 − cos, so that the model furthest from taken in counts most; dodging its mirror
        1 + cos (R3). For embeddings that are compared by distance d, 1 − cos is read as d² / 2, which it is for
        embeddings of length one.
        """
        if weights == "fixed":
            return margins.new_full(margins.shape, 1 / len(margins))
        if isinstance(weights, tuple):
            fixed = margins.new_tensor(weights)[:, None].expand(margins.shape)
            return fixed / fixed.sum(0)
        far = []
        for m, margin in zip(self.models, margins, strict=True):
            score = self.sign * margin + m.cut
            cosine = score if m.metric == "cosine" else 1 - score**2 / 2
            far.append((1 - self.sign * cosine).clamp(min=1e-3))
        away = torch.stack(far)
        return away / away.sum(0)

    def _copies(
        self, k: int, leaf: Tensor, pipeline: Pipeline, stream: torch.Generator
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(copies, N) margins, those of a copy that no transform changed, the mean gradient (N, 3, h, w) of model k."""
        n, copies, plain = len(leaf), pipeline.copies, None
        together = max(1, CALL // n)
        out, pull = [], torch.zeros_like(leaf)
        for first in range(0, copies, together):
            some = range(first, min(first + together, copies))
            seen = [pipeline.seen(leaf, j, stream) for j in some]
            enrolled = self.enrolled[k]
            if len(seen) == 1:
                margins = self._margin(k, seen[0], enrolled)
            else:
                margins = self._margin(k, torch.cat(seen), enrolled.repeat(len(seen), 1))
            (g,) = torch.autograd.grad(margins.sum(), leaf)
            pull += g
            out.append(margins.detach().float().reshape(len(seen), n))
            plain = next((m for m, s in zip(out[-1], seen, strict=True) if s is leaf), plain)
        return torch.cat(out), plain, pull / copies

    def _margin(self, k: int, faces: Tensor, enrolled: Tensor) -> Tensor:
        m = self.models[k]
        return self.sign * (m.score(faces, enrolled) - m.cut)


def require_white_box(models: Sequence[Comparison], weights: Weights = "fixed") -> None:
    """Raises where gradients cannot be had, or weights and models do not match.

    Raises:
        ModelError: no model, or one without gradients. AuditError: weights of another number, or none above 0.
    """
    dark = [m.name for m in models if not m.white_box]
    if dark or not models:
        raise ModelError(
            "white-box attack on recognizers",
            expected="recognizers that give embeddings with gradients",
            got=", ".join(dark) or "none",
            mend="attack it by transfer or by queries",
        )
    known = weights in ("fixed", "dynamic") if isinstance(weights, str) else len(weights) == len(models)
    if not known or (isinstance(weights, tuple) and not (min(weights) >= 0 and max(weights) > 0)):
        raise AuditError("weights of an ensemble", expected=f"fixed, dynamic, or {len(models)} shares of at least 0",
                         got=repr(weights), mend="correct them")  # fmt: skip
