"""Torchvision's detectors: their own detections, and their candidates before suppression, differentiable.

Everything is computed in evaluation mode through the model's own transform, backbone, heads and box coder; only its
final suppression is left out. Nothing is ever switched to training mode, where torchvision samples at random and
moves batch statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import clip_boxes_to_image

from audit.adapters import logodds, torchvision_rcnn
from audit.adapters.checks import class_names, frozen, images_like, readable, refuse, unit
from audit.adapters.preprocess import Geometry
from audit.contracts import Candidates, Detections

BACKGROUND = "__background__"
Stage = Literal["second", "first", "both"]


def torchvision_detector(
    net: nn.Module,
    classes: Sequence[str],
    score_threshold: float,
    *,
    stage: Stage = "second",
    boxes: Literal["best", "each"] = "best",
    files: Iterable[str | Path] = (),
) -> TorchvisionDetector:
    """A torchvision SSD, SSDlite, RetinaNet, FCOS or Faster R-CNN (all backbones, v1 and v2) as a detector.

    Args:
        net: the model; put in evaluation mode, its weights frozen.
        classes: names without or with a leading ``__background__``, so that ``weights.meta["categories"]`` will do.
        score_threshold: the owner's operating point, in [0, 1].
        stage: of Faster R-CNN, whose candidates are shown: the ``second`` stage's, at evaluation settings, whose
            log-odds are those of the model's scores; the ``first``'s, those that go into its suppression, whose
            log-odds are of there being anything at all; or ``both``, in this order.
        boxes: of Faster R-CNN's second stage, which regresses a box per class: the ``best`` class's box per proposal,
            or ``each`` class's as a candidate of its own (C times as many).
        files: the weight files, for the report's digests.

    Returns:
        A ``WhiteBoxDetector``. Detections are the model's own. A candidate's logit is the log-odds of the score as
        the model defines it: SSD and Faster R-CNN's second stage, softmax over classes and background; RetinaNet,
        sigmoid; FCOS, sqrt(sigmoid(class) * sigmoid(centreness)); Faster R-CNN's first stage, sigmoid objectness, the
        same for all classes. Images with fewer proposals than others of the batch are filled up with boxes of zeros
        and logits of ``torchvision_rcnn.PADDING``.

    Raises:
        ModelError: not one of those models, or classes that do not fit its outputs.
    """
    shown = next((view for kind, view in _VIEWS if isinstance(net, kind)), None)
    if shown is None or not isinstance(getattr(net, "transform", None), GeneralizedRCNNTransform):
        refuse(
            "torchvision_detector",
            "an SSD, RetinaNet, FCOS or FasterRCNN of torchvision",
            type(net).__name__,
            "use callable_detector and hand in its candidates yourself",
        )
    if stage not in ("second", "first", "both"):
        refuse("stage", "'second', 'first' or 'both'", repr(stage), "choose one of those")
    if boxes not in ("best", "each"):
        refuse("boxes", "'best' or 'each'", repr(boxes), "choose one of those")
    names = class_names(classes)
    names = names[1:] if names[0] == BACKGROUND else names
    columns = _columns(net)
    skipped = columns - len(names)
    # softmax has a background column; the others may carry one, never trained, for the sake of COCO's numbering
    if skipped not in ((1,) if isinstance(net, SSD | FasterRCNN) else (0, 1)) or not names:
        refuse(
            "classes",
            f"{columns - 1} names without the background",
            f"{len(names)}",
            "give the names in the order of the model's labels",
        )
    frozen(net)
    return TorchvisionDetector(
        net, names, unit("score_threshold", score_threshold), readable(files), skipped, shown(net, stage, boxes)
    )


class TorchvisionDetector:
    """A torchvision model that meets the contract.

    Attributes: ``classes``, ``score_threshold``, ``module``, ``files``.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        score_threshold: float,
        files: tuple[Path, ...],
        skipped: int,
        view: View,
    ) -> None:
        self.module = net
        self.classes = classes
        self.score_threshold = score_threshold
        self.files = files
        self._skipped = skipped
        self._view = view

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Detections]:
        """The model's own detections, boxes in pixels of ``images`` (N, 3, H, W)."""
        found = self.module(list(images_like(images)))
        return [self._own(f["boxes"], f["scores"], f["labels"] - self._skipped) for f in found]

    def candidates(self, images: Tensor) -> Candidates:
        """Candidates as they go into the model's suppression, boxes in pixels of ``images``, cut off at its edge."""
        net: Any = self.module
        inputs = transformed(net.transform, images_like(images))
        features = net.backbone(inputs.tensors)
        features = {"0": features} if isinstance(features, Tensor) else features
        boxes, logits = self._view(inputs, features)
        (height, width), (inner_h, inner_w) = images.shape[-2:], inputs.image_sizes[0]
        boxes = Geometry(inner_w / width, inner_h / height).back(boxes.float())
        return Candidates(boxes, logits.float()[..., logits.shape[-1] - len(self.classes) :])

    def _own(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        named = labels >= 0  # a label of the unused background column is no class of the owner's
        return Detections(boxes[named].float(), scores[named].float(), labels[named])

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:3]) + (", …" if len(self.classes) > 3 else "")
        return f"white-box {type(self.module).__name__} detector of {names} at {self.score_threshold:g}"


