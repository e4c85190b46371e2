"""What one or several models say of images under attack: losses to climb, margins to cross, decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.errors import DataError, ModelError
from audit.execution import Execution
from audit.image_model import TWO_SIDED, ImageModel

Objective = Literal["cross-entropy", "margin"]
SURE = 20.0
"""From this margin on the cross-entropy goes on as a straight line: its own slope, e^-m, is lost in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What K models say of n images.

    Attributes:
        loss: (n,) mean over the models, which an attacker maximises. margins: (K, n), above 0 where right.
        wrong: (n,) int64, how many models decide wrongly.
    """

    loss: Tensor
    margins: Tensor
    wrong: Tensor

    @property
    def height(self) -> Tensor:
        """(n,) how far there is still to go: mean over the models of max(margin, 0); 0 where all are wrong."""
        return self.margins.detach().clamp(min=0).mean(0)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models that are attacked together.

    Attributes:
        objective: ``cross-entropy``: the mean of ``ImageModel.loss``, continued as a straight line where a model is
            surer than ``SURE``, so that a saturated model keeps its gradient; ``margin``: the mean of −margin.
    """

    models: tuple[ImageModel, ...]
    execution: Execution
    objective: Objective = "cross-entropy"

    @classmethod
    def of(cls, models: Sequence[ImageModel], execution: Execution, objective: Objective = "cross-entropy") -> Ensemble:
        """Checked.

        Raises:
            ModelError: there is no model, or one through which no gradient flows.
        """
        blind = [m.name for m in models if not m.white_box]
        if blind or not models:
            raise ModelError(
                "models under a gradient attack", expected="at least one, all white-box",
                got=f"no gradient through {', '.join(blind)}" if blind else "none",
                mend="attack surrogates instead",
            )  # fmt: skip
        return cls(tuple(models), execution, objective)

    @property
    def unit(self) -> int:
        """Images that have to stay together: the least common multiple of the models' frames per clip."""
        return math.lcm(*(m.frames for m in self.models))

    def require_whole(self, images: int) -> None:
        """Clips are whole.

        Raises:
            DataError: the number of images is not a multiple of ``unit``.
        """
        if images % self.unit:
            raise DataError(
                "images under attack", expected=f"a multiple of {self.unit}, the frames of a clip",
                got=str(images), mend="give whole clips",
            )  # fmt: skip

    def seen(self, images: Tensor, labels: Tensor) -> Seen:
        """What the models say of images (n, 3, H, W) in [0, 1], each at its own size; differentiable.

        An image is resized bilinearly with antialiasing where a model wants another size. A single image or clip is
        asked about twice: products with one row are added up in another order than those with many, and a signed
        gradient shows it.
        """
        if len(images) == self.unit:
            twice = self.seen(torch.cat([images, images]), torch.cat([labels, labels]))
            n = len(images)
            return Seen(twice.loss[:n], twice.margins[:, :n], twice.wrong[:n])
        losses, margins, wrong = [], [], torch.zeros(len(images), dtype=torch.int64, device=images.device)
        for m in self.models:
            x = images.to(m.device)
            if tuple(x.shape[2:]) != tuple(m.size):
                x = F.interpolate(x, size=m.size, mode="bilinear", align_corners=False, antialias=True)
            y = labels.to(m.device)
            with self.execution.autocast():
                out = m.outputs(x)
            out = out.float()
            margin = m.margin(out, y)
            loss = -margin if self.objective == "margin" else _cross_entropy(m, out, margin, y)
            losses.append((loss / m.frames).to(images.device))
            margins.append(margin.to(images.device))
            wrong += (~m.right(out.detach(), y)).long().to(images.device)
        return Seen(torch.stack(losses).mean(0), torch.stack(margins), wrong)


def _cross_entropy(model: ImageModel, out: Tensor, margin: Tensor, labels: Tensor) -> Tensor:
    """(n,) softplus(−m), m the margin, or against the log-sum of the other classes: −log softmax(z)_y, but the slope
    of the right class survives where its probability rounds to 1. A straight line beyond ``SURE``.
    """
    if model.task not in TWO_SIDED:
        own = out.gather(1, labels[:, None])[:, 0]
        margin = own - out.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    line = math.exp(-SURE) * (1 + SURE - margin)
    return torch.where(margin < SURE, F.softplus(-margin), line)
