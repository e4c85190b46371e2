"""One control as it runs: what was measured so far, and how it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from audit.control import ControlSpec
from audit.record import Condition, Control, Curve, Diagnostic, Evidence, Grid, Limit, Measure, Verdict, Waiver, digest
from audit.verdict import decide


class NotAttacked(Exception):
    """A precondition does not hold, so the control ends inconclusive without an attack."""


class NotApplicable(Exception):
    """The control asks for something that neither model nor options offer; the text says what."""


@dataclass
class Trial:
    """Collects what a control's measure and probe have to say; ``conclude`` turns it into a record.

    Attributes:
        protocol: everything that decides the number (data, probe, budget, seed …); its digest tells whether two
            results may be compared.
        undecided: why no verdict can stand on what was measured, whatever it is; empty where one can.
    """

    id: str
    spec: ControlSpec
    limit: Limit | None
    waiver: Waiver | None
    rule: Literal["interval", "point"]
    seed: int
    reproduce: str
    protocol: dict[str, Any]
    measure: Measure | None = None
    conditions: list[Condition] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    access: str = ""
    constraint: str = ""
    undecided: str = ""
    started: float = field(default_factory=time.monotonic)

    def judge(self, measure: Measure) -> None:
        """Set the number that the limit is held against; a control judges one number.

        Raises:
            RuntimeError: a second number.
        """
        if self.measure is not None:
            raise RuntimeError(f"control {self.id} judges {self.measure.name} already; make {measure.name} a condition")
        self.measure = measure

    def conclude(self) -> Control:
        """The record of a control that ran to its end."""
        verdict, reason = decide(self.measure, self.limit, self.diagnostics, self.rule)
        if self.undecided:
            m = self.measure
            measured = f" Measured: {m.name} {m.value:.3f}." if m is not None and m.value is not None else ""
            verdict, reason = "inconclusive", self.undecided + measured
        if verdict == "fail" and self.waiver is not None:
            verdict, reason = "waived", f"{reason} Accepted by {self.waiver.approver} until {self.waiver.expires}."
        return self._record(verdict, reason)

    def fail_with(self, error: BaseException) -> Control:
        """The record of a control that raised: a row of its own, never a missing one."""
        if isinstance(error, NotApplicable):
            return self._record("not_applicable", str(error))
        if isinstance(error, NotAttacked):
            return self._record("inconclusive", str(error))
        return self._record("error", f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000])

    def _record(self, verdict: Verdict, reason: str) -> Control:
        return Control(
            id=self.id,
            title=self.spec.title,
            goal=self.spec.goal,
            failure=self.spec.failure,
            task=self.spec.task,
            verdict=verdict,
            reason=reason,
            measure=self.measure,
            limit=self.limit,
            conditions=self.conditions,
            curves=self.curves,
            grids=self.grids,
            diagnostics=self.diagnostics,
            refs=list(self.spec.refs),
            access=self.access,
            threat=self.spec.threat,
            constraint=self.constraint,
            protocol_sha256=digest(self.protocol),
            seed=self.seed,
            duration_s=round(time.monotonic() - self.started, 3),
            evidence=self.evidence,
            reproduce=self.reproduce,
            remediation=self.spec.remediation,
            waiver=self.waiver,
            details=self.details,
        )


def idle(id: str, spec: ControlSpec, verdict: Verdict, reason: str, limit: Limit | None) -> Control:
    """The row of a control that did not run."""
    return Control(
        id=id,
        title=spec.title,
        goal=spec.goal,
        failure=spec.failure,
        task=spec.task,
        verdict=verdict,
        reason=reason,
        limit=limit,
        refs=list(spec.refs),
        threat=spec.threat,
        remediation=spec.remediation,
    )
