"""Where and how a model runs: device, threads, batches by image size, decoding ahead, out-of-memory back-off."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audit.contracts import Areas, Detections, Detector
from audit.data.scenes import Scene
from audit.errors import AuditError, ModelError

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenes of one size, decoded, with the boxes that count.

    Attributes:
        images: (N, 3, H, W) float32 in [0, 1] on the device.
        boxes: per image (K_i, 4) xyxy px, the objects that are not ignored; labels: per image (K_i,) int64.
        areas: per image, of the same objects; ``None`` where no scene of the batch names any.
    """

    scenes: tuple[Scene, ...]
    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    areas: list[Areas] | None = None


@dataclass
class Execution:
    """Device, precision and threads of a run; the only place that decides batch sizes.

    ``precision`` other than float32 runs the model under autocast; the report names it.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise AuditError(
                "--audit-precision",
                expected=" or ".join(PRECISIONS),
                got=repr(self.precision),
                mend="choose one of those",
            )

    def plan(self, scenes: Sequence[Scene], size: int) -> list[list[Scene]]:
        """Scenes in batches of at most ``size``, one image size per batch, in an order that ids alone decide."""
        buckets: dict[tuple[int, int], list[Scene]] = defaultdict(list)
        for scene in sorted(scenes, key=lambda s: s.id):
            buckets[scene.size].append(scene)
        return [bucket[i : i + size] for _, bucket in sorted(buckets.items()) for i in range(0, len(bucket), size)]

    def batches(self, scenes: Sequence[Scene], size: int) -> Iterator[Batch]:
        """The planned batches, each decoded while the one before it is used."""
        plan = self.plan(scenes, size)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(_decode, plan[0]) if plan else None
            for i, group in enumerate(plan):
                assert ahead is not None
                images = ahead.result()
                ahead = pool.submit(_decode, plan[i + 1]) if i + 1 < len(plan) else None
                yield self.batch(group, images)

    def batch(self, scenes: Sequence[Scene], images: Tensor | None = None) -> Batch:
        """Scenes of one size on the device."""
        images = _decode(scenes) if images is None else images
        return Batch(
            scenes=tuple(scenes),
            images=images.to(self.device, non_blocking=True).float() / 255,
            boxes=[s.boxes[~s.ignore].to(self.device) for s in scenes],
            labels=[s.labels[~s.ignore].to(self.device) for s in scenes],
            areas=areas_of(scenes, self.device),
        )

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """The context in which the model runs."""
        kind = PRECISIONS[self.precision]
        return nullcontext() if kind is None else torch.autocast(self.device.type, dtype=kind)

    def detect(self, detector: Detector, images: Tensor) -> list[Detections]:
        """The detector's word on a batch, on the CPU; the batch is halved as often as memory asks for it."""
        found = None
        try:
            with torch.inference_mode(), self.autocast():
                found = detector(images)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        if found is None:  # out of the except block, which holds on to the memory of what failed
            torch.cuda.empty_cache()
            half = len(images) // 2
            return self.detect(detector, images[:half]) + self.detect(detector, images[half:])
        out = [Detections(d.boxes.float().cpu(), d.scores.float().cpu(), d.labels.cpu()) for d in found]
        for d in out:
            _require_sound(d, len(detector.classes))
        return out


def areas_of(scenes: Sequence[Scene], device: torch.device) -> list[Areas] | None:
    """Areas of the objects that count, per scene; ``None`` where no scene names any."""
    if all(s.areas is None for s in scenes):
        return None
    out = []
    for s in scenes:
        quads = torch.full((len(s.boxes), 4, 2), torch.nan) if s.areas is None else s.areas
        hidden = None if s.hidden is None else s.hidden().to(device).float() / 255
        out.append(Areas(quads[~s.ignore].to(device), hidden))
    return out


def _require_sound(d: Detections, classes: int) -> None:
    """A NaN score would fall out of every count."""
    bad = ""
    if not bool(d.boxes.isfinite().all()) or not bool(d.scores.isfinite().all()):
        bad = "values that are not finite"
    elif len(d.scores) and not 0 <= float(d.scores.min()) <= float(d.scores.max()) <= 1:
        bad = f"scores from {float(d.scores.min()):.3g} to {float(d.scores.max()):.3g}"
    elif len(d.labels) and not 0 <= int(d.labels.min()) <= int(d.labels.max()) < classes:
        bad = f"labels from {int(d.labels.min())} to {int(d.labels.max())}"
    if bad:
        raise ModelError(
            "detector",
            expected=f"finite boxes, scores in [0, 1] and labels under {classes}",
            got=bad,
            mend="mend the model or its adapter; nothing was counted",
        )


def keep_memory() -> None:
    """Let glibc keep freed memory instead of handing it back: a fifth to a quarter of a run went into page faults.

    A model frees and asks for the same large blocks at every step. Does nothing where there is no ``mallopt``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_max = -1, -4  # names and numbers of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def _decode(scenes: Sequence[Scene]) -> Tensor:
    return torch.stack([s.load() for s in scenes])
