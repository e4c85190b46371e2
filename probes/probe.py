"""What every probe offers, and the two things that all of them need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from audit import state
from audit.budget import Budget
from audit.contracts import Detector
from audit.data.scenes import Scenes
from audit.errors import DataError
from audit.execution import Execution

Access = Literal["white-box", "transfer", "query", "none"]
Progress = Callable[[float, str], None]
"""Called with the finished share in [0, 1] and a few words."""


class Probe(Protocol):
    """Proposes inputs; never counts its own success.

    Attributes:
        goal: what the attacker wants. threat: who, with what knowledge and means. refs: ids of the references.
        access: what of the model it needs.
    """

    goal: ClassVar[str]
    threat: ClassVar[str]
    refs: ClassVar[tuple[str, ...]]

    @property
    def access(self) -> Access: ...

    @property
    def name(self) -> str:
        """A few words for the report."""
        ...

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside model, data, budget and seed, as JSON."""
        ...

    def craft(
        self,
        detector: Detector,
        scenes: Scenes,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Any:
        """The crafted perturbation. ``scenes`` is the craft split, with labels as indices into ``detector.classes``."""
        ...


def generator(*parts: object) -> torch.Generator:
    """A random stream of its own, from a seed and names; no global state is read or changed."""
    text = "\0".join(str(p) for p in parts)
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def digest(pixels: Tensor) -> str:
    """sha256 of uint8 pixels with their shape."""
    return hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.cpu().contiguous().numpy().tobytes()).hexdigest()


def with_objects(scenes: Scenes) -> Scenes:
    """The scenes that have something to put a patch on.

    Raises:
        DataError: there is none.
    """
    chosen = tuple(s for s in scenes if bool((~s.ignore).any()))
    if not chosen:
        raise DataError(
            f"craft split of {scenes.name}",
            expected="at least one image with an object to put a patch on",
            got=f"{len(scenes)} images without one",
            mend="give more images, or lower the smallest object size of the profile",
        )
    return replace(scenes, scenes=chosen)


def frozen(*detectors: Detector) -> AbstractContextManager[None]:
    """The models in evaluation mode and without weight gradients; afterwards as they were, module by module."""
    return state.frozen(state.modules_of(*detectors))
