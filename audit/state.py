"""The audited model's own state: which torch modules it stands on, their digest, and freezing them for a while."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_DEPTH = 5
_PLAIN = (str, bytes, int, float, complex, bool, type(None), Tensor, torch.device, torch.dtype, type, types.ModuleType)


def modules_of(*roots: object) -> list[nn.Module]:
    """Every torch module that an object stands on, outermost ones only, each once.

    Looks at the object itself, its attributes, containers, ``functools.partial``, and what its functions close over
    or name among their globals, to a depth of five.
    """
    found: list[nn.Module] = []
    seen: set[int] = set()
    queue: list[tuple[object, int]] = [(root, 0) for root in roots]
    while queue:
        thing, depth = queue.pop(0)
        if isinstance(thing, _PLAIN) or id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found.append(thing)
        if depth < _DEPTH:
            queue += [(part, depth + 1) for part in _parts(thing)]
    inner = {id(m) for outer in found for m in outer.modules() if m is not outer}
    return [m for m in found if id(m) not in inner]


def state_digest(modules: Iterable[nn.Module]) -> str:
    """sha256 over every parameter and buffer (name, type, shape, bytes), ``requires_grad`` and ``training`` flag.

    Returns:
        64 hex digits; equal before and after exactly where nothing of the model's state was changed.
    """
    h = hashlib.sha256()
    for i, module in enumerate(modules):
        for name, part in module.named_modules(remove_duplicate=False):
            h.update(f"{i}\0{name}\0{part.training}\n".encode())
        for name, parameter in module.named_parameters(remove_duplicate=False):
            h.update(f"{i}\0{name}\0{parameter.requires_grad}\0".encode())
            _add(h.update, parameter)
        for name, buffer in module.named_buffers(remove_duplicate=False):
            h.update(f"{i}\0{name}\0".encode())
            _add(h.update, buffer)
    return h.hexdigest()


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode and weights without gradient inside; flags exactly as before outside, whatever happens."""
    parts = {id(p): p for m in modules for p in m.modules()}
    weights = {id(w): w for p in parts.values() for w in p.parameters(recurse=False)}
    modes = [(part, part.training) for part in parts.values()]
    wanted = [(weight, weight.requires_grad) for weight in weights.values()]
    try:
        for part, _ in modes:
            # The flag alone: a module's own train() may do more than set it, and could not be undone.
            part.training = False
        for weight, had in wanted:
            if had:
                weight.requires_grad_(False)
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for weight, had in wanted:
            if weight.requires_grad != had:
                weight.requires_grad_(had)


def _add(update: Callable[[bytes], None], tensor: Tensor) -> None:
    update(f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return
    whole = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    whole = whole.dequantize() if whole.is_quantized else whole
    update(whole.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _parts(thing: object) -> list[object]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, types.FunctionType):
        return _of_function(thing)
    parts = list(_attributes(thing).values())
    call = getattr(type(thing), "__call__", None)  # noqa: B004 the function behind a call, not whether there is one
    if isinstance(call, types.FunctionType):
        parts.append(call)
    return parts


def _of_function(function: types.FunctionType) -> list[object]:
    parts: list[object] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            parts.append(cell.cell_contents)
        except ValueError:  # a cell that was never filled
            continue
    if _is_library(function.__module__):
        return parts
    return parts + [function.__globals__[n] for n in function.__code__.co_names if n in function.__globals__]


def _attributes(thing: object) -> dict[str, Any]:
    if isinstance(thing, nn.Module):
        # Submodules are reached through the module itself.
        return {k: v for k, v in vars(thing).items() if k not in {"_modules", "_parameters", "_buffers"}}
    slots = {s for kind in type(thing).__mro__ for s in _slots(kind)}
    return {**getattr(thing, "__dict__", {}), **{s: getattr(thing, s) for s in slots if hasattr(thing, s)}}


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(s for s in slots if not s.startswith("__"))


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in {"torch", "torchvision", "numpy", "onnxruntime", "audit"}
