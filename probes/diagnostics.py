"""Was the attack itself sound? Each check is a number with a limit; a raised one turns a pass into inconclusive.

A model can look robust because its gradients are masked, because the attack stopped too early, or because it answers
at random (Carlini et al. 2019; Tramèr et al. 2020; Pintor et al. 2022, indicators of attack failure). The limits here
were set once, so that a sound attack on an ordinary detector raises none of them, and are not part of any profile.
The measurements belong to the probes; this module knows what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from audit.record import Diagnostic

ZERO_STEPS = 0.05
ZERO_IMAGES = 0.1
AGREEMENT = 0.95
SAME_RESULT = 0.01
DOWNHILL = 0.2
FALL = 0.01
NO_RESPONSE = 1e-3
LATE_FALL = 0.05
QUERY_LEAD = 0.05
MISMATCH = 0.1
UNBOUNDED = 0.1
UNATTACKED = 0.1
SETTLED = 0.01
"""Share of the height by which nothing near a patch may be better where it is said to stand at a minimum."""


def gradient_zero_steps(zero: int, broken: int, steps: int, *, settled: bool = False) -> Diagnostic:
    """Share of the optimisation's steps without a usable gradient.

    Args:
        zero: steps with candidates to attack whose gradient was zero. broken: steps with a gradient not finite.
        settled: queries around the trained patch found nothing better, so that a zero gradient there is that of a
            minimum; zero steps then do not count.
    """
    share = ((0 if settled else zero) + broken) / steps if steps else 1.0
    return Diagnostic(
        name="gradient zero or not finite, steps",
        value=share,
        limit=ZERO_STEPS,
        raised=share > ZERO_STEPS,
        meaning=f"In {zero} of {steps} steps the gradient was zero and in {broken} it was not finite; "
        + (
            "queries around the trained patch found nothing better, so it stands at a minimum and zero is right."
            if settled
            else "such a model hides its gradients, and a gradient attack says nothing about it."
        ),
    )


def gradient_zero_images(dead: int, images: int) -> Diagnostic:
    """Share of the images with objects from which no gradient reaches the patch."""
    share = dead / images if images else 1.0
    return Diagnostic(
        name="gradient zero or not finite, images",
        value=share,
        limit=ZERO_IMAGES,
        raised=share > ZERO_IMAGES,
        meaning=f"From {dead} of {images} images no usable gradient reached the patch; "
        "what is cut off from the gradient is not attacked.",
    )


def gradients_agree(cosine: float) -> Diagnostic:
    """Cosine of the gradients of two identical calls, in [-1, 1]; NaN where one was zero or not finite."""
    known = math.isfinite(cosine)
    return Diagnostic(
        name="two gradients agree",
        value=_plain(cosine),
        limit=AGREEMENT,
        raised=not known or cosine < AGREEMENT,
        meaning="Two identical calls gave gradients whose cosine this is; below the limit the gradient is mostly noise "
        "and the attack was led astray.",
    )


def results_agree(difference: float) -> Diagnostic:
    """Largest difference of a score between two identical runs of the model; 1 where even their number differs."""
    return Diagnostic(
        name="two runs agree",
        value=_plain(difference),
        limit=SAME_RESULT,
        raised=not difference <= SAME_RESULT,
        meaning="The largest difference of a candidate's score between two runs on the same images; above the limit "
        "the model answers partly at random and one run of it proves nothing.",
    )


def gradient_predicts(ratio: float) -> Diagnostic:
    """Observed change of the scores over a small step, divided by the change that the gradient predicts."""
    known = math.isfinite(ratio)
    return Diagnostic(
        name="gradient predicts the change",
        value=_plain(ratio),
        limit=DOWNHILL,
        raised=not known or ratio < DOWNHILL,
        meaning="The scores' change over a small step along the gradient, divided by the change that it foretold (1 is "
        "exact); below the limit the gradient is not that of the model that answers.",
    )


def attacks_what_is_found(height: float, found: float) -> Diagnostic:
    """Share of the objects found under the start patch while the objective selects no candidate at all; else 0."""
    missed = found if not height > 0 else 0.0
    return Diagnostic(
        name="attacks what is found",
        value=missed,
        limit=UNATTACKED,
        raised=missed > UNATTACKED,
        meaning="The share of the craft images' objects that were found at the start though the objective selected no "
        "candidate to attack; above the limit nothing was attacked.",
    )


def loss_fell(start: float, best: float) -> Diagnostic:
    """Share of the height above the attack's floor that the attack took away."""
    share = (start - best) / start if start != 0 else 1.0
    return Diagnostic(
        name="loss fell",
        value=_plain(share),
        limit=FALL,
        raised=not share >= FALL,
        meaning="The share of what was to be brought down on the craft images that the attack did bring down; below "
        "the limit it has not begun to work (a robust model gives way a little too).",
    )


