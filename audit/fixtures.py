"""What a suite's test functions ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from audit.contracts import Detector, Perturbation
from audit.data.scenes import Scenes
from audit.measures.detector import DetectorMeasure
from audit.record import Diagnostic, digest
from audit.session import AuditSession, Split, seed_of
from audit.stash import SESSION, STEP, TRIAL, Undecided
from audit.state import frozen

__all__ = ["STEP", "Craft", "any_detector", "craft", "detector", "measure", "scenes"]


class Crafted(Perturbation, Protocol):
    """What a probe hands back: a perturbation with the attack's health, that can be kept as files."""

    diagnostics: list[Diagnostic]

    def save(self, folder: Path) -> None: ...


class Probe(Protocol):
    """Proposes perturbations; see ``probes``."""

    name: str
    access: str
    threat: str

    def spec(self) -> dict[str, Any]: ...
    def load(self, folder: Path) -> Crafted: ...
    def craft(self, detector: Any, scenes: Scenes, **settings: Any) -> Crafted: ...


Craft = Callable[[Probe, Detector, Scenes], Crafted]


@pytest.fixture
def any_detector(request: pytest.FixtureRequest) -> Detector:
    """The detector, whatever its clean performance: for the control that measures just that."""
    return request.config.stash[SESSION].subject.tasks["detector"]  # type: ignore[no-any-return]


@pytest.fixture
def detector(request: pytest.FixtureRequest, any_detector: Detector) -> Detector:
    """The detector, where its clean performance is what its owner says; else the control ends inconclusive."""
    session = request.config.stash[SESSION]
    reason = session.why_not_attacked(any_detector)
    if reason:
        raise Undecided(reason)
    return any_detector


@pytest.fixture
def scenes(request: pytest.FixtureRequest) -> Split:
    """The data: ``scenes.craft`` for probes, ``scenes.held_out`` for measures."""
    return request.config.stash[SESSION].scenes


@pytest.fixture
def craft(request: pytest.FixtureRequest) -> Craft:
    """Craft with a probe; the same probe on the same data is crafted once and shared by all controls and runs."""
    session: AuditSession = request.config.stash[SESSION]
    trial = request.node.stash[TRIAL]
    step = request.config.stash[STEP]

    def make(probe: Probe, detector: Detector, scenes: Scenes) -> Crafted:
        spec = probe.spec()
        key = {"probe": spec, "data": scenes.digest, "budget": budget_of(session), "seed": session.options.seed}

        def build(folder: Path) -> None:
            with frozen(session.subject.modules):
                patch = probe.craft(
                    detector,
                    scenes,
                    execution=session.execution,
                    budget=session.budget,
                    seed=seed_of(digest(spec), session.options.seed),
                    progress=step,
                )
            session.require_unchanged()
            patch.save(folder)

        patch = probe.load(session.artifacts.folder("patches", key, build))
        if probe.access != "none":
            trial.access = probe.access
            trial.diagnostics += patch.diagnostics
            if probe.access == "white-box":
                trial.diagnostics += session.doubts(of_gradients=True)
            trial.protocol["probe"] = spec
        return patch

    return make


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> DetectorMeasure:
    """Measures for the control's task, writing into its record."""
    config = request.config
    return DetectorMeasure(request.node.stash[TRIAL], config.stash[SESSION], config.stash[STEP])


def budget_of(session: AuditSession) -> dict[str, Any]:
    """The parts of the budget that decide a crafted patch."""
    b = session.budget
    return {"steps": b.steps, "batch": b.batch, "queries": b.queries}
