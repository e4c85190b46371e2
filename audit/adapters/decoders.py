"""From a network's raw outputs to candidates: boxes in pixels of its input and log-odds per class.

A decoder is any callable ``Outputs -> (boxes (N, A, 4) xyxy, logits (N, A, C))``; an optional third, (N, A, C) bool,
says which candidates the model's own rule lets through to NMS. Those here are for the common heads. Wherever a score is
said to be ``softmax`` or ``sigmoid``, the decoder receives the numbers before that activation: ``onnx_detector`` takes
it off the file's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from audit.adapters import logodds
from audit.adapters.checks import refuse
from audit.adapters.outputs import Outputs, choice, joined

Scores = Literal["softmax", "sigmoid", "probability"]


@dataclass(frozen=True)
class AnchorGrid:
    """SSD-style heads: scores and boxes per anchor, from anchors on one or several grids.

    With a prior (cx, cy, w, h) and its four numbers t: ``c = prior_c + t_xy * variances[0] * prior_wh`` and
    ``wh = prior_wh * exp(t_wh * variances[1])`` (Liu et al., SSD, ECCV 2016, eq. 2, with the usual variances).

    Attributes:
        scores: ``softmax`` over classes, ``sigmoid`` each, or ``probability`` where only those are to be had.
        background: the column that is no class; None where there is none.
        boxes: ``offsets`` from the priors, as above; ``relative``: decoded xyxy in 0..1 of the input;
            ``pixels``: decoded xyxy in pixels.
        strides, min_sizes: per grid its step and its square anchors' sides, in pixels; a grid has
            ceil(side / stride) cells, in order row, column, anchor. Only for ``offsets``.
        priors: instead of those, (A, 4) cx, cy, w, h in 0..1 of the input.
        centres: ``stride``: cell i's centre is (i + 0.5) * stride; ``grid``: (i + 0.5) / cells of the side.
        score_outputs, box_outputs: which outputs hold them; several (one per grid) are concatenated. An output is
            (N, A, K), or (N, anchors * K, h, w).
    """

    scores: Scores = "softmax"
    background: int | None = 0
    boxes: Literal["offsets", "relative", "pixels"] = "offsets"
    strides: Sequence[int] = ()
    min_sizes: Sequence[Sequence[float]] = ()
    priors: Tensor | None = None
    variances: tuple[float, float] = (0.1, 0.2)
    centres: Literal["stride", "grid"] = "stride"
    score_outputs: Sequence[int] = (0,)
    box_outputs: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        choice("AnchorGrid scores", self.scores, ("softmax", "sigmoid", "probability"))
        choice("AnchorGrid boxes", self.boxes, ("offsets", "relative", "pixels"))
        choice("AnchorGrid centres", self.centres, ("stride", "grid"))
        if self.boxes == "offsets" and self.priors is None and not self.strides:
            refuse("AnchorGrid", "strides and min_sizes, or priors", "neither", "boxes='offsets' are relative to them")
        if len(self.strides) != len(self.min_sizes):
            refuse(
                "AnchorGrid",
                "as many lists of min_sizes as strides",
                f"{len(self.min_sizes)} and {len(self.strides)}",
                "give each grid its anchors' sides",
            )

    def __call__(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        boxes = joined("AnchorGrid", outputs, self.box_outputs, columns=4)
        raw_scores = [outputs.pick("AnchorGrid", i) for i in self.score_outputs]
        raw_boxes = [outputs.pick("AnchorGrid", i) for i in self.box_outputs]
        if any(s.ndim == 4 for s in raw_scores):
            anchors = max(1, raw_boxes[0].shape[1] // 4)
            scores = joined("AnchorGrid", outputs, self.score_outputs, columns=raw_scores[0].shape[1] // anchors)
        else:
            scores = joined("AnchorGrid", outputs, self.score_outputs, columns=None)
        if boxes.shape[:2] != scores.shape[:2]:
            refuse(
                "decoder AnchorGrid",
                "as many scores as boxes",
                f"{scores.shape[1]} and {boxes.shape[1]}",
                "check score_outputs and box_outputs",
            )
        return self._decoded(boxes, outputs.size), self._logits(scores)

    def _logits(self, scores: Tensor) -> Tensor:
        if self.background is not None and not -scores.shape[-1] <= self.background < scores.shape[-1]:
            refuse(
                "decoder AnchorGrid",
                f"a background column {self.background}",
                f"{scores.shape[-1]} columns",
                "set background to the column that is no class, or to None",
            )
        if self.scores == "softmax":
            if scores.shape[-1] < 2:
                refuse("decoder AnchorGrid", "two or more softmax columns", "one", "set scores='sigmoid'")
            scores = logodds.from_softmax(scores)
        elif self.scores == "probability":
            scores = logodds.from_probability(scores)
        if self.background is None:
            return scores
        drop = self.background % scores.shape[-1]
        return torch.cat((scores[..., :drop], scores[..., drop + 1 :]), -1)

    def _decoded(self, t: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        pixels = t.new_tensor((width, height, width, height))
        if self.boxes == "pixels":
            return t
        if self.boxes == "relative":
            return t * pixels
        priors = (self.priors if self.priors is not None else self._grid(size)).to(t)
        if len(priors) != t.shape[1]:
            refuse(
                "decoder AnchorGrid",
                f"{len(priors)} anchors for an input of {height}x{width}",
                f"{t.shape[1]} in the outputs",
                "check strides and min_sizes against the network's own",
            )
        xy, wh = t.chunk(2, -1)
        centre = priors[:, :2] + xy * self.variances[0] * priors[:, 2:]
        half = priors[:, 2:] * torch.exp(wh * self.variances[1]) / 2
        return torch.cat((centre - half, centre + half), -1) * pixels

    def _grid(self, size: tuple[int, int]) -> Tensor:
        height, width = size
        levels = []
        for stride, sides in zip(self.strides, self.min_sizes, strict=True):
            rows, columns = math.ceil(height / stride), math.ceil(width / stride)
            step = (stride / height, stride / width) if self.centres == "stride" else (1 / rows, 1 / columns)
            y, x = torch.meshgrid(
                (torch.arange(rows) + 0.5) * step[0], (torch.arange(columns) + 0.5) * step[1], indexing="ij"
            )
            wh = torch.tensor([(s / width, s / height) for s in sides])
            centre = torch.stack((x, y), -1).reshape(-1, 1, 2).expand(-1, len(sides), 2)
            levels.append(torch.cat((centre, wh.expand(len(centre), -1, 2)), -1).reshape(-1, 4))
        return torch.cat(levels)


@dataclass(frozen=True)
class Yolo:
    """YOLO-style heads: per cell a box, an objectness and class scores; the score is their product.

    Its log-odds are ``-logsumexp(-o, -c, -(o + c))`` of the two logits, which never saturates.

    Attributes:
        boxes: ``yolox``: xy = (t + cell) * stride, wh = exp(t) * stride; ``yolov5``: xy = (2 sigmoid(t) - 0.5 + cell)
            * stride, wh = (2 sigmoid(t))^2 * anchor; ``decoded``: cx, cy, w, h in pixels already.
        scores: ``sigmoid`` or ``probability``.
        objectness: False where a class score stands alone.
        strides: of the grids, finest first. anchors: per grid (w, h) pairs in pixels, for ``yolov5``.
        outputs: which outputs, one or one per grid: (N, A, 4 + 1 + C), (N, anchors, h, w, 4 + 1 + C), or with the
            numbers before the cells: (N, 4 + 1 + C, A), with ``numbers_first``.
    """

    boxes: Literal["yolox", "yolov5", "decoded"] = "yolox"
    scores: Literal["sigmoid", "probability"] = "sigmoid"
    objectness: bool = True
    strides: Sequence[int] = (8, 16, 32)
    anchors: Sequence[Sequence[tuple[float, float]]] = ()
    outputs: Sequence[int] = (0,)
    numbers_first: bool = False

    def __post_init__(self) -> None:
        choice("Yolo boxes", self.boxes, ("yolox", "yolov5", "decoded"))
        choice("Yolo scores", self.scores, ("sigmoid", "probability"))
        if self.boxes == "yolov5" and len(self.anchors) != len(self.strides):
            refuse(
                "Yolo",
                "as many lists of anchors as strides",
                f"{len(self.anchors)} and {len(self.strides)}",
                "give each grid its anchors as (w, h) pairs in pixels",
            )

    def __call__(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        raw = [outputs.pick("Yolo", i) for i in self.outputs]
        flat = [t.flatten(1, -2) if t.ndim == 5 else t for t in raw]
        if any(t.ndim != 3 for t in flat):
            refuse(
                "decoder Yolo",
                "outputs (N, A, 5 + C)",
                ", ".join(str(tuple(t.shape)) for t in raw),
                "choose others by `outputs`, or hand in a decoder function",
            )
        t = torch.cat([f.transpose(1, 2) if self.numbers_first else f for f in flat], 1)
        first = 5 if self.objectness else 4
        if t.shape[-1] <= first:
            refuse(
                "decoder Yolo",
                f"at least {first + 1} numbers per candidate",
                f"{t.shape[-1]}",
                "check objectness and numbers_first",
            )
        # one split, since each slice would fill a tensor of t's size with zeros in the backward pass
        boxes, objectness, scores = torch.split(t, [4, first - 4, t.shape[-1] - first], -1)
        return self._decoded(boxes, outputs.size), self._logits(objectness, scores)

    def _logits(self, objectness: Tensor, scores: Tensor) -> Tensor:
        if self.scores == "probability":
            return logodds.from_probability(scores.double() * objectness.double() if self.objectness else scores)
        return logodds.from_product(objectness, scores) if self.objectness else scores

    def _decoded(self, t: Tensor, size: tuple[int, int]) -> Tensor:
        if self.boxes != "decoded":
            cell, stride, anchor = self._grid(size, t)
            if len(cell) != t.shape[1]:
                refuse(
                    "decoder Yolo",
                    f"{len(cell)} cells for an input of {size[0]}x{size[1]}",
                    f"{t.shape[1]} in the outputs",
                    "check strides and anchors against the network's own",
                )
            if self.boxes == "yolox":
                xy, wh = t.chunk(2, -1)
                centre, sides = (xy + cell) * stride, wh.exp() * stride
            else:
                xy, wh = (t.sigmoid() * 2).chunk(2, -1)
                centre, sides = (xy - 0.5 + cell) * stride, wh**2 * anchor
        else:
            centre, sides = t.chunk(2, -1)
        return torch.cat((centre - sides / 2, centre + sides / 2), -1)

    def _grid(self, size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per candidate: its cell (A, 2), stride (A, 1) and anchor (A, 2); in order anchor, row, column."""
        cells, strides, anchors = [], [], []
        sets: Sequence[Sequence[tuple[float, float]]] = self.anchors or [[(1.0, 1.0)]] * len(self.strides)
        for stride, pairs in zip(self.strides, sets, strict=True):
            y, x = torch.meshgrid(
                torch.arange(math.ceil(size[0] / stride)), torch.arange(math.ceil(size[1] / stride)), indexing="ij"
            )
            cell = torch.stack((x, y), -1).reshape(-1, 2)
            cells.append(cell.repeat(len(pairs), 1))
            strides.append(torch.full((len(cell) * len(pairs), 1), stride))
            anchors.append(torch.tensor(pairs).repeat_interleave(len(cell), 0))
        return torch.cat(cells).to(like), torch.cat(strides).to(like), torch.cat(anchors).to(like)


