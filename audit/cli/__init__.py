"""The side commands of ``python -m audit``: init, doctor, render, score."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from audit import __version__
from audit.cli import doctor, init, print_patch, render, score
from audit.errors import AuditError

OK, WRONG = 0, 4
"""Exit codes: 4 is pytest's own for a usage error, and so for everything that the user can mend."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(WRONG, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one side command; returns 0, or 4 with one sentence on stderr."""
    parser, commands = _parsers()
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        parser.print_help(sys.stderr)
        return WRONG
    options, unknown = parser.parse_known_args(given)
    if unknown:
        _refuse(getattr(options, "parser", commands[options.command]), unknown[0])
    try:
        return int(options.run(options))
    except AuditError as error:
        sys.stderr.write(f"{parser.prog} {options.command}: error: {error}\n")
        return WRONG


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="python -m audit",
        description="Assay: a robustness audit for computer-vision models. These stand beside the audit itself,"
        " which is: pytest suites/ --model mymodel.py",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"assay-audit {__version__}")
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    commands: dict[str, argparse.ArgumentParser] = {}
    for command in (init, doctor, render, score, print_patch):
        name = getattr(command, "NAME", command.__name__.rpartition(".")[2])
        text = (command.__doc__ or "").partition("\n")[0]
        commands[name] = added.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_arguments(commands[name])
        commands[name].set_defaults(run=command.run)
    return parser, commands


def _refuse(parser: argparse.ArgumentParser, unknown: str) -> NoReturn:
    valid = sorted(o for o in parser._option_string_actions if o.startswith("--"))  # noqa: SLF001 argparse has no other way
    near = difflib.get_close_matches(unknown.partition("=")[0], valid, 1)
    what = "option" if unknown.startswith("-") else "argument"
    mend = f"write {near[0]}, perhaps" if near else "remove it"
    parser.error(f"unknown {what} {unknown}: expected one of {', '.join(valid)}; {mend}")
