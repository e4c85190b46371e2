"""Is a model good enough when nobody attacks for an attack to say anything?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.record import Precondition

if TYPE_CHECKING:
    from audit.session import AuditSession


def why_not_attacked(
    session: AuditSession, kind: str, value: float | None, least: float, look: str, *, words: str = ""
) -> str:
    """Why a model is not attacked, as a sentence; empty where its clean performance is as it should be.

    The value must reach ``least``, and what the model file declares of that kind less the profile's
    ``declared_tolerance``; each is a fact of the report.

    Args:
        kind: as it is declared: ``accuracy``, ``auc``. value: as measured; ``None`` where nothing was. look: where to
            look for the reason. words: for the sentence, where the kind is not.
    """
    words = words or kind
    name = f"clean {words}"
    floors = {name: least}
    if kind in session.subject.declared:
        tolerance = session.profile.preconditions.declared_tolerance
        floors[f"{name}, declared"] = session.subject.declared[kind] - tolerance
    reasons = []
    for fact, floor in floors.items():
        ok = value is not None and value >= floor
        said = f"{name} is {'unknown' if value is None else f'{value:.3f}'}, expected at least {floor:.3f}"
        session.fact(Precondition(name=fact, ok=ok, value=value, expected=f"at least {floor:.3f}", meaning=said))
        reasons += [] if ok else [said]
    return f"Not attacked: {'; '.join(reasons)}. {look}" if reasons else ""
