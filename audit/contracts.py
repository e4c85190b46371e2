"""What a model must offer, per task, and what passes between models, probes and measures.

All images are float32 RGB in [0, 1] of shape (N, 3, H, W); boxes are xyxy in pixels of the image that was handed in.
The contracts are protocols: any object with these attributes will do, nobody inherits from us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector says of one image, after its own suppression of doubles.

    Attributes:
        boxes: (K, 4) float, xyxy in pixels, x1 <= x2 and y1 <= y2.
        scores: (K,) float in [0, 1].
        labels: (K,) int64, index into the detector's ``classes``.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """A detector's candidates before suppression, differentiable in the images.

    Attributes:
        boxes: (N, A, 4) float, xyxy in pixels.
        logits: (N, A, C) float, the log-odds of each class's score, C = ``len(classes)``. Probabilities saturate and
            their gradients vanish; log-odds do not.
    """

    boxes: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Areas:
    """Where on the objects of one image a patch is stuck, seen in perspective.

    Attributes:
        quads: (K, 4, 2) float32 (x, y) px, one per object: the corners of the area in the order upper left, upper
            right, lower right, lower left of the area itself, whatever way it is turned in the image. NaN where an
            object has no area: no patch is stuck on it.
        hidden: (H, W) float32 in [0, 1], the share of each pixel taken by something in front of the areas; ``None``
            where nothing stands in front.
    """

    quads: Tensor
    hidden: Tensor | None = None


@runtime_checkable
class Detector(Protocol):
    """An object detector.

    ``score_threshold`` is the owner's operating point; ``__call__`` may return detections below it (they are needed
    for curves), the audit applies the threshold itself.
    """

    classes: Sequence[str]
    score_threshold: float

    def __call__(self, images: Tensor) -> list[Detections]: ...


@runtime_checkable
class WhiteBoxDetector(Detector, Protocol):
    """A detector that also shows its candidates, so that it can be attacked through its gradients."""

    def candidates(self, images: Tensor) -> Candidates: ...


@runtime_checkable
class Recognizer(Protocol):
    """A face recognizer: ``__call__`` maps faces (N, 3, *face_size) to embeddings (N, D).

    ``face_size`` is (height, width); two faces are the same person where their cosine similarity is at least
    ``threshold``.

    Optional: ``metric``, ``"cosine"`` (the default) or ``"euclidean"``, where two faces are the same person if their
    embeddings, as they are, lie at most ``threshold`` apart; ``template``, (5, 2) (x, y) px in a face of ``face_size``
    where its alignment puts left eye, right eye, nose and the corners of the mouth as the viewer sees them, by default
    the usual ones (``audit.alignment.ARCFACE``).
    """

    face_size: tuple[int, int]
    threshold: float

    def __call__(self, faces: Tensor) -> Tensor: ...


@runtime_checkable
class BlackBoxRecognizer(Protocol):
    """A recognizer that only compares: ``similarity(a, b)`` of two batches of faces is (N,) in [-1, 1]."""

    face_size: tuple[int, int]
    threshold: float

    def similarity(self, a: Tensor, b: Tensor) -> Tensor: ...


@runtime_checkable
class ForgeryDetector(Protocol):
    """A deepfake detector: faces (N, 3, *face_size), or clips (N, T, 3, *face_size), to fake logits (N,).

    A face is called fake where its logit is at least ``threshold``. Optional: ``clip_frames``, T, where it judges
    clips; ``trained_on``, names of the manipulation methods and qualities that it was trained on, as the data call
    them; ``embed(faces) -> (N, D)``, features by which methods can be told apart, of faces or clips as the call itself
    takes them.
    """

    face_size: tuple[int, int]
    threshold: float

    def __call__(self, faces: Tensor) -> Tensor: ...


@runtime_checkable
class LivenessDetector(Protocol):
    """A presentation-attack detector: faces to live scores (N,); live where the score is at least ``threshold``.

    It is given whole photographs, as the data has them (LFW's, or squares of six eye distances), and crops what it
    wants. Optional: ``face_size`` (height, width), to which photographs are resized before; ``trained_on``, names of
    the domains that it was trained on.
    """

    threshold: float

    def __call__(self, faces: Tensor) -> Tensor: ...


@runtime_checkable
class Classifier(Protocol):
    """An image classifier: images to logits (N, K).

    Optional: ``input_size`` (height, width) px; ``classes``, K names.
    """

    def __call__(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Attributor(Protocol):
    """Tells which method made a fake: faces (N, 3, *face_size) to features (N, D), compared by their cosine.

    Optional: ``clip_frames``, T, where it takes clips (N, T, 3, *face_size).
    """

    face_size: tuple[int, int]

    def __call__(self, faces: Tensor) -> Tensor: ...


TASKS = ("detector", "recognizer", "forgery", "liveness", "classifier", "attributor")
"""The tasks, as they are named in a model file's dict and in the report."""


class Landmarker(Protocol):
    """Finds five landmarks: photographs (N, 3, H, W) to (N, 5, 2) px (x, y), NaN where there is no face.

    In the viewer's order: left eye, right eye, nose, left and right corner of the mouth, of the most central face.
    """

    def __call__(self, images: Tensor) -> Tensor: ...


class FaceGenerator(Protocol):
    """Draws faces from latent codes: (N, L) to (N, 3, H, W) in [0, 1], aligned as ``audit.alignment.ARCFACE`` has it.

    Optional: ``directions`` (D, L), steps that change one attribute each; ``names``, what they change.
    """

    @property
    def latent(self) -> int:
        """Length of a code."""
        ...

    def __call__(self, codes: Tensor) -> Tensor: ...


class Constraint(Protocol):
    """The set of inputs that a probe may propose, checked without the probe's help."""

    def violations(
        self, clean: Tensor, changed: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None
    ) -> list[str]:
        """One sentence per rule broken; empty where ``changed`` is allowed.

        Args:
            clean: (N, 3, H, W) in [0, 1]. changed: the same shape. boxes: per image (K, 4) xyxy px, the boxes that
            the perturbation was placed on. areas: per image, where the scenes name areas.
        """
        ...

    def describe(self) -> str:
        """The constraint in words, for the report."""
        ...


class Perturbation(Protocol):
    """A crafted input change that a measure can apply: a trained patch, a grey square."""

    @property
    def constraint(self) -> Constraint:
        """What the perturbed images are held against."""
        ...

    @property
    def identity(self) -> str:
        """sha256 of everything that decides what ``apply`` does (pixels, placement, parts removed)."""
        ...

    def apply(self, images: Tensor, boxes: Sequence[Tensor], areas: Sequence[Areas] | None = None) -> Tensor:
        """Images (N, 3, H, W) with the perturbation on every box; ``boxes[i]`` is (K_i, 4), K_i may be 0.

        ``areas[i]`` holds the areas of the same K_i objects, where the scenes name any.
        """
        ...

    def regions(self, boxes: Tensor, size: tuple[int, int], areas: Areas | None = None) -> Tensor:
        """Where the perturbation lies for each box: (K, 4) xyxy px, not clipped; ``size`` is (height, width)."""
        ...

    def picture(self) -> Any:
        """The perturbation itself as uint8 (h, w, 3) RGB, as it would be printed."""
        ...
