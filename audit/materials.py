"""Which kind of data a profile asks for, and what its controls share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from audit.attribution_audit import AttributionAudit
from audit.class_audit import ClassAudit
from audit.face_audit import FaceAudit
from audit.forgery_audit import ForgeryAudit
from audit.liveness_audit import LivenessAudit
from audit.record import Data

if TYPE_CHECKING:
    from audit.session import AuditSession


class Material(Protocol):
    """What the controls of one kind of data share: the data, the models, and what was computed once.

    ``task``: of the models that it is about.
    """

    task: ClassVar[str]

    def __init__(self, session: AuditSession) -> None: ...

    def prepare(self) -> None:
        """Find out what is wrong with data and models before anything long starts."""
        ...

    def data_records(self) -> list[Data]:
        """The data as the report tells of it."""
        ...

    def surrogate_digests(self) -> dict[str, str]:
        """Name -> digest of every other model that is at hand."""
        ...


MATERIALS: Mapping[str, type[Material]] = {
    "faces": FaceAudit,
    "forgeries": ForgeryAudit,
    "attribution": AttributionAudit,
    "liveness": LivenessAudit,
    "images": ClassAudit,
}
"""``[data] kind`` of a profile -> its material; ``scenes``, for detectors, are the session's own."""
