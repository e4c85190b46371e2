"""Progress of long work: a live line on a terminal, a plain heartbeat every 30 s elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

HEARTBEAT_S = 30.0


class Reporter:
    """Shows how far a run is.

    Args:
        write: prints one plain line. uncaptured: a context in which output reaches the terminal.
        console: a terminal for the live line, or None for heartbeats only.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        console: Console | None = None,
        uncaptured: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.write, self.console, self.uncaptured = write, console, uncaptured
        self.total = self.done = 0
        self.now = ""
        self._share: float | None = None
        self._bar: tuple[Progress, TaskID] | None = None
        self._drawn = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Heartbeats for as long as the context lasts (where there is no terminal)."""
        if self.console is None:
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self.close()

    def line(self) -> str:
        """Where the run stands, in one plain line."""
        share = "" if self._share is None else f" {self._share:.0%}"
        return f"assay: {self.done} of {self.total} controls done{f', now {self.now}{share}' if self.now else ''}"

    def step(self, share: float, text: str) -> None:
        """A probe's progress: ``share`` of its work in [0, 1] and what it does."""
        self._share = share
        if self.console is None or (time.monotonic() - self._drawn < 0.2 and share < 1):
            return
        self._drawn = time.monotonic()
        with self.uncaptured():
            if self._bar is None:
                bar = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TextColumn("{task.percentage:>3.0f}%"),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                    console=self.console,
                    transient=True,
                    auto_refresh=False,
                )
                bar.start()
                self._bar = bar, bar.add_task(text, total=1.0)
            bar, task = self._bar
            bar.update(task, completed=share, description=f"{self.now} {text}", refresh=True)
            if share >= 1:
                bar.stop()
                self._bar = None

    def close(self) -> None:
        """Take the live line away."""
        self._share = None
        if self._bar is not None:
            with self.uncaptured():
                self._bar[0].stop()
            self._bar = None

    def _beat(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(HEARTBEAT_S):
            self.write(f"{self.line()}, {time.monotonic() - begun:.0f} s")
