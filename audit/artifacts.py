"""Expensive results by content digest: crafted patches, clean predictions; shared by processes, kept across runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from audit.errors import AuditError
from audit.record import digest


class Artifacts:
    """A folder of results, each named by the digest of everything that it depends on.

    Args:
        root: the cache folder (``--audit-cache``), the user's cache folder by default.
        context: what all results of this run depend on: model, device, precision, threads, code.
    """

    def __init__(self, root: Path | None, context: dict[str, Any]) -> None:
        self.root = root or Path(platformdirs.user_cache_dir("assay"))
        self.context = context
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as e:
            raise AuditError(
                f"cache folder {self.root}",
                expected="a folder that can be written",
                got=e.strerror or type(e).__name__,
                mend="give another with --audit-cache",
            ) from e

    def folder(self, kind: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder of a result; ``build(folder)`` fills it where it is not there yet.

        Two processes that ask for the same result wait for one of them to build it. A build that is cut short leaves
        nothing behind.
        """
        name = digest({"kind": kind, "context": self.context, "key": key})
        place = self.root / kind / name
        if place.is_dir():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(place) + ".lock"):
            if place.is_dir():
                return place
            draft = Path(tempfile.mkdtemp(prefix=f"{name[:8]}-", dir=place.parent))
            try:
                build(draft)
                (draft / "key.json").write_text(
                    json.dumps({"context": self.context, "key": key}, indent=1, sort_keys=True)
                )
                draft.replace(place)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return place


@cache
def code_digest() -> str:
    """sha256 over the toolkit's own sources, so that a changed attack never serves an old result."""
    root = Path(__file__).resolve().parents[1]
    h = sha256()
    for package in ("audit", "probes", "suites"):
        for path in sorted((root / package).rglob("*.py")):
            h.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return h.hexdigest()
