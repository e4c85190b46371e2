"""Face recognizers from torch networks and ONNX files: the right numbers in, embeddings and gradients out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from audit.adapters import onnx_recognizer, opencv_landmarker, recognizer
from audit.comparison import Comparison
from audit.contracts import Recognizer
from audit.errors import ModelError
from audit.tasks import access_of, conforms, find_task
from tests.kit import kit, lfw_pairs, mobilefacenet
from tests.test_adapters_examples import EXAMPLES, load
from tests.test_adapters_opencv import yunet

CPU = torch.device("cpu")
GENERATOR = np.random.default_rng(5)
KERNELS, HEAD = (GENERATOR.normal(0, 0.5, s).astype(np.float32) for s in ((6, 3, 4, 4), (7, 6)))


def embedded(x: torch.Tensor) -> torch.Tensor:
    """What the test's ONNX file computes."""
    heads = F.conv2d(x, torch.from_numpy(KERNELS), stride=4).relu().mean((2, 3))
    return heads @ torch.from_numpy(HEAD).T


def write(path, dims=("N", 3, 112, 112), *, two=False):
    nodes = [
        helper.make_node("Conv", ["faces", "k"], ["c"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "to"], ["f"]),
        helper.make_node("Gemm", ["f", "h"], ["embedding"], transB=1),
    ]
    constants = {"k": KERNELS, "h": HEAD, "to": np.array([dims[0] if isinstance(dims[0], int) else -1, 6])}
    tensors = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("r", "embedding")[not two :]]
    inputs = [helper.make_tensor_value_info("faces", TensorProto.FLOAT, dims)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def faces(n=3, size=(112, 112)):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return {"embedding": self.drop(self.layer(x.flatten(1)))}

    def embedding(self, x):
        return self(x)["embedding"]


def test_the_network_sees_what_its_owner_shows_it():
    seen = []

    def net(x):
        seen.append(x)
        return x.flatten(1)

    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    model = recognizer(net, threshold=0.5, face_size=(4, 5), scale=255, mean=mean, std=std, channels="bgr")
    images = faces(2, (4, 5))
    model(images)
    expected = (images.numpy()[:, ::-1] * 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(seen[0], expected, rtol=1e-5)


def test_a_torch_network_becomes_a_recognizer():
    net = Net().train()
    own = [[0.0, 0], [1, 0], [0.5, 0.5], [0, 1], [1, 1]]
    model = recognizer(net.embedding, threshold=1.2, face_size=(2, 2), metric="euclidean", template=own)
    assert isinstance(model, Recognizer)
    assert model.module is net
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    conforms(EXAMPLES, "recognizer", recognizer(net.embedding, threshold=0.2, face_size=(2, 2)))
    x = faces(2, (2, 2)).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    torch.testing.assert_close(gradient[0].flatten(), net.layer.weight.sum(0))
    comparison = Comparison("net", model, white_box=True)
    assert (comparison.metric, comparison.cut, comparison.face_size) == ("euclidean", -1.2, (2, 2))
    torch.testing.assert_close(comparison.align(torch.tensor([own]), (2, 2)).matrix[0], torch.eye(2, 3).double())
    assert recognizer(lambda x: x.mean((2, 3), keepdim=True), threshold=0)(faces()).shape == (3, 3)


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("white_box", [True, False])
def test_an_onnx_file_becomes_a_recognizer(tmp_path, batch, white_box):
    path = write(tmp_path / "net.onnx", (batch, 3, 112, 112))
    model = onnx_recognizer(path, threshold=0.3, scale=255, mean=127.5, std=127.5, white_box=white_box)
    assert isinstance(model, Recognizer)
    assert model.face_size == (112, 112)
    assert model.files == (path,)
    images = faces()
    torch.testing.assert_close(model(images), embedded(images * 2 - 1), atol=1e-4, rtol=1e-3)
    assert find_task(path, model, CPU) == "recognizer"
    assert access_of("recognizer", model, CPU, []) == ("white-box" if white_box else "query")
    if white_box:
        x, y = faces().requires_grad_(), faces().requires_grad_()
        gradients = torch.autograd.grad(model(x).sum(), x), torch.autograd.grad(embedded(y * 2 - 1).sum(), y)
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_an_output_is_chosen_by_name(tmp_path):
    path = write(tmp_path / "net.onnx", two=True)
    with pytest.raises(ModelError, match="choose one of r, embedding"):
        onnx_recognizer(path, threshold=0.3)
    model = onnx_recognizer(path, threshold=0.3, output="embedding")
    torch.testing.assert_close(model(faces()), embedded(faces()), atol=1e-4, rtol=1e-3)


def test_a_file_without_a_size_takes_what_it_is_given(tmp_path):
    path = write(tmp_path / "net.onnx", ("N", 3, "H", "W"))
    assert onnx_recognizer(path, threshold=0.3).face_size == (112, 112)
    model = onnx_recognizer(path, threshold=0.3, face_size=(64, 48))
    torch.testing.assert_close(model(faces(2, (64, 48))), embedded(faces(2, (64, 48))), atol=1e-4, rtol=1e-3)
    with pytest.raises(ModelError, match="as the file declares"):
        onnx_recognizer(write(tmp_path / "fixed.onnx"), threshold=0.3, face_size=(64, 48))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threshold": 1.5}, "a cosine in"),
        ({"threshold": float("nan")}, "a cosine in"),
        ({"threshold": True}, "a cosine in"),
        ({"threshold": -0.1, "metric": "euclidean"}, "a distance of at least 0"),
        ({"metric": "dot"}, "'cosine' or 'euclidean'"),
        ({"face_size": 112}, "two positive whole numbers"),
        ({"face_size": (112, 0)}, "two positive whole numbers"),
        ({"template": [[1, 2], [3, 4]]}, "write five points"),
        ({"template": "eyes"}, "write five points"),
        ({"net": 3}, "a callable"),
        ({"embed": 3}, "a callable"),
        ({"files": ["no/such/file"]}, "a file that can be read"),
        ({"channels": "gbr"}, "'rgb' or 'bgr'"),
    ],
)
def test_wrong_arguments_are_told(given, said):
    with pytest.raises(ModelError, match=said):
        recognizer(**{"net": nn.Flatten(), "threshold": 0.3, **given})


