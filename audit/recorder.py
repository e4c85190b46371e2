"""Keeps the journal of a run on pytest's controller, writes the report at its end and sets the exit code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock, Timeout
from rich.console import Console

import audit
from audit import journal
from audit.assemble import assemble
from audit.control import REGISTRY, base
from audit.errors import AuditError
from audit.options import given
from audit.progress import Reporter
from audit.record import Report
from audit.session import AuditSession
from audit.stash import STEP
from audit.surroundings import PACKAGES, context_of, now, versions
from audit.trial import idle

EXIT_INCONCLUSIVE = 10
EXIT_INCOMPLETE = 11


class Recorder:
    """One per run, on the controller."""

    def __init__(self, config: pytest.Config, session: AuditSession) -> None:
        self.config, self.session = config, session
        self.begun = time.monotonic()
        self._lock = FileLock(str(session.folder / ".lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise AuditError(
                f"report folder {session.folder}",
                expected="a folder that no other audit is writing to",
                got="one that is in use",
                mend="wait for the other audit, or give another folder with --audit-report",
            ) from error
        self._taken_up = journal.unfinished(session.folder, session.key)
        self.finished: list[dict[str, Any]] = self._taken_up or []
        self.journal = journal.Journal(session.folder)
        self.report: Report | None = None
        self.planned = False
        self._open = ExitStack()
        self.progress = Reporter(self._line, self._console(), self._uncaptured)
        config.stash[STEP] = self.progress.step

    def _head(self) -> dict[str, Any]:
        s = self.session
        commit, dirty = _git(Path(__file__).resolve().parents[1])
        return {
            "key": s.key,
            "run": {
                "id": f"{now().replace(':', '').replace('-', '')[:15]}-{uuid.uuid4().hex[:6]}",
                "started": now(),
                "finished": None,
                "tool": f"assay {audit.__version__}",
                "commit": commit,
                "dirty": dirty,
                "command": " ".join(["pytest", *self.config.invocation_params.args]),
                "options_given": given(self.config),
                "options_effective": s.options.asdict(),
                "seed": s.options.seed,
                "complete": False,
            },
            **context_of(s),
            "data": [d.model_dump(mode="json") for d in s.data_records()],
            "environment": environment(self.config, s),
        }

    def _begin(self) -> None:
        """The journal is opened only now: a mistyped option must not touch that of an earlier run."""
        if self._taken_up is None:
            journal.retire(self.session.folder)
        self.journal.append("run", {**self._head(), "resumes": self._taken_up is not None})
        for fact in self.session.facts:
            self.journal.append("precondition", fact.model_dump(mode="json"))

    def plan(self) -> None:
        """Write down which controls the profile asks for, so that a missing one is a row of its own."""
        if self.planned:
            return
        self.planned = True
        self._begin()
        rows = []
        for id in self.session.profile.controls:
            spec = REGISTRY[base(id)]
            there = spec.task in self.session.subject.tasks
            reason = "Not reached." if there else f"The model file offers no {spec.task}."
            limit = self.session.profile.limit(id)
            row = idle(id, spec, "not_run" if there else "not_applicable", reason, limit)
            rows.append(row.model_dump(mode="json"))
        self.journal.append("plan", {"controls": rows})
        done = {c["id"] for c in self.finished}
        self.progress.total = sum(r["verdict"] == "not_run" for r in rows)
        self.progress.done = len(done)

    def pytest_configure_node(self, node: Any) -> None:
        """xdist: tell a worker which controls an earlier run finished."""
        node.workerinput["audit_finished"] = [c["id"] for c in self.finished]

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Generator[None]:
        result = yield
        if self.config.getoption("numprocesses", None):
            # Under xdist the controller collects nothing; only here can a wrong id still be told to the user.
            from audit.hooks import check_selection

            check_selection(self.config, self.session)
        self._open.enter_context(self.progress.running())
        return result

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.progress.now = nodeid.rpartition("::")[2]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: dict[str, Any] | None = getattr(report, "audit", None)
        if found is None:
            return
        self.progress.close()
        for fact in found["preconditions"]:
            self.journal.append("precondition", fact)
        self.journal.append("control", found["control"])
        self.progress.done += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._open.close()
        if self.config.option.collectonly or int(exitstatus) == 4:
            return
        self.plan_if_possible()
        if not self.planned:
            return
        draft = assemble(self.session.folder)
        self.journal.append(
            "end",
            {
                "finished": now(),
                "wall_s": round(time.monotonic() - self.begun, 1),
                "complete": draft.run.complete and draft.summary["error"] == 0,
                "model_unchanged": self.session.model_unchanged,
            },
        )
        from reports import write

        self.report = assemble(self.session.folder)
        write(self.report, self.session.folder)
        session.exitstatus = exit_code(self.report, int(exitstatus))
        self._lock.release()

    def plan_if_possible(self) -> None:
        """An interrupt during collection leaves controls unknown; the report then says only what is known."""
        if not self.planned and all(base(i) in REGISTRY for i in self.session.profile.controls):
            self.plan()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.report is None:
            return
        from reports.terminal import summary

        terminal = terminalreporter._tw  # noqa: SLF001 there is no public way to the terminal's file
        console = Console(file=terminal._file, width=max(100, terminal.fullwidth), force_terminal=terminal.hasmarkup)  # noqa: SLF001
        terminalreporter.section("assay")
        if self.finished:
            terminalreporter.write_line(f"{len(self.finished)} finished controls were taken up from the journal")
        console.print(summary(self.report))
        terminalreporter.write_line(f"report: {self.session.folder / 'report.html'}")

    def _line(self, text: str) -> None:
        with self._uncaptured():
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _console(self) -> Console | None:
        return Console(stderr=True) if sys.__stderr__ is not None and sys.__stderr__.isatty() else None

    def _uncaptured(self) -> Any:
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        return capture.global_and_fixture_disabled()


def exit_code(report: Report, status: int) -> int:
    """0 all pass, 1 a control failed, 10 something inconclusive, 11 incomplete; pytest's own 2 to 4 stay.

    1 goes before 11, 11 before 10. A control that raised is pytest's own 1.
    """
    if status in (2, 3, 4):
        return status
    if report.summary["fail"] or report.summary["error"] or status == 1:
        return 1
    if not report.run.complete:
        return EXIT_INCOMPLETE
    if report.summary["inconclusive"] or not (report.summary["pass"] + report.summary["waived"]):
        return EXIT_INCONCLUSIVE
    return 0


def environment(config: pytest.Config, session: AuditSession) -> dict[str, Any]:
    """What a reader needs to run the audit again."""
    plugins = sorted({f"{d.project_name} {d.version}" for _, d in config.pluginmanager.list_plugin_distinfo()})
    device = session.execution.device
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "packages": versions((*PACKAGES, "scikit-image", "pytest", "pytest-xdist")),
        "pytest_plugins": plugins,
        "workers": config.getoption("numprocesses", None) or 0,
    }


def _git(root: Path) -> tuple[str, bool | None]:
    def ask(*words: str) -> str | None:
        try:
            out = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603, S607
        except (OSError, subprocess.SubprocessError):
            return None
        return out.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    changes = ask("status", "--porcelain")
    return commit or "unknown", None if changes is None else bool(changes)


__all__ = ["EXIT_INCOMPLETE", "EXIT_INCONCLUSIVE", "AuditError", "Recorder", "exit_code"]
