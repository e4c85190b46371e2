"""Assay: a robustness audit for computer-vision models. A pass means something."""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_LAZY = ("adapters", "contracts", "data", "measures")


def __getattr__(name: str) -> ModuleType:
    # A model file says `import audit` and then `audit.adapters.…`; torch is loaded only when it does.
    if name in _LAZY:
        return importlib.import_module(f"audit.{name}")
    raise AttributeError(f"module 'audit' has no attribute {name!r}")
