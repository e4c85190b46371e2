"""Write a model file to start from."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from audit.errors import AuditError

TEMPLATES = {
    "detector": ("torchvision", "onnx", "callable"),
    "recognizer": ("callable",),
    "forgery": ("callable",),
    "liveness": ("callable",),
    "classifier": ("callable",),
    "attributor": ("callable",),
}
"""Task -> adapters with a template, the usual one first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    adapters = list(dict.fromkeys(a for names in TEMPLATES.values() for a in names))
    parser.add_argument("path", nargs="?", default="mymodel.py", metavar="PATH", help="the file to write (mymodel.py)")
    parser.add_argument("--task", choices=list(TEMPLATES), default="detector", help="what the model does (detector)")
    parser.add_argument(
        "--adapter", choices=adapters, help="how the model comes; the first that the task has, if not given"
    )


def run(options: argparse.Namespace) -> int:
    """Writes the file; 0.

    Raises:
        AuditError: the file is there already, cannot be written, or the task has no such adapter.
    """
    path, adapter = Path(options.path), options.adapter or TEMPLATES[options.task][0]
    if adapter not in TEMPLATES[options.task]:
        names = " or ".join(TEMPLATES[options.task])
        raise AuditError(
            f"--adapter for a {options.task}", expected=names, got=repr(adapter), mend=f"write --adapter {names}"
        )
    if path.suffix != ".py":
        raise AuditError(
            "PATH", expected="the name of a Python file (.py)", got=repr(str(path)), mend=f"write {path}.py"
        )
    source = resources.files("audit.cli").joinpath("templates", f"{options.task}_{adapter}.py.txt").read_text()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(source.replace("MODEL_FILE", str(path)))
    except FileExistsError as error:
        raise AuditError(
            f"model file {path}", expected="no such file yet", got="one that is there", mend="choose another name"
        ) from error
    except OSError as error:
        raise AuditError(
            f"model file {path}",
            expected="a place that can be written",
            got=error.strerror or type(error).__name__,
            mend="choose another",
        ) from error
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{path} is written. Put your model into it, then check it:", markup=False)
    console.print(f"  python -m audit doctor {path}", markup=False)
    return 0
