"""Other models that an attacker may hold instead of the audited one: loaded, checked, and told in its classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audit.contracts import Candidates, Detections, Detector, WhiteBoxDetector
from audit.data.scenes import plain
from audit.errors import ModelError
from audit.execution import Execution
from audit.state import frozen, modules_of, state_digest
from audit.tiny import tiny_images

if TYPE_CHECKING:
    from audit.subject import Subject

_NEVER = -30.0
"""Log-odds of a class that a surrogate does not know."""


@dataclass(frozen=True)
class Surrogate:
    """A detector in the attacker's hands.

    Attributes:
        name: as in the model file, or the file's stem. detector: with labels and candidates in the classes of the
            audited model. digest: sha256 of its files and weights. source: where it comes from.
    """

    name: str
    detector: Detector
    digest: str
    source: str

    @property
    def white_box(self) -> bool:
        """Whether it shows candidates, so that patches can be made on it."""
        return isinstance(self.detector, WhiteBoxDetector)


class _Relabelled:
    """A detector that speaks in another list of classes; what is not on that list is not told."""

    def __init__(self, detector: Detector, classes: Sequence[str]) -> None:
        self.inner = detector
        self.classes: Sequence[str] = tuple(classes)
        self.score_threshold = detector.score_threshold
        own = {plain(c): i for i, c in enumerate(detector.classes)}
        self.from_own = [own.get(plain(c), -1) for c in classes]
        self.to_theirs = torch.full((len(detector.classes),), -1, dtype=torch.int64)
        for theirs, mine in enumerate(self.from_own):
            if mine >= 0:
                self.to_theirs[mine] = theirs

    def __call__(self, images: Tensor) -> list[Detections]:
        out = []
        for d in self.inner(images):
            labels = self.to_theirs.to(d.labels.device)[d.labels]
            known = labels >= 0
            out.append(Detections(d.boxes[known], d.scores[known], labels[known]))
        return out


class _RelabelledWhiteBox(_Relabelled):
    inner: WhiteBoxDetector

    def candidates(self, images: Tensor) -> Candidates:
        found = self.inner.candidates(images)
        never = found.logits.new_full((*found.logits.shape[:2], 1), _NEVER)
        index = [i if i >= 0 else len(self.inner.classes) for i in self.from_own]
        logits = torch.cat([found.logits, never], 2)[:, :, index]
        return Candidates(found.boxes, logits)


def relabelled(detector: Detector, classes: Sequence[str]) -> Detector:
    """The detector in another list of classes, matched by name without regard to case, spaces, hyphens, underscores.

    Raises:
        ModelError: it knows none of them.
    """
    if [plain(c) for c in detector.classes] == [plain(c) for c in classes]:
        return detector
    if not {plain(c) for c in detector.classes} & {plain(c) for c in classes}:
        raise ModelError(
            "surrogate",
            expected=f"a detector of {', '.join(list(classes)[:5])}",
            got=f"one of {', '.join(list(detector.classes)[:5])}",
            mend="give surrogates that look for the same things as the audited model",
        )
    kind = _RelabelledWhiteBox if isinstance(detector, WhiteBoxDetector) else _Relabelled
    return kind(detector, classes)


def surrogates_of(subject: Subject, files: Sequence[str], device: torch.device) -> dict[str, Surrogate]:
    """Name -> surrogate, of the model file's own ``surrogates(device)`` and of other model files.

    Raises:
        ModelError: one breaks its contract, is no detector, shares no class with the audited one, or has the name of
        another.
    """
    from audit.checks import check
    from audit.subject import load

    classes = subject.tasks["detector"].classes
    found: dict[str, Surrogate] = {}

    def add(name: str, detector: object, source: str, digest: str) -> None:
        if name in found:
            raise ModelError(
                f"surrogate {name!r}", expected="a name of its own", got="the same name twice", mend="rename one file"
            )
        if not isinstance(detector, Detector):
            raise ModelError(
                f"surrogate {name!r} of {source}",
                expected="a detector (classes, score_threshold, a call that returns Detections)",
                got=type(detector).__name__,
                mend="wrap it with an adapter of audit.adapters",
            )
        found[name] = Surrogate(name, relabelled(detector, classes), digest, source)

    if subject.surrogates_fn is not None:
        own = subject.surrogates_fn()
        checked = replace(subject, tasks={}, access={}, modules=modules_of(*own.values()))
        for name, thing in own.items():
            if isinstance(thing, Detector):
                check(replace(checked, tasks={"detector": thing}, access={"detector": "query"}))
            add(name, thing, str(subject.path), _digest(thing, [f.sha256 for f in subject.files], device))
    for file in files:
        other = load(file, device)
        check(other)
        if "detector" in other.tasks:
            thing = other.tasks["detector"]
            add(other.name, thing, str(other.path), _digest(thing, [f.sha256 for f in other.files], device))
        else:
            raise ModelError(
                f"surrogate {file}",
                expected="a model file with a detector",
                got=f"one with {', '.join(other.tasks)}",
                mend="give the model file of a detector to --audit-surrogates",
            )
    return found


def _digest(detector: object, files: Sequence[str], device: torch.device) -> str:
    """sha256 of all that decides what a surrogate says: its files, weights, and its word on the tiny batch."""
    parts = [*files, state_digest(modules_of(detector))]
    for file in sorted(str(f) for f in getattr(detector, "files", ())):
        with Path(file).open("rb") as stream:
            parts.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if isinstance(detector, Detector):
        with frozen(modules_of(detector)):
            found = Execution(device).detect(detector, tiny_images((256, 320), device))
        # Rounded: two processes on a GPU may differ in the last bits.
        parts += [f"{(d.scores * 1e3).round().tolist()} {d.boxes.round().tolist()} {d.labels.tolist()}" for d in found]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
