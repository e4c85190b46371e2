"""DETR, or another detection transformer of Hugging Face's, from a folder that `save_pretrained` wrote, white-box."""

from transformers import AutoImageProcessor, AutoModelForObjectDetection

import audit

FOLDER = "detr-resnet-50"  # or a name on the hub: "facebook/detr-resnet-50"


def model(device):
    net = AutoModelForObjectDetection.from_pretrained(FOLDER).to(device)
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    return audit.adapters.huggingface_detector(net, processor=processor, score_threshold=0.7)
