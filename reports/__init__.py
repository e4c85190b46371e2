"""The report of a run: one page that opens anywhere, a record for machines, digests for whoever checks them."""

from __future__ import annotations

from reports.output import FolderError, write

__all__ = ["FolderError", "write"]
