"""Traits of the face changed through a generator until it is somebody else's, and as little as can be seen (R7).

x_adv = x + (S(w + δ·A) − S(w)) ⊙ M: w is the code of the face, A holds one direction per attribute, δ how far the face
goes along each; what the generator cannot draw of the face stays as it is. At every step only the attributes that
matter most to the decision move (importance-aware choice), up the objective

    J = Σ_k w_k·margin_k − balance·D,     D = (1 − SSIM) / 2 + RMS difference of the aligned faces

which sets success against stealth (after Jia et al., Adv-Attribute, NeurIPS 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from skimage import metrics
from torch import Tensor
from torch.nn import functional as F

from audit import state
from audit.alignment import CHIP, Alignment
from audit.budget import Budget
from audit.comparison import Comparison
from audit.contracts import FaceGenerator
from audit.data.faces import Portraits
from audit.errors import AuditError
from audit.examples import Attacked, Examples
from audit.execution import Execution
from probes.probe import Access, Progress, generator
from probes.recognition.canvas import Ascent, Canvas, Kept, examples, only
from probes.recognition.eigenfaces import aligned, built_in, drawer, first_codes, identity
from probes.recognition.ensemble import Aimed, Weights, require_white_box
from probes.recognition.latent import drawn_by
from probes.recognition.masks import FaceMask, Mask
from probes.recognition.placing import to_bytes
from probes.recognition.transforms import Pipeline

Origin = Literal["face", "random"]
_CHUNK = 64
_WINDOW = 7
_psnr: Any = metrics.peak_signal_noise_ratio
_ssim: Any = metrics.structural_similarity


@dataclass(frozen=True)
class AttributePatch:
    """Attributes of a face changed per pair, by gradients: R7.

    Args:
        mask: where the change is; ``probes.recognition.masks.WHOLE`` for the whole aligned face, beyond the rules.
        generator: draws faces, with ``directions`` (A, L) and their ``names``; ``None`` for eigenfaces of the
            background, whose components are no more than components. Without directions the axes of the code serve.
        chosen: attributes that move at each step, those with the steepest margin. balance: weight of D against the
            margin. reach: each δ stays in [−reach, reach], steps along a direction.
        weights: of the models, as ``FacePatch`` has them. rate: first step of δ.
        start: the ``face`` as it is; ``random``: ``chosen`` attributes, drawn per pair, at either end of their reach.
        steps: gradients per pair; ``None`` for the budget's. With 0 the start is what is judged.

    Raises:
        AuditError: an option that does not exist or a number out of range.
    """

    mask: Mask = field(default_factory=FaceMask)
    _: KW_ONLY
    generator: FaceGenerator | None = None
    chosen: int = 16
    balance: float = 0.1
    reach: float = 4.0
    weights: Weights = "fixed"
    rate: float = 0.4
    start: Origin = "face"
    steps: int | None = None

    goal: ClassVar[str] = "somebody is taken for another, or no longer for themselves, by changed traits of the face"
    threat: ClassVar[str] = (
        "Somebody who has the recognizer and a face generator, and hands in a photograph with edited traits."
    )
    refs: ClassVar[tuple[str, ...]] = ("2210.06871",)
    access: ClassVar[Access] = "white-box"

    def __post_init__(self) -> None:
        sound = self.chosen >= 1 and self.balance >= 0 and self.reach > 0 and self.rate > 0
        if not sound or self.start not in ("face", "random") or (self.steps is not None and self.steps < 0):
            raise AuditError(
                "attribute patch",
                expected="chosen >= 1, balance >= 0, reach and rate above 0, start face or random, steps >= 0",
                got=f"chosen {self.chosen}, balance {self.balance}, reach {self.reach}, rate {self.rate}, "
                f"start {self.start!r}, steps {self.steps}",
                mend="correct them",
            )

    def __repr__(self) -> str:
        return f"{self.mask!r} {self.chosen} attributes"

    @property
    def name(self) -> str:
        return f"changed attributes ({self!r})"

    def spec(self) -> dict[str, Any]:
        """All that determines the result beside models, data, budget and seed, as JSON."""
        weights = list(self.weights) if isinstance(self.weights, tuple) else self.weights
        numbers = {"chosen": self.chosen, "balance": self.balance, "reach": self.reach, "rate": self.rate}
        rest = {"weights": weights, "start": self.start, "steps": self.steps}
        return {"probe": "attribute patch", **self.mask.spec(), **identity(self.generator), **numbers, **rest}

    def craft(
        self,
        models: Sequence[Comparison],
        attacked: Attacked,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Examples:
        """Changed faces of all pairs; ``details`` say how visible they are.

        Raises:
            ModelError: a model without gradients, or a generator that breaks its contract.
            DataError: no generator, and no background to fit one on.
        """
        require_white_box(models, self.weights)
        steps = budget.steps if self.steps is None else self.steps
        made = built_in(attacked.background, execution.device) if self.generator is None else self.generator
        parts, moved = [], Counter[int]()
        with state.frozen(state.modules_of(made)):
            face = _Face.of(made, execution)
            batches = torch.split(torch.arange(len(attacked.sources)), max(1, budget.batch))
            for i, rows in enumerate(batches):
                some = only(attacked, rows)
                masks = self.mask.photo_masks(some.sources.landmarks, some.sources.size)

                def report(done: float, i: int = i) -> None:
                    if progress is not None:
                        progress((i + done) / len(batches), f"attributes, batch {i + 1} of {len(batches)}")

                kept, count = self._search(face, models, some, masks, execution, steps, seed, report)
                parts.append((kept, masks))
                moved.update(count)
        out = examples(parts, {"steps": steps, "generator": drawn_by(made)})
        turns = max(1, steps * len(attacked.sources))
        most = {face.name(a): k / turns for a, k in moved.most_common(5)}
        return _told(out, attacked.sources, most)

    def _search(
        self,
        face: _Face,
        models: Sequence[Comparison],
        attacked: Attacked,
        masks: Tensor,
        execution: Execution,
        steps: int,
        seed: int,
        report: Callable[[float], None],
    ) -> tuple[Kept, Counter[int]]:
        aimed, canvas = Aimed.at(models, attacked, execution), Canvas.of(attacked.sources, masks, execution.device)
        at = Alignment.by_landmarks(attacked.sources.landmarks.to(execution.device), canvas.size, (CHIP, CHIP))
        own = at.faces(canvas.clean)
        codes = first_codes(face.made, aligned(attacked.sources).to(execution.device)).detach()
        with torch.no_grad():
            before = face.draw(codes)
        delta = self._start(attacked, face, seed).to(execution.device)
        kept, ascent, count = Kept.nothing(canvas), Ascent(self.rate, steps), Counter[int]()
        for step in range(steps + 1):
            d = delta.detach().requires_grad_()
            with torch.enable_grad():
                change = face.draw(codes + d @ face.directions) - before
                images = canvas.paint(canvas.own + canvas.read(change))
            if step == steps:
                kept.see(images, aimed.margins(images.detach()), 1.0)
            else:
                stream = generator("attributes", seed, step)
                pull, margins = aimed.gradient(images, Pipeline(()), stream, self.weights)
                assert margins is not None
                kept.see(images, margins, step / steps)
                (up,) = torch.autograd.grad(images, d, pull, retain_graph=True)
                (seen,) = torch.autograd.grad(images, d, _visibility_slope(at, images, own))
                up = kept.usable(up)
                top = up.abs().topk(min(self.chosen, up.shape[1]), dim=1).indices
                moves = torch.zeros_like(up).scatter_(1, top, 1.0)
                count.update(top.flatten().tolist())
                way = ascent.step((up - self.balance * seen.nan_to_num(0.0, 0.0, 0.0)) * moves)
                delta = (delta + way * moves).clamp(-self.reach, self.reach)
            kept.note()
            report((step + 1) / (steps + 1))
        return kept, count

    def _start(self, attacked: Attacked, face: _Face, seed: int) -> Tensor:
        """(N, A)."""
        delta = torch.zeros(len(attacked.sources), len(face.directions))
        if self.start == "random":
            for row, ids in zip(delta, zip(attacked.sources.ids, attacked.targets.ids, strict=True), strict=True):
                stream = generator("attributes", seed, *ids)
                which = torch.randperm(len(row), generator=stream)[: self.chosen]
                row[which] = (torch.randint(0, 2, (len(which),), generator=stream) * 2.0 - 1) * self.reach
        return delta


@dataclass(frozen=True, eq=False)
class _Face:
    """A generator with directions (A, L) of its attributes."""

    made: FaceGenerator
    draw: Callable[[Tensor], Tensor]
    directions: Tensor

    @classmethod
    def of(cls, made: FaceGenerator, execution: Execution) -> _Face:
        draw = drawer(made, execution.device)
        ways = getattr(made, "directions", None)
        ways = torch.eye(made.latent) if ways is None else ways
        return cls(made, draw, ways.detach().to(execution.device).float())

    def name(self, attribute: int) -> str:
        names = getattr(self.made, "names", None)
        return str(names[attribute]) if names is not None and len(names) > attribute else f"direction {attribute + 1}"


def visibility(a: Tensor, b: Tensor) -> Tensor:
    """(N,) D of aligned faces (N, 3, h, w) in [0, 1]: 0 where they are equal.

    (1 − SSIM) / 2 + root of the mean squared difference; SSIM (Wang et al. 2004) as the mean over evenly weighted
    windows of 7 × 7 that lie within the picture, with the unbiased variance, as scikit-image has it.
    """
    n = _WINDOW**2
    mean_a, mean_b = (F.avg_pool2d(x, _WINDOW, 1) for x in (a, b))
    var_a, var_b, both = (
        (F.avg_pool2d(x * y, _WINDOW, 1) - p * q) * n / (n - 1)
        for x, y, p, q in ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))
    )
    c1, c2 = 0.01**2, 0.03**2
    over = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    ssim = over / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    rms = ((a - b).square().mean((1, 2, 3)) + 1e-12).sqrt() - 1e-6
    return (1 - ssim.mean((1, 2, 3))) / 2 + rms


def _visibility_slope(at: Alignment, images: Tensor, own: Tensor) -> Tensor:
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        total = visibility(at.faces(leaf), own).sum()
    return torch.autograd.grad(total, leaf)[0]


def stealth(clean: Portraits, changed: Tensor) -> tuple[list[float], list[float]]:
    """PSNR in dB and SSIM of each changed photograph (N, 3, H, W) uint8 against its own, as aligned faces of 8 bits."""
    psnr, ssim = [], []
    for rows in torch.split(torch.arange(len(clean)), _CHUNK):
        own = clean[rows]
        was, now = (
            to_bytes(aligned(replace(own, images=x))).movedim(1, -1).numpy() for x in (own.images, changed[rows])
        )
        psnr += [float(_psnr(a, b, data_range=255)) for a, b in zip(was, now, strict=True)]
        ssim += [float(_ssim(a, b, channel_axis=2, data_range=255)) for a, b in zip(was, now, strict=True)]
    return psnr, ssim


def _told(out: Examples, sources: Portraits, most: dict[str, float]) -> Examples:
    psnr, ssim = stealth(sources, out.images)
    out.details |= {
        "PSNR in dB, mean and least": [sum(psnr) / len(psnr), min(psnr)],
        "SSIM, mean and least": [sum(ssim) / len(ssim), min(ssim)],
        "most chosen attributes, share of the steps": most,
    }
    return out
