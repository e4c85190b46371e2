"""Other recognizers that an attacker may hold instead of the audited one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audit.comparison import Comparison
from audit.contracts import BlackBoxRecognizer, Recognizer
from audit.errors import ModelError
from audit.record import digest
from audit.state import frozen, modules_of, state_digest
from audit.tasks import access_of, conforms, input_size, told
from audit.tiny import tiny_images

if TYPE_CHECKING:
    from audit.subject import Subject


def face_surrogates(subject: Subject, files: Sequence[str], device: torch.device) -> dict[str, Comparison]:
    """Name -> comparison, of the model file's own ``surrogates(device)`` and of other model files.

    Raises:
        ModelError: one breaks its contract, is no recognizer, or has the name of another.
    """
    from audit.checks import check
    from audit.subject import load

    found: dict[str, Comparison] = {}

    def add(name: str, thing: object, source: Subject) -> None:
        if name in found:
            raise ModelError(
                f"surrogate {name!r}", expected="a name of its own", got="the same name twice", mend="rename one file"
            )
        if not isinstance(thing, Recognizer | BlackBoxRecognizer):
            raise ModelError(
                f"surrogate {name!r} of {source.path}",
                expected="a recognizer (face_size, threshold, a call that returns embeddings)",
                got=told(thing),
                mend="wrap it with audit.adapters.recognizer",
            )
        conforms(source.path, "recognizer", thing)
        access = access_of("recognizer", thing, device, modules_of(thing))
        check(replace(source, tasks={"recognizer": thing}, access={"recognizer": access}, modules=modules_of(thing)))
        found[name] = Comparison(name, thing, access == "white-box", _digest(thing, source, device))

    if subject.surrogates_fn is not None:
        for name, thing in subject.surrogates_fn().items():
            add(name, thing, subject)
    for file in files:
        other = load(file, device)
        if "recognizer" not in other.tasks:
            raise ModelError(
                f"surrogate {file}",
                expected="a model file with a recognizer",
                got=f"one with {', '.join(other.tasks)}",
                mend="give the model file of a recognizer to --audit-surrogates",
            )
        add(other.name, other.tasks["recognizer"], other)
    return found


def says_of_faces(task: str, thing: Any, device: torch.device) -> list[Any]:
    """What a model of faces says of the tiny batch, rounded, and how it compares: its weights may sit where no digest
    of files and modules reaches them.
    """
    faces = tiny_images(input_size(thing), device)
    with torch.inference_mode(), frozen(modules_of(thing)):
        out = thing(faces) if callable(thing) else thing.similarity(faces, faces.roll(1, 0))
    said = (out.float().cpu() * 1e3).round().tolist()
    return [task, said, *(repr(getattr(thing, a, None)) for a in ("face_size", "threshold", "metric", "template"))]


def _digest(thing: object, source: Subject, device: torch.device) -> str:
    """sha256 of all that decides what a surrogate says: its files, weights, and how it compares."""
    parts = [*(f.sha256 for f in source.files), state_digest(modules_of(thing))]
    for file in sorted(str(f) for f in getattr(thing, "files", ())):
        with Path(file).open("rb") as stream:
            parts.append(hashlib.file_digest(stream, "sha256").hexdigest())
    parts.append(digest(says_of_faces("recognizer", thing, device)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
