"""Running a model: batches by size, memory back-off, outputs that must not be counted."""

import pytest
import torch

from audit.contracts import Detections
from audit.errors import ModelError
from audit.execution import Execution
from tests import planted


class Says(planted.Red):
    def __init__(self, boxes, scores, labels):
        self.said = Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))

    def __call__(self, images):
        return [self.said for _ in images]


BOX = [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Says(BOX, [float("nan")], [0]), "values that are not finite"),
        (Says([[1.0, 2.0, float("inf"), 4.0]], [0.5], [0]), "values that are not finite"),
        (Says(BOX, [1.5], [0]), "scores from 1.5 to 1.5"),
        (Says(BOX, [0.5], [3]), "labels from 3 to 3"),
    ],
)
def test_what_cannot_be_counted_is_an_error_never_a_result(found, said):
    with pytest.raises(ModelError, match=said):
        Execution().detect(found, torch.rand(2, 3, 32, 32))


class Greedy(planted.Red):
    """Runs out of memory on more than two images."""

    def __init__(self):
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("no room")
        return super().__call__(images)


def test_a_batch_is_halved_until_it_fits_and_nothing_is_lost():
    batch = Execution().batch(planted.scenes(7).scenes)
    greedy = Greedy()
    halved, whole = Execution().detect(greedy, batch.images), planted.Red()(batch.images)
    assert max(greedy.sizes) == 7
    assert len(halved) == 7
    for a, b in zip(halved, whole, strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)


def test_batches_hold_one_size_each_in_an_order_that_ids_decide():
    scenes = list(planted.scenes(5))
    plans = [[[s.id for s in g] for g in Execution().plan(order, 2)] for order in (scenes, scenes[::-1])]
    assert plans[0] == plans[1]
    assert [len(g) for g in plans[0]] == [2, 2, 1]
