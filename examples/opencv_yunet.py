"""YuNet through OpenCV's FaceDetectorYN: https://github.com/opencv/opencv_zoo, models/face_detection_yunet."""

import audit


def model(device):  # noqa: ARG001 OpenCV computes on the CPU, whatever the device
    return audit.adapters.opencv_face_detector(
        "face_detection_yunet_2023mar.onnx", score_threshold=0.9, nms_iou=0.3, top_k=5000
    )
