"""What a suite's test functions ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from audit.contracts import Detector, Perturbation, WhiteBoxDetector
from audit.data.scenes import Scenes
from audit.measures.scenes import SceneMeasure
from audit.profile import Profile
from audit.record import Diagnostic, digest
from audit.session import AuditSession, Split, seed_of
from audit.stash import SESSION, STEP, TRIAL, Inapplicable, Undecided
from audit.state import frozen
from audit.surrogates import Surrogate
from audit.tiny import tiny_images

__all__ = [
    "STEP",
    "Craft",
    "all_surrogates",
    "any_detector",
    "craft",
    "detector",
    "measure",
    "moving_boxes",
    "profile",
    "published",
    "scenes",
    "several_classes",
    "surrogates",
    "white_box",
]


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
def white_box(detector: Detector) -> WhiteBoxDetector:
    """The detector, where it shows its candidates; without them the control is not applicable."""
    if not isinstance(detector, WhiteBoxDetector):
        raise Inapplicable("The model offers no candidates(images), and this attack needs gradients.")
    return detector


@pytest.fixture
def moving_boxes(white_box: WhiteBoxDetector, request: pytest.FixtureRequest) -> WhiteBoxDetector:
    """The detector, where the boxes of its candidates follow the image; else the control is not applicable."""
    images = tiny_images((256, 320), request.config.stash[SESSION].execution.device).requires_grad_()
    if not white_box.candidates(images).boxes.requires_grad:
        raise Inapplicable("The boxes of the detector's candidates do not depend on the image: none can be moved.")
    return white_box


@pytest.fixture
def several_classes(any_detector: Detector) -> None:
    """Asks for a detector of more than one class; without it the control is not applicable."""
    if len(any_detector.classes) < 2:
        raise Inapplicable("The detector knows one class alone, so that nothing can be taken for another.")


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
def profile(request: pytest.FixtureRequest) -> Profile:
    """The profile of the run."""
    return request.config.stash[SESSION].profile


@pytest.fixture
def all_surrogates(request: pytest.FixtureRequest) -> dict[str, Surrogate]:
    """Every other detector that is given, by name; maybe none."""
    return request.config.stash[SESSION].surrogates


@pytest.fixture
def surrogates(request: pytest.FixtureRequest) -> dict[str, Surrogate]:
    """The white-box detectors that an attacker may hold, by name; without any the control is not applicable."""
    found = {n: s for n, s in request.config.stash[SESSION].surrogates.items() if s.white_box}
    if not found:
        raise Inapplicable(
            "No surrogate with candidates(images): give other model files with --audit-surrogates, or "
            "surrogates(device) in the model file."
        )
    return found


@pytest.fixture
def published(request: pytest.FixtureRequest) -> dict[str, Path]:
    """Pictures of patches made elsewhere, by name; without any the control is not applicable."""
    found = request.config.stash[SESSION].published
    if not found:
        raise Inapplicable("No published patches: give pictures, or a folder of them, with --audit-patches.")
    return found


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> SceneMeasure:
    """Measures for the control's task, writing into its record."""
    config = request.config
    return SceneMeasure(request.node.stash[TRIAL], config.stash[SESSION], config.stash[STEP])


def budget_of(session: AuditSession) -> dict[str, Any]:
    """The parts of the budget that decide a crafted patch."""
    b = session.budget
    return {"steps": b.steps, "batch": b.batch, "queries": b.queries}
