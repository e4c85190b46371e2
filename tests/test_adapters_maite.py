"""MAITE's object detectors: any array in its targets, any range of its images, and models that pass as they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage import data as pictures

from audit.adapters import maite_detector
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError
from audit.subject import load as subject_of
from tests.adapted import best, doctored, needs, one_control, overlap, painted
from tests.planted import Red
from tests.test_adapters_examples import load, picture

BOXES = [[1, 2, 11, 22], [2.5, 2, 900, 21], [20, 5, 30, 15]]
LABELS = [0, 1, 1]
SCORES = [0.9, 0.3, 0.7]
TABLE = [[0.9, 0.05], [0.4, 0.3], [0.1, 0.7]]
KINDS = {
    "numpy": np.asarray,
    "half": lambda v: np.asarray(v, np.float16),
    "torch": torch.tensor,
    "with gradient": lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True),
    "lists": lambda v: v,
}


class Squares:
    """A MAITE model of the planted detector."""

    def __init__(self):
        self.metadata = {"id": "squares", "index2label": {0: "square"}}

    def __call__(self, batch):
        found = Red()(torch.stack([torch.as_tensor(np.asarray(image)) for image in batch]))
        return [SimpleNamespace(boxes=d.boxes.numpy(), labels=d.labels.numpy(), scores=d.scores.numpy()) for d in found]


def fixed(boxes, labels, scores):
    return lambda batch: [SimpleNamespace(boxes=boxes, labels=labels, scores=scores) for _ in batch]


def images(n=2, height=40, width=60):
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scores", [SCORES, TABLE], ids=["K", "K x C"])
@pytest.mark.parametrize("kind", KINDS)
def test_targets_of_any_array_are_understood(kind, scores):
    array = KINDS[kind]
    labels = LABELS if kind in ("lists", "with gradient") else array(LABELS)
    model = fixed(array([[float(v) for v in b] for b in BOXES]), labels, array(scores))
    detector = maite_detector(model, score_threshold=0.5, classes=("cat", "dog"))
    first, second = detector(images())
    assert first.scores.tolist() == second.scores.tolist()
    # of a table the label's own column counts, which need not be the largest
    torch.testing.assert_close(first.scores, torch.tensor([0.9, 0.3, 0.7]), atol=1e-3, rtol=0)
    assert first.labels.tolist() == LABELS
    assert first.boxes.tolist() == [[1, 2, 11, 22], [2.5, 2, 60, 21], [20, 5, 30, 15]], "cut off at the image's edge"
    assert first.boxes.dtype == first.scores.dtype == torch.float32
    assert first.labels.dtype == torch.int64


@pytest.mark.parametrize("shapes", [((0, 4), (0,), (0,)), ((0,), (0,), (0,)), ((0, 4), (0,), (0, 2))])
def test_nothing_found_is_no_error(shapes):
    model = fixed(*(np.zeros(shape) for shape in shapes))
    (found,) = maite_detector(model, score_threshold=0.5, classes=("cat", "dog"))(images(1))
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    ("scale", "dtype", "top"), [(1.0, "float32", 1.0), (255, "float32", 255.0), (255, "uint8", 255)]
)
def test_the_model_sees_the_range_it_asks_for(scale, dtype, top):
    handed = []

    def model(batch):
        handed.extend(batch)
        return fixed(np.zeros((0, 4)), [], [])(batch)

    x = images()
    x[0, 0, 0, 0], x[0, 1, 0, 0] = 1.0, 0.0
    kept = x.clone()
    with torch.inference_mode():
        maite_detector(model, score_threshold=0.5, classes=("square",), scale=scale, dtype=dtype)(x)
    assert len(handed) == 2
    assert handed[0].max() == top
    for seen, image in zip(handed, x, strict=True):
        assert isinstance(seen, np.ndarray)
        assert seen.dtype == dtype
        assert seen.shape == (3, 40, 60)
        np.testing.assert_allclose(seen, image.numpy() * scale, atol=0.5001 if dtype == "uint8" else 1e-4)
        seen[:] = 0  # a model may write on what it is given
    assert torch.equal(x, kept)


def test_boxes_are_where_the_squares_are():
    detector = maite_detector(Squares(), score_threshold=0.5)
    for size, corner in (((128, 160), (80, 40)), ((128, 160), (8, 72)), ((200, 96), (32, 136))):
        x, boxes = painted([corner], size)
        assert overlap(best(detector(x)[0]), boxes[0]) > 0.99
    assert isinstance(detector, Detector)
    assert not isinstance(detector, WhiteBoxDetector), "no gradients pass a MAITE model"
    assert repr(detector) == "black-box detector of square at 0.5"


def test_it_finds_what_maites_own_prediction_finds():
    maite = needs("maite")
    from maite import tasks
    from maite.protocols import object_detection as od

    model = Squares()
    assert isinstance(model, od.Model)
    x, _ = painted([(8, 16), (80, 40), (104, 72)])
    datums = [(image.numpy(), SimpleNamespace(boxes=[], labels=[], scores=[]), {"id": i}) for i, image in enumerate(x)]

    class Painted:
        metadata = {"id": "painted", "index2label": {0: "square"}}  # noqa: RUF012

        def __len__(self):
            return len(datums)

        def __getitem__(self, index):
            if index >= len(datums):
                raise IndexError(index)
            return datums[index]

    predictions, _ = tasks.predict(model=model, dataset=Painted(), batch_size=2)
    own = [target for batch in predictions for target in batch]
    assert maite.__version__
    for found, target in zip(maite_detector(model, score_threshold=0.5)(x), own, strict=True):
        torch.testing.assert_close(found.boxes, torch.from_numpy(target.boxes))
        torch.testing.assert_close(found.scores, torch.from_numpy(target.scores))


def test_a_torch_model_is_frozen_and_watched():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 1, 1)
            self.metadata = {"id": "net", "index2label": {0: "square"}}

        def forward(self, batch):
            return Squares()(batch)

    net = Net()
    detector = maite_detector(net, score_threshold=0.5)
    assert detector.module is net
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    inner = torch.nn.Dropout()
    assert maite_detector(Squares(), score_threshold=0.5, module=inner).module is inner
    assert not inner.training


PLAIN = """
from tests.adapted import data
from tests.test_adapters_maite import Squares

