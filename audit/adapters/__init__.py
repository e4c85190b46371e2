"""Adapters: a real model becomes a contract object in one line.

``callable_detector`` for plain torch functions, ``torchvision_detector``, ``ultralytics_detector``,
``huggingface_detector``, ``maite_detector``, ``torchscript_detector`` and ``onnx_detector`` with the decoders
``AnchorGrid``, ``Yolo`` and ``CenterHeatmap``; ``opencv_detector`` and ``opencv_face_detector`` for what is deployed on
OpenCV, ``http_detector`` for what answers over a network; ``recognizer`` and ``onnx_recognizer`` for faces,
``opencv_landmarker`` for their landmarks; ``forgery_detector``, ``liveness_detector``, ``attributor`` and
``classifier`` for any torch network of these tasks. Each is imported when it is first asked for, so that nobody pays
for an adapter, or needs its extra, who does not use it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audit.adapters.callables import callable_detector
    from audit.adapters.decoders import AnchorGrid, CenterHeatmap, Yolo
    from audit.adapters.http_remote import http_detector
    from audit.adapters.huggingface import huggingface_detector
    from audit.adapters.image_models import attributor, classifier, forgery_detector, liveness_detector
    from audit.adapters.maite import maite_detector
    from audit.adapters.names import COCO80
    from audit.adapters.onnx_detectors import onnx_detector
    from audit.adapters.opencv_dnn import opencv_detector
    from audit.adapters.opencv_faces import opencv_face_detector, opencv_landmarker
    from audit.adapters.outputs import Outputs
    from audit.adapters.preprocess import Preprocess
    from audit.adapters.recognizers import onnx_recognizer, recognizer
    from audit.adapters.torchscript import torchscript_detector
    from audit.adapters.torchvision_detectors import torchvision_detector
    from audit.adapters.ultralytics_yolo import ultralytics_detector

_HOME = {
    "callable_detector": "callables",
    "torchvision_detector": "torchvision_detectors",
    "onnx_detector": "onnx_detectors",
    "torchscript_detector": "torchscript",
    "ultralytics_detector": "ultralytics_yolo",
    "huggingface_detector": "huggingface",
    "maite_detector": "maite",
    "opencv_detector": "opencv_dnn",
    "opencv_face_detector": "opencv_faces",
    "opencv_landmarker": "opencv_faces",
    "http_detector": "http_remote",
    "recognizer": "recognizers",
    "onnx_recognizer": "recognizers",
    "attributor": "image_models",
    "classifier": "image_models",
    "forgery_detector": "image_models",
    "liveness_detector": "image_models",
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
    "attributor",
    "callable_detector",
    "classifier",
    "forgery_detector",
    "http_detector",
    "huggingface_detector",
    "liveness_detector",
    "maite_detector",
    "onnx_detector",
    "onnx_recognizer",
    "opencv_detector",
    "opencv_face_detector",
    "opencv_landmarker",
    "recognizer",
    "torchscript_detector",
    "torchvision_detector",
    "ultralytics_detector",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"audit.adapters.{_HOME[name]}"), name)
    raise AttributeError(f"module 'audit.adapters' has no attribute {name!r}; it has {', '.join(__all__)}")
