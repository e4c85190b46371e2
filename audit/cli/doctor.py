"""Check a model file against its contract on a tiny batch, and say what it can be attacked with."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.record import Precondition
    from audit.subject import Subject

SUITES = {
    "detector": "test_detection.py",
    "recognizer": "test_recognition.py",
    "forgery": "test_forgery.py",
    "liveness": "test_liveness.py",
    "classifier": "test_classification.py",
}
ATTACKS = {
    "white-box": "gradients: attacks are optimised through the model itself",
    "query": "queries only: attacks are searched for by asking, without gradients",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("model", metavar="MODEL", help="a Python file with `def model(device)`")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0 … (auto)")


def run(options: argparse.Namespace) -> int:
    """Prints what was found; 0.

    Raises:
        AuditError: the model file breaks its contract, in one sentence.
    """
    import torch

    from audit.checks import check
    from audit.subject import find_device, load

    torch.set_num_threads(1)  # a tiny batch; spinning threads cost more than they give
    device = find_device(options.device, "--device")
    subject = load(options.model, device)
    _show(subject, check(subject))
    return 0


def _show(subject: Subject, facts: list[Precondition]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"{subject.path} meets its contract on {subject.device}."), soft_wrap=True)
    models = Table("task", "offers", "controls", title="What it can be attacked with", title_justify="left")
    for task in subject.tasks:
        models.add_row(task, ATTACKS[subject.access[task]], _suite(task))
    console.print(models)
    for task, thing in subject.tasks.items():
        for line in getattr(thing, "remarks", list)():
            console.print(Text(f"{task}: {line}"), soft_wrap=True)
    checks = Table("", "check on the tiny batch", "value", "expected", title="What was seen", title_justify="left")
    for fact in facts:
        value = "none" if fact.value is None else f"{fact.value:.4g}"
        checks.add_row("ok" if fact.ok else "!!", Text(fact.name), value, Text(fact.expected))
    console.print(checks)
    for fact in facts:
        if not fact.ok:
            console.print(Text(f"!! {fact.name}: {fact.meaning}. No pass can stand on it."), soft_wrap=True)
    for file in subject.files:
        console.print(Text(f"file {file.path}  sha256 {file.sha256}"), soft_wrap=True)
    declared = ", ".join(f"{k} {v:g}" for k, v in subject.declared.items())
    console.print(Text(f"declared clean performance: {declared or 'none; write declared = {...} to have it checked'}"))
    extras = {
        "surrogates(device), for attacks by transfer": subject.surrogates_fn,
        "generator(device), for attacks in a face generator": subject.generator_fn,
        "landmarks(device), for photographs without any": subject.landmarks_fn,
        "data(root), the owner's own data": subject.data_fn,
    }
    for name, function in extras.items():
        if function is not None:
            console.print(Text(f"also offers {name}"), soft_wrap=True)


def _suite(task: str) -> str:
    spec = find_spec("suites")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(place) / SUITES[task]).is_file():
            return f"suites/{SUITES[task]}"
    return "none yet for this task"
