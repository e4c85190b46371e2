"""A face recognizer from its ONNX file, white-box: one of InsightFace's, say, (pixel - 127.5) / 127.5, RGB, 112 x 112.
The file is named in the environment: RECOGNIZER=w600k_mbf.onnx; the threshold is yours to know."""

import os

import audit


def model(device):
    return audit.adapters.onnx_recognizer(
        os.environ.get("RECOGNIZER", "recognizer.onnx"),
        threshold=float(os.environ.get("THRESHOLD", "0.3")),
        scale=255,
        mean=127.5,
        std=127.5,
        device=device,
    )
