"""What a suite's test functions ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from audit.contracts import Detector, Perturbation, WhiteBoxDetector
from audit.data.scenes import Scenes
from audit.measures.scenes import SceneMeasure
from audit.profile import Profile
from audit.record import Diagnostic, digest
from audit.session import AuditSession, Split, seed_of
from audit.stash import SESSION, STEP, TRIAL, Inapplicable, Undecided
from audit.state import frozen, modules_of
from audit.surrogates import Surrogate
from audit.tiny import tiny_images
from audit.trial import Trial

__all__ = [
    "STEP",
    "Craft",
    "all_surrogates",
    "any_detector",
    "attacked",
    "craft",
    "detector",
    "harmless",
    "measure",
    "moving_boxes",
    "profile",
    "published",
    "scenes",
    "surrogates",
    "white_box",
]

M = TypeVar("M")


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


class Craft(Protocol):
    """Crafts with a probe on scenes.

    ``told``: whether the control's record tells of the attack's access and health; no where the patch is only shown
    beside what is judged. ``label``: put before the names of its diagnostics, where a control judges several patches.
    """

    def __call__(
        self, probe: Probe, detector: Detector, scenes: Scenes, *, told: bool = True, label: str = ""
    ) -> Crafted: ...


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
    with frozen(modules_of(white_box)):
        moves = white_box.candidates(images).boxes.requires_grad
    if not moves:
        raise Inapplicable("The boxes of the detector's candidates do not depend on the image: none can be moved.")
    return white_box


@pytest.fixture
def attacked(request: pytest.FixtureRequest, any_detector: Detector) -> tuple[str, ...]:
    """Names of the classes under attack, as the detector writes them."""
    return tuple(any_detector.classes[i] for i in sorted(request.config.stash[SESSION].attacked))


@pytest.fixture
def harmless(attacked: tuple[str, ...], any_detector: Detector) -> tuple[str, ...]:
    """Names of the classes that are not; maybe none."""
    return tuple(c for c in any_detector.classes if c not in attacked)


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

    def make(probe: Probe, detector: Detector, scenes: Scenes, *, told: bool = True, label: str = "") -> Crafted:
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
        if told and probe.access != "none":
            trial.access = probe.access
            doubts = session.doubts(of_gradients=True) if probe.access == "white-box" else []
            tell(trial, spec, [*patch.diagnostics, *doubts], label)
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
    """The white-box detectors that an attacker may hold, by name; without any the control is inconclusive."""
    session: AuditSession = request.config.stash[SESSION]
    found = {n: s for n, s in session.surrogates.items() if s.white_box}
    if not found:
        raise Undecided(
            "Not measured: no surrogate with candidates(images). Give other model files with --audit-surrogates, or "
            "surrogates(device) in the model file."
        )
    seen = {n: session.clean_recall(s.detector) for n, s in found.items()}
    least = session.profile.preconditions.clean_recall_min
    return fit_for_use(found, seen, least, "clean recall", request.node.stash[TRIAL])


@pytest.fixture
def published(request: pytest.FixtureRequest) -> dict[str, Path]:
    """Pictures of patches made elsewhere, by name; without any the control is inconclusive."""
    found = request.config.stash[SESSION].published
    if not found:
        raise Undecided("Not measured: no published patches. Give pictures, or a folder of them, with --audit-patches.")
    return found


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> SceneMeasure:
    """Measures for the control's task, writing into its record."""
    config = request.config
    return SceneMeasure(request.node.stash[TRIAL], config.stash[SESSION], config.stash[STEP])


def tell(trial: Trial, spec: dict[str, Any], diagnostics: Sequence[Diagnostic], label: str) -> None:
    """Add an attack and its health to a control's record, each diagnostic once."""
    new = [d.model_copy(update={"name": f"{label}: {d.name}"}) for d in diagnostics] if label else list(diagnostics)
    trial.diagnostics += [d for d in new if d.name not in {t.name for t in trial.diagnostics}]
    trial.protocol.setdefault("probe", []).append(spec)


def fit_for_use(
    found: dict[str, M], seen: dict[str, float | None], least: float, what: str, trial: Trial
) -> dict[str, M]:
    """The surrogates whose clean performance is at least ``least``; the others are told of, by name.

    A patch made on a model that sees nothing is noise, and what it leaves says nothing.

    Raises:
        Undecided: none is left.
    """
    fit = {n: s for n, s in found.items() if (seen[n] or 0.0) >= least}
    if not fit:
        told = ", ".join(f"{n} {'unknown' if v is None else f'{v:.3f}'}" for n, v in seen.items())
        raise Undecided(f"Not measured: the surrogates' {what} is {told}, expected at least {least:.3f}.")
    left_out = {n: seen[n] for n in found if n not in fit}
    if left_out:
        trial.details[f"surrogates left out, by {what}"] = left_out
    return fit


def budget_of(session: AuditSession) -> dict[str, Any]:
    """The parts of the budget that decide a crafted patch."""
    b = session.budget
    return {"steps": b.steps, "batch": b.batch, "queries": b.queries}
