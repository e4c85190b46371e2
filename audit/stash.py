"""What the plugin keeps on pytest's objects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from audit.record import Control
from audit.session import AuditSession
from audit.trial import Trial

SESSION = pytest.StashKey[AuditSession]()
TRIAL = pytest.StashKey[Trial]()
RECORD = pytest.StashKey[Control]()
STEP = pytest.StashKey[Callable[[float, str], None]]()


class Inapplicable(pytest.skip.Exception):  # type: ignore[name-defined,misc]
    """Ends a test whose control asks for something that neither model nor options offer; shown with its reason."""


class Undecided(pytest.skip.Exception):  # type: ignore[name-defined,misc]
    """Ends a test whose control is inconclusive; pytest would exit 0 on a skip, the recorder does not."""
