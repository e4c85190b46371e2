"""Programs as processes of their own, without the seconds that importing torch takes each time.

A mother process imports what is heavy, and nothing of ours, and forks for each program: the child differs from a new
interpreter in those imports alone. Every test process has a mother of its own, started when it is first asked for.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

HEAVY = ("cv2", "numpy", "PIL.Image", "pydantic", "scipy.stats", "torch", "torchvision", "rich.console", "jinja2")
_RUNNING: list[subprocess.Popen[str]] = []


def run(
    words: Sequence[object],
    *,
    cwd: str | Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """``python *words`` for words that begin with ``-m MODULE``; the output is captured as text.

    Raises:
        subprocess.TimeoutExpired: it ran longer; it and its children were killed.
    """
    words = [str(w) for w in words]
    assert words[0] == "-m", words
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        order = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
        mother = _mother()
        print(json.dumps(order | {"out": str(out), "err": str(err)}), file=mother.stdin, flush=True)
        child = json.loads(mother.stdout.readline())["pid"]
        late = threading.Event()

        def end() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)

        timer = threading.Timer(timeout, end)
        timer.start()
        code = json.loads(mother.stdout.readline())["code"]
        timer.cancel()
        texts = [f.read_text(errors="replace") if f.exists() else "" for f in (out, err)]
    if late.is_set():
        raise subprocess.TimeoutExpired(words, timeout, *texts)
    return subprocess.CompletedProcess([sys.executable, *words], code, *texts)


def _mother() -> subprocess.Popen[str]:
    if not _RUNNING or _RUNNING[0].poll() is not None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        _RUNNING[:] = [subprocess.Popen([sys.executable, str(Path(__file__).resolve())], env=clean, **pipes)]
        atexit.register(_RUNNING[0].kill)
    return _RUNNING[0]


def _serve() -> None:
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _live(order)
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # here as in the child: whichever comes first
        print(json.dumps({"pid": child}), flush=True)
        print(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}), flush=True)


def _live(order: dict) -> None:
    """The child, from the fork to its end."""
    import runpy
    import traceback

    code: object = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        out, err = (os.open(order[k], os.O_WRONLY | os.O_CREAT, 0o600) for k in ("out", "err"))
        for number, file in enumerate((nothing, out, err)):
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, m, closefd=False) for n, m in ((0, "r"), (1, "w"), (2, "w")))
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        own = str(Path(__file__).resolve().parent)
        more = [p for p in order["env"].get("PYTHONPATH", "").split(os.pathsep) if p]
        sys.path[:] = [order["cwd"], *more, *(p for p in sys.path if p != own)]
        sys.argv = order["words"][1:]
        runpy.run_module(order["words"][1], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    _serve()
