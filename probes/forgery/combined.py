"""First blurred, then an additive perturbation on top (paper 003, fig. 3, Combined)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from audit.budget import Budget
from audit.errors import AuditError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from probes.forgery.additive import FGSM, PGD
from probes.forgery.adversarial_blur import AdversarialBlur
from probes.forgery.blur_rules import BlurRules
from probes.forgery.sigma_generator import SigmaGenerator
from probes.probe import Access, Progress


@dataclass(frozen=True)
class CombinedAttack:
    """x_adv1 = blur(x, σ_adv), x_adv2 = x_adv1 + δ, ‖δ‖∞ ≤ ε; both are 8-bit images.

    Attributes:
        blur: generators, as in the paper, or adversarial blur itself. additive: FGSM, as in the paper, or PGD in L∞.
    """

    blur: SigmaGenerator | AdversarialBlur = field(default_factory=lambda: SigmaGenerator(two=True))
    additive: FGSM | PGD = field(default_factory=FGSM)

    goal: ClassVar[str] = "have a fake taken for real by blur and a faint perturbation, or a real for fake"
    threat: ClassVar[str] = "Knows the model, or others like it; blurs each image and then adds to it."
    refs: ClassVar[tuple[str, ...]] = ("003 fig. 3", "003 §III-C", "NISTAML.022", "AML.T0043.000")
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        if isinstance(self.additive, PGD) and self.additive.norm != "linf":
            raise AuditError("combined attack", expected="an additive part bounded in L∞", got=self.additive.norm,
                             mend="choose norm='linf'")  # fmt: skip

    @property
    def name(self) -> str:
        return f"{self.blur.name}, then {self.additive.name}"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside model, data, budget and seed, as JSON."""
        return {"probe": "combined", "blur": self.blur.spec(), "additive": self.additive.spec()}

    def rules(self) -> ImageRules:
        held = self.blur.rules()
        assert isinstance(held, BlurRules)
        return replace(held, epsilon=self.additive.epsilon)

    def craft(
        self,
        models: Sequence[ImageModel],
        attacked: Labelled,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Adversarial:
        """One after the other; the diagnostics of both, those of the first half by the name of blur."""
        halves = [None if progress is None else _half(progress, i) for i in (0, 1)]
        about = {"execution": execution, "budget": budget, "seed": seed}
        first = self.blur.craft(models, attacked, **about, progress=halves[0])  # type: ignore[arg-type]
        blurred = replace(attacked, images=first.images)
        second = self.additive.craft(models, blurred, **about, progress=halves[1])  # type: ignore[arg-type]
        history = {f"{k}, blur": v for k, v in first.history.items()} | second.history
        health = [d.model_copy(update={"name": f"{d.name}, blur"}) for d in first.diagnostics] + second.diagnostics
        return Adversarial(second.images, {**first.maps, **second.maps}, health, history,
                           {**first.details, **second.details})  # fmt: skip


def _half(progress: Progress, i: int) -> Progress:
    return lambda share, text: progress((i + share) / 2, text)
