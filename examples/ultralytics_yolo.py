"""A YOLO of the ultralytics package, white-box, from its .pt file. The package is AGPL-3.0; install it yourself."""

import audit


def model(device):
    return audit.adapters.ultralytics_detector("yolo11n.pt", score_threshold=0.25, imgsz=640, device=device)
