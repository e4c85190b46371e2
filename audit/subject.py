"""The model under audit: a model file, loaded in isolation, with what it offers, its digests and its device."""

from __future__ import annotations

import difflib
import hashlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audit.contracts import TASKS
from audit.embedding import Embedding
from audit.errors import AuditError, ModelError
from audit.modelfile import beside, function, read, run, users_code
from audit.record import File
from audit.state import modules_of, state_digest
from audit.tasks import access_of, conforms, find_task, told

__all__ = ["Subject", "find_device", "load"]

DECLARED = ("recall", "precision", "accuracy", "auc")
"""What a model file may declare of its clean performance."""


@dataclass
class Subject:
    """The model under audit.

    Attributes:
        name: the model file's stem. path: the file as it was given. device: where the models are.
        tasks: task -> contract object, task one of ``audit.contracts.TASKS``.
        access: task -> ``white-box`` or ``query``, what the object offers to an attacker.
        files: the model file, modules beside it that it imported, and the weight files that its adapters name.
        declared: the owner's own clean performance in [0, 1], ``recall`` and ``precision`` of a detector, ``accuracy``
            of a recognizer over genuine and impostor pairs alike or of a classifier, ``auc`` of a forgery or liveness
            detector; empty where not given.
        modules: every torch module that the objects stand on.
        surrogates_fn: ``surrogates(device)`` of the file, giving name -> contract object. generator_fn: its
        ``generator(device)``. landmarks_fn: its ``landmarks(device)``. faces_fn: its ``faces(device)``, a detector of
        faces that cuts them out of photographs and videos. lpips_fn: its ``lpips(device)``, a perceptual distance of
        two batches of images in [0, 1], (N,). data_fn: its ``data(root)``. ``None`` where the file has
        none.
    """

    name: str
    path: Path
    device: torch.device
    tasks: dict[str, Any]
    access: dict[str, str]
    files: list[File]
    declared: dict[str, float] = field(default_factory=dict)
    modules: list[nn.Module] = field(default_factory=list)
    surrogates_fn: Callable[[], dict[str, Any]] | None = None
    generator_fn: Callable[[], Any] | None = None
    landmarks_fn: Callable[[], Any] | None = None
    faces_fn: Callable[[], Any] | None = None
    lpips_fn: Callable[[], Any] | None = None
    data_fn: Callable[[Path], Any] | None = None

    def state_digest(self) -> str:
        """sha256 over all weights, buffers, training and ``requires_grad`` flags of ``modules``."""
        return state_digest(self.modules)


def find_device(name: str, option: str = "--audit-device") -> torch.device:
    """The torch device of that name; ``auto`` takes the first accelerator, or the CPU.

    Raises:
        AuditError: no device of that name is on this machine.
    """
    there = _devices()
    if name == "auto":
        return torch.device(there[-1] if len(there) == 1 else there[1])
    try:
        device = torch.device(name)
    except RuntimeError:  # not even the name of a kind of device
        device = None
    plain = "" if device is None else "cpu" if device.type == "cpu" else f"{device.type}:{device.index or 0}"
    if device is None or plain not in there:
        here = ", ".join(there)
        raise AuditError(
            option, expected=f"a device of this machine ({here})", got=repr(name), mend=f"choose {there[0]!r}, say"
        )
    return device


def load(path: str | Path, device: str | torch.device = "cpu") -> Subject:
    """The subject of a model file.

    The file runs under a name of its own, with its folder on ``sys.path`` while it does, and leaves no bytecode. Its
    ``model(device)`` returns one contract object, or a dict of task -> object.

    Args:
        path: a Python file with ``model(device)``. device: a torch device, or its name.

    Raises:
        ModelError: the file is missing, is not Python, has no ``model``, raises, returns the wrong thing, or declares
        something that cannot be. AuditError: the device does not exist.
    """
    path = Path(path)
    device = find_device(device) if isinstance(device, str) else device
    source = read(path)
    with users_code(path, "a file that can be imported"), beside(path.parent, fresh=True) as neighbours:
        module = run(path, source)
        maker = function(path, module, "model", required=True)
        assert maker is not None
        with users_code(path, "model(device) to return a model"):
            made = maker(device)
        tasks = _tasks(path, made, device)
        with users_code(path, "a model that takes images"):
            modules = modules_of(*tasks.values())
            access = {task: access_of(task, thing, device, modules) for task, thing in tasks.items()}
        files = _files(path, source, tasks, neighbours())
    return Subject(
        name=path.stem,
        path=path,
        device=device,
        tasks=tasks,
        access=access,
        files=files,
        declared=_declared(path, module),
        modules=modules,
        surrogates_fn=_surrogates(path, module, device),
        generator_fn=_guarded(path, module, "generator", device),
        landmarks_fn=_guarded(path, module, "landmarks", device),
        faces_fn=_guarded(path, module, "faces", device),
        lpips_fn=_guarded(path, module, "lpips", device),
        data_fn=_guarded(path, module, "data"),
    )


