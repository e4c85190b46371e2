"""The user's own Python file: read, run in isolation, and its exceptions told in one sentence."""

from __future__ import annotations

import difflib
import hashlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from audit.errors import AuditError, ModelError
from audit.tasks import told

_OURS = {"audit", "probes", "suites", "reports"}
_neighbours: dict[str, dict[str, types.ModuleType]] = {}


def read(path: Path) -> bytes:
    """The bytes of a model file.

    Raises:
        ModelError: there is no such file, or it is no ``.py`` file.
    """
    if not path.is_file():
        raise ModelError(
            f"model file {path}",
            expected="a Python file",
            got="a folder" if path.is_dir() else "no such file",
            mend="check the path, or start one with `python -m audit init`",
        )
    if path.suffix != ".py":
        raise ModelError(
            f"model file {path}",
            expected="a Python file (.py) with `def model(device)`",
            got=f"a {path.suffix or 'nameless'} file",
            mend="start one with `python -m audit init` and load your weights in it",
        )
    return path.read_bytes()


def run(path: Path, source: bytes) -> types.ModuleType:
    """The module that those bytes make, under a name of its own; no bytecode is read or left."""
    digest = hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()
    module = types.ModuleType(f"audited_{digest[:12]}")
    module.__file__ = str(path.resolve())
    # Compiled from the very bytes that are digested, never from a stale cache.
    code = compile(source, str(path), "exec", dont_inherit=True)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up by name
    exec(code, module.__dict__)  # noqa: S102 running the user's own model file is what we are asked to do
    return module


def function(path: Path, module: types.ModuleType, name: str, *, required: bool = False) -> Callable[..., Any] | None:
    """The user's function of that name, ``None`` where there is none.

    Raises:
        ModelError: it is required and not there, or something of that name cannot be called.
    """
    thing = getattr(module, name, None)
    if not required and (thing is None or isinstance(thing, types.ModuleType)):
        return None  # a module that the file imports may have any name
    if not callable(thing):
        names = [n for n, v in vars(module).items() if isinstance(v, types.FunctionType) and not n.startswith("_")]
        near = difflib.get_close_matches(name, names, 1)
        raise ModelError(
            f"model file {path}",
            expected=f"a function `{name}`",
            got=f"{told(thing)} of that name" if thing is not None else _named(names),
            mend=f"rename `{near[0]}`" if near else "add `def model(device)` that returns your model",
        )
    return thing  # type: ignore[no-any-return]


@contextmanager
def users_code(path: Path, expected: str) -> Iterator[None]:
    """Whatever the user's code raises inside becomes one sentence with the exception and the user's line."""
    try:
        yield
    except AuditError:
        raise
    except (Exception, SystemExit) as error:
        line = _line(path, error)
        what = " ".join(str(error).split())
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
        raise ModelError(
            f"model file {path}",
            expected=expected,
            got=(what if len(what) <= 300 else what[:297] + "...") + (f" at line {line}" if line else ""),
            mend=_mend(path, error, line),
        ) from error


@contextmanager
def beside(folder: Path, *, fresh: bool = False) -> Iterator[Callable[[], dict[str, types.ModuleType]]]:
    """The folder on ``sys.path``; yields a function that gives the modules that were imported from it.

    Args:
        fresh: forget what an earlier model file of this folder imported from it; of other folders, always.
    """
    place = str(folder.resolve())
    for where in [w for w in _neighbours if fresh or w != place]:
        # A module of the same name may stand beside another model file.
        for name, old in _neighbours.pop(where).items():
            if sys.modules.get(name) is old:
                del sys.modules[name]
    before, bytecode = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, place)
    sys.dont_write_bytecode = True

    def imported() -> dict[str, types.ModuleType]:
        new = {n: m for n, m in sys.modules.items() if n not in before and n.partition(".")[0] not in _OURS}
        return {n: m for n, m in new.items() if _top_is_in(n, place)}

    try:
        yield imported
    finally:
        sys.dont_write_bytecode = bytecode
        with suppress(ValueError):
            sys.path.remove(place)
        if place not in sys.path:
            _neighbours.setdefault(place, {}).update(imported())


def _top_is_in(name: str, place: str) -> bool:
    file = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    if file is None or name.startswith("audited_"):
        return False
    where = Path(file).parent
    return place in {str(where), str(where.parent) if Path(file).stem == "__init__" else ""}


def _named(names: Sequence[str]) -> str:
    return f"only {', '.join(f'`{n}`' for n in names[:5])}" if names else "no function at all"


def _line(path: Path, error: BaseException) -> int | None:
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).name == path.name:
        return error.lineno
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path):
            line = step.tb_lineno
        step = step.tb_next
    return line


def _mend(path: Path, error: BaseException, line: int | None) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name} in the environment that runs the audit"
    if isinstance(error, SystemExit):
        return "do not end the process from a model file"
    if isinstance(error, SyntaxError) and line is None:
        return "save it as Python source text"
    return f"mend {f'line {line}' if line else 'the model'} and try `python -m audit doctor {path}`"
