"""The audit's options, as pytest hands them over."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import pytest

from audit.errors import AuditError

HELP = {
    "model": "model file with `def model(device)` (also --model)",
    "data": "data to audit on: a file or folder in a known format, optionally FORMAT:PATH",
    "profile": "limits and budgets: a built-in name or a TOML file; by default the one for the model's task",
    "budget": "smoke, standard or certify",
    "device": "auto, cpu, cuda, cuda:0 …",
    "precision": "float32, bfloat16 or float16",
    "threads": "CPU threads per process; part of the protocol, since sums depend on it in the last bit",
    "seed": "seed of the run; every control derives its own from it and its id",
    "control": "run this control only (an id, or an id with its variant); may be repeated",
    "report": "output folder",
    "surrogates": "model file whose models serve as surrogates for transfer attacks; may be repeated",
    "patches": "published patches to try: a picture, or a folder of pictures; may be repeated",
    "cache": "folder of crafted patches and clean predictions",
}

REPEATED = ("control", "surrogates", "patches")
"""Options that may be given more than once."""


@dataclass(frozen=True)
class Options:
    """Options with their defaults; every name is ``--audit-NAME`` on the command line."""

    model: str | None = None
    data: str | None = None
    profile: str = ""
    budget: str = "smoke"
    device: str = "auto"
    precision: str = "float32"
    threads: int = 1
    seed: int = 0
    control: tuple[str, ...] = ()
    report: str = "audit-report"
    cache: str | None = None
    surrogates: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()

    def asdict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), **{name: list(getattr(self, name)) for name in REPEATED}}


def add_options(parser: pytest.Parser) -> None:
    """``--audit-…`` of every option."""
    group = parser.getgroup("assay", "robustness audit")
    for f in fields(Options):
        kind: dict[str, Any] = {"default": None, "dest": f"audit_{f.name}", "help": HELP[f.name]}
        if f.name in REPEATED:
            kind |= {"action": "append", "metavar": "ID" if f.name == "control" else "PATH"}
        elif f.name in ("threads", "seed"):
            kind |= {"type": int, "metavar": "N"}
        else:
            kind |= {"metavar": f.name.upper()}
        group.addoption(f"--audit-{f.name}", **kind)


def given(config: pytest.Config) -> dict[str, Any]:
    """The options that the user gave."""
    values = {f.name: getattr(config.option, f"audit_{f.name}", None) for f in fields(Options)}
    return {k: v for k, v in values.items() if v is not None}


def effective(config: pytest.Config) -> Options:
    """The options with defaults filled in.

    Raises:
        AuditError: a number out of range.
    """
    values = given(config)
    values |= {name: tuple(values[name]) for name in REPEATED if name in values}
    options = Options(**values)
    if not 1 <= options.threads <= 1024:
        raise AuditError(
            "--audit-threads", expected="1 to 1024", got=str(options.threads), mend="give a number in that range"
        )
    if not 0 <= options.seed < 2**63:
        raise AuditError(
            "--audit-seed", expected="0 to 2^63 − 1", got=str(options.seed), mend="give a number in that range"
        )
    return options
