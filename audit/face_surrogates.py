"""Other recognizers that an attacker may hold instead of the audited one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from audit.comparison import Comparison
from audit.contracts import BlackBoxRecognizer, Recognizer
from audit.other_models import other_models

if TYPE_CHECKING:
    from audit.subject import Subject


def face_surrogates(subject: Subject, files: Sequence[str], device: torch.device) -> dict[str, Comparison]:
    """Name -> comparison, of the model file's own ``surrogates(device)`` and of other model files.

    Raises:
        ModelError: one breaks its contract, is no recognizer, or has the name of another.
    """
    found = other_models(
        subject,
        files,
        device,
        "recognizer",
        fits=lambda thing: isinstance(thing, Recognizer | BlackBoxRecognizer),
        expected="a recognizer (face_size, threshold, a call that returns embeddings)",
        mend="wrap it with audit.adapters.recognizer",
    )
    return {o.name: Comparison(o.name, o.thing, o.white_box, o.digest) for o in found}