def model(device):
    return {made}
"""


@pytest.mark.parametrize("made", ["Squares()", "{'detector': Squares()}"])
def test_a_maite_model_passes_as_it_is(tmp_path, made):
    path = tmp_path / "mymodel.py"
    path.write_text(PLAIN.format(made=made))
    subject = subject_of(path)
    assert subject.access == {"detector": "query"}
    detector = subject.tasks["detector"]
    assert detector.classes == ("square",)
    assert detector.score_threshold == 0.5
    x, boxes = painted([(80, 40)])
    assert overlap(best(detector(x)[0]), boxes[0]) > 0.99


def test_it_keeps_the_threshold_that_it_has(tmp_path):
    path = tmp_path / "mymodel.py"
    path.write_text(
        PLAIN.format(made="made()") + "\ndef made():\n    s = Squares()\n    s.score_threshold = 0.3\n    return s\n"
    )
    assert subject_of(path).tasks["detector"].score_threshold == 0.3


def test_what_has_metadata_but_no_targets_is_left_alone(tmp_path):
    """MAITE's image classifiers have such metadata too."""
    path = tmp_path / "mymodel.py"
    text = "import torch\n\nclass Net:\n    metadata = {'id': 'net', 'index2label': {0: 'a'}}\n"
    text += "    task = 'classifier'\n    def __call__(self, images):\n"
    text += "        return torch.stack([torch.as_tensor(i).mean() * torch.ones(2) for i in images])\n\n"
    path.write_text(text + "def model(device):\n    return Net()\n")
    assert list(subject_of(path).tasks) == ["classifier"]


def test_the_doctor_finds_nothing_to_mend(tmp_path, capsys):
    path = tmp_path / "mymodel.py"
    path.write_text(PLAIN.format(made="Squares()"))
    out = doctored(path, capsys)
    assert "queries only" in out
    assert "!!" not in out


@pytest.mark.slow
def test_a_control_runs_on_it(tmp_path):
    path = tmp_path / "mymodel.py"
    path.write_text(PLAIN.format(made="Squares()"))
    row = one_control(path, tmp_path, "DET-CONTROL/noise")
    assert row["verdict"] == "pass", row["reason"]


def test_the_example():
    example = load("maite_detector")
    assert example.declared == {"recall": 0.9}
    detector = example.model(torch.device("cpu"))
    assert detector.classes == ("face",)
    (found,) = detector(picture(pictures.astronaut()))
    sure = found.scores >= detector.score_threshold
    assert sure.sum() == 1
    # the face in that picture, by eye: from the hair line to the chin
    torch.testing.assert_close(found.boxes[sure][0], torch.tensor([180.0, 60.0, 268.0, 177.0]), atol=12, rtol=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": 7}, "can be called on a list of images, got int"),
        ({"classes": None}, "metadata has index2label"),
        ({"classes": "cat"}, "the text 'cat'"),
        ({"score_threshold": 50}, "from 0 to 1"),
        ({"dtype": "int8"}, "'float32' or 'uint8', got 'int8'"),
        ({"scale": 0}, "a number above 0, got 0"),
        ({"scale": True}, "a number above 0, got True"),
        ({"files": ["nowhere.onnx"]}, "no such file"),
        ({"module": "net"}, "a torch.nn.Module, got str"),
        ({"model": lambda batch: None}, "one for each of 2 images, got NoneType"),
        ({"model": lambda batch: [1]}, "one for each of 2 images, got 1"),
        ({"model": lambda batch: [1, 2]}, "targets with boxes, labels and scores, got no boxes"),
        ({"model": fixed(BOXES, LABELS, [0.5])}, "as many scores and labels as boxes"),
        ({"model": fixed(BOXES, LABELS, [[0.5]] * 3)}, "scores (K,) or (K, 2), got (3, 1)"),
        ({"model": fixed(BOXES, [0, 1, 2], SCORES)}, "indices into the 2 classes"),
        ({"model": fixed(BOXES, [0, 1, 2], TABLE)}, "indices into the 2 classes"),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(given, words):
    given = {"model": fixed(BOXES, LABELS, SCORES), "score_threshold": 0.5, "classes": ("cat", "dog")} | given
    with pytest.raises(ModelError) as told:
        maite_detector(given.pop("model"), **given)(images())
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("names", [{1: "a"}, {0: "a", 2: "b"}, ["a"], {}])
def test_names_have_to_be_numbered_from_0(names):
    model = Squares()
    model.metadata = {"id": "x", "index2label": names}
    with pytest.raises(ModelError, match=r"index2label from 0 on|at least one class name"):
        maite_detector(model, score_threshold=0.5)
