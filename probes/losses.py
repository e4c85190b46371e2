"""How smooth and how printable a patch is: total variation and the non-printability score (papers 000 and 002; D15)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from audit.errors import AuditError

_SMOOTH = 1e-6
"""Rounds the root off at zero: √(d² + s²) − s is 0 for d = 0 with a finite gradient, and at most s below d."""
_CHUNK = 1 << 21
"""Distances between texels and colours that are held at once."""

Form = Literal["root", "squared"]


def total_variation(p: Tensor, *, form: Form = "root", mean: bool = False) -> Tensor:
    """How much neighbouring texels differ (paper 000, eq. 11).

    Σ over texels and channels of √((p_ij − p_i+1,j)² + (p_ij − p_i,j+1)²); with ``squared`` the same sum without the
    root (§3.3.3). A channel counts as a picture of its own. In the last row and in the last column there is no
    neighbour on one side, and that difference is zero.

    Args:
        p: (C, P, Q), any range, usually [0, 1].
        form: ``root`` or ``squared``.
        mean: divide by the number of texels P·Q.

    Returns:
        A scalar ≥ 0. Each root is at most 1e-6 below its exact value, so that the gradient is finite at flat places.

    Raises:
        AuditError: not three dimensions, no texels, or an unknown form.
    """
    _check(p, "the patch whose variation is asked for")
    if form not in ("root", "squared"):
        raise AuditError("form of the total variation", expected="root or squared", got=repr(form), mend="correct it")
    down = torch.zeros_like(p)
    right = torch.zeros_like(p)
    down[:, :-1] = p[:, :-1] - p[:, 1:]
    right[:, :, :-1] = p[:, :, :-1] - p[:, :, 1:]
    square = down.square() + right.square()
    total = square.sum() if form == "squared" else _root(square).sum()
    return total / (p.shape[1] * p.shape[2]) if mean else total


def non_printability(p: Tensor, colours: Tensor, *, mean: bool = False) -> Tensor:
    """How far a patch is from a list of printable colours (paper 000, eq. 12).

    Σ over texels of min over c of |p_ij − c|, the Euclidean distance in RGB. Memory is linear in the texels, whatever
    the number of colours.

    Args:
        p: (3, P, Q) in [0, 1]. colours: (C, 3) in [0, 1], C ≥ 1; e.g. ``probes.printing.PRINTABLE``.
        mean: divide by the number of texels P·Q.

    Returns:
        A scalar ≥ 0; 0 where every texel is printable. The gradient points away from the nearest colour (of several
        nearest ones, to rounding, any) and is 0 on it. Each distance is at most 1e-6 below its exact value.

    Raises:
        AuditError: a patch that is not (3, P, Q), or a list that is not (C, 3).
    """
    _check(p, "the patch whose printability is asked for", channels=3)
    if colours.ndim != 2 or colours.shape[1] != 3 or not len(colours):
        raise AuditError(
            "printable colours",
            expected="a tensor (C, 3) of at least one colour",
            got=f"shape {tuple(colours.shape)}",
            mend="hand in a list as probes.printing.printable_colours reads it",
        )
    texels, colours = p.flatten(1).T, colours.to(p)
    with torch.no_grad():
        step = max(1, _CHUNK // len(colours))
        chunks = [texels[i : i + step] for i in range(0, len(texels), step)]
        nearest = torch.cat(
            [(colours.square().sum(1) - 2 * c @ colours.T).argmin(1) for c in chunks]  # less |texel|², which all share
        )
    total = _root((texels - colours[nearest]).square().sum(1)).sum()
    return total / len(texels) if mean else total


def _root(square: Tensor) -> Tensor:
    return (square + _SMOOTH**2).sqrt() - _SMOOTH


def _check(p: Tensor, subject: str, channels: int | None = None) -> None:
    if p.ndim != 3 or not p.numel() or (channels is not None and p.shape[0] != channels):
        raise AuditError(
            subject,
            expected=f"a picture ({channels or 'C'}, P, Q) with at least one texel",
            got=f"shape {tuple(p.shape)}",
            mend="hand in the texels of one patch",
        )
