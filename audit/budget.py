"""How much work an audit may spend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """The effort of a run.

    Attributes:
        name: ``smoke``, ``standard`` or ``certify``.
        steps: optimisation steps per trained patch. batch: images per step.
        queries: black-box queries (model calls on one batch) per random search.
        images: at most this many scenes, pairs of each kind, or clips of each method, chosen by the recorded seed.
        bootstrap: resamples per interval.
        frames: frames of each clip that are judged, evenly spread.
    """

    name: str
    steps: int
    batch: int
    queries: int
    images: int
    bootstrap: int
    frames: int = 8
