"""A recognizer as probes and measures ask it: photographs with landmarks in, one score per pair out.

The score is higher the more alike two faces are: the cosine of their embeddings, or less their distance. Two faces
are accepted as one person where it reaches ``cut``, the owner's threshold in the same terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from audit.alignment import Alignment, template_for
from audit.errors import ModelError
from audit.state import modules_of

METRICS = ("cosine", "euclidean")
CHUNK = 64


@dataclass(frozen=True, eq=False)
class Comparison:
    """One recognizer with its alignment.

    Attributes:
        model: a ``Recognizer`` or ``BlackBoxRecognizer``. white_box: whether gradients flow through its embeddings.
        digest: of the model file, for a surrogate; empty for the audited model.
        calibrated: the score that takes the place of the owner's threshold, where one was found for a false match rate.
    """

    name: str
    model: Any
    white_box: bool
    digest: str = ""
    calibrated: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ModelError(f"recognizer {self.name}", expected="`metric` as cosine or euclidean",
                             got=repr(self.metric), mend="write one of the two")  # fmt: skip

    @property
    def face_size(self) -> tuple[int, int]:
        """(height, width) px."""
        return int(self.model.face_size[0]), int(self.model.face_size[1])

    @property
    def metric(self) -> Literal["cosine", "euclidean"]:
        """How embeddings are compared."""
        return getattr(self.model, "metric", "cosine")

    @property
    def cut(self) -> float:
        """The score from which two faces are one person."""
        if self.calibrated is not None:
            return self.calibrated
        t = float(self.model.threshold)
        return t if self.metric == "cosine" else -t

    @property
    def embeds(self) -> bool:
        """Whether it shows embeddings; otherwise it only compares."""
        return callable(self.model)

    def at(self, score: float) -> Comparison:
        """The same recognizer, working at another score."""
        return replace(self, calibrated=score)

    def align(self, landmarks: Tensor, photo: tuple[int, int]) -> Alignment:
        """Its alignment of photographs of size ``photo`` by their landmarks (N, 5, 2) px."""
        template = template_for(self.face_size, getattr(self.model, "template", None))
        return Alignment.by_landmarks(landmarks, photo, self.face_size, template)

    def embed(self, faces: Tensor) -> Tensor:
        """(N, D) of aligned faces (N, 3, h, w) in [0, 1]; of length one where cosines are compared."""
        out = self.model(faces).float()
        return F.normalize(out, dim=1) if self.metric == "cosine" else out

    def enrol(self, faces: Tensor) -> Tensor:
        """What aligned faces are compared with later: their embeddings, or the faces where it only compares."""
        return self.embed(faces) if self.embeds else faces

    def score(self, faces: Tensor, enrolled: Tensor) -> Tensor:
        """(N,) how alike aligned faces are to N enrolled ones; differentiable in ``faces`` where ``white_box``."""
        if not self.embeds:
            return self.model.similarity(faces, enrolled).float()  # type: ignore[no-any-return]
        return self.between(self.embed(faces), enrolled)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """(N,) score of embeddings (N, D), as ``embed`` gives them."""
        if self.metric == "cosine":
            return (a * b).sum(1)
        return -((a - b).square().sum(1) + 1e-12).sqrt()

    def ask(self, images: Tensor, landmarks: Tensor, others: Tensor, other_landmarks: Tensor) -> Tensor:
        """(N,) float32 scores on the CPU of uint8 photographs (N, 3, H, W), pair by pair, without gradients."""
        out = []
        for i in range(0, len(images), CHUNK):
            part = slice(i, i + CHUNK)
            a, b = (self.aligned(x[part], m[part]) for x, m in ((images, landmarks), (others, other_landmarks)))
            with torch.inference_mode():
                out.append(self.score(a, self.enrol(b)).float().cpu())
        return self._sound(torch.cat(out), len(images), "scores", 1) if out else torch.zeros(0)

    def embeddings(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """(N, D) float32 on the CPU of uint8 photographs, without gradients."""
        out = []
        for i in range(0, len(images), CHUNK):
            with torch.inference_mode():
                out.append(self.embed(self.aligned(images[i : i + CHUNK], landmarks[i : i + CHUNK])).cpu())
        return self._sound(torch.cat(out), len(images), "embeddings", 2) if out else torch.zeros(0, 2)

    def aligned(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """Aligned faces in [0, 1] of uint8 photographs."""
        device = self.device
        at = self.align(landmarks.to(device), (int(images.shape[2]), int(images.shape[3])))
        return at.faces(images.to(device).float() / 255)

    @cached_property
    def device(self) -> torch.device:
        """Where the model's weights are; the CPU where it has none."""
        for module in modules_of(self.model):
            for weight in (*module.parameters(), *module.buffers()):
                return weight.device
        return torch.device("cpu")

    def _sound(self, out: Tensor, count: int, what: str, ndim: int) -> Tensor:
        """A score that is no number would fall on one side of every threshold, and be counted."""
        if out.ndim != ndim or len(out) != count or not bool(out.isfinite().all()):
            bad = f"shape {tuple(out.shape)}" if out.ndim != ndim or len(out) != count else "values that are not finite"
            raise ModelError(
                f"recognizer {self.name}",
                expected=f"{count} finite {what}",
                got=bad,
                mend="mend the model or its adapter; nothing was counted",
            )
        return out
