"""DETR, or another detection transformer of Hugging Face's, from a folder that `save_pretrained` wrote, white-box."""

from pathlib import Path

from transformers import AutoImageProcessor, AutoModelForObjectDetection

import audit
from audit.errors import ModelError

FOLDER = "detr-resnet-50"


def model(device):
    if not Path(FOLDER).is_dir():  # else it would be taken for a name on the hub
        mend = "save model and processor there with save_pretrained, or correct FOLDER"
        raise ModelError(f"model folder {FOLDER}", expected="a folder of save_pretrained", got="none", mend=mend)
    net = AutoModelForObjectDetection.from_pretrained(FOLDER, local_files_only=True).to(device)
    processor = AutoImageProcessor.from_pretrained(FOLDER, local_files_only=True)
    return audit.adapters.huggingface_detector(net, processor=processor, score_threshold=0.7)