def test_wrong_faces_and_embeddings_are_told():
    flat = recognizer(nn.Flatten(), threshold=0.3, face_size=(4, 5))
    for images, said in ((faces(1, (5, 4)), "expected 4x5 px, got 5x4"), (torch.zeros(3, 4, 5), "images")):
        with pytest.raises(ModelError, match=said):
            flat(images)
    for net, said in ((Net(), "embed="), (lambda x: x.mean((1, 2, 3)), r"got shape \(1,\)"), (nn.Identity(), "D")):
        with pytest.raises(ModelError, match=said):
            recognizer(net, threshold=0.3, face_size=(2, 2))(faces(1, (2, 2)))


def test_the_onnx_example(tmp_path, monkeypatch):
    monkeypatch.setenv("RECOGNIZER", str(write(tmp_path / "mine.onnx")))
    monkeypatch.setenv("THRESHOLD", "0.45")
    model = load("onnx_recognizer").model(CPU)
    assert model.threshold == 0.45
    torch.testing.assert_close(model(faces()), embedded(faces() * 2 - 1), atol=1e-4, rtol=1e-3)


def test_a_yunet_finds_landmarks(tmp_path):
    """Its fifth landmark lies at (cell + number) · stride; the most central of the faces counts."""
    path = yunet(tmp_path / "yunet.onnx")
    file = onnx.load(str(path))
    offsets = np.arange(10, dtype=np.float32) / 10
    for tensor in file.graph.initializer:
        if tensor.name.startswith("kps_b"):
            tensor.CopyFrom(numpy_helper.from_array(offsets, tensor.name))
    onnx.save(file, str(path))
    images = torch.zeros(3, 3, 128, 160)
    images[0, 2, 64:96, 64:96] = images[0, 2, 0:32, 0:32] = images[1, 2, 32:64, 96:128] = 1
    found = opencv_landmarker(path, score_threshold=0.95)(images)
    for i, cell in ((0, (2, 2)), (1, (3, 1))):  # only the stride of 32 scores above 0.9
        np.testing.assert_allclose(found[i], (np.array(cell) + offsets.reshape(5, 2)) * 32, atol=1e-3)
    assert bool(found[2].isnan().all())


@pytest.mark.kit
def test_the_torch_example_is_the_kits_network(monkeypatch):
    monkeypatch.chdir(kit("face_rec_mobilefacenet_foamliu"))
    model = load("mobilefacenet").model(CPU)
    reference = mobilefacenet()
    assert (model.threshold, model.face_size) == (reference.threshold, reference.face_size)
    found = F.normalize(model(faces(2)))
    torch.testing.assert_close(found, reference(faces(2)), atol=1e-5, rtol=1e-4)
    assert find_task(EXAMPLES / "mobilefacenet.py", model, CPU) == "recognizer"


@pytest.mark.kit
def test_the_kits_recognizers_tell_people_apart():
    """Few pairs, so that it is quick; the slow test counts more of them, at the owners' thresholds."""
    data = lfw_pairs(4)
    model = Comparison("MobileFaceNet", mobilefacenet(), white_box=True)
    a, b = (data.portraits(data.pairs[:, i]) for i in (0, 1))
    scores = model.ask(a.images, a.landmarks, b.images, b.landmarks)
    assert scores[data.same].min() > scores[~data.same].max()
