"""Keeps what a network stores between calls usable for gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """Outside of inference mode, without gradients where that mode was on.

    Networks keep anchors and position codes between calls. What they make in inference mode can never be part of a
    backward pass, so that a first call for detections would break every later one for gradients.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(mode=False), torch.no_grad():
        yield
