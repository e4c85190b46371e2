"""What the attacks by queries share: options, limits, where they begin, what is said of them afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from audit.budget import Budget
from audit.contracts import Detector
from audit.data.scenes import Scenes
from audit.errors import AuditError
from audit.execution import Execution
from audit.record import Diagnostic
from probes import diagnostics
from probes.detection.craftset import CraftSet
from probes.detection.patch import Patch
from probes.detection.queries import AFTER, Feedback, Questions, images_of, wearing
from probes.geometry import COVER, TOP
from probes.probe import Access, Progress, frozen, generator
from probes.wear import Wear

LATE = 0.3
LATE_LOSS: dict[Feedback, float] = {"scores": 0.5, "decision": 0.15}
"""A fall in the last tenth that is smaller than this is no progress worth the name, whatever its share."""


@dataclass(frozen=True, repr=False)
class QueryPatch(ABC):
    """Base of the attacks by queries: one patch that hides every object, found from final detections alone.

    Args:
        placement: how it is worn. size: texels of a side, or (rows, columns).
        feedback: ``scores`` reads the scores of the detections; ``decision`` only whether each object is still found
            at the owner's threshold.
        attacked: names of classes that count as found whatever the class of the object: ``("car", "truck", "bus")``.
        max_images: images sent to the detector per patch at most, all checks included, whatever the budget says;
            ``None`` leaves it to the budget alone, whose ``queries`` calls on ``batch`` images each are the limit.
        images: images that a proposal is asked on, at most the budget's batch.
    """

    placement: Wear = TOP
    size: int | tuple[int, int] = 48
    feedback: Feedback = "scores"
    attacked: tuple[str, ...] = ()
    max_images: int | None = 5000
    images: int = 8

    goal: ClassVar[str] = "Hide the object from the detector with one printed patch that works on every object"
    threat: ClassVar[str] = "Somebody who may ask the detector as often as the budget says, and sees boxes and scores"
    refs: ClassVar[tuple[str, ...]] = ("NISTAML.022", "AML.T0043.001")
    access: ClassVar[Access] = "query"
    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1
    load = staticmethod(Patch.load)

    def __post_init__(self) -> None:
        if self.feedback not in get_args(Feedback):
            raise _wrong("feedback", " or ".join(get_args(Feedback)), self.feedback)
        if min(self.shape) < 1:
            raise _wrong("size", "at least one texel a side", self.size)
        if self.images < 1 or (self.max_images is not None and self.max_images < 1):
            raise _wrong("images and max_images", "at least 1", (self.images, self.max_images))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of texels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def name(self) -> str:
        """A few words for the report."""
        how = "" if self.feedback == "scores" else " on decisions"
        return f"patch by {self.kind}{how}, {self.placement}"

    def __repr__(self) -> str:
        how = "" if self.feedback == "scores" else f", {self.feedback}"
        return f"{type(self).__name__}({self.placement}{how})"

    def spec(self) -> dict[str, Any]:
        """All that determines the patch beside model, data, budget and seed."""
        return {
            "probe": type(self).__name__,
            "version": self.version,
            "placement": self.placement.spec(),
            "size": list(self.shape),
            "feedback": self.feedback,
            "attacked": list(self.attacked),
            "max_images": self.max_images,
            "images": self.images,
        }

    @abstractmethod
    def seek(self, asked: Questions, stream: torch.Generator, tell: Callable[[], None]) -> None:
        """Searches as long as ``asked`` affords it, and has the best patches checked; ``tell`` reports progress."""

    def craft(
        self,
        detector: Detector,
        scenes: Scenes,
        *,
        execution: Execution,
        budget: Budget,
        seed: int,
        progress: Progress | None = None,
    ) -> Patch:
        """The patch after ``min(budget.queries · budget.batch, max_images)`` images sent, checks included.

        Its history is that of :class:`Questions`; ``origin`` holds the images sent and the calls.

        Raises:
            DataError: no object to put a patch on. AuditError: ``max_images`` leaves nothing to search with, or an
            attacked class that the detector does not know.
        """
        craft = CraftSet(scenes, self.placement, execution, batch=min(budget.batch, self.images), seed=seed)
        limit = budget.queries * budget.batch
        asked = Questions(detector, craft, self.feedback, self._attacked(detector), limit, self.max_images)
        least = images_of(craft.group(craft.largest))
        if asked.limit < least:
            needed = AFTER * images_of(asked.checked) + least
            raise _wrong("max_images", f"at least {needed} on this data", self.max_images)

        def tell() -> None:
            if progress:
                progress(min(1.0, asked.sent / asked.limit), self.name)

        with frozen(detector):
            self.seek(asked, generator(self.kind, seed), tell)
            assert asked.best is not None
            found = _health(asked, asked.best)
        if progress:
            progress(1.0, self.name)
        spent = {
            "seed": seed,
            "budget": [budget.queries, budget.batch],
            "images_sent": asked.sent,
            "calls": asked.calls,
        }
        return self._patch(asked.best, spent, found, asked.history)

    def _patch(
        self, pixels: Tensor, spent: dict[str, Any], found: list[Diagnostic], history: dict[str, list[float]]
    ) -> Patch:
        """The one place where the result is made."""
        return Patch(pixels, self.placement, self.name, self.spec() | spent, diagnostics=found, history=history)

    def _attacked(self, detector: Detector) -> list[int]:
        names = list(detector.classes)
        unknown = [c for c in self.attacked if c not in names]
        if unknown:
            raise _wrong("attacked", "classes of the detector", unknown)
        return [names.index(c) for c in self.attacked]


def _health(asked: Questions, pixels: Tensor) -> list[Diagnostic]:
    """Whether the detector answers alike twice, loses an object that is covered whole, and the search had ended."""
    parts = asked.checked
    one, two = (asked.scores([wearing(pixels)], parts)[0] for _ in range(2))
    grey = torch.full((3, 48, 48), 128 / 255, device=asked.craft.execution.device)
    covered = asked.scores([lambda part: COVER.prepare(part.images, part.boxes).place(part.images, grey)], parts)[0]
    found = float((covered >= asked.detector.score_threshold).float().mean()) if len(covered) else 1.0
    difference = float((one - two).abs().max()) if len(one) else 0.0
    out = [diagnostics.results_agree(difference), diagnostics.unbounded_succeeds(found)]
    if asked.history["query"]:
        least = LATE_LOSS[asked.feedback]
        out.append(still_improving(asked.history["query"], asked.history["loss"], least))
    return out


def still_improving(sent: Sequence[float], loss: Sequence[float], least: float) -> Diagnostic:
    """Share of the whole fall of the loss that came in the last tenth of the queries.

    Args:
        sent: images sent at each check, ascending. loss: on the images of the checks, at each. least: a late fall
            below this raises no flag.
    """
    best = [min(loss[: i + 1]) for i in range(len(loss))]
    before = [b for s, b in zip(sent, best, strict=True) if s <= 0.9 * sent[-1]]
    fall = best[0] - best[-1] if best else 0.0
    late = before[-1] - best[-1] if before else 0.0
    share = late / fall if fall > 0 else 0.0
    return Diagnostic(
        name="search was still improving",
        value=share,
        limit=LATE,
        raised=share > LATE and late > least,
        meaning="The share of the whole fall of the loss that came in the last tenth of the queries; an even course "
        "gives about a tenth, above the limit the attack had only begun and more queries would have attacked better.",
    )


def begin(asked: Questions, shape: tuple[int, int], stream: torch.Generator) -> Tensor:
    """The best of as many starts as the budget affords, uint8 (3, P, Q)."""
    parts = asked.craft.group(0)
    some = starts(shape, stream)
    some = some[: max(1, sum(asked.affords(n + 2, parts) for n in range(len(some))))]
    losses = asked.losses([wearing(p) for p in some], parts) if len(some) > 1 else [0.0]
    return some[min(range(len(some)), key=losses.__getitem__)]


def starts(shape: tuple[int, int], stream: torch.Generator) -> list[Tensor]:
    """Where a search may begin: stripes, and each corner of the colour cube as a plain patch, uint8 (3, P, Q)."""
    corners = torch.tensor([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=torch.uint8)
    return [stripes(shape, stream), *(c[:, None, None].expand(3, *shape).contiguous() for c in corners)]


def stripes(size: int | tuple[int, int], stream: torch.Generator) -> Tensor:
    """uint8 (3, P, Q), or (3, size, size): columns in random corners of the colour cube, the square attack's start."""
    rows, columns = (size, size) if isinstance(size, int) else size
    row = torch.randint(0, 2, (3, 1, columns), generator=stream) * 255
    return row.expand(3, rows, columns).to(torch.uint8).contiguous()


def _wrong(what: str, expected: str, got: object) -> AuditError:
    return AuditError(f"{what} of a query attack", expected=expected, got=repr(got), mend="correct it in the probe")
