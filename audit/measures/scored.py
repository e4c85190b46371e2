"""What a model says of the frames of a data set, and of its videos: the mean over their frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import special

from audit.measures.rates import Bools, Floats, Ints, numbered

FEW_SOURCES = 2
"""Sources, or people, from which a number decides anything: frames of one video say nothing of the next."""
Unit = Literal["frame", "video"]
UNITS: tuple[Unit, Unit] = ("frame", "video")


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model says of N frames.

    Attributes:
        scores: (N,) finite, higher for class 1. labels: (N,) 0 or 1; 1 is fake (of a liveness detector: live). clips,
            groups: N names of the video that each is a frame of, and of what goes together with that video. method: N
            names of how it was manipulated or what is held before the camera; empty of what is genuine. log_odds:
            whether scores are log-odds, so that a video's score is the mean of its frames' probabilities; otherwise it
            is the mean of their scores.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, a clip of two labels, groups or methods.
    """

    scores: Floats
    labels: Ints
    clips: tuple[str, ...]
    groups: tuple[str, ...]
    method: tuple[str, ...]
    log_odds: bool = True

    def __post_init__(self) -> None:
        shapes = {self.scores.shape, self.labels.shape, *((len(x),) for x in (self.clips, self.groups, self.method))}
        if shapes != {(len(self.scores),)}:
            raise ValueError(f"expected N scores, labels, clips, groups and methods, got {sorted(shapes)}")
        if not np.isfinite(self.scores).all() or not np.isin(self.labels, (0, 1)).all():
            raise ValueError("expected finite scores and labels 0 and 1")
        facts = set(zip(self.clips, self.labels.tolist(), self.groups, self.method, strict=True))
        if len(facts) != len(set(self.clips)):
            raise ValueError("expected one label, group and method for each clip")

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, keep: Bools) -> Scored:
        """The frames for which ``keep`` (N,) holds."""
        rows = np.flatnonzero(keep)
        return self._rows(rows, self.scores[rows], log_odds=self.log_odds)

    @property
    def positive(self) -> Bools:
        """(N,) whether the label is 1."""
        return np.asarray(self.labels == 1)

    @cached_property
    def videos(self) -> Scored:
        """One row per clip, in order of name: mean(sigmoid(score)) of its frames in [0, 1], or mean(score)."""
        clip, count = numbered(self.clips)
        first = np.unique(clip, return_index=True)[1]
        means = np.bincount(clip, self._plain(self.scores), count) / np.bincount(clip, minlength=count)
        return self._rows(first, means, log_odds=False)

    def per(self, unit: Unit) -> Scored:
        """Itself, or its videos."""
        return self if unit == "frame" else self.videos

    def said(self, threshold: float, unit: Unit = "video") -> Bools:
        """Whether the model says 1, per frame (score >= threshold) or per video in the order of ``videos``.

        Of a video: the mean of sigmoid(score) − sigmoid(threshold) over its frames is at least 0, or of
        score − threshold, so that rounding does not part a video from its frames where all are at the threshold.
        """
        if unit == "frame":
            return np.asarray(self.scores >= threshold)
        clip, count = numbered(self.clips)
        above = self._plain(self.scores) - self._plain(np.asarray(threshold))
        return np.asarray(np.bincount(clip, above, count) >= 0)

    def _plain(self, scores: Floats) -> Floats:
        return np.asarray(special.expit(scores)) if self.log_odds else scores

    def _rows(self, rows: Ints, scores: Floats, *, log_odds: bool) -> Scored:
        at = rows.tolist()
        clips, groups, method = (tuple(x[i] for i in at) for x in (self.clips, self.groups, self.method))
        return Scored(scores, self.labels[rows], clips, groups, method, log_odds)
