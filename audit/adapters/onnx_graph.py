"""Surgery on ONNX files: read, free the sizes, hand out logits instead of probabilities, upgrade the opset."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.adapters.checks import readable, refuse

MOVES = frozenset(("Concat", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"))
PICKS = frozenset(("Slice", "Split", "Gather"))  # these lose a softmax's rivals, without which a logit says nothing
ACTIVATIONS = frozenset(("Sigmoid", "Softmax"))


def package(name: str) -> Any:
    """An optional package, or the sentence that says which extra has it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        return refuse(
            "onnx_detector",
            f"the package {name.split('.', maxsplit=1)[0]}",
            f"none that can be imported ({error})",
            "install the extra: pip install 'assay-audit[onnx]'",
        )


@dataclass(frozen=True, slots=True)
class Served:
    """An ONNX model as it is served here.

    Attributes:
        model: the ModelProto, sizes free, outputs as decoders receive them. names: its outputs' names in the file.
        activations: per output, the final activations that were taken off. size: (height, width) that the file
            declares, None where free. batch: the batch that the file declares, None where free.
        files: the file and those that hold its weights.
    """

    model: Any
    names: tuple[str, ...]
    activations: tuple[frozenset[str], ...]
    size: tuple[int, int] | None
    batch: int | None
    files: tuple[Path, ...]


def served(path: str | Path, *, strip: bool) -> Served:
    """Read a file; with ``strip``, final Sigmoid and Softmax nodes are taken off its outputs.

    Raises:
        ModelError: the file cannot be read, or is not a network of one float32 image batch (N, 3, H, W).
    """
    onnx = package("onnx")
    (path,) = readable([path])
    try:
        model = onnx.load(str(path), load_external_data=False)
        helper = importlib.import_module("onnx.external_data_helper")
        named = {
            entry.value
            for t in model.graph.initializer
            if helper.uses_external_data(t)
            for entry in t.external_data
            if entry.key == "location"
        }
        files = readable([path, *(path.parent / name for name in sorted(named))])
        helper.load_external_data_for_model(model, str(path.parent))
    except (ValueError, OSError, _decode_error()) as error:
        refuse(f"ONNX file {path}", "a valid ONNX model", _first_line(error), "export it again")
    weights = {t.name for t in model.graph.initializer}
    for value in [v for v in model.graph.input if v.name in weights]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, 4)  # before 4, weights had to be inputs as well
    batch, size = _declared(path, model)
    names = tuple(o.name for o in model.graph.output)
    activations = _outputs(model, strip=strip)
    _free_sizes(model)
    return Served(model, names, activations, size, batch, files)


def upgraded(model: Any, opset: int) -> Any:
    """The model in another opset."""
    converter = importlib.import_module("onnx.version_converter")
    return converter.convert_version(model, opset)


