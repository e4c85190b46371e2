"""YuNet faces and landmarks as OpenCV's own ``cv2.FaceDetectorYN`` finds them: a black box, suppression included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from audit.adapters.callables import CallableDetector, Options, split_options
from audit.adapters.checks import readable, refuse, unit
from audit.adapters.onnx_detectors import _Runtime
from audit.adapters.opencv_dnn import quiet, said, same_threads
from audit.adapters.preprocess import Resize
from audit.contracts import Detections, Landmarker

HEADS = tuple(f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
"""The outputs that ``cv2.FaceDetectorYN`` asks a file for."""


def opencv_face_detector(
    model_path: str | Path,
    *,
    score_threshold: float,
    score_floor: float = 0.05,
    nms_iou: float = 0.3,
    top_k: int = 5000,
    input_size: tuple[int, int] | None = None,
    resize: Resize | None = None,
    files: Iterable[str | Path] = (),
) -> CallableDetector:
    """Faces from a YuNet ONNX file (``face_detection_yunet_*.onnx`` of OpenCV's model zoo), class ``face``.

    A score is ``sqrt(cls * obj)``, both cut to [0, 1]. Images are handed over as 8-bit BGR, as a camera's are, and one
    by one. OpenCV gets as many threads as torch has. No extra is needed.

    Args:
        model_path: the file. score_threshold: the owner's operating point, in [0, 1].
        score_floor: what OpenCV is given as its threshold; lower, so that curves have their lower end.
        nms_iou: of two faces that overlap more than this, the better stays. top_k: faces that enter suppression.
        input_size, resize: as in ``Preprocess``; by default images keep their size, and OpenCV pads them on the right
            and at the bottom with black to a multiple of 32.
        files: more files than the ONNX file, for the report's digests.

    Returns:
        A ``Detector`` without ``candidates``; boxes are cut off at the image's edge.

    Raises:
        ModelError: an argument is not as said; OpenCV cannot read the file, or it is no YuNet.
    """
    threshold, floor = unit("score_threshold", score_threshold), unit("score_floor", score_floor)
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        refuse("top_k", "a whole number from 1", repr(top_k), "say how many faces enter suppression")
    options: Options = {"input_size": input_size, "resize": resize, "channels": "bgr", "scale": 255.0}
    before, after = split_options({**options, "score_floor": floor, "nms_iou": nms_iou, "top_k": top_k})
    sources = readable([model_path, *files])
    same_threads()
    try:
        with quiet():
            net = cv2.FaceDetectorYN.create(str(model_path), "", (320, 320), floor, after.nms_iou, top_k)
    except cv2.error as error:
        refuse(f"ONNX file {model_path}", f"a file that OpenCV {cv2.__version__} can read", said(error), _MEND)
    finder = _Finder(Path(model_path), net)
    # a first look, so that a file that is no YuNet is told here and not on the first image
    finder(torch.rand((1, 3, 96, 128), generator=torch.Generator().manual_seed(0)) * 255)
    return _Runtime(("face",), threshold, None, sources, before, after, finder)


def opencv_landmarker(
    model_path: str | Path, *, score_threshold: float = 0.6, nms_iou: float = 0.3, top_k: int = 5000
) -> Landmarker:
    """Five landmarks from a YuNet ONNX file, for photographs that come without, see ``audit.contracts.Landmarker``.

    Of the faces with at least ``score_threshold``, the one whose box has its middle nearest to the photograph's counts.

    Raises:
        ModelError: OpenCV cannot read the file, or it is no YuNet.
    """
    options = {"score_floor": unit("score_threshold", score_threshold), "nms_iou": nms_iou, "top_k": top_k}
    detector = opencv_face_detector(model_path, score_threshold=score_threshold, **options)  # type: ignore[arg-type]
    finder = detector._fn  # noqa: SLF001 the same file's
    assert isinstance(finder, _Finder)

    def landmarks(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        out = images.new_full((len(images), 5, 2), math.nan)
        for i, rows in enumerate(finder.rows(images.flip(1) * 255)):
            if len(rows):
                away = rows[:, :2] + rows[:, 2:4] / 2 - rows.new_tensor([width, height]) / 2
                out[i] = rows[int(away.norm(dim=1).argmin()), 4:14].reshape(5, 2)
        return out

    return landmarks


_MEND = "take face_detection_yunet_2023mar.onnx of OpenCV's model zoo, or use opencv_detector with a decoder"


class _Finder:
    """``cv2.FaceDetectorYN`` on images (N, 3, H, W) BGR in 0..255."""

    def __init__(self, path: Path, net: Any) -> None:
        self._path = path
        self._net = net

    def __call__(self, images: Tensor) -> list[Detections]:
        return [self._detections(rows) for rows in self.rows(images)]

    def rows(self, images: Tensor) -> list[Tensor]:
        """Per image (K, 15): x, y, width, height, five landmarks (x, y) from the viewer's left to the right, score."""
        same_threads()
        pixels = images.detach().clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()
        return [self._one(p, images.device) for p in pixels]

    def _one(self, picture: Any, device: torch.device) -> Tensor:
        self._net.setInputSize((picture.shape[1], picture.shape[0]))
        try:
            _, rows = self._net.detect(picture)
        except cv2.error as error:
            refuse(f"ONNX file {self._path}", f"a YuNet with outputs {', '.join(HEADS)}", said(error), _MEND)
        rows = np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)
        t = torch.from_numpy(rows.reshape(-1, 15).copy()).to(device)
        if not bool(t.isfinite().all()):
            got = math.nan if bool(t.isnan().any()) else math.inf
            refuse(f"ONNX file {self._path}", "finite boxes and scores", f"{got}", "export the network again")
        return t

    def _detections(self, t: Tensor) -> Detections:
        boxes = torch.cat((t[:, :2], t[:, :2] + t[:, 2:4]), 1)
        return Detections(boxes, t[:, 14].clamp(0, 1), torch.zeros(len(t), dtype=torch.int64, device=t.device))
