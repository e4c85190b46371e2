"""The contracts of recognizers, forgery detectors, liveness detectors and classifiers on a tiny batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from audit.checks.common import ARITHMETIC, JITTER, Looker, gradient_facts, scaled
from audit.record import Precondition
from audit.tasks import tiny_input


def check_faces(look: Looker, *, white_box: bool) -> list[Precondition]:
    """Facts on a model of faces: recognizer, forgery detector, liveness detector, attributor."""
    faces = tiny_input(look.thing, look.device)
    if look.task == "recognizer":
        facts = _compares(look, faces) if callable(getattr(look.thing, "similarity", None)) else []
        if not callable(look.thing):
            return facts
        return facts + _check(look, faces, _embeddings, white_box=white_box)
    return _check(look, faces, _embeddings if look.task == "attributor" else _scores, white_box=white_box)


def check_classifier(look: Looker) -> list[Precondition]:
    """Facts on a classifier."""
    images = tiny_input(look.thing, look.device)
    with torch.enable_grad():
        out = look.thing(images.clone().requires_grad_())
    return _check(look, images, _logits, white_box=isinstance(out, Tensor) and out.requires_grad)


def _check(
    look: Looker, images: Tensor, read: Callable[[Looker, Tensor], Tensor], *, white_box: bool
) -> list[Precondition]:
    first, second = read(look, images), read(look, images)
    facts = [_repeats(look, first, second)]
    if scaled(first, first[:1].expand_as(first)) <= 1e-7:
        raise look.wrong(
            "outputs that depend on the image",
            "the same for a photograph, noise, a gradient and grey",
            "use the images that are handed in, not a stored picture or result",
        )
    difference = scaled(first[:1], read(look, images[:1]))
    facts.append(
        look.fact(
            "an image alone gives what it gives in a batch",
            difference <= JITTER,
            difference,
            f"at most {JITTER}",
            "relative difference when the photograph is handed in alone; otherwise results depend on the batching",
        )
    )
    return facts + (gradient_facts(look, look.thing, images[:2]) if white_box else [])


def _repeats(look: Looker, first: Tensor, second: Tensor) -> Precondition:
    jitter = scaled(first, second)
    if jitter > JITTER:
        raise look.wrong(
            "the same outputs for the same images",
            f"a relative difference of {jitter:.2g} in a second call",
            "take the randomness out: eval(), no dropout, a fixed seed inside the call",
        )
    return look.fact(
        "same images, same outputs",
        jitter <= ARITHMETIC,
        jitter,
        f"at most {ARITHMETIC}",
        "norm of the difference between two calls on the tiny batch, relative to their own",
    )


def _embeddings(look: Looker, faces: Tensor) -> Tensor:
    n = len(faces)
    out = look.tensor(look.call(look.thing, faces), "embeddings", (n, None), f"({n}, D)")
    look.finite(out, "embeddings")
    if out.shape[1] < 2:
        raise look.wrong("embeddings of more than one number", f"shape {tuple(out.shape)}", "return the features")
    if float(out[0].norm()) == 0:
        raise look.wrong("embeddings with a direction", "a zero vector for a photograph", "look for a dead last layer")
    return out.float().cpu()


def _scores(look: Looker, faces: Tensor) -> Tensor:
    n = len(faces)
    name = "fake logits" if look.task == "forgery" else "live scores"
    out = look.tensor(look.call(look.thing, faces), name, (n,), f"({n},), one per face")
    look.finite(out, name)
    return out.float().cpu()


def _logits(look: Looker, images: Tensor) -> Tensor:
    n = len(images)
    out = look.tensor(look.call(look.thing, images), "logits", (n, None), f"({n}, K)")
    look.finite(out, "logits")
    return out.float().cpu()


def _compares(look: Looker, faces: Tensor) -> list[Precondition]:
    other = faces.roll(1, 0)
    n = len(faces)

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        out = look.call(lambda images: look.thing.similarity(images, b.clone()), a)
        out = look.tensor(out, "similarities", (n,), f"({n},), one per pair")
        look.finite(out, "similarities")
        low, high = float(out.min()), float(out.max())
        if low < -1.001 or high > 1.001:
            raise look.wrong("similarities in [-1, 1]", f"{low:.3g} to {high:.3g}", "return cosines, not distances")
        return out.float().cpu()

    first, itself = similarity(faces, other), similarity(faces, faces)
    if scaled(first, itself) <= 1e-7:
        raise look.wrong(
            "similarities that depend on the images",
            "the same for equal and for different faces",
            "compare the two batches that are handed in",
        )
    return [_repeats(look, first, similarity(faces, other))]
