"""A model that puts images into classes, as probes and measures ask it: forgery detectors, liveness detectors,
classifiers.

Labels are whole numbers. A forgery detector knows 0 (real) and 1 (fake), and says fake from its ``threshold`` on; a
liveness detector 0 (an attack) and 1 (live), and says live from its ``threshold`` on; a classifier its K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from audit.errors import ModelError
from audit.state import modules_of
from audit.tasks import input_size

CHUNK = 32
TWO_SIDED = ("forgery", "liveness")


@dataclass(frozen=True, eq=False)
class ImageModel:
    """One model with its task.

    Attributes:
        model: a contract object. task: ``forgery``, ``liveness`` or ``classifier``. white_box: whether gradients flow.
        digest: of the model file, for a surrogate; empty for the audited model. place: the device that the model was
            built for; without it, ``device`` looks for weights.
    """

    name: str
    model: Any
    task: str
    white_box: bool
    digest: str = ""
    place: torch.device | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px of the images that it takes."""
        return input_size(self.model)

    @property
    def frames(self) -> int:
        """Frames of one clip, where it judges clips (its ``clip_frames``); 1 where it judges single images."""
        return int(getattr(self.model, "clip_frames", None) or 1)

    @property
    def threshold(self) -> float:
        """From where on it says 1; 0 for a classifier, which takes the largest logit."""
        return float(getattr(self.model, "threshold", 0.0)) if self.task in TWO_SIDED else 0.0

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Manipulation methods, qualities or domains that its owner says it was trained on; maybe none."""
        return tuple(str(t) for t in getattr(self.model, "trained_on", ()))

    def outputs(self, images: Tensor) -> Tensor:
        """What the model says of images (N, 3, H, W) in [0, 1], differentiable where ``white_box``.

        Returns:
            (N,) scores of class 1, or (N, K) logits of a classifier. Where it judges clips, N is a multiple of
            ``frames``, each run of that many images is one clip, and each of its images is given the clip's output.
            An attributor's are features (N, D).

        Raises:
            ValueError: a clip lacks frames.
        """
        t = self.frames
        if t == 1:
            out: Tensor = self.model(images)
            return out
        if len(images) % t:
            raise ValueError(f"expected whole clips, a multiple of {t} frames, got {len(images)}")
        out = self.model(images.reshape(-1, t, *images.shape[1:]))
        return out.repeat_interleave(t, 0)

    def margin(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """(N,) how far each decision is on the right side, in the units of the outputs; 0 or more where 1 is said
        rightly, more than 0 for any other right answer, so that ``right`` is the sign.

        Two sides: (2y − 1)(s − threshold). Classes: z_y − max over the others.
        """
        if self.task in TWO_SIDED:
            return (2 * labels - 1).to(outputs.dtype) * (outputs - self.threshold)
        own = outputs.gather(1, labels[:, None])[:, 0]
        others = outputs.scatter(1, labels[:, None], -torch.inf)
        return own - others.max(1).values

    def right(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """(N,) bool, whether each decision is right. A score at the threshold says 1; a tie of classes is wrong."""
        m = self.margin(outputs, labels)
        return (m > 0) | ((m == 0) & (labels == 1)) if self.task in TWO_SIDED else m > 0

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """(N,) cross-entropy per image, which an attacker maximises.

        Two sides: log(1 + exp(−(2y − 1)(s − threshold))); classes: −log softmax(z)_y. A clip's loss is shared evenly
        by its frames, so that the sum over images is that over clips.
        """
        out = self.outputs(images)
        if self.task in TWO_SIDED:
            each = F.softplus(-self.margin(out, labels))
        else:
            each = F.cross_entropy(out, labels, reduction="none")
        return each / self.frames

    def ask(self, images: Tensor) -> NDArray[np.float64]:
        """Scores (N,) or logits (N, K) of uint8 images (N, 3, H, W), without gradients.

        Raises:
            ModelError: it answers with another shape, or with values that are not finite.
        """
        out = []
        step = max(CHUNK // self.frames, 1) * self.frames
        for i in range(0, len(images), step):
            with torch.inference_mode():
                out.append(self.outputs(images[i : i + step].to(self.device).float() / 255).float().cpu())
        found = torch.cat(out) if out else torch.zeros(0)
        wanted = 1 if self.task in TWO_SIDED else 2
        if out and (found.ndim != wanted or len(found) != len(images) or not bool(found.isfinite().all())):
            shaped = found.ndim == wanted and len(found) == len(images)
            raise ModelError(
                f"{self.task} model {self.name}",
                expected=f"{len(images)} finite {'scores' if wanted == 1 else 'rows of logits'}",
                got="values that are not finite" if shaped else f"shape {tuple(found.shape)}",
                mend="mend the model or its adapter; nothing was counted",
            )
        return found.double().numpy()

    @cached_property
    def device(self) -> torch.device:
        """``place``, else where the model's weights are; the CPU where no modules with weights are found in it."""
        if self.place is not None:
            return self.place
        for module in modules_of(self.model):
            for weight in (*module.parameters(), *module.buffers()):
                return weight.device
        return torch.device("cpu")
