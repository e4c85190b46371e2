"""What the scorings of ``python -m audit score`` share: models, device, a bar, the JSON file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.errors import AuditError, ModelError

if TYPE_CHECKING:
    from audit.execution import Execution
    from audit.subject import Subject

SCORED, VOID = 0, 1


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that every scoring has."""
    parser.add_argument("--json", metavar="FILE", help="write everything there as well")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 … (auto)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (1)")


def execution_of(options: argparse.Namespace) -> Execution:
    """Device and threads as asked for; sets the threads."""
    if not 1 <= options.threads <= 1024:
        raise AuditError("--threads", expected="1 to 1024", got=str(options.threads), mend="choose a number of cores")

    import torch

    from audit.execution import Execution
    from audit.subject import find_device

    torch.set_num_threads(options.threads)
    return Execution(find_device(options.device, "--device"), threads=options.threads)


def subjects_of(paths: Sequence[str], task: str, device: Any) -> dict[str, Subject]:
    """Name -> the checked subject of a file that has the task; the file's stem, or its path where two share one."""
    from audit.checks import check
    from audit.subject import load

    found: dict[str, Subject] = {}
    for path in paths:
        subject = load(path, device)
        if task not in subject.tasks:
            raise ModelError(
                f"model file {path}", expected=f"a {task}", got=", ".join(subject.tasks), mend=f"give a {task}'s file"
            )
        check(subject)
        name = subject.name if subject.name not in found else str(path)
        if any(s.path.resolve() == subject.path.resolve() for s in found.values()):
            raise AuditError("--model", expected="each file once", got=f"{path} twice", mend="leave one out")
        found[name] = subject
    return found


@contextmanager
def bar(task: str) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr, where somebody looks at it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        line = shown.add_task(task, total=1.0)
        yield lambda share, text: shown.update(line, completed=share, description=text)


def number(value: float | None) -> str:
    """Six places, or a dash."""
    return "–" if value is None else f"{value:.6f}"


def write(path: Path, record: dict[str, Any]) -> None:
    """The record as JSON."""
    try:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AuditError(
            f"--json {path}", expected="a file that can be written", got=str(error.strerror), mend="correct the path"
        ) from error