@dataclass(frozen=True)
class CenterHeatmap:
    """Centre heat-maps (CenterNet, CenterFace): each cell's heat is the score of an object centred there.

    ``centre = (cell + offset + shift) * stride``; ``side = exp(s) * stride`` or ``s * stride``.

    Attributes:
        heat, sizes, offsets: which outputs: (N, C, h, w), (N, 2, h, w), (N, 2, h, w); ``offsets`` None for none.
        stride: pixels of the input per cell. shift: 0.5 where offsets are from the cell's middle, 0 from its corner.
        exponential: sizes are logarithms (CenterFace), or cells (CenterNet).
        order: of the two channels, ``yx`` (CenterFace) or ``xy`` (CenterNet).
        scores: ``sigmoid`` or ``probability``.
        peaks: detections are local maxima of their 3 x 3 neighbourhood only, before NMS.
    """

    heat: int = 0
    sizes: int = 1
    offsets: int | None = 2
    stride: int = 4
    shift: float = 0.5
    exponential: bool = True
    order: Literal["yx", "xy"] = "yx"
    scores: Literal["sigmoid", "probability"] = "sigmoid"
    peaks: bool = False

    def __post_init__(self) -> None:
        choice("CenterHeatmap order", self.order, ("yx", "xy"))
        choice("CenterHeatmap scores", self.scores, ("sigmoid", "probability"))

    def __call__(self, outputs: Outputs) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        heat = outputs.pick("CenterHeatmap", self.heat)
        sizes = outputs.pick("CenterHeatmap", self.sizes)
        offsets = torch.zeros_like(sizes) if self.offsets is None else outputs.pick("CenterHeatmap", self.offsets)
        for name, t in (("heat", heat), ("sizes", sizes), ("offsets", offsets)):
            channels = heat.shape[1] if name == "heat" else 2
            if t.ndim != 4 or t.shape[1] != channels or t.shape[-2:] != heat.shape[-2:]:
                refuse(
                    f"decoder CenterHeatmap {name}",
                    f"(N, {channels}, {', '.join(map(str, heat.shape[-2:]))})",
                    f"{tuple(t.shape)} of outputs {', '.join(outputs.names)}",
                    "say which output is which",
                )
        side = (sizes.exp() if self.exponential else sizes) * self.stride
        if self.order == "yx":
            side, offsets = side.flip(1), offsets.flip(1)
        y, x = torch.meshgrid(*(torch.arange(n, device=heat.device) for n in heat.shape[-2:]), indexing="ij")
        centre = (torch.stack((x, y)) + offsets + self.shift) * self.stride
        boxes = torch.cat((centre - side / 2, centre + side / 2), 1).flatten(2).transpose(1, 2)
        score = heat if self.scores == "sigmoid" else logodds.from_probability(heat)
        logits = score.flatten(2).transpose(1, 2)
        if not self.peaks:
            return boxes, logits
        top = torch.nn.functional.max_pool2d(heat, 3, 1, 1) == heat
        return boxes, logits, top.flatten(2).transpose(1, 2)
