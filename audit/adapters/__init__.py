"""Adapters: a real model becomes a contract object in one line.

``callable_detector`` for plain torch functions, ``torchvision_detector``, ``onnx_detector`` with the decoders
``AnchorGrid``, ``Yolo`` and ``CenterHeatmap``. Each is imported when it is first asked for, so that nobody pays for an
adapter, or needs its extra, who does not use it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audit.adapters.callables import callable_detector
    from audit.adapters.decoders import AnchorGrid, CenterHeatmap, Yolo
    from audit.adapters.names import COCO80
    from audit.adapters.onnx_detectors import onnx_detector
    from audit.adapters.outputs import Outputs
    from audit.adapters.preprocess import Preprocess
    from audit.adapters.torchvision_detectors import torchvision_detector

_HOME = {
    "callable_detector": "callables",
    "torchvision_detector": "torchvision_detectors",
    "onnx_detector": "onnx_detectors",
    "AnchorGrid": "decoders",
    "COCO80": "names",
    "CenterHeatmap": "decoders",
    "Outputs": "outputs",
    "Yolo": "decoders",
    "Preprocess": "preprocess",
}

__all__ = [
    "COCO80",
    "AnchorGrid",
    "CenterHeatmap",
    "Outputs",
    "Preprocess",
    "Yolo",
    "callable_detector",
    "onnx_detector",
    "torchvision_detector",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"audit.adapters.{_HOME[name]}"), name)
    raise AttributeError(f"module 'audit.adapters' has no attribute {name!r}; it has {', '.join(__all__)}")
