"""YOLOX-nano from its ONNX file, white-box: https://github.com/opencv/opencv_zoo, models/object_detection_yolox."""

import audit


def model(device):
    return audit.adapters.onnx_detector(
        "yolox_nano.onnx",
        audit.adapters.Yolo(boxes="yolox", strides=(8, 16, 32)),
        classes=audit.adapters.COCO80,
        score_threshold=0.3,
        resize="letterbox-corner",
        channels="bgr",
        scale=255,
        one_label=True,
        device=device,
    )
