"""Faster R-CNN's candidates at evaluation settings, both stages from one pass of the backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image

from audit.adapters import logodds

PADDING = -1e4
"""Log-odds of what fills up images with fewer proposals: a score of 0 in every precision, finite, without gradient."""


def shown(net: Any, inputs: ImageList, features: dict[str, Tensor], stage: str, *, each: bool) -> tuple[Tensor, Tensor]:
    """Boxes (N, A, 4) in pixels of the network's input, log-odds (N, A, C) without background.

    ``stage`` is second, first or both (in this order); ``each``: every class's box, not the best class's alone.
    """
    rpn = net.rpn
    maps = list(features.values())
    # the second stage alone gives the first no gradient: its proposals are constants, as in torchvision
    with torch.set_grad_enabled(torch.is_grad_enabled() and stage != "second"):
        objectness, deltas = rpn.head(maps)
    levels = [o[0].numel() for o in objectness]
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    anchors = rpn.anchor_generator(ImageList(inputs.tensors, inputs.image_sizes[:1]), maps)[0]
    objectness = objectness.reshape(len(inputs.tensors), -1)
    deltas = deltas.reshape(len(inputs.tensors), -1, 4)
    parts = []
    if stage != "first":
        with torch.no_grad():
            decoded = rpn.box_coder.decode(deltas.reshape(-1, 4), [anchors] * len(deltas)).reshape(deltas.shape)
            proposals, _ = rpn.filter_proposals(decoded, objectness, inputs.image_sizes, levels)
        parts.append(_second(net.roi_heads, inputs, features, proposals, each=each))
    if stage != "second":
        classes = net.roi_heads.box_predictor.cls_score.out_features - 1
        parts.append(_first(rpn, inputs, objectness, deltas, anchors, levels, classes))
    boxes, logits = zip(*parts, strict=True)
    return (boxes[0], logits[0]) if len(parts) == 1 else (torch.cat(boxes, 1), torch.cat(logits, 1))


def _first(
    rpn: Any, inputs: ImageList, objectness: Tensor, deltas: Tensor, anchors: Tensor, levels: list[int], classes: int
) -> tuple[Tensor, Tensor]:
    """The first stage's best per level, those that go into its suppression; objectness stands for every class."""
    with torch.no_grad():
        best = rpn._get_top_n_idx(objectness, levels)  # noqa: SLF001 - the model's own choice, not a copy of it
    t = deltas.gather(1, best[..., None].expand(-1, -1, 4)).float()
    boxes = rpn.box_coder.decode_single(t.reshape(-1, 4), anchors[best.reshape(-1)]).reshape(t.shape)
    logits = objectness.gather(1, best).float()[..., None].expand(-1, -1, classes)
    return clip_boxes_to_image(boxes, inputs.image_sizes[0]), logits


def _second(
    heads: Any, inputs: ImageList, features: dict[str, Tensor], proposals: list[Tensor], *, each: bool
) -> tuple[Tensor, Tensor]:
    pooled = heads.box_roi_pool(features, proposals, inputs.image_sizes)
    scores, t = heads.box_predictor(heads.box_head(pooled))
    logits = logodds.from_softmax(scores.float())[:, 1:]
    classes = logits.shape[1]
    t = t.float().reshape(len(t), classes + 1, 4)[:, 1:]
    where = torch.cat(proposals).float()
    if each:
        own = torch.eye(classes, dtype=torch.bool, device=t.device)
        logits = torch.where(own, logits[:, None], PADDING).reshape(-1, classes)
        where = where.repeat_interleave(classes, 0)
        t = t.reshape(-1, 4)
    else:
        t = t[torch.arange(len(t), device=t.device), logits.detach().argmax(1)]
    boxes = clip_boxes_to_image(heads.box_coder.decode_single(t, where), inputs.image_sizes[0])
    counts = [len(p) * (classes if each else 1) for p in proposals]
    return _even(boxes, counts, 0.0), _even(logits, counts, PADDING)


def _even(rows: Tensor, counts: list[int], fill: float) -> Tensor:
    """Rows of all images, one after another, as (N, A, ...) with A the largest count."""
    if len(set(counts)) == 1:
        return rows.reshape(len(counts), counts[0], *rows.shape[1:])
    per_image = list(torch.split(rows, counts))
    return torch.nn.utils.rnn.pad_sequence(per_image, batch_first=True, padding_value=fill)
