"""Plain torch callables as detectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import audit
from audit.adapters import callable_detector
from audit.adapters.suppress import Suppression
from audit.contracts import Candidates, Detections, Detector, WhiteBoxDetector
from audit.errors import ModelError

BOXES = torch.tensor([[1.0, 2.0, 11.0, 22.0], [2.0, 2.0, 11.0, 22.0], [20.0, 5.0, 30.0, 15.0]])


def images(n: int = 2, height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(0))


def shown(x, logits=((2.0, -4.0), (1.0, -4.0), (-1.0, 3.0))):
    level = x.mean((1, 2, 3))[:, None, None] * 0.01
    return BOXES.expand(len(x), 3, 4), torch.tensor(logits).expand(len(x), 3, 2) + level


KINDS = {
    "detections": Detections,
    "dict": lambda b, s, l: {"boxes": b, "scores": s, "labels": l, "masks": None},
    "tuple": lambda b, s, l: (b, s, l),
    "lists": lambda b, s, l: {"boxes": b.tolist(), "scores": s.tolist(), "labels": l.tolist()},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_owners_function_is_passed_on(kind, count):
    scores, labels = torch.tensor([0.9, 0.8, 0.7])[:count], torch.tensor([0, 1, 1])[:count]
    detector = callable_detector(lambda x: [KINDS[kind](BOXES[:count], scores, labels)] * len(x), ("a", "b"), 0.5)
    found = detector(images())
    assert len(found) == 2
    for d in found:
        torch.testing.assert_close(d.boxes, BOXES[:count])
        torch.testing.assert_close(d.scores, scores)
        assert d.labels.dtype == torch.int64
        assert d.labels.tolist() == labels.tolist()
    assert isinstance(detector, Detector)
    assert not isinstance(detector, WhiteBoxDetector)


def test_detections_are_derived_from_candidates():
    detector = callable_detector(None, ("a", "b"), 0.5, candidates=shown, nms_iou=0.5, score_floor=0.3)
    assert isinstance(detector, WhiteBoxDetector)
    (found, _) = detector(images())
    # the second overlaps the first by nine tenths; scores are sigmoids of the logits
    assert found.labels.tolist() == [1, 0]
    torch.testing.assert_close(found.boxes, BOXES[[2, 0]])
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 2.0]).sigmoid(), atol=1e-2, rtol=0)


def test_boxes_of_both_ways_return_to_the_images_pixels():
    seen = []

    def fn(x):
        seen.append(tuple(x.shape[-2:]))
        return [(BOXES, torch.ones(3), torch.zeros(3, dtype=torch.int64))] * len(x)

    options = {"input_size": (80, 30), "resize": "stretch"}
    both = callable_detector(fn, ("a", "b"), 0.5, candidates=shown, **options)
    scale = torch.tensor([60 / 30, 40 / 80, 60 / 30, 40 / 80])  # x by width, y by height
    torch.testing.assert_close(both(images())[0].boxes, BOXES * scale)
    torch.testing.assert_close(both.candidates(images()).boxes[1], BOXES * scale)
    assert seen == [(80, 30)]


def test_derived_boxes_end_at_the_images_edge_and_candidates_do_not():
    boxes = torch.tensor([[-5.0, -6.0, 70.0, 50.0]])
    detector = callable_detector(
        None, ["a"], 0.5, candidates=lambda x: (boxes.expand(len(x), 1, 4), torch.full((len(x), 1), 3.0))
    )
    assert detector(images(1))[0].boxes.tolist() == [[0, 0, 60, 40]]
    assert detector.candidates(images(1)).boxes[0].tolist() == boxes.tolist()


def test_a_third_tensor_says_who_reaches_suppression():
    keep = torch.tensor([[False, True], [True, True], [True, False]])
    detector = callable_detector(None, ("a", "b"), 0.5, candidates=lambda x: (*shown(x), keep.expand(len(x), 3, 2)))
    assert [round(float(s), 2) for s in detector(images())[0].scores] == [0.73, 0.27]
    assert detector.candidates(images()).logits.shape == (2, 3, 2)


def test_weights_are_frozen_and_the_module_found():
    net = torch.nn.Conv2d(3, 3, 1).train()
    detector = callable_detector(None, ("a", "b"), 0.5, candidates=lambda x: shown(net(x)), module=net)
    assert detector.module is net
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    x = images().requires_grad_()
    assert torch.autograd.grad(detector.candidates(x).logits.sum(), x)[0].abs().amax() > 0

    class Net(torch.nn.Module):
        def forward(self, x):
            return Candidates(*shown(x))

        def other(self, x):
            return shown(x)

    own = Net()
    assert callable_detector(None, ("a", "b"), 0.5, candidates=own).module is own
    assert callable_detector(None, ("a", "b"), 0.5, candidates=own.other).module is own


def test_it_does_not_pass_gradients_through_detections():
    detector = callable_detector(None, ("a", "b"), 0.5, candidates=shown)
    assert not detector(images().requires_grad_())[0].scores.requires_grad


def test_half_precision_comes_back_as_float32():
    detector = callable_detector(None, ("a", "b"), 0.5, candidates=lambda x: tuple(t.bfloat16() for t in shown(x)))
    found = detector.candidates(images())
    assert found.boxes.dtype == found.logits.dtype == torch.float32


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.0, 0.9), st.floats(0.1, 0.9), st.booleans())
def test_suppression_against_a_plain_loop(seed, count, floor, iou, one_label):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator) * 20
    boxes = torch.cat((corner, corner + 1 + torch.rand((count, 2), generator=generator) * 20), 1)
    logits = torch.randn((count, 2), generator=generator) * 2
    rule = Suppression(score_floor=floor, nms_iou=iou, top_k=12, one_label=one_label)
    found = rule(boxes[None], logits[None])[0]
    entries = [
        (1 / (1 + 2.718281828459045 ** -float(logits[i, c])), i, c)
        for i in range(count)
        for c in range(2)
        if not one_label or logits[i, c] == logits[i].max()
    ]
    entries = sorted((e for e in entries if e[0] > floor), reverse=True)[:12]
    kept: list[tuple[float, int, int]] = []
    for entry in entries:
        if all(entry[2] != k[2] or overlap(boxes[entry[1]], boxes[k[1]]) <= iou for k in kept):
            kept.append(entry)
    torch.testing.assert_close(found.scores, torch.tensor([k[0] for k in kept]))
    torch.testing.assert_close(found.boxes, boxes[[k[1] for k in kept]].reshape(-1, 4))
    assert found.labels.tolist() == [k[2] for k in kept]


def overlap(a, b) -> float:
    ax1, ay1, ax2, ay2 = a.tolist()
    bx1, by1, bx2, by2 = b.tolist()
    inner = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    return inner / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inner)


def one(boxes=BOXES, scores=(0.9, 0.8, 0.7), labels=(0, 0, 1)):
    return lambda x: [(torch.as_tensor(boxes), torch.as_tensor(scores), torch.as_tensor(labels))] * len(x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fn": None}, "neither"),
        ({"fn": 3}, "int"),
        ({"classes": []}, "at least one class name"),
        ({"classes": "face"}, "('face',)"),
        ({"classes": [1, 2]}, "each a string"),
        ({"score_threshold": -0.1}, "-0.1"),
        ({"score_threshold": "high"}, "'high'"),
        ({"files": ["nowhere.pth"]}, "nowhere.pth"),
        ({"files": ["."]}, "a folder"),
        ({"module": "net"}, "str"),
        ({"colour": "rgb"}, "colour"),
        ({"nms_iou": 2}, "nms_iou"),
        ({"top_k": 0}, "top_k"),
        ({"score_floor": 0.7}, "at most the score threshold"),
        ({"input_size": (3, 3)}, "how images reach"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments, words):
    given = {"fn": one(), "classes": ("a", "b"), "score_threshold": 0.5} | arguments
    with pytest.raises(ModelError) as told:
        callable_detector(**given)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: one()(x)[:1], "detections for 2 images"),
        (lambda x: [{"boxes": BOXES}] * 2, "no labels"),
        (lambda x: ["nothing"] * 2, "str"),
        (one(boxes=BOXES[:2]), "as many scores"),
        (one(boxes=BOXES[:, :3]), "boxes (K, 4)"),
        (one(labels=(0, 1, 2)), "indices into the 2 classes"),
        (one(labels=(-1, 1, 1)), "-1 to 1"),
    ],
)
def test_bad_detections_are_told_in_one_sentence(fn, words):
    with pytest.raises(ModelError) as told:
        callable_detector(fn, ("a", "b"), 0.5)(images())
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (lambda x: BOXES, "(boxes, logits)"),
        (lambda x: (BOXES, BOXES), "(2, A, 4)"),
        (lambda x: (shown(x)[0], shown(x)[1][:, :2]), "one per box and class"),
        (lambda x: (shown(x)[0], shown(x)[1][..., :1]), "(2, 3, 2)"),
    ],
)
def test_bad_candidates_are_told_in_one_sentence(candidates, words):
    with pytest.raises(ModelError) as told:
        callable_detector(None, ("a", "b"), 0.5, candidates=candidates).candidates(images())
    assert words in str(told.value)


def test_adapters_are_imported_when_asked_for():
    assert audit.adapters.callable_detector is callable_detector
    assert set(audit.adapters.__all__) == set(audit.adapters._HOME)
    assert all(getattr(audit.adapters, name) for name in audit.adapters.__all__)
    with pytest.raises(AttributeError, match="onnx_detector"):
        _ = audit.adapters.tensorflow_detector
