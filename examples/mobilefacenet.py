"""MobileFaceNet (Chen et al. 2018), a real face recognizer, from a plain torch checkpoint: mobilefacenet.pt of
https://github.com/foamliu/MobileFaceNet. Faces of 112 x 112, aligned by five landmarks, ImageNet's mean and spread."""

import torch
from torch import nn

import audit

WEIGHTS = "mobilefacenet.pt"
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Growth inside a block, channels, blocks, stride of the first."""


def convolved(inside, outside, kernel=3, stride=1, groups=1):
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU6())


class Block(nn.Module):
    def __init__(self, inside, outside, stride, growth):
        super().__init__()
        wide = inside * growth
        self.added = stride == 1 and inside == outside
        narrow = nn.Conv2d(wide, outside, 1, bias=False)
        grown, deep = convolved(inside, wide, 1), convolved(wide, wide, 3, stride, wide)
        self.conv = nn.Sequential(grown, deep, narrow, nn.BatchNorm2d(outside))

    def forward(self, x):
        return x + self.conv(x) if self.added else self.conv(x)


class MobileFaceNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = convolved(3, 64, stride=2)
        depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        pointwise = nn.Conv2d(64, 64, 1, bias=False)
        second = {"depthwise": depthwise, "bn1": nn.BatchNorm2d(64), "pointwise": pointwise, "bn2": nn.BatchNorm2d(64)}
        self.dw_conv = nn.ModuleDict(second)
        inside, blocks = 64, []
        for growth, outside, count, stride in STAGES:
            for i in range(count):
                blocks.append(Block(inside, outside, 1 if i else stride, growth))
                inside = outside
        self.features = nn.Sequential(*blocks)
        self.conv2 = convolved(128, 512, 1)
        last = {"depthwise": nn.Conv2d(512, 512, 7, groups=512, bias=False), "bn": nn.BatchNorm2d(512)}
        self.gdconv = nn.ModuleDict(last)
        self.conv3, self.bn = nn.Conv2d(512, 128, 1), nn.BatchNorm2d(128)

    def forward(self, x):
        x, second, last = self.conv1(x), self.dw_conv, self.gdconv
        x = second["bn1"](second["depthwise"](x)).relu()
        x = second["bn2"](second["pointwise"](x)).relu()
        x = last["bn"](last["depthwise"](self.conv2(self.features(x))))
        return self.bn(self.conv3(x)).flatten(1)


def model(device):
    net = MobileFaceNet()
    net.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return audit.adapters.recognizer(net.to(device), threshold=0.263, files=[WEIGHTS], **imagenet)
