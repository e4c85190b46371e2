"""The score of the face track of the Artificial Intelligence Security Competition (paper 000 §4.1, eq. 16).

    score = 1/M Σ_i 1/P Σ_j I(M_i(x_adv_j, x2_j))                                               (16)

over M recognizers and P pairs of two people, where I is 1 if the recognizer takes both faces for one person; in the
competition M = 3 and P = 3000. A pair that breaks a rule counts as not successful, and no recognizer is shown it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.alignment import ARCFACE, CHIP, Alignment
from audit.comparison import Comparison
from audit.data.face_submissions import Entry, FaceSubmission
from audit.errors import ModelError
from audit.execution import Execution
from audit.measures.driving import Rule
from audit.measures.face_rules import FaceRules
from audit.measures.intervals import Estimate, Resampling, cluster_bootstrap, wilson

PAIRS, MODELS = 3000, 3
"""What the competition scored over."""

BATCH = 64
_AHEAD = 4  # batches that are read and judged while the models work
_READERS = min(max(os.cpu_count() or 1, 2), 8)


@dataclass(frozen=True, eq=False)
class FaceScore:
    """A submission's score with all that it was made of.

    Attributes:
        entries: per pair, without pictures. scores: recognizer -> (P,) float64, NaN where a pair is void. success:
            recognizer -> (P,) bool.
    """

    entries: tuple[Entry, ...]
    scores: Mapping[str, NDArray[np.float64]]
    success: Mapping[str, NDArray[np.bool_]]

    @property
    def void(self) -> int:
        """Pairs that break a rule."""
        return sum(e.void for e in self.entries)

    @property
    def score(self) -> float | None:
        """Eq. 16, in [0, 1]; ``None`` without pairs or recognizers."""
        rates = [float(s.mean()) for s in self.success.values() if len(s)]
        return float(np.mean(rates)) if rates else None

    def rate(self, name: str, level: float = 0.95) -> Estimate:
        """One recognizer's share of successful pairs, void ones among them; Wilson's interval, pairs as independent."""
        return wilson(int(self.success[name].sum()), len(self.entries), level)

    def overall(self, resampling: Resampling) -> Estimate:
        """Eq. 16 with an interval that resamples pairs: what several recognizers say of one pair goes together."""
        if not self.success:
            return wilson(0, 0, resampling.level)
        hits = np.sum([s.astype(np.int64) for s in self.success.values()], axis=0)
        return cluster_bootstrap(
            hits, np.full(len(hits), len(self.success)),
            level=resampling.level, draws=resampling.draws, seed=resampling.seed, cluster="pairs",
        )  # fmt: skip


def score_faces(
    submission: FaceSubmission,
    models: Mapping[str, Comparison],
    *,
    rules: FaceRules,
    execution: Execution,
    batch: int = BATCH,
    progress: Callable[[float, str], None] | None = None,
) -> FaceScore:
    """Reads, judges and scores all pairs; the models have to be frozen, in evaluation mode.

    Files are read, decoded and held against the rules in threads, some batches ahead of the models.

    Raises:
        DataError: an original cannot be used. ModelError: a score that is not finite.
    """
    n = len(submission.numbers)
    scores = {name: np.full(n, np.nan) for name in models}
    askers = {name: _Asker(model, execution) for name, model in models.items()}
    entries: list[Entry] = []
    waiting: list[tuple[int, Entry]] = []

    def ask() -> None:
        at = [i for i, _ in waiting]
        faces, others = (_tensor([getattr(e, side) for _, e in waiting]) for side in ("face", "other"))
        for name, asker in askers.items():
            scores[name][at] = asker(faces, others)
        waiting.clear()

    for entry in _judged(submission, rules, batch):
        if not entry.void:
            waiting.append((len(entries), entry))
        entries.append(entry.seen())
        if len(waiting) == batch:
            ask()
            if progress is not None:
                progress(len(entries) / n, f"{len(entries)} of {n} pairs")
    if waiting:
        ask()
    # in float32, as the models answer: 0.7 is no less than a threshold of 0.7
    success = {
        n: np.nan_to_num(s, nan=-np.inf).astype(np.float32) >= np.float32(models[n].cut) for n, s in scores.items()
    }
    return FaceScore(tuple(entries), scores, success)


def comparable(pairs: int, models: int) -> list[Rule]:
    """The competition's numbers of pairs and recognizers; other ones give a score that it did not give."""
    return [
        Rule("pairs", pairs == PAIRS, str(PAIRS), str(pairs), voids=False),
        Rule("recognizers", models == MODELS, str(MODELS), str(models), voids=False),
    ]


def _judged(submission: FaceSubmission, rules: FaceRules, batch: int) -> Iterator[Entry]:
    """Entries in order, read ahead of whoever asks."""
    ahead: deque[Future[Entry]] = deque()
    pool = ThreadPoolExecutor(_READERS)
    try:
        for number in submission.numbers:
            ahead.append(pool.submit(submission.entry, number, rules))
            if len(ahead) > _AHEAD * batch:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Asker:
    """One recognizer, asked about 112 × 112 faces that lie as the usual template has them."""

    def __init__(self, model: Comparison, execution: Execution) -> None:
        self.model, self.execution = model, execution
        self.alignments: dict[int, Alignment] = {}

    def __call__(self, faces: Tensor, others: Tensor) -> NDArray[np.float64]:
        """(N,) float64 scores of (N, 3, 112, 112) uint8 pairs."""
        with torch.inference_mode(), self.execution.autocast():
            found = self.model.score(self._aligned(faces), self.model.enrol(self._aligned(others)))
        out = found.double().cpu().numpy()
        if out.shape != (len(faces),) or not np.isfinite(out).all():
            raise ModelError(
                f"recognizer {self.model.name}",
                expected=f"{len(faces)} finite scores",
                got=f"shape {out.shape}, {int((~np.isfinite(out)).sum())} of them not finite",
                mend="mend the model or its adapter; nothing was counted",
            )
        return out

    def _aligned(self, faces: Tensor) -> Tensor:
        n, device = len(faces), self.execution.device
        if n not in self.alignments:  # all batches but the last have one size
            self.alignments[n] = self.model.align(ARCFACE.expand(n, 5, 2).to(device), (CHIP, CHIP))
        return self.alignments[n].faces(faces.to(device, non_blocking=True).float() / 255)


def _tensor(pictures: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
