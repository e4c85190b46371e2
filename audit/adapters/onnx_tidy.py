"""Make a converted network cheaper without changing what it computes.

onnx2torch keeps shapes as tensors: on a GPU each Reshape, Slice and Resize then waits for the device to tell the host
a number that was known beforehand. Constants become plain numbers here, and x * sigmoid(x) becomes one operation, which
keeps one tensor less for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

Slices = tuple[tuple[int, int, int, int], ...]


def tidied(net: fx.GraphModule) -> fx.GraphModule:
    """The network with constant shapes inlined and SiLU fused; changed in place and returned."""
    for node in list(net.graph.nodes):
        kind = _kind(net, node)
        new = None
        if kind == "OnnxReshape":
            new = _reshape(net, node)
        elif kind == "OnnxSlice":
            new = _slice(net, node)
        elif kind == "OnnxResize":
            new = _resize(net, node)
        elif kind == "OnnxBinaryMathOperation":
            new = _silu(net, node)
        if new is not None:
            function, args = new
            with net.graph.inserting_before(node):
                node.replace_all_uses_with(net.graph.call_function(function, args))
            net.graph.erase_node(node)
    net.graph.eliminate_dead_code()
    net.delete_all_unused_submodules()
    net.recompile()
    return net


def reshape(x: Tensor, target: Sequence[int]) -> Tensor:
    """ONNX Reshape: 0 copies the input's size."""
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(target)])


def take(x: Tensor, slices: Slices) -> Tensor:
    """ONNX Slice with positive steps: (axis, start, end, step) each, bounds cut off at the axis's length."""
    index = [slice(None)] * x.ndim
    for axis, start, end, step in slices:
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def resize(x: Tensor, scales: Sequence[float], mode: str, align_corners: bool | None) -> Tensor:
    """ONNX Resize by constant scales."""
    return F.interpolate(x, scale_factor=list(scales), mode=mode, align_corners=align_corners)


def _reshape(net: fx.GraphModule, node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    target = _constant(net, node.args[1])
    return None if target is None else (reshape, (node.args[0], tuple(int(n) for n in target)))


def _slice(net: fx.GraphModule, node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    given = dict(zip(("x", "starts", "ends", "axes", "steps"), node.args, strict=False)) | node.kwargs
    parts = {k: _constant(net, given[k]) for k in ("starts", "ends", "axes", "steps") if given.get(k) is not None}
    if any(v is None for v in parts.values()):
        return None
    starts = [int(n) for n in parts["starts"]]  # type: ignore[union-attr]
    axes = [int(n) for n in parts.get("axes", range(len(starts)))]  # type: ignore[union-attr]
    steps = [int(n) for n in parts.get("steps", [1] * len(starts))]  # type: ignore[union-attr]
    ends = [int(n) for n in parts["ends"]]  # type: ignore[union-attr]
    if min(steps) < 1:
        return None
    return take, (node.args[0], tuple(zip(axes, starts, ends, steps, strict=True)))


def _resize(net: fx.GraphModule, node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    given = dict(zip(("x", "roi", "scales", "sizes"), node.args, strict=False)) | node.kwargs
    scales, sizes = _constant(net, given.get("scales")), given.get("sizes")
    known = sizes is None or (_constant(net, sizes) is not None and not len(_constant(net, sizes)))  # type: ignore[arg-type]
    module: Any = net.get_submodule(str(node.target))
    if scales is None or len(scales) != 4 or not known or [float(s) for s in scales[:2]] != [1.0, 1.0]:
        return None
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}.get(module.onnx_mode)
    if mode is None:
        return None
    return resize, (node.args[0], tuple(float(s) for s in scales[2:]), mode, module.align_corners)


def _silu(net: fx.GraphModule, node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    module: Any = net.get_submodule(str(node.target))
    if getattr(module, "math_op_function", None) is not torch.mul or len(node.args) != 2:
        return None
    for x, gate in (node.args, node.args[::-1]):
        if isinstance(gate, fx.Node) and _kind(net, gate) == "Sigmoid" and gate.args == (x,) and len(gate.users) == 1:
            return F.silu, (x,)
    return None


def _kind(net: fx.GraphModule, node: fx.Node) -> str:
    return type(net.get_submodule(str(node.target))).__name__ if node.op == "call_module" else node.op


def _constant(net: fx.GraphModule, value: Any) -> Tensor | None:
    """The tensor behind a graph node, where it is a constant."""
    if not isinstance(value, fx.Node):
        return None
    if value.op == "get_attr":
        owner, _, name = str(value.target).rpartition(".")
        found = getattr(net.get_submodule(owner), name)
    elif _kind(net, value) == "OnnxConstant":
        found = net.get_submodule(str(value.target)).value
    else:
        return None
    return found if isinstance(found, Tensor) else None
