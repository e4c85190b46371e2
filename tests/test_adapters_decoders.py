"""Decoders against plain loops over cells and anchors."""

from __future__ import annotations

import math

import pytest
import torch

from audit.adapters import AnchorGrid, CenterHeatmap, Outputs, Yolo
from audit.errors import ModelError

SIZE = (48, 64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outputs(*tensors: torch.Tensor, size=SIZE) -> Outputs:
    return Outputs(tensors, tuple(f"out{i}" for i in range(len(tensors))), size)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_odds(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def assert_boxes(found: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=1e-5)


def anchors(strides, sides, centres="stride"):
    """(cx, cy, side) in pixels of every anchor: grid by grid, row by row, column by column."""
    out = []
    for stride, own in zip(strides, sides, strict=True):
        rows, columns = math.ceil(SIZE[0] / stride), math.ceil(SIZE[1] / stride)
        for j in range(rows):
            for i in range(columns):
                for side in own:
                    if centres == "stride":
                        out.append(((i + 0.5) * stride, (j + 0.5) * stride, side))
                    else:
                        out.append(((i + 0.5) * SIZE[1] / columns, (j + 0.5) * SIZE[0] / rows, side))
    return out


@pytest.mark.parametrize("centres", ["stride", "grid"])
def test_anchor_offsets(centres):
    strides, sides = (16, 20), ((10.0, 16.0), (32.0,))
    grid = anchors(strides, sides, centres)
    t, scores = random(2, len(grid), 4), random(2, len(grid), 3, seed=1)
    decoder = AnchorGrid(strides=strides, min_sizes=sides, centres=centres, variances=(0.1, 0.2))
    boxes, logits = decoder(outputs(scores, t))
    for n in range(2):
        expected = []
        for (cx, cy, side), (a, b, c, d) in zip(grid, t[n].tolist(), strict=True):
            x, y = cx + a * 0.1 * side, cy + b * 0.1 * side
            w, h = side * math.exp(c * 0.2), side * math.exp(d * 0.2)
            expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        assert_boxes(boxes[n], expected)
        p = scores[n].double().softmax(-1)
        expected_logits = (p.log() - torch.log1p(-p))[:, 1:]
        torch.testing.assert_close(logits[n].double(), expected_logits, atol=1e-5, rtol=1e-5)


def test_given_priors_and_the_background_at_the_end():
    priors = torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.1, 0.9, 0.1, 0.1]])
    scores = random(1, 2, 3)
    decoder = AnchorGrid(priors=priors, background=-1, scores="softmax")
    boxes, logits = decoder(outputs(scores, torch.zeros(1, 2, 4)))
    assert_boxes(boxes[0], [[24, 12, 40, 36], [3.2, 40.8, 9.6, 45.6]])
    p = scores.double().softmax(-1)
    torch.testing.assert_close(logits.double(), log_odds_of(p)[..., :2], atol=1e-5, rtol=1e-5)


def log_odds_of(p: torch.Tensor) -> torch.Tensor:
    return p.log() - torch.log1p(-p)


def test_relative_and_pixel_boxes():
    t, scores = random(1, 5, 4).abs(), random(1, 5, 2)
    boxes, logits = AnchorGrid(boxes="relative")(outputs(scores, t))
    assert_boxes(boxes[0], [[a * 64, b * 48, c * 64, d * 48] for a, b, c, d in t[0].tolist()])
    torch.testing.assert_close(logits[..., 0], scores[..., 1] - scores[..., 0])
    sigmoids = AnchorGrid(boxes="pixels", scores="sigmoid", background=None, score_outputs=(1,), box_outputs=(0,))
    boxes, logits = sigmoids(outputs(t, scores))
    assert torch.equal(boxes, t)
    assert torch.equal(logits, scores)


