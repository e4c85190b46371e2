"""The check of a model against its contract on a tiny batch, before anything long starts."""

from __future__ import annotations

import torch

from audit.checks.common import Looker
from audit.checks.detector import check_detector
from audit.checks.others import check_classifier, check_faces
from audit.modelfile import beside, users_code
from audit.record import Precondition
from audit.state import frozen
from audit.subject import Subject

__all__ = ["check"]


def check(subject: Subject, device: torch.device | None = None) -> list[Precondition]:
    """What the tiny batch shows of every model of the subject, with frozen weights in evaluation mode.

    Four pictures (a photograph, noise, a gradient, grey) are handed in as batches of four, two and one, lying and
    standing, and twice the same.

    Args:
        device: where the pictures go; the subject's own device if not given.

    Returns:
        Facts for the report. One that is not ``ok`` does not stop the run, but no pass can stand on it: gradients that
        are zero or not finite, results that depend on the company in the batch.

    Raises:
        ModelError: the model breaks its contract: output of the wrong type or shape, not finite, out of range, boxes
        out of order or not in pixels of the image, images changed in place, random outputs, outputs that do not
        depend on the input, candidates without gradient.
    """
    facts: list[Precondition] = []
    with beside(subject.path.parent), frozen(subject.modules):
        for task, thing in subject.tasks.items():
            look = Looker(subject.path, task, thing, device or subject.device)
            with users_code(subject.path, f"a {task} that takes images"):
                if task == "detector":
                    facts += check_detector(look)
                elif task == "classifier":
                    facts += check_classifier(look)
                else:
                    facts += check_faces(look, white_box=subject.access.get(task) == "white-box")
    return facts
