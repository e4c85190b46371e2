"""Several detectors attacked at once, so that a patch carries over to one that nobody could look into (D8, D11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError
from audit.surrogates import Surrogate
from probes.detection.team_objectives import EQUAL, Joint


@dataclass(frozen=True, repr=False)
class Ensemble:
    """The detectors that a patch is trained on, and the weight of each.

    Args:
        members: surrogates. with_subject: whether the audited detector is one more of them (the first).
        joint: the weights λ_k, in the order of the detectors, the subject first where it takes part.

    Raises:
        ModelError: no detector at all.
    """

    members: tuple[Surrogate, ...]
    with_subject: bool = False
    joint: Joint = EQUAL

    def __post_init__(self) -> None:
        if not self.members and not self.with_subject:
            raise ModelError(
                "ensemble of detectors",
                expected="at least one detector",
                got="none",
                mend="give surrogates with --audit-surrogates, or surrogates(device) in the model file",
            )

    def __repr__(self) -> str:
        names = (["the audited model"] if self.with_subject else []) + [m.name for m in self.members]
        return " + ".join(names) + (", dynamic weights" if self.joint.dynamic else "")

    def spec(self) -> dict[str, Any]:
        """All that determines it, as JSON."""
        return {
            "members": [[m.name, m.digest] for m in self.members],
            "with_subject": self.with_subject,
            "joint": [list(self.joint.fixed), self.joint.dynamic, self.joint.temperature],
        }

    def detectors(self, subject: Detector) -> list[Detector]:
        """The detectors in the order of the weights."""
        return ([subject] if self.with_subject else []) + [m.detector for m in self.members]


def require_white_box(detectors: Sequence[Detector]) -> list[WhiteBoxDetector]:
    """The same detectors.

    Raises:
        ModelError: one shows no candidates.
    """
    out = []
    for detector in detectors:
        if not isinstance(detector, WhiteBoxDetector):
            raise ModelError(
                "white-box patch",
                expected="a detector with candidates(images)",
                got=f"{type(detector).__name__} without it",
                mend="attack it by transfer or by queries",
            )
        out.append(detector)
    return out
