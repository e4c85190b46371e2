"""ONNX files as detectors: the torch copy is the file's network, its outputs are logits, and bad files are told."""

from __future__ import annotations

import copy
import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from audit.adapters import AnchorGrid, CenterHeatmap, onnx_detector
from audit.adapters.onnx_graph import served
from audit.contracts import Detector, WhiteBoxDetector
from audit.errors import ModelError

PIXELS = AnchorGrid(boxes="pixels")
K, SIDE = 3, 32


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.6, shape).astype(np.float32)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def write(path, nodes, outputs, initializers=(), opset=11, dims=(1, 3, SIDE, SIDE), **options):
    """A file with the usual head: one convolution to K scores and four box numbers per cell of 8 pixels."""
    head = [
        node("Conv", "images w b", "head", kernel_shape=[8, 8], strides=[8, 8]),
        node("Relu", "head", "unused"),
    ]
    tensors = [
        numpy_helper.from_array(weights(K + 4, 3, 8, 8, seed=0), "w"),
        numpy_helper.from_array(np.linspace(-1, 9, K + 4).astype(np.float32), "b"),
        *(numpy_helper.from_array(np.asarray(v), name) for name, v in dict(initializers).items()),
    ]
    inputs = [helper.make_tensor_value_info("images", options.get("kind", TensorProto.FLOAT), dims)]
    inputs += options.get("inputs", [])
    if opset < 11:  # as old exporters did
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(
        [*head, *nodes],
        "g",
        inputs,
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if opset < 11 else 8)
    onnx.save(model, str(path), **options.get("save", {}))
    return path


