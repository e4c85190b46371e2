"""Imports run one way: suites → probes → audit, and reports → audit.record."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("audit", "probes", "suites", "reports")
MAY = {
    "audit": {"audit"},
    "probes": {"probes", "audit"},
    "suites": {"suites", "probes", "audit"},
    "reports": {"reports", "audit.record"},
}
CALL_REPORTS = {"audit/plugin.py", "audit/recorder.py", "audit/cli/render.py"}
"""What ends a run: these may import reports, inside a function."""


def imports(source: str, package: str) -> list[tuple[str, int, bool]]:
    """(module, line, at the top level) of every import of our packages, also by ``importlib``; relative ones resolved.

    An import under ``if TYPE_CHECKING`` counts as one at the top level.
    """
    tree = ast.parse(source)
    inside = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*home, *([node.module] if node.module else [])])
            names = [f"{base}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
            "importorskip",
        }:
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
        found += [(n, node.lineno, id(node) not in inside) for n in names if n.partition(".")[0] in OURS]
    return found


def allowed(module: str, package: str) -> bool:
    return any(module == may or module.startswith(f"{may}.") for may in MAY[package])


def files():
    return sorted(p for package in OURS for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path):
    name = path.relative_to(ROOT).as_posix()
    package = name.partition("/")[0]
    for module, line, at_top in imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts)):
        if module.partition(".")[0] == "reports" and name in CALL_REPORTS:
            assert not at_top, f"{name}:{line} imports {module} before the end of a run"
            continue
        assert allowed(module, package), f"{name}:{line} imports {module}"


def test_the_walker_sees_every_kind_of_import():
    source = """
import reports
from audit import record, plugin
from . import sibling
from ..measures import intervals
def f():
    from probes.geometry import Placement
    importlib.import_module("suites.test_detection")
import torch
"""
    found = imports(source, "audit.adapters")
    assert [(m, top) for m, _, top in found] == [
        ("reports", True),
        ("audit.record", True),
        ("audit.plugin", True),
        ("audit.adapters.sibling", True),
        ("audit.measures.intervals", True),
        ("probes.geometry.Placement", False),
        ("suites.test_detection", False),
    ]
    assert [allowed(m, "reports") for m, _, _ in found] == [True, True, *[False] * 5]
    assert [allowed(m, "audit") for m, _, _ in found] == [False, *[True] * 4, False, False]


def test_there_is_something_to_walk():
    assert {p.relative_to(ROOT).parts[0] for p in files()} == set(OURS)
    assert len(files()) > 30


def test_the_core_is_light_to_import():
    """``import audit`` stands at the top of every model file, and before every `--help`: it must not load torch."""
    import subprocess
    import sys

    code = (
        "import sys, audit, audit.cli; print('torch' in sys.modules, 'reports' in sys.modules, 'probes' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