def test_feature_maps_are_laid_out_row_column_anchor():
    strides, sides = (16, 32), ((10.0, 16.0), (32.0,))
    flat = anchors(strides, sides)
    t, scores = random(1, len(flat), 4), random(1, len(flat), 2, seed=1)
    maps_t, maps_s, start = [], [], 0
    for stride, own in zip(strides, sides, strict=True):
        rows, columns, a = math.ceil(48 / stride), math.ceil(64 / stride), len(own)
        n = rows * columns * a
        for maps, flat_one, k in ((maps_t, t, 4), (maps_s, scores, 2)):
            part = flat_one[0, start : start + n]
            made = torch.zeros(1, a * k, rows, columns)
            for index, value in enumerate(part):
                j, i, which = index // (columns * a), index // a % columns, index % a
                made[0, which * k : (which + 1) * k, j, i] = value
            maps.append(made)
        start += n
    several = AnchorGrid(strides=strides, min_sizes=sides, score_outputs=(0, 2), box_outputs=(1, 3))
    found = several(outputs(maps_s[0], maps_t[0], maps_s[1], maps_t[1]))
    expected = AnchorGrid(strides=strides, min_sizes=sides)(outputs(scores, t))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def cells(strides, pairs):
    """(column, row, stride, (w, h)) of every candidate: grid by grid, anchor by anchor, row by row."""
    return [
        (i, j, stride, pair)
        for stride, own in zip(strides, pairs, strict=True)
        for pair in own
        for j in range(math.ceil(SIZE[0] / stride))
        for i in range(math.ceil(SIZE[1] / stride))
    ]


def test_yolox():
    strides = (8, 16)
    grid = cells(strides, [[None]] * 2)
    t = random(2, len(grid), 8)
    boxes, logits = Yolo(strides=strides)(outputs(t))
    for n in range(2):
        expected, scores = [], []
        for (i, j, s, _), (a, b, c, d, o, *classes) in zip(grid, t[n].tolist(), strict=True):
            x, y, w, h = (a + i) * s, (b + j) * s, math.exp(c) * s, math.exp(d) * s
            expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            scores.append([log_odds(sigmoid(o) * sigmoid(k)) for k in classes])
        assert_boxes(boxes[n], expected)
        torch.testing.assert_close(logits[n], torch.tensor(scores), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("five", [False, True])
def test_yolov5(five):
    strides, pairs = (8, 16), (((10.0, 13.0), (16.0, 30.0)), ((33.0, 23.0),))
    grid = cells(strides, pairs)
    t = random(1, len(grid), 6)
    decoder = Yolo(boxes="yolov5", strides=strides, anchors=pairs, outputs=(0, 1) if five else (0,))
    parts = (t[:, :96].reshape(1, 2, 6, 8, 6), t[:, 96:].reshape(1, 1, 3, 4, 6)) if five else (t,)
    boxes, logits = decoder(outputs(*parts))
    expected = []
    for (i, j, s, (aw, ah)), (a, b, c, d, *_) in zip(grid, t[0].tolist(), strict=True):
        x, y = (2 * sigmoid(a) - 0.5 + i) * s, (2 * sigmoid(b) - 0.5 + j) * s
        w, h = (2 * sigmoid(c)) ** 2 * aw, (2 * sigmoid(d)) ** 2 * ah
        expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    assert_boxes(boxes[0], expected)
    assert logits.shape == (1, len(grid), 1)


def test_yolo_without_objectness_numbers_first():
    t = random(1, 7, 11)
    boxes, logits = Yolo(boxes="decoded", objectness=False, numbers_first=True)(outputs(t))
    x, y, w, h = t[0, :4]
    assert_boxes(boxes[0], torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1).tolist())
    assert torch.equal(logits[0], t[0, 4:].T)


def test_yolo_probabilities():
    t = random(1, 9, 7).sigmoid()
    _, logits = Yolo(boxes="decoded", scores="probability")(outputs(t))
    expected = log_odds_of(t[..., 4:5].double() * t[..., 5:].double())
    torch.testing.assert_close(logits.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["centerface", "centernet"])