def split_nodes(opset: int):
    """The head as (N, A, K) scores after softmax and (N, A, 4) boxes."""
    n = (SIDE // 8) ** 2
    nodes = [
        node("Reshape", "head flat", "rows"),
        node("Transpose", "rows", "cells", perm=[0, 2, 1]),
    ]
    if opset < 10:
        nodes += [
            node("Slice", "cells", "raw", starts=[0], ends=[K], axes=[2]),
            node("Slice", "cells", "boxes", starts=[K], ends=[K + 4], axes=[2]),
        ]
        constants = {"flat": np.array([1, K + 4, n])}
    else:
        nodes += [node("Slice", "cells zero k two", "raw"), node("Slice", "cells k end two", "boxes")]

        def one(v):
            return np.array([v], dtype=np.int64)

        constants = {"flat": np.array([1, K + 4, -1]), "zero": one(0), "k": one(K), "end": one(K + 4), "two": one(2)}
    return [*nodes, node("Softmax", "raw", "scores", axis=2)], constants


def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same network in torch: raw scores (N, A, K) and boxes (N, A, 4)."""
    t = torch.nn.functional.conv2d(
        x, torch.from_numpy(weights(K + 4, 3, 8, 8, seed=0)), torch.linspace(-1, 9, K + 4), stride=8
    )
    t = t.flatten(2).transpose(1, 2)
    return t[..., :K], t[..., K:]


def images(n: int = 3, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(0))


def runtime(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20])
def test_the_torch_copy_is_the_files_network(tmp_path, opset):
    nodes, constants = split_nodes(opset)
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants, opset)
    detector = onnx_detector(path, PIXELS, ("a", "b"), 0.5, resize="stretch")
    assert isinstance(detector, WhiteBoxDetector)
    assert detector.module.batched
    x = images()
    found = detector.candidates(x)
    raw, boxes = reference(x)
    p = raw.double().softmax(-1)
    torch.testing.assert_close(found.boxes, boxes, atol=1e-4, rtol=1e-4)
    expected = (p.log() - torch.log1p(-p))[..., 1:]
    torch.testing.assert_close(found.logits.double(), expected, atol=1e-4, rtol=1e-4)
    # and the untouched file says the same of the probabilities
    whole = runtime(path).run(["scores"], {"images": x[:1].numpy()})[0]
    np.testing.assert_allclose(found.logits[:1].sigmoid().numpy(), whole[..., 1:], atol=1e-5)


def test_two_gradients_agree_and_the_weights_stay(tmp_path):
    nodes, constants = split_nodes(11)
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants)
    detector = onnx_detector(path, PIXELS, ("a", "b"), 0.5, resize="stretch")
    before = copy.deepcopy(detector.module.state_dict())
    gradients = []
    for _ in range(2):
        x = images().requires_grad_()
        gradients.append(torch.autograd.grad(detector.candidates(x).logits.sum(), x)[0])
    y = images().requires_grad_()
    raw = reference(y)[0]
    p = raw.double().softmax(-1)
    (expected,) = torch.autograd.grad((p.log() - torch.log1p(-p))[..., 1:].sum(), y)
    assert torch.equal(*gradients)
    torch.testing.assert_close(gradients[0], expected, atol=1e-4, rtol=1e-4)
    detector(images())
    after = detector.module.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert not any(m.training for m in detector.module.modules())
    assert not any(p.requires_grad for p in detector.module.parameters())


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_black_box_shows_no_candidates_and_says_the_same(tmp_path, resize):
    nodes, constants = split_nodes(11)
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants)
    white, black = (onnx_detector(path, PIXELS, ("a", "b"), 0.5, resize=resize, white_box=w) for w in (True, False))
    assert isinstance(black, Detector)
    assert not isinstance(black, WhiteBoxDetector)
    assert not hasattr(black, "candidates")
    assert black.module is None
    assert black.files == white.files == (path,)
    x = images(4, 40, 20)
    for w, b in zip(white(x), black(x), strict=True):
        torch.testing.assert_close(w.boxes, b.boxes, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(w.scores, b.scores, atol=1e-4, rtol=1e-4)
        assert torch.equal(w.labels, b.labels)
        assert len(b.boxes) > 0
        assert b.boxes[:, 2].max() <= 20


@pytest.mark.parametrize("white_box", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_that_cannot_be_freed_is_served_one_by_one(tmp_path, batch, white_box):
    # channels and batch change places through a shape that says neither: no single rewriting is right at every batch
    n = (SIDE // 8) ** 2
    nodes = [
        node("Reshape", "head mixed", "m"),
        node("Reshape", "m back", "rows"),
        node("Transpose", "rows", "cells", perm=[0, 2, 1]),
        node("Slice", "cells zero k two", "raw"),
        node("Slice", "cells k end two", "boxes"),
        node("Softmax", "raw", "scores", axis=2),
    ]
    _, constants = split_nodes(11)
    constants |= {"mixed": np.array([n, -1]), "back": np.array([batch, K + 4, n])}
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants, dims=(batch, 3, SIDE, SIDE))
    detector = onnx_detector(path, PIXELS, ("a", "b"), 0.5, resize="stretch", white_box=white_box)
    x = images(3)
    raw, boxes = reference(x)
    if white_box:
        assert not detector.module.batched
        found = detector.candidates(x.requires_grad_())
        torch.testing.assert_close(found.boxes, boxes, atol=1e-4, rtol=1e-4)
        (gradient,) = torch.autograd.grad(found.logits.sum(), x)
        assert (gradient.abs().amax((1, 2, 3)) > 0).all()
    p = raw.softmax(-1)[..., 1:]
    for i, d in enumerate(detector(x.detach())):
        assert len(d.scores) == 0 or float(d.scores.max()) == pytest.approx(float(p[i].max()), abs=1e-4)


def test_a_file_without_a_fixed_size_takes_any(tmp_path):
    nodes = [node("Split", "head", "heat sizes offsets", axis=1, split=[3, 2, 2])]
    path = write(tmp_path / "net.onnx", nodes, ["heat", "sizes", "offsets"], dims=("N", 3, "H", "W"))
    heat = CenterHeatmap(stride=8)
    detector = onnx_detector(path, heat, ("x", "y", "z"), 0.5)
    for height, width in ((64, 32), (40, 96)):
        found = detector.candidates(images(2, height, width))
        assert found.logits.shape == (2, (height // 8) * (width // 8), 3)
        raw, _ = reference(images(2, height, width))
        torch.testing.assert_close(found.logits, raw, atol=1e-4, rtol=1e-4)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(o) for o in session.run(None, {"images": x.numpy()})]


def test_sigmoids_behind_shape_changes_are_taken_off(tmp_path):
    nodes = [
        node("Split", "head", "cls box", axis=1, split=[K, 4]),
        node("Sigmoid", "cls", "p"),
        node("Concat", "box p", "both", axis=1),
        node("Reshape", "both flat", "rows"),
        node("Transpose", "rows", "out", perm=[0, 2, 1]),
        node("Identity", "out", "again"),
    ]
    constants = {"flat": np.array([1, K + 4, -1])}
    path = write(tmp_path / "net.onnx", nodes, ["again"], constants)
    graph = served(path, strip=True)
    x = images(1)
    raw, boxes = reference(x)
    torch.testing.assert_close(run(graph.model, x)[0], torch.cat((boxes, raw), 2), atol=1e-4, rtol=1e-4)
    assert graph.activations == (frozenset(("Sigmoid",)),)
    assert not {"Sigmoid", "Relu"} & {n.op_type for n in graph.model.graph.node}
    assert graph.names == ("again",)
    assert graph.size == (SIDE, SIDE)
    whole = run(served(path, strip=False).model, x)[0]
    torch.testing.assert_close(whole[..., 4:], raw.sigmoid(), atol=1e-5, rtol=1e-5)


def test_a_sigmoid_that_is_also_computed_with_keeps_its_other_use(tmp_path):
    # YOLOv5's export: everything through one sigmoid, boxes computed from it, scores handed on
    nodes = [
        node("Sigmoid", "head", "s"),
        node("Split", "s", "cls box", axis=1, split=[K, 4]),
        node("Mul", "box eight", "decoded"),
        node("Concat", "decoded cls", "out", axis=1),
    ]
    path = write(tmp_path / "net.onnx", nodes, ["out"], {"eight": np.float32(8)})
    graph = served(path, strip=True)
    x = images(1)
    raw, boxes = reference(x)
    found = run(graph.model, x)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[..., :4], boxes.sigmoid() * 8, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[..., 4:], raw, atol=1e-4, rtol=1e-4)


def test_a_sigmoid_in_the_middle_of_the_network_stays(tmp_path):
    nodes = [node("Sigmoid", "head", "s"), node("Mul", "head s", "silu")]
    path = write(tmp_path / "net.onnx", nodes, ["silu"])
    graph = served(path, strip=True)
    assert graph.activations == (frozenset(),)
    raw, boxes = reference(images(1))
    expected = torch.nn.functional.silu(torch.cat((raw, boxes), 2))
    found = run(graph.model, images(1))[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def softmax_sliced(tmp_path):
    nodes, constants = split_nodes(11)
    nodes += [node("Slice", "scores one k two", "classes")]
    constants |= {"one": np.array([1])}
    return write(tmp_path / "net.onnx", nodes, ["classes", "boxes"], constants)


def test_a_softmax_that_lost_its_rivals_is_not_taken_for_logits(tmp_path):
    path = softmax_sliced(tmp_path)
    wrong = AnchorGrid(boxes="pixels", scores="softmax", background=None)
    with pytest.raises(ModelError, match="probabilities, since that Softmax is not the last thing"):
        onnx_detector(path, wrong, ("a", "b"), 0.5, resize="stretch")
    right = AnchorGrid(boxes="pixels", scores="probability", background=None)
    found = onnx_detector(path, right, ("a", "b"), 0.5, resize="stretch").candidates(images())
    p = reference(images())[0].double().softmax(-1)[..., 1:]
    torch.testing.assert_close(found.logits.sigmoid().double(), p, atol=1e-5, rtol=1e-4)


def test_a_decoder_of_the_owners(tmp_path):
    nodes, constants = split_nodes(11)
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants)
    seen = []

    def decoder(outputs):
        seen.append((outputs.names, outputs.size))
        scores, boxes = outputs
        return boxes, scores

    detector = onnx_detector(path, decoder, ("a", "b", "c"), 0.5, resize="stretch")
    torch.testing.assert_close(detector.candidates(images()).logits, reference(images())[0], atol=1e-4, rtol=1e-4)
    assert set(seen) == {(("scores", "boxes"), (SIDE, SIDE))}


def test_weights_beside_the_file_are_among_its_files(tmp_path):
    nodes, constants = split_nodes(11)
    save = {"save_as_external_data": True, "location": "net.weights", "size_threshold": 0}
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants, save=save)
    detector = onnx_detector(path, PIXELS, ("a", "b"), 0.5, resize="stretch")
    assert detector.files == (path, tmp_path / "net.weights")
    raw, _ = reference(images())
    torch.testing.assert_close(
        detector.candidates(images()).logits[..., 0].sigmoid(), raw.softmax(-1)[..., 1], atol=1e-4, rtol=1e-4
    )


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    nodes, constants = split_nodes(11)
    path = write(tmp_path / "net.onnx", nodes, ["scores", "boxes"], constants)
    real = importlib.import_module

    def without(name, *args):
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named '{name}'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    for missing in ("onnx", "onnxruntime", "onnx2torch"):
        with pytest.raises(ModelError, match=r"assay-audit\[onnx\]") as told:
            onnx_detector(path, PIXELS, ("a", "b"), 0.5, resize="stretch")
        assert missing in str(told.value)


def bad(tmp_path, name):
    nodes, constants = split_nodes(11)
    path = tmp_path / "net.onnx"
    if name == "text":
        path.write_text("not a network")
    elif name == "missing":
        path = tmp_path / "nowhere.onnx"
    elif name == "two inputs":
        more = [helper.make_tensor_value_info("more", TensorProto.FLOAT, (1,))]
        write(path, nodes, ["scores", "boxes"], constants, inputs=more)
    elif name == "channels last":
        write(path, [node("Transpose", "pictures", "images", perm=[0, 3, 1, 2])], [], dims=(1, 3, 32, 32))
        model = helper.make_model(
            helper.make_graph(
                [node("Relu", "images", "out")],
                "g",
                [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 320, 320, 3))],
                [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            ),
            opset_imports=[helper.make_opsetid("", 11)],
        )
        onnx.save(model, str(path))
    elif name == "half":
        model = helper.make_model(
            helper.make_graph(
                [node("Relu", "images", "out")],
                "g",
                [helper.make_tensor_value_info("images", TensorProto.FLOAT16, (1, 3, 32, 32))],
                [helper.make_tensor_value_info("out", TensorProto.FLOAT16, None)],
            ),
            opset_imports=[helper.make_opsetid("", 11)],
        )
        onnx.save(model, str(path))
    elif name == "in circles":
        write(path, [node("Add", "scores head", "boxes"), node("Add", "boxes head", "scores")], ["scores", "boxes"])
    elif name == "unknown to onnx2torch":
        write(path, [*nodes, node("Shrink", "boxes", "shrunk")], ["scores", "shrunk"], constants)
    elif name == "another size":
        write(path, nodes, ["scores", "boxes"], constants | {"flat": np.array([1, K + 4, 16])})
    else:
        write(path, nodes, ["scores", "boxes"], constants)
    return path


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("text", {}, "a valid ONNX model"),
        ("missing", {}, "no such file"),
        ("two inputs", {}, "one input, the images"),
        ("channels last", {}, "(1, 320, 320, 3)"),
        ("half", {}, "float32 input"),
        ("in circles", {}, "onnxruntime can run"),
        ("unknown to onnx2torch", {}, "white_box=False"),
        ("good", {"resize": None}, "how images reach the network's size of 32x32"),
        ("good", {"decoder": "ssd"}, "takes Outputs"),
        ("good", {"classes": ("a", "b", "c")}, "(2, 16, 3)"),
        ("good", {"decoder": AnchorGrid(strides=(8,), min_sizes=((9, 12),))}, "32 anchors"),
        ("good", {"score_threshold": 2}, "from 0 to 1"),
        ("good", {"swap": True}, "swap"),
        ("another size", {"input_size": (64, 64)}, "a graph that runs on input of shape (1, 3, 64, 64)"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_sentence(tmp_path, name, arguments, words):
    given = {"decoder": PIXELS, "classes": ("a", "b"), "score_threshold": 0.5, "resize": "stretch"} | arguments
    with pytest.raises(ModelError) as told:
        onnx_detector(bad(tmp_path, name), **given)
    assert words in str(told.value)
    assert "\n" not in str(told.value)
