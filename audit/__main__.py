"""``python -m audit``: the side commands. The audit itself is ``pytest suites/ --model mymodel.py``."""

from __future__ import annotations

import sys

from audit.cli import main

if __name__ == "__main__":
    sys.exit(main())
