"""What controls of forgery detectors, attributors, liveness detectors and classifiers may ask for, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from audit.attribution_audit import AttributionAudit
from audit.class_audit import ClassAudit
from audit.fixtures import budget_of, tell
from audit.forgery_audit import ForgeryAudit
from audit.image_model import ImageModel
from audit.labelled import Adversarial, Labelled
from audit.liveness_audit import LivenessAudit
from audit.measures.attribution import AttributionMeasure
from audit.measures.forensics import ForensicMeasure
from audit.measures.image_attacks import ImageAttackMeasure
from audit.measures.liveness import LivenessMeasure
from audit.record import digest
from audit.session import AuditSession, seed_of
from audit.stash import SESSION, STEP, TRIAL, Inapplicable, Undecided
from audit.state import frozen, modules_of

__all__ = [
    "any_forgery",
    "attacks",
    "attribution",
    "attribution_data",
    "class_data",
    "classifier",
    "craft_images",
    "forensics",
    "forgery",
    "forgery_data",
    "image_surrogates",
    "liveness_data",
    "presentation",
    "white_classifier",
    "white_forgery",
]

A = TypeVar("A")


class Probe(Protocol):
    """An attack on images, as the fixture below needs it."""

    @property
    def access(self) -> str: ...
    def spec(self) -> dict[str, Any]: ...
    def craft(self, models: Sequence[ImageModel], attacked: Labelled, **settings: Any) -> Adversarial: ...


class CraftImages(Protocol):
    """``craft_images(probe, attacked, models=None)``: the changed images, crafted once per run and kept for the next.

    Args:
        models: what the attacker holds; the audited model by default. told: whether the attack's health and settings go
            into the control's record. label: before the names of its diagnostics, where a control judges several.
    """

    def __call__(
        self,
        probe: Probe,
        attacked: Labelled,
        models: Sequence[ImageModel] | None = None,
        *,
        told: bool = True,
        label: str = "",
    ) -> Adversarial: ...


def _material(request: pytest.FixtureRequest, kind: type[A]) -> A:
    found = request.config.stash[SESSION].material
    if not isinstance(found, kind):
        raise Inapplicable(f"The profile's data are of another kind than this control needs ({kind.task}).")  # type: ignore[attr-defined]
    return found


@pytest.fixture
def forgery_data(request: pytest.FixtureRequest) -> ForgeryAudit:
    """Clips, faces under shifts, scores."""
    data = _material(request, ForgeryAudit)
    data.session_step = request.config.stash[STEP]
    return data


@pytest.fixture
def any_forgery(forgery_data: ForgeryAudit) -> ImageModel:
    """The forgery detector, whatever its clean performance: for the controls that measure just that."""
    return forgery_data.model


@pytest.fixture
def forgery(forgery_data: ForgeryAudit) -> ImageModel:
    """The forgery detector, where its clean performance is what its owner says; else the control ends inconclusive."""
    reason = forgery_data.why_not_attacked()
    if reason:
        raise Undecided(reason)
    return forgery_data.model


@pytest.fixture
def white_forgery(forgery: ImageModel) -> ImageModel:
    """The forgery detector, where gradients can be had; without them the control is not applicable."""
    return _white(forgery)


@pytest.fixture
def class_data(request: pytest.FixtureRequest) -> ClassAudit:
    """Images by class."""
    return _material(request, ClassAudit)


@pytest.fixture
def classifier(class_data: ClassAudit) -> ImageModel:
    """The classifier, where its clean performance is what its owner says; else the control ends inconclusive."""
    reason = class_data.why_not_attacked()
    if reason:
        raise Undecided(reason)
    return class_data.model


@pytest.fixture
def white_classifier(classifier: ImageModel) -> ImageModel:
    """The classifier, where gradients can be had; without them the control is not applicable."""
    return _white(classifier)


@pytest.fixture
def liveness_data(request: pytest.FixtureRequest) -> LivenessAudit:
    """Live faces and presentation attacks."""
    return _material(request, LivenessAudit)


@pytest.fixture
def attribution_data(request: pytest.FixtureRequest) -> AttributionAudit:
    """Gallery, probe and their features."""
    return _material(request, AttributionAudit)


@pytest.fixture
def image_surrogates(request: pytest.FixtureRequest) -> dict[str, ImageModel]:
    """The models with gradients that an attacker may hold, by name; without any the control is inconclusive."""
    session: AuditSession = request.config.stash[SESSION]
    found = getattr(session.material, "surrogates", {})
    white = {n: s for n, s in found.items() if s.white_box}
    if not white:
        raise Undecided(
            "Not measured: no surrogate with gradients. Give other model files with --audit-surrogates, or "
            "surrogates(device) in the model file."
        )
    return white


@pytest.fixture
def craft_images(request: pytest.FixtureRequest) -> CraftImages:
    """Attack with a probe; the same attack on the same images is made once and shared by all controls and runs."""
    session: AuditSession = request.config.stash[SESSION]
    trial = request.node.stash[TRIAL]
    step: Callable[[float, str], None] = request.config.stash[STEP]

    def make(
        probe: Probe,
        attacked: Labelled,
        models: Sequence[ImageModel] | None = None,
        *,
        told: bool = True,
        label: str = "",
    ) -> Adversarial:
        if not len(attacked):
            raise Undecided("Not measured: there is no image to attack.")
        audited: ImageModel = session.material.model  # type: ignore[union-attr]
        held = list(models or [audited])
        spec = probe.spec()
        key = {
            "probe": spec,
            "models": [m.digest for m in held],
            "data": attacked.digest,
            "budget": budget_of(session),
            "seed": session.options.seed,
        }

        def build(folder: Path) -> None:
            with frozen([*session.subject.modules, *modules_of(*(m.model for m in held))]):
                made = probe.craft(
                    held,
                    attacked,
                    execution=session.execution,
                    budget=session.budget,
                    seed=seed_of(digest(spec), session.options.seed),
                    progress=step,
                )
            session.require_unchanged()
            made.save(folder)

        made = Adversarial.load(session.artifacts.folder("images", key, build))
        if told and probe.access != "none":
            own = audited in held
            trial.access = probe.access if own or probe.access != "white-box" else "transfer"
            by_gradients = probe.access == "white-box" and own
            doubts = session.doubts(of_gradients=True, task=f"{audited.task}:") if by_gradients else []
            tell(trial, spec, [*made.diagnostics, *doubts], label)
        return made

    return make


@pytest.fixture
def forensics(request: pytest.FixtureRequest, forgery_data: ForgeryAudit) -> ForensicMeasure:
    """Measures of a forgery detector over methods and qualities, writing into the control's record."""
    config = request.config
    return ForensicMeasure(request.node.stash[TRIAL], config.stash[SESSION], forgery_data, config.stash[STEP])


@pytest.fixture
def attacks(request: pytest.FixtureRequest) -> ImageAttackMeasure:
    """Measures of attacks on images, writing into the control's record."""
    config = request.config
    kind = "images" if isinstance(config.stash[SESSION].material, ClassAudit) else "sources"
    return ImageAttackMeasure(request.node.stash[TRIAL], config.stash[SESSION], config.stash[STEP], sources=kind)


@pytest.fixture
def presentation(request: pytest.FixtureRequest, liveness_data: LivenessAudit) -> LivenessMeasure:
    """Measures of a liveness detector, writing into the control's record."""
    config = request.config
    return LivenessMeasure(request.node.stash[TRIAL], config.stash[SESSION], liveness_data, config.stash[STEP])


@pytest.fixture
def attribution(request: pytest.FixtureRequest, attribution_data: AttributionAudit) -> AttributionMeasure:
    """Measures of an attributor, writing into the control's record."""
    config = request.config
    return AttributionMeasure(request.node.stash[TRIAL], config.stash[SESSION], attribution_data, config.stash[STEP])


def _white(model: ImageModel) -> ImageModel:
    if not model.white_box:
        raise Inapplicable("The model shows no gradients, and this attack needs them.")
    return model