def transformed(transform: Any, images: Tensor) -> ImageList:
    """The model's own transform on images of one size.

    Torchvision's class is applied to the whole batch at once: the same normalisation, interpolation and padding,
    without a copy per image in the backward pass. A subclass of the owner's is called as it is.
    """
    if type(transform) is not GeneralizedRCNNTransform:
        whole: ImageList = transform(list(images))[0]
        return whole
    x = transform.normalize(images)
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    else:
        short, long = min(images.shape[-2:]), max(images.shape[-2:])
        x = F.interpolate(
            x,
            scale_factor=min(transform.min_size[-1] / short, transform.max_size / long),
            mode="bilinear",
            recompute_scale_factor=True,
            align_corners=False,
        )
    height, width = x.shape[-2:]
    step = transform.size_divisible
    padded = F.pad(x, (0, -width % step, 0, -height % step))
    return ImageList(padded, [(height, width)] * len(images))


class View:
    """What a model shows before its suppression: boxes (N, A, 4) in pixels of its input, log-odds (N, A, K)."""

    def __init__(self, net: nn.Module, stage: Stage, boxes: str) -> None:
        self.net: Any = net
        self.stage = stage
        self.boxes = boxes

    def __call__(self, inputs: ImageList, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        maps = list(features.values())
        head = self.net.head(maps)
        # anchors depend on the sizes alone, which are those of every image in the batch
        one = ImageList(inputs.tensors, inputs.image_sizes[:1])
        anchors = self.net.anchor_generator(one, maps)[0]
        boxes = self.decode(head["bbox_regression"].float(), anchors)
        return clip_boxes_to_image(boxes, inputs.image_sizes[0]), self.logits(head)

    def decode(self, t: Tensor, anchors: Tensor) -> Tensor:
        """Boxes from the regression (N, A, 4) and anchors (A, 4), by the model's coder."""
        many = anchors.expand(len(t), -1, -1).reshape(-1, 4)
        return self.net.box_coder.decode_single(t.reshape(-1, 4), many).reshape(t.shape)  # type: ignore[no-any-return]

    def logits(self, head: dict[str, Tensor]) -> Tensor:
        """Log-odds of the model's scores from its head's outputs."""
        return head["cls_logits"].float()


class SSDView(View):
    """SSD and SSDlite: softmax over classes and background."""

    def logits(self, head: dict[str, Tensor]) -> Tensor:
        return logodds.from_softmax(head["cls_logits"].float())


class FCOSView(View):
    """FCOS: the root of class score times centreness."""

    def decode(self, t: Tensor, anchors: Tensor) -> Tensor:
        return self.net.box_coder.decode(t, anchors.expand(len(t), -1, -1))  # type: ignore[no-any-return]

    def logits(self, head: dict[str, Tensor]) -> Tensor:
        return logodds.from_root_product(head["cls_logits"].float(), head["bbox_ctrness"].float())


class FasterRCNNView(View):
    """Faster R-CNN: second stage, first stage, or both."""

    def __call__(self, inputs: ImageList, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return torchvision_rcnn.shown(self.net, inputs, features, self.stage, each=self.boxes == "each")


_VIEWS: tuple[tuple[type[nn.Module], type[View]], ...] = (
    (SSD, SSDView),
    (FCOS, FCOSView),
    (RetinaNet, View),
    (FasterRCNN, FasterRCNNView),
)


def _columns(net: Any) -> int:
    if isinstance(net, FasterRCNN):
        score = getattr(net.roi_heads.box_predictor, "cls_score", None)
        if not isinstance(score, nn.Linear):
            refuse(
                "torchvision_detector",
                "a box predictor with cls_score, as torchvision's has",
                type(net.roi_heads.box_predictor).__name__,
                "use callable_detector and hand in its candidates yourself",
            )
        return score.out_features
    head = net.head.classification_head
    return int(head.num_columns if isinstance(net, SSD) else head.num_classes)
