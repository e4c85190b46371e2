"""What a suite's test functions ask for where a recognizer is audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from audit.comparison import Comparison
from audit.examples import Attacked, Examples, Goal
from audit.face_audit import FaceAudit
from audit.fixtures import budget_of, fit_for_use, tell
from audit.measures.face_scenarios import FaceScenarios
from audit.record import digest
from audit.session import AuditSession, seed_of
from audit.stash import SESSION, STEP, TRIAL, Inapplicable, Undecided
from audit.state import frozen, modules_of

__all__ = [
    "all_face_surrogates",
    "any_recognizer",
    "craft_faces",
    "face_data",
    "face_surrogates",
    "generator",
    "liveness",
    "recognizer",
    "verify",
    "white_recognizer",
]


class Probe(Protocol):
    """Proposes photographs; see ``probes.recognition``."""

    name: str
    access: str
    threat: str

    def spec(self) -> dict[str, Any]: ...
    def craft(self, models: Sequence[Comparison], attacked: Attacked, **settings: Any) -> Examples: ...


class CraftFaces(Protocol):
    """Attacks the held-out pairs with a probe.

    Args:
        goal: ``impersonate`` or ``dodge``. models: what the attacker holds or asks; the audited recognizer by default.
        told: whether the control's record tells of the attack's access and health. label: put before the names of
            its diagnostics, where a control judges several attacks.
    """

    def __call__(
        self,
        probe: Probe,
        goal: Goal,
        models: Mapping[str, Comparison] | None = None,
        *,
        told: bool = True,
        label: str = "",
    ) -> Examples: ...


@pytest.fixture
def face_data(request: pytest.FixtureRequest) -> FaceAudit:
    """Pairs, operating point and clean scores."""
    return request.config.stash[SESSION].faces


@pytest.fixture
def any_recognizer(face_data: FaceAudit) -> Comparison:
    """The recognizer, whatever its clean performance: for the controls that measure just that."""
    return face_data.comparison


@pytest.fixture
def recognizer(face_data: FaceAudit) -> Comparison:
    """The recognizer, where its clean performance is what its owner says; else the control ends inconclusive."""
    reason = face_data.why_not_attacked()
    if reason:
        raise Undecided(reason)
    return face_data.comparison


@pytest.fixture
def white_recognizer(recognizer: Comparison) -> Comparison:
    """The recognizer, where gradients can be had; without them the control is not applicable."""
    if not recognizer.white_box:
        raise Inapplicable("The model shows no gradients, and this attack needs them.")
    return recognizer


@pytest.fixture
def all_face_surrogates(face_data: FaceAudit) -> dict[str, Comparison]:
    """Every other recognizer that is given, by name; maybe none."""
    return face_data.surrogates


@pytest.fixture
def face_surrogates(face_data: FaceAudit, request: pytest.FixtureRequest) -> dict[str, Comparison]:
    """The white-box recognizers that an attacker may hold, by name; without any the control is inconclusive."""
    found = {n: s for n, s in face_data.surrogates.items() if s.white_box}
    if not found:
        raise Undecided(
            "Not measured: no surrogate with gradients. Give other model files with --audit-surrogates, or "
            "surrogates(device) in the model file."
        )
    seen = {n: face_data.accuracy(s) for n, s in found.items()}
    least = request.config.stash[SESSION].profile.preconditions.clean_accuracy_min
    return fit_for_use(found, seen, least, "clean accuracy", request.node.stash[TRIAL])


@pytest.fixture
def generator(face_data: FaceAudit) -> Any:
    """The model file's face generator; ``None`` stands for the built-in one, fitted on the craft side."""
    return face_data.generator


@pytest.fixture
def liveness(face_data: FaceAudit) -> Any:
    """The model file's liveness detector; without one the control is not applicable."""
    if face_data.liveness is None:
        raise Inapplicable("The model file gives no liveness detector beside the recognizer.")
    return face_data.liveness


@pytest.fixture
def craft_faces(request: pytest.FixtureRequest, face_data: FaceAudit) -> CraftFaces:
    """Attack with a probe; the same attack on the same pairs is made once and shared by all controls and runs."""
    session: AuditSession = request.config.stash[SESSION]
    trial = request.node.stash[TRIAL]
    step = request.config.stash[STEP]

    def make(
        probe: Probe,
        goal: Goal,
        models: Mapping[str, Comparison] | None = None,
        *,
        told: bool = True,
        label: str = "",
    ) -> Examples:
        held = list((models or {face_data.comparison.name: face_data.comparison}).values())
        pairs = face_data.attacked(goal)
        if not len(pairs.sources):
            kind = "of one person" if goal == "dodge" else "of two people"
            raise Undecided(
                f"Not measured: the recognizer decides no clean pair {kind} rightly, so none can be attacked."
            )
        spec = probe.spec()
        key = {
            "probe": spec,
            "goal": goal,
            "models": [[m.digest, m.cut] for m in held],
            "data": [pairs.sources.digest, pairs.targets.digest, pairs.background.digest],
            "budget": budget_of(session),
            "seed": session.options.seed,
        }

        def build(folder: Path) -> None:
            modules = [*session.subject.modules, *modules_of(*(m.model for m in held))]
            with frozen(modules):
                examples = probe.craft(
                    held,
                    pairs,
                    execution=session.execution,
                    budget=session.budget,
                    seed=seed_of(digest([spec, goal]), session.options.seed),
                    progress=step,
                )
            session.require_unchanged()
            examples.save(folder)

        examples = Examples.load(session.artifacts.folder("faces", key, build))
        if told and probe.access != "none":
            own = face_data.comparison in held
            trial.access = probe.access if own or probe.access != "white-box" else "transfer"
            by_gradients = probe.access == "white-box"
            doubts = session.doubts(of_gradients=True, task="recognizer:") if by_gradients else []
            tell(trial, spec, [*examples.diagnostics, *doubts], label)
        return examples

    return make


@pytest.fixture
def verify(request: pytest.FixtureRequest) -> FaceScenarios:
    """Measures of a recognizer, writing into the control's record."""
    config = request.config
    return FaceScenarios(request.node.stash[TRIAL], config.stash[SESSION], config.stash[STEP])
