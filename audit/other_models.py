"""Other people's models of the audited model's task: from ``surrogates(device)`` and from other model files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audit.errors import ModelError
from audit.image_model import ImageModel
from audit.record import digest
from audit.state import frozen, modules_of, state_digest
from audit.tasks import access_of, conforms, tiny_input, told

if TYPE_CHECKING:
    from audit.session import AuditSession
    from audit.subject import Subject


@dataclass(frozen=True)
class Offered:
    """A model that somebody else made, checked against its contract.

    Attributes:
        digest: sha256 of all that decides what it says: its files, weights and its word on the tiny batch.
    """

    name: str
    thing: Any
    white_box: bool
    digest: str


def other_models(
    subject: Subject,
    files: Sequence[str],
    device: torch.device,
    task: str,
    *,
    fits: Callable[[object], bool],
    expected: str,
    mend: str,
) -> list[Offered]:
    """The model file's own ``surrogates(device)``, then those of other model files, all of one task.

    Args:
        fits: whether an object meets the task's contract; ``expected`` and ``mend`` tell who hands in another.

    Raises:
        ModelError: one breaks its contract, is of another task, or has the name of another.
    """
    from audit.checks import check
    from audit.subject import load

    found: dict[str, Offered] = {}

    def add(name: str, thing: object, source: Subject) -> None:
        if name in found:
            raise ModelError(
                f"surrogate {name!r}", expected="a name of its own", got="the same name twice", mend="rename one file"
            )
        if not fits(thing):
            raise ModelError(f"surrogate {name!r} of {source.path}", expected=expected, got=told(thing), mend=mend)
        conforms(source.path, task, thing)
        access = access_of(task, thing, device, modules_of(thing))
        check(replace(source, tasks={task: thing}, access={task: access}, modules=modules_of(thing)))
        found[name] = Offered(name, thing, access == "white-box", _digest(task, thing, source, device))

    own: Mapping[str, object] = {} if subject.surrogates_fn is None else subject.surrogates_fn()
    for name, thing in own.items():
        add(name, thing, subject)
    for file in files:
        other = load(file, device)
        if task not in other.tasks:
            article = "an" if task[0] in "aeio" else "a"
            raise ModelError(
                f"surrogate {file}",
                expected=f"a model file with {article} {task} model",
                got=f"one with {', '.join(other.tasks)}",
                mend=f"give the file of {article} {task} model to --audit-surrogates",
            )
        add(other.name, other.tasks[task], other)
    return list(found.values())


def audited_image_model(session: AuditSession, task: str) -> ImageModel:
    """The audited model of a task, as probes and measures ask it."""
    subject = session.subject
    white = subject.access[task] == "white-box"
    return ImageModel("the audited model", subject.tasks[task], task, white, place=session.execution.device)


def other_image_models(session: AuditSession, task: str, mend: str) -> dict[str, ImageModel]:
    """Every other model of a task that is given, by name; maybe none.

    Raises:
        ModelError: one breaks its contract, is of another task, or has the name of another; ``mend`` says what to do.
    """
    device = session.execution.device
    found = other_models(
        session.subject, session.options.surrogates, device, task,
        fits=callable, expected=f"a {task} model that can be called on images", mend=mend,
    )  # fmt: skip
    return {o.name: ImageModel(o.name, o.thing, task, o.white_box, o.digest, device) for o in found}


ATTRIBUTES = ("face_size", "input_size", "threshold", "metric", "template", "clip_frames", "trained_on", "classes")


def says(task: str, thing: Any, device: torch.device) -> list[Any]:
    """What a model says of the tiny batch, rounded, and how it decides: its weights may sit where no digest of files
    and modules reaches them.
    """
    images = tiny_input(thing, device)
    with torch.inference_mode(), frozen(modules_of(thing)):
        out = thing(images) if callable(thing) else thing.similarity(images, images.roll(1, 0))
    said = (out.float().cpu() * 1e3).round().tolist()
    return [task, said, *(repr(getattr(thing, a, None)) for a in ATTRIBUTES)]


def _digest(task: str, thing: object, source: Subject, device: torch.device) -> str:
    parts = [*(f.sha256 for f in source.files), state_digest(modules_of(thing))]
    for file in sorted(str(f) for f in getattr(thing, "files", ())):
        with Path(file).open("rb") as stream:
            parts.append(hashlib.file_digest(stream, "sha256").hexdigest())
    parts.append(digest(says(task, thing, device)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
