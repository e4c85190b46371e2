"""A torchvision detector: SSD300 of 90 COCO classes. Point --audit-data to data that has some of them."""

from torchvision.models.detection import SSD300_VGG16_Weights, ssd300_vgg16

import audit

weights = SSD300_VGG16_Weights.DEFAULT


def model(device):
    net = ssd300_vgg16(weights=weights).to(device)
    return audit.adapters.torchvision_detector(net, classes=weights.meta["categories"], score_threshold=0.5)
