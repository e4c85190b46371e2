"""One thread per test process: two that spin on a busy two-core machine are far slower than one."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
