"""A whole audit in a process of its own, as a user runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests import mother

ROOT = Path(__file__).resolve().parents[1]


def audit(folder: Path, model: str, profile: str, *args: str):
    """Exit code, control id -> row, output.

    Args:
        folder: where model file, profile, report (``out``) and cache go. model, profile: their text; an empty profile
            leaves the choice to the model's task.
    """
    (folder / "subject.py").write_text(model)
    words = ["-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider"]
    words += ["--audit-model", str(folder / "subject.py")]
    if profile:
        (folder / "profile.toml").write_text(profile)
        words += ["--audit-profile", str(folder / "profile.toml")]
    words += ["--audit-report", str(folder / "out"), "--audit-cache", str(folder / "cache"), *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = mother.run(words, cwd=ROOT, env=env, timeout=900)
    path = folder / "out" / "report.json"
    report = json.loads(path.read_text()) if path.exists() else {"controls": []}
    return done.returncode, {c["id"]: c for c in report["controls"]}, done.stdout + done.stderr


def only(*ids: str) -> list[str]:
    """The options that choose these controls."""
    return [word for id in ids for word in ("--audit-control", id)]