def still_falling(checked: Sequence[int], height: Sequence[float]) -> Diagnostic:
    """Share of the whole fall that came in the last tenth of the steps."""
    tenth = max((h for s, h in zip(checked, height, strict=True) if s >= 0.9 * checked[-1]), default=0.0)
    fall = height[0] - min(height)
    late = max(0.0, tenth - height[-1]) / fall if fall != 0 else 0.0
    last = height[-1] <= min(height)
    known = math.isfinite(late)
    return Diagnostic(
        name="best step is the last",
        value=_plain(late) if last else 0.0,
        limit=LATE_FALL,
        raised=last and not (known and late <= LATE_FALL),
        meaning="The share of the whole fall of the loss that came in the last tenth of the steps; above the limit "
        "more steps would have attacked better.",
    )


def query_wins(trained: float, others: dict[str, float]) -> Diagnostic:
    """How far the best attack without gradients is ahead, in the loss that the trained patch was trained on.

    Args:
        trained: height above the attack's floor under the trained patch, on a few craft images.
        others: the same under patches made without gradients, by name.
    """
    name, best = min(others.items(), key=lambda item: item[1])
    most = max(others.values())
    lead = (trained - best) / most if most > 0 else 0.0
    return Diagnostic(
        name="attack without gradients beats white-box",
        value=_plain(lead),
        limit=QUERY_LEAD,
        raised=not lead <= QUERY_LEAD,
        meaning=f"By what share of the height the best patch made without gradients ({name}) brings the objects down "
        "further than the trained one; above the limit the gradients were of no use.",
    )


def candidates_match(share: float) -> Diagnostic:
    """Share of the objects that the detector finds although none of its candidates on them reaches its threshold."""
    return Diagnostic(
        name="candidates match detections",
        value=_plain(share),
        limit=MISMATCH,
        raised=not share <= MISMATCH,
        meaning="The share of objects that are found although no candidate says so; above the limit the candidates "
        "that were attacked are not what the detector decides by.",
    )


def unbounded_succeeds(found: float) -> Diagnostic:
    """Share of the objects still found where a patch covers them whole."""
    return Diagnostic(
        name="unbounded patch succeeds",
        value=_plain(found),
        limit=UNBOUNDED,
        raised=not found <= UNBOUNDED,
        meaning="The share of objects still found with a patch over the whole of them; above the limit the boxes do "
        "not belong to the images, or the model finds objects that cannot be seen.",
    )


def excuse_silence(found: Sequence[Diagnostic], response: float) -> list[Diagnostic]:
    """Lowers the flags of gradient and loss where the model's answers do not depend on the patch at all.

    A zero gradient then tells the truth: nothing that is put there can change an answer. Where answers do change with
    the patch, a zero gradient is masking, and the flags stand.

    Args:
        found: diagnostics of one attack. response: largest change of a candidate's log-odds between the trained patch
            and unoptimised ones; infinite where even the number of candidates changes.
    """
    silent = response <= NO_RESPONSE
    told = Diagnostic(
        name="answers depend on the patch",
        value=_plain(response),
        limit=NO_RESPONSE,
        raised=False,
        meaning="The largest change of a candidate's log-odds between quite different patches (none: candidates come "
        "and go); at or below the limit the model does not look at the patch, and its gradient is rightly zero.",
    )
    excused = {d.name for d in found if silent and d.name in _OF_GRADIENTS}
    return [told, *(d.model_copy(update={"raised": d.raised and d.name not in excused}) for d in found)]


def _plain(value: float) -> float | None:
    """The number, or None where there is none: the record knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


_OF_GRADIENTS = {
    "gradient zero or not finite, steps",
    "gradient zero or not finite, images",
    "two gradients agree",
    "gradient predicts the change",
    "loss fell",
}