def _devices() -> list[str]:
    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps:0")
    return names


def _tasks(path: Path, made: object, device: torch.device) -> dict[str, Any]:
    if isinstance(made, Mapping):
        wrong = [k for k in made if k not in TASKS]
        if wrong or not made:
            near = difflib.get_close_matches(str(wrong[0]), TASKS, 1) if wrong else []
            raise ModelError(
                f"model file {path}",
                expected=f"model(device) to return a dict with tasks among {', '.join(TASKS)}",
                got=repr(wrong[0]) if wrong else "an empty dict",
                mend=f"write {near[0]!r}" if near else "name the task of each model",
            )
        with users_code(path, "a model that takes images"):
            tasks = {task: _plain(thing, device) if task == "detector" else thing for task, thing in made.items()}
    else:
        with users_code(path, "a model that takes images"):
            made = _plain(made, device)
            tasks = {find_task(path, made, device): made}
    if callable(getattr(tasks.get("forgery"), "embed", None)):
        # What tells fakes from real faces may tell fakes from one another as well.
        tasks.setdefault("attributor", Embedding(tasks["forgery"]))
    for task, thing in tasks.items():
        conforms(path, task, thing)
    return tasks


def _plain(thing: Any, device: torch.device) -> Any:
    """A MAITE object detector passes as it is: wrapped here, everything else untouched."""
    if not hasattr(thing, "metadata"):
        return thing
    from audit.adapters.maite import as_it_is

    return as_it_is(thing, device)


def _declared(path: Path, module: types.ModuleType) -> dict[str, float]:
    declared = getattr(module, "declared", {})
    if not isinstance(declared, Mapping):
        raise ModelError(
            f"model file {path}",
            expected="`declared` to be a dict such as {'recall': 0.9}",
            got=told(declared),
            mend="write it as a dict, or leave it out",
        )
    for key, value in declared.items():
        if key not in DECLARED:
            raise ModelError(
                f"model file {path}",
                expected=f"`declared` with keys among {', '.join(DECLARED)}",
                got=repr(key),
                mend="rename or remove that key",
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ModelError(
                f"model file {path}",
                expected=f"declared {key} as a share in [0, 1]",
                got=repr(value),
                mend="write 0.93 for 93 %",
            )
    return {str(k): float(v) for k, v in declared.items()}


def _files(path: Path, source: bytes, tasks: Mapping[str, Any], beside: Mapping[str, types.ModuleType]) -> list[File]:
    files = [File(path=str(path), sha256=hashlib.sha256(source).hexdigest(), bytes=len(source))]
    named = [f for thing in tasks.values() for f in getattr(thing, "files", ())]
    named += [m.__file__ for m in beside.values() if getattr(m, "__file__", None)]
    for file in sorted({Path(f).resolve() for f in named} - {path.resolve()}):
        if not file.is_file():
            raise ModelError(
                f"model file {path}",
                expected="the weight files of its models to be there",
                got=f"no file {file}",
                mend="correct `files` of the model object",
            )
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files.append(File(path=_short(file, path), sha256=digest, bytes=file.stat().st_size))
    return files


def _short(file: Path, path: Path) -> str:
    """Relative to the model file or the working folder; elsewhere the last two parts, so that no home folder shows."""
    for root in (path.resolve().parent, Path.cwd()):
        if file.is_relative_to(root):
            return file.relative_to(root).as_posix()
    return "/".join(file.parts[-2:])


def _guarded(path: Path, module: types.ModuleType, name: str, *first: object) -> Callable[..., Any] | None:
    users = function(path, module, name)
    if users is None:
        return None

    def call(*args: object) -> Any:
        with users_code(path, f"{name}(...) to return"), beside(path.parent):
            return users(*first, *args)

    return call


def _surrogates(path: Path, module: types.ModuleType, device: torch.device) -> Callable[[], dict[str, Any]] | None:
    call = _guarded(path, module, "surrogates", device)
    if call is None:
        return None

    def named() -> dict[str, Any]:
        made = call()
        if isinstance(made, Mapping):
            return {str(k): v for k, v in made.items()}
        if isinstance(made, list | tuple):
            return {f"surrogate-{i}": v for i, v in enumerate(made, 1)}
        raise ModelError(
            f"model file {path}",
            expected="surrogates(device) to return a dict of name -> model, or a list of models",
            got=told(made),
            mend="put the models into a dict",
        )

    return named
