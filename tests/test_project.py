"""The project's own files agree with one another."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED_BY_MAKE = ("onnx", "dev", "bench")


def pins():
    rows = [r for r in (ROOT / "constraints.txt").read_text().splitlines() if r and not r.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", r) for r in rows), "versions only"
    return dict(r.split("==") for r in rows)


def test_everything_that_make_installs_is_pinned_within_what_the_project_asks_for():
    wanted = [Requirement(r) for r in PROJECT["dependencies"]]
    wanted += [Requirement(r) for extra in INSTALLED_BY_MAKE for r in PROJECT["optional-dependencies"][extra]]
    for requirement in wanted:
        if requirement.name != PROJECT["name"]:
            assert pins()[requirement.name.lower()] in requirement.specifier, requirement


def test_scripts_are_executable_and_make_knows_its_targets():
    for script in (".ci/run", ".ci/install"):
        assert os.access(ROOT / script, os.X_OK), script
    makefile = (ROOT / "Makefile").read_text()
    for target in ("audit", "test", "lint", "bench", "clean"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "examples/centerface.py" in makefile
    assert (ROOT / "examples" / "centerface.py").is_file()


def test_licence():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
