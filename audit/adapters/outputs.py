"""What decoders are handed: a network's raw outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from audit.adapters.checks import refuse


@dataclass(frozen=True)
class Outputs(Sequence[Tensor]):
    """A network's outputs in the file's order.

    Attributes:
        tensors: float32. names: as in the file. size: (height, width) of the network's input.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    size: tuple[int, int]

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return self.tensors[index]

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def pick(self, decoder: str, index: int) -> Tensor:
        """The output at ``index``, or the sentence that says there is none."""
        if not -len(self) <= index < len(self):
            refuse(
                f"decoder {decoder}",
                f"an output number {index}",
                f"{len(self)} outputs ({', '.join(self.names)})",
                "say which output is which in the decoder's arguments",
            )
        return self.tensors[index]


def joined(decoder: str, outputs: Outputs, which: Sequence[int], columns: int | None) -> Tensor:
    """Outputs (N, A, K) or (N, anchors * K, h, w), in order row, column, anchor, as one (N, A, K)."""
    parts = []
    for i in which:
        t = outputs.pick(decoder, i)
        if t.ndim == 4 and columns is not None and t.shape[1] % columns == 0:
            t = t.permute(0, 2, 3, 1).reshape(len(t), -1, columns)
        elif t.ndim == 2:
            t = t[..., None]
        if t.ndim != 3 or (columns is not None and t.shape[-1] != columns):
            refuse(
                f"decoder {decoder}",
                f"output {outputs.names[i]} as (N, A, {columns or 'K'})",
                f"{tuple(t.shape)}",
                "choose other outputs, or hand in a decoder function",
            )
        parts.append(t)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        refuse(name, " or ".join(map(repr, choices)), repr(value), "choose one of those")
