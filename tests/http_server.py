"""A remote detector on localhost for tests: it plays a script of recorded troubles, then answers from real pictures."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import torch

from tests.planted import Red


@dataclass(frozen=True)
class Play:
    """One recorded response.

    Attributes:
        status, body, headers: as they are sent. before: seconds of silence first. drip: seconds between bytes.
        cut: bytes of the body after which the connection is cut; -1 before anything is said. act: done first.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    before: float = 0.0
    drip: float = 0.0
    cut: int | None = None
    act: Callable[[], None] | None = None


@dataclass
class Asked:
    """A request as the server saw it."""

    path: str
    headers: dict[str, str]
    pictures: list[np.ndarray]


@dataclass
class Server:
    """What a test hands to the server and reads from it.

    Attributes:
        script: played first, one per request. always: played where the script has ended; None: real answers.
        answer: pictures -> the body's ``detections``. asked: the requests so far.
    """

    url: str
    script: list[Play] = field(default_factory=list)
    always: Play | None = None
    answer: Callable[[list[np.ndarray]], list[dict[str, Any]]] | None = None
    asked: list[Asked] = field(default_factory=list)


def red(pictures: list[np.ndarray]) -> list[dict[str, Any]]:
    """The planted detector of red squares."""
    found = [Red()(torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255)[0] for p in pictures]
    return [{"boxes": d.boxes.tolist(), "scores": d.scores.tolist(), "labels": d.labels.tolist()} for d in found]


def body_of(detections: Any) -> bytes:
    """The default wire format."""
    return json.dumps({"detections": detections}).encode()


@contextmanager
def serving(*script: Play, always: Play | None = None) -> Iterator[Server]:
    """The server in a thread, until the end of the block."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes; between them it would wait 40 ms

        def do_POST(self):
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.asked.append(Asked(self.path, dict(self.headers), pictures_of(self.headers, content)))
            play = server.script.pop(0) if server.script else server.always
            if play is None:
                answer = server.answer or red
                play = Play(body=body_of(answer(server.asked[-1].pictures)))
            try:
                self.play(play)
            except OSError:  # the other side has given up
                self.close_connection = True

        def play(self, play: Play):
            if play.act is not None:
                play.act()
            stop.wait(play.before)
            if play.cut == -1:
                self.close_connection = True
                return
            self.send_response(play.status)
            for name, value in (("Content-Type", "application/json"), *play.headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(play.body)))
            self.end_headers()
            if play.cut is not None:
                self.wfile.write(play.body[: play.cut])
                self.close_connection = True
            elif play.drip:
                for i in range(len(play.body)):
                    self.wfile.write(play.body[i : i + 1])
                    self.wfile.flush()
                    time.sleep(play.drip)
            else:
                self.wfile.write(play.body)

        def log_message(self, *args):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server = Server(f"http://127.0.0.1:{listener.server_address[1]}/detect", list(script), always)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        listener.shutdown()
        listener.server_close()
        thread.join(5)


@contextmanager
def dripping(begin: bytes, piece: bytes, every: float, longest: float) -> Iterator[str]:
    """The URL of a raw server that answers each connection with ``begin`` and then ``piece`` every so many seconds."""
    stop = threading.Event()

    def drip(there: socket.socket):
        end = time.monotonic() + longest
        with there:
            try:
                there.sendall(begin)
                while time.monotonic() < end and not stop.wait(every):
                    there.sendall(piece)
            except OSError:  # the other side has given up
                return

    def accept():
        while not stop.is_set():
            try:
                there, _ = listener.accept()
            except TimeoutError:
                continue
            there.settimeout(5)
            threading.Thread(target=drip, args=(there,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/detect"
        finally:
            stop.set()
            thread.join(5)


def pictures_of(headers: Any, content: bytes) -> list[np.ndarray]:
    """RGB pictures of a request in the default wire format, multipart or JSON; none where it is another."""
    kind = headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        said = json.loads(content)
        files = [base64.b64decode(p) for p in said["images"]] if "images" in said else []
    elif kind.startswith("multipart/"):
        message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + content)
        files = [part.get_payload(decode=True) for part in message.get_payload()]
    else:
        files = []
    return [cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for f in files]
