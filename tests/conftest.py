"""What all tests stand on: one thread per process, and an order in which two workers end together."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two threads that spin on a busy two-core machine are far slower than one

LONG = (
    "test_real_driving",
    "test_real_detectors",
    "test_planted_audits",
    "test_recognition_audit",
    "test_driving_audit",
    "test_forensics_audit",
    "test_real_forensics",
    "test_image_suites",
)
"""Files that take minutes: first, so that at the end no worker waits for another's last file."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
