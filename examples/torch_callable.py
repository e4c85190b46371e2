"""Any torch network, here one saved with torch.export: it maps (N, 3, 320, 320) in [0, 1] to boxes (N, A, 4) and logits
(N, A, C), before non-maximum suppression. A logit is the log-odds of the score: what goes into the sigmoid."""

import torch

import audit

WEIGHTS = "detector.pt2"


def model(device):
    net = torch.export.load(WEIGHTS).module().to(device)
    return audit.adapters.callable_detector(
        None,  # or your own function with its own suppression: images -> list of dicts of boxes, scores, labels
        classes=["face", "hand"],
        score_threshold=0.5,
        candidates=net,
        files=[WEIGHTS],
        input_size=(320, 320),
        resize="letterbox",
        nms_iou=0.45,
    )
