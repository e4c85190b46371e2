"""Plain Gaussian blur, one σ for a whole image: what adversarial blur has to beat."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from audit.budget import Budget
from audit.errors import DataError
from audit.execution import Execution
from audit.image_model import ImageModel
from audit.labelled import Adversarial, ImageRules, Labelled
from probes.forgery.blur_field import RingSums
from probes.forgery.blur_rules import BlurRules
from probes.forgery.ensemble import Ensemble
from probes.forgery.image_attack import eight_bits
from probes.probe import Access, Progress


@dataclass(frozen=True)
class FixedBlur:
    """The same Gaussian everywhere, on all images.

    Attributes:
        sigma: px. kernel: k px. literal: see ``blur_field``.
    """

    sigma: float = 1.0
    kernel: int = 9
    literal: bool = False

    goal: ClassVar[str] = "none: what plain blur does"
    threat: ClassVar[str] = "Nobody: the same blur without any knowledge of the model."
    refs: ClassVar[tuple[str, ...]] = ("003 §III-B",)
    access: ClassVar[Access] = "none"

    @property
    def name(self) -> str:
        return f"Gaussian blur, σ = {self.sigma:g} px"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside the data, as JSON."""
        return {"probe": "Gaussian blur", "sigma": self.sigma, "kernel": self.kernel, "literal": self.literal}

    def rules(self) -> ImageRules:
        return BlurRules(self.kernel, (self.sigma, self.sigma), literal=self.literal)

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
        """The blurred images; the models are not asked."""
        del models, execution, seed, progress
        sigma = attacked.images.new_full((len(attacked),), self.sigma, dtype=torch.float32)
        return _adversarial(attacked.images, sigma, self.kernel, budget.batch, literal=self.literal)


@dataclass(frozen=True)
class MatchedBlur:
    """The strongest plain Gaussian that an attack's mean σ allows, image by image.

    Each image is blurred evenly with all of the attack's mean σ, and with smaller shares of it; what misleads the most
    models is kept, and among those what has the highest loss. With one share it is the Gaussian of the same mean σ.

    Attributes:
        means: mean σ of each image under the attack, px. shares: in (0, 1]. kernel, literal: those of the attack.
    """

    means: tuple[float, ...]
    shares: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    kernel: int = 9
    literal: bool = False

    goal: ClassVar[str] = "none: what plain blur of the same mean σ does, even the strongest"
    threat: ClassVar[str] = "Tries a few strengths of a plain blur on the model and keeps the best."
    refs: ClassVar[tuple[str, ...]] = ("003 §III-B",)
    access: ClassVar[Access] = "query"

    @classmethod
    def of(cls, attack: Adversarial, kernel: int = 9, *, literal: bool = False) -> MatchedBlur:
        """For the result of an attack, by its recorded map ``sigma``."""
        means = attack.maps["sigma"].double().mean((1, 2)).tolist()
        return cls(tuple(means), kernel=kernel, literal=literal)

    @property
    def name(self) -> str:
        return "strongest Gaussian blur of the same mean σ"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside model and data, as JSON."""
        means = hashlib.sha256(repr(self.means).encode()).hexdigest()
        return {
            "probe": "matched Gaussian blur", "means": means, "shares": list(self.shares), "kernel": self.kernel,
            "literal": self.literal,
        }  # fmt: skip

    def rules(self) -> ImageRules:
        return BlurRules(self.kernel, (0.0, max(self.means, default=0.0)), self.means, literal=self.literal)

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
        """The strongest for each image.

        Raises:
            DataError: not one mean for each image.
        """
        del seed, progress
        if len(self.means) != len(attacked):
            raise DataError("images to blur", expected=f"{len(self.means)}, one for each mean σ",
                            got=str(len(attacked)), mend="give those that were attacked")  # fmt: skip
        # a model without gradients can be asked as well as another
        ensemble = Ensemble(tuple(models), execution)
        ensemble.require_whole(len(attacked))
        size = max(1, budget.batch // ensemble.unit) * ensemble.unit
        means = torch.tensor(self.means)
        best = means * self.shares[0]
        value = torch.full((len(attacked), 2), -torch.inf)
        for share in self.shares:
            made = _adversarial(attacked.images, means * share, self.kernel, size, literal=self.literal)
            for at in torch.split(torch.arange(len(attacked)), size):
                with torch.no_grad():
                    x = made.images[at].to(execution.device).float() / 255
                    seen = ensemble.seen(x, attacked.labels[at].to(execution.device))
                now = torch.stack([seen.wrong.float().cpu(), seen.loss.cpu()], 1)
                if ensemble.unit > 1:
                    now = now.reshape(-1, ensemble.unit, 2).sum(1).repeat_interleave(ensemble.unit, 0)
                old = value[at]
                better = (now[:, 0] > old[:, 0]) | ((now[:, 0] == old[:, 0]) & (now[:, 1] > old[:, 1]))
                value[at[better]], best[at[better]] = now[better], means[at[better]] * share
        return _adversarial(attacked.images, best, self.kernel, size, literal=self.literal)


def _adversarial(images: Tensor, sigma: Tensor, kernel: int, size: int, *, literal: bool) -> Adversarial:
    """Images (N, 3, H, W) uint8, each blurred evenly with its σ (N,)."""
    field = sigma[:, None, None].expand(-1, *images.shape[2:]).contiguous()
    out = [
        eight_bits(RingSums.of(images[at].float(), kernel).blurred(field[at], literal=literal)).to(torch.uint8)
        for at in torch.split(torch.arange(len(images)), max(1, size))
    ]
    made = torch.cat(out) if out else images.clone()
    return Adversarial(made, {"sigma": field}, details={"mean sigma": [round(float(s), 4) for s in sigma]})
