"""A deadline for a whole request: a read's own time-out does not see a server that drips.

httpx's time-outs begin anew with each read, so that one byte now and then, or one 1xx after the other, holds a request
for ever. Here a thread shuts the connection down when the time is over; what waits on it then returns at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any, Self


class Connection:
    """The connection that is in use; handed to httpx as the extension ``trace``, which tells of each new one."""

    def __init__(self) -> None:
        self._stream: Any = None

    def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]

    def cut(self) -> None:
        """Shut it down in both directions; whoever waits on it gets its end."""
        held = None if self._stream is None else self._stream.get_extra_info("socket")
        if isinstance(held, socket.socket):
            with contextlib.suppress(OSError):  # closed already
                # not SSLSocket's own, which takes the TLS state away under the waiting thread
                socket.socket.shutdown(held, socket.SHUT_RDWR)


class Deadline:
    """A block that may use the connection for so many seconds.

    Attributes:
        over: whether the time ended within the block; what the block got is then not to be trusted.
    """

    def __init__(self, seconds: float, connection: Connection) -> None:
        self.over = False
        self._connection = connection
        self._lock = threading.Lock()
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._end)
        self._timer.daemon = True
        self._ended = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:  # not into the next request
            self._ended = True
        self._timer.cancel()

    def __call__(self, event: str, info: dict[str, Any]) -> None:
        """The extension ``trace``: a connection that comes too late is of no use."""
        self._connection(event, info)
        if self.over:
            self._connection.cut()

    def _end(self) -> None:
        with self._lock:
            if not self._ended:
                self.over = True
                self._connection.cut()
