"""A detector saved with `torch.jit.save`: it maps (N, 3, 320, 320) in [0, 1] to a YOLOX head's rows (N, A, 5 + classes)
before their sigmoid. Without a decoder, a file that gives (boxes, logits) or torchvision's lists of dicts will do."""

import audit


def model(device):
    return audit.adapters.torchscript_detector(
        "detector.pt",
        classes=["face", "hand"],
        score_threshold=0.5,
        decoder=audit.adapters.Yolo(boxes="yolox", strides=(8, 16, 32)),
        input_size=(320, 320),
        resize="letterbox",
        nms_iou=0.45,
        device=device,
    )