def opset_of(model: Any) -> int:
    """The version of the standard operators."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def batch_free(model: Any, batch: int | None) -> Any:
    """A copy whose Reshapes no longer fix the batch to ``batch``.

    A target that begins with the batch gets 0 there (copy the input's size); one that folds the batch into its first
    entry, as channel shuffles do, gets -1 where it has none yet. Whether that was right is for the caller to verify.
    """
    onnx = package("onnx")
    copy = type(model)()
    copy.CopyFrom(model)
    if batch is None:
        return copy
    constants = {t.name: t for t in copy.graph.initializer}
    for node in copy.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    for i, node in enumerate(copy.graph.node):
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        target = onnx.numpy_helper.to_array(constants[node.input[1]]).copy()
        if node.input[0] in constants or len(target) < 2 or 0 in target:
            continue
        if target[0] == batch:
            target[0] = 0
        elif -1 not in target:
            target[0] = -1
        else:
            continue
        name = f"assay_shape_{i}"
        copy.graph.initializer.append(onnx.numpy_helper.from_array(target, name))
        node.input[1] = name
    return copy


def _declared(path: Path, model: Any) -> tuple[int | None, tuple[int, int] | None]:
    inputs = model.graph.input
    if len(inputs) != 1:
        refuse(f"ONNX file {path}", "one input, the images", f"{len(inputs)}", "export the network alone")
    kind = inputs[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim]
    if len(dims) != 4 or dims[1] not in (3, None):
        refuse(
            f"ONNX file {path}",
            "an input (N, 3, H, W)",
            "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")",
            "export it with channels first and RGB or BGR images",
        )
    if kind.elem_type != package("onnx").TensorProto.FLOAT:
        refuse(f"ONNX file {path}", "a float32 input", f"element type {kind.elem_type}", "export it in float32")
    size = (dims[2], dims[3])
    return dims[0], size if None not in size else None  # type: ignore[return-value]


def _free_sizes(model: Any) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for i, name in ((0, "N"), (2, "H"), (3, "W")):
        dims[i].dim_param = name
    # what the exporter inferred for its own sizes no longer holds
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _outputs(model: Any, *, strip: bool) -> tuple[frozenset[str], ...]:
    """Give every output a node of its own, reached past final activations; drop what nothing needs any more."""
    onnx = package("onnx")
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    moved: dict[str, str] = {}
    cloned: dict[str, str] = {}
    seen: dict[str, frozenset[str]] = {}

    def before(name: str) -> tuple[str, frozenset[str]]:
        """The tensor as it is before final activations, and which they were; movers on the way are cloned."""
        if name in moved:
            return moved[name], seen[name]
        node, new, kinds = maker.get(name), name, frozenset[str]()
        moved[name], seen[name] = new, kinds  # ends the walk where a broken file goes in circles
        if node is not None and node.op_type in ACTIVATIONS:
            new, kinds = node.input[0], frozenset((node.op_type,))
        elif node is not None and node.op_type in MOVES | PICKS:
            data = len(node.input) if node.op_type == "Concat" else 1
            parts = [before(n) for n in node.input[:data]]
            kinds = frozenset[str]().union(*(k for _, k in parts))
            if node.op_type in PICKS and "Softmax" in kinds:
                kinds = frozenset()
            if kinds:
                outputs = [f"{o}_assay" if o else "" for o in node.output]
                if outputs[0] not in cloned:
                    clone = onnx.NodeProto()
                    clone.CopyFrom(node)
                    clone.name = f"{node.name or node.output[0]}_assay"
                    clone.input[:data] = [n for n, _ in parts]
                    clone.output[:] = outputs
                    graph.node.append(clone)
                    cloned[outputs[0]] = clone.name
                new = f"{name}_assay"
        moved[name], seen[name] = new, kinds
        return new, kinds

    found = []
    for i, output in enumerate(graph.output):
        source, kinds = before(output.name) if strip else (output.name, frozenset[str]())
        graph.node.append(onnx.helper.make_node("Identity", [source], [f"assay_output_{i}"], name=f"assay_output_{i}"))
        output.name = f"assay_output_{i}"
        found.append(kinds)
    _prune(graph)
    return tuple(found)


def _prune(graph: Any) -> None:
    """Keep the nodes that an output needs, in an order in which each comes after its inputs."""
    maker = {name: node for node in graph.node for name in node.output}
    placed: dict[int, Any] = {}
    opened: set[int] = set()
    for output in graph.output:
        stack = [(output.name, False)]
        while stack:
            name, ready = stack.pop()
            node = maker.get(name)
            if node is None or id(node) in placed:
                continue
            if ready:
                placed[id(node)] = node
            elif id(node) not in opened:
                opened.add(id(node))
                stack.append((name, True))
                stack.extend((n, False) for n in node.input)
    keep = []
    for node in placed.values():
        copy = type(node)()
        copy.CopyFrom(node)
        keep.append(copy)
    del graph.node[:]
    graph.node.extend(keep)
    used = {n for node in keep for n in node.input} | {o.name for o in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _decode_error() -> type[Exception]:
    return importlib.import_module("google.protobuf.message").DecodeError  # type: ignore[no-any-return]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