def test_centre_heat_map(kind):
    heat, sizes, offsets = random(2, 2, 3, 5), random(2, 2, 3, 5, seed=1), random(2, 2, 3, 5, seed=2)
    face = kind == "centerface"
    if face:
        decoder = CenterHeatmap()
    else:
        decoder = CenterHeatmap(exponential=False, order="xy", shift=0.0, stride=8, heat=2, sizes=0, offsets=1)
        sizes = sizes.abs()
    given = (heat, sizes, offsets) if face else (sizes, offsets, heat)
    boxes, logits = decoder(outputs(*given, size=(12, 20)))
    for n in range(2):
        expected, scores = [], []
        for j in range(3):
            for i in range(5):
                s0, s1, o0, o1 = (float(t[n, k, j, i]) for t in (sizes, offsets) for k in (0, 1))
                if face:  # height and y come first
                    h, w = math.exp(s0) * 4, math.exp(s1) * 4
                    x, y = (i + o1 + 0.5) * 4, (j + o0 + 0.5) * 4
                else:
                    w, h, x, y = s0 * 8, s1 * 8, (i + o0) * 8, (j + o1) * 8
                expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                scores.append(heat[n, :, j, i].tolist())
        assert_boxes(boxes[n], expected)
        torch.testing.assert_close(logits[n], torch.tensor(scores))


def test_peaks_of_a_heat_map():
    heat = torch.full((1, 1, 4, 4), -5.0)
    heat[0, 0, 1, 1], heat[0, 0, 1, 2], heat[0, 0, 3, 3] = 2.0, 1.0, 0.0
    *_, keep = CenterHeatmap(peaks=True)(outputs(heat, torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)))
    above = keep[0, :, 0] & (heat.flatten() > -5)
    assert above.nonzero().flatten().tolist() == [5, 15]


@pytest.mark.parametrize(
    ("make", "tensors", "words"),
    [
        (AnchorGrid, (), "strides and min_sizes, or priors"),
        (lambda: AnchorGrid(scores="logit"), (), "'softmax' or 'sigmoid'"),
        (lambda: AnchorGrid(boxes="yxyx"), (), "'yxyx'"),
        (lambda: AnchorGrid(strides=(8,), min_sizes=()), (), "as many lists"),
        (lambda: Yolo(boxes="yolov9"), (), "'yolov9'"),
        (lambda: Yolo(boxes="yolov5"), (), "as many lists of anchors"),
        (lambda: CenterHeatmap(order="hw"), (), "'hw'"),
        (lambda: AnchorGrid(boxes="pixels"), (random(1, 5, 2),), "output number 1"),
        (lambda: AnchorGrid(boxes="pixels"), (random(1, 5, 2), random(1, 6, 4)), "as many scores as boxes"),
        (lambda: AnchorGrid(boxes="pixels"), (random(1, 5, 2), random(1, 5, 3)), "out1"),
        (lambda: AnchorGrid(boxes="pixels"), (random(1, 5, 1), random(1, 5, 4)), "two or more softmax columns"),
        (lambda: AnchorGrid(boxes="pixels", background=4), (random(1, 5, 2), random(1, 5, 4)), "background column"),
        (lambda: AnchorGrid(strides=(8,), min_sizes=((9,),)), (random(1, 5, 2), random(1, 5, 4)), "48 anchors"),
        (Yolo, (random(1, 5, 8),), "64 cells"),
        (lambda: Yolo(boxes="decoded"), (random(1, 5, 5),), "at least 6 numbers"),
        (Yolo, (random(1, 5),), "outputs (N, A, 5 + C)"),
        (CenterHeatmap, (random(1, 1, 4, 4), random(1, 4, 4, 4), random(1, 2, 4, 4)), "sizes"),
        (CenterHeatmap, (random(1, 1, 4, 4), random(1, 2, 4, 4)), "output number 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_told_in_one_sentence(make, tensors, words):
    with pytest.raises(ModelError) as told:
        make()(outputs(*tensors))
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_outputs_are_a_sequence():
    a, b = random(1, 2), random(1, 3)
    made = outputs(a, b)
    first, second = made
    assert first is a
    assert second is b
    assert made[-1] is b
    assert list(made[:1]) == [a]
    assert len(made) == 2
