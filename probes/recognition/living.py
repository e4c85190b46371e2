"""The patch that must also pass for alive: recognizer and liveness detector attacked together (L5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.contracts import LivenessDetector
from audit.errors import AuditError, ModelError
from audit.examples import Attacked
from audit.state import modules_of
from probes.recognition.ensemble import Aimed, Weights
from probes.recognition.face_patch import FacePatch
from probes.recognition.masks import FaceMask, Mask
from probes.recognition.transforms import Pipeline

SLACK = 0.1
"""How far beyond its threshold a live score is pushed, as a share of how far the clean photograph's lies from it."""
_CHUNK = 32


@dataclass(frozen=True, eq=False)
class LivingAimed(Aimed):
    """Recognizers and a liveness detector, which counts as one more model: a patch is as good as the worst says.

    Attributes:
        masks: (N, H, W) bool. unit: (N,) what live scores are measured in, for they have no scale of their own: the
            distance of each clean photograph's from the threshold. weight: of the live score's gradient.
    """

    liveness: LivenessDetector = field(kw_only=True)
    masks: Tensor = field(kw_only=True)
    unit: Tensor = field(kw_only=True)
    weight: float = field(kw_only=True)

    def __getitem__(self, index: Tensor) -> LivingAimed:
        inner = super().__getitem__(index)
        assert isinstance(inner, LivingAimed)
        return replace(inner, masks=self.masks[index], unit=self.unit[index])

    def margins(self, images: Tensor) -> Tensor:
        """(K + 1, N): the recognizers' margins, and the live score's over its threshold in its unit."""
        with torch.inference_mode(), self.execution.autocast():
            live = self._live(images)
        return torch.cat([super().margins(images), live[None]])

    def gradient(
        self, images: Tensor, pipeline: Pipeline, stream: torch.Generator, weights: Weights
    ) -> tuple[Tensor, Tensor | None]:
        """As for ``Aimed``, and ``weight`` times the gradient of min(live margin, ``SLACK``), pair by pair.

        Both gradients are divided by their mean magnitude in the mask first: live scores may be probabilities or
        log-odds, and the larger of the two would be the only one that a step by the sign of their sum follows.

        Raises:
            ModelError: no gradient flows through the liveness detector.
        """
        pull, margins = super().gradient(images, pipeline, stream, weights)
        leaf = images.detach().requires_grad_()
        with torch.enable_grad(), self.execution.autocast():
            live = self._live(leaf)
            if not live.requires_grad:
                raise ModelError("liveness detector", expected="live scores that are differentiable in the photographs",
                                 got="scores without gradients", mend="attack the recognizer alone")  # fmt: skip
            (push,) = torch.autograd.grad(live.clamp(max=SLACK).sum(), leaf)
        # a dead recognizer is to be seen as one: the run counts gradients of zero, which the push would hide
        size = self._size(pull)
        alive = (size.isfinite() & (size != 0))[:, None, None, None]
        push = torch.where(alive, self._levelled(push), 0.0)
        both = self._levelled(pull) + self.weight * push
        return both, None if margins is None else torch.cat([margins, live.detach()[None]])

    def _live(self, images: Tensor) -> Tensor:
        return (scores(self.liveness, images) - float(self.liveness.threshold)) / self.unit

    def _levelled(self, gradient: Tensor) -> Tensor:
        return gradient / self._size(gradient).clamp(min=1e-30)[:, None, None, None]

    def _size(self, gradient: Tensor) -> Tensor:
        """(N,) mean magnitude in the mask."""
        inside = (gradient * self.masks[:, None]).abs().flatten(1).sum(1)
        return inside / self.masks.flatten(1).sum(1).clamp(min=1)


@dataclass(frozen=True, kw_only=True, repr=False)
class LivingPatch(FacePatch):
    """A patch per pair that is to win over the recognizer while a liveness detector still calls the face alive.

    A pair counts as won where both hold; the best patch is the one whose worse margin is best.

    Args:
        liveness: the detector; it is given whole photographs, resized where it has a ``face_size``. weight: of its
            gradient beside the recognizers'.

    Raises:
        AuditError: a weight that is not above 0, beside what ``FacePatch`` raises.
    """

    mask: Mask = field(default_factory=FaceMask, kw_only=False)
    liveness: LivenessDetector
    weight: float = 1.0

    goal: ClassVar[str] = "somebody is taken for another, or no longer for themselves, and passes for alive"
    threat: ClassVar[str] = "Somebody who has the recognizer and the liveness detector, and wears one patch for both."
    refs: ClassVar[tuple[str, ...]] = ("000 §4.1", "000 §4.3.2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight > 0:
            raise AuditError("weight of liveness", expected="a number above 0", got=repr(self.weight),
                             mend="correct it, or use FacePatch")  # fmt: skip

    def __repr__(self) -> str:
        return f"{super().__repr__()} alive"

    @property
    def name(self) -> str:
        return f"patch per pair that passes liveness ({self!r})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        detector = {"liveness": type(self.liveness).__name__, "threshold": float(self.liveness.threshold)}
        return {**super().spec(), "probe": "living face patch", **detector, "weight": self.weight}

    def aim(self, aimed: Aimed, attacked: Attacked, masks: Tensor, seed: int) -> Aimed:
        del seed
        clean = live_scores(self.liveness, masks.device)(attacked.sources.images)
        unit = (clean - float(self.liveness.threshold)).abs().clamp(min=1e-3)
        inner = {f.name: getattr(aimed, f.name) for f in fields(Aimed)}
        return LivingAimed(**inner, liveness=self.liveness, masks=masks, unit=unit, weight=self.weight)


def scores(liveness: LivenessDetector, images: Tensor) -> Tensor:
    """(N,) float32 live scores of photographs (N, 3, H, W) in [0, 1], resized where the detector has a face size."""
    size = getattr(liveness, "face_size", None)
    if size is not None:
        wanted = (int(size[0]), int(size[1]))
        if tuple(images.shape[2:]) != wanted:
            images = F.interpolate(images, size=wanted, mode="bilinear", antialias=True, align_corners=False)
    return liveness(images).float()


def live_scores(liveness: LivenessDetector, device: torch.device | None = None) -> Callable[[Tensor], Tensor]:
    """What a measure asks: uint8 photographs (N, 3, H, W) to live scores (N,), without gradients."""

    def ask(images: Tensor) -> Tensor:
        out = []
        for i in range(0, len(images), _CHUNK):
            part = images[i : i + _CHUNK].to(device or _device_of(liveness)).float() / 255
            with torch.inference_mode():
                out.append(scores(liveness, part))
        return torch.cat(out).clone() if out else torch.zeros(0)

    return ask


def _device_of(liveness: LivenessDetector) -> torch.device:
    """Where its weights are; the CPU where it has none."""
    for module in modules_of(liveness):
        for weight in (*module.parameters(), *module.buffers()):
            return torch.device(weight.device)
    return torch.device("cpu")
