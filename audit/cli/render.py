"""Make the report of what a run's journal holds, also after a crash."""

from __future__ import annotations

import argparse
from pathlib import Path

from audit.errors import AuditError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "folder", nargs="?", default="audit-report", metavar="DIR", help="a run's output folder (audit-report)"
    )


def run(options: argparse.Namespace) -> int:
    """Writes the report and prints verdict and path; 0.

    Raises:
        AuditError: there is no journal in the folder, or the folder cannot be written.
    """
    import reports
    from audit.assemble import assemble

    folder = Path(options.folder)
    report = assemble(folder)
    try:
        written = reports.write(report, folder)
    except OSError as error:
        raise AuditError(
            f"report folder {folder}",
            expected="a folder that can be written",
            got=error.strerror or type(error).__name__,
            mend="change its permissions, or copy it elsewhere",
        ) from error
    from rich.console import Console

    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in report.summary.items() if n)
    whole = "" if report.run.complete else " (incomplete: not every control ran)"
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"verdict: {report.verdict}{whole}: {counts or 'nothing was measured'}", markup=False)
    console.print(f"report: {written}", markup=False)
    return 0
