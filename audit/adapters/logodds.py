"""Log-odds of scores, computed from the model's own logits so that they neither saturate nor overflow.

The log-odds of a probability p are ``log p - log(1 - p)``. A confident detector says p = 1 - 1e-9: in float32 that is
1, and its gradient is 0. The functions here never form p.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LOG_HALF = math.log(0.5)
_FLOOR, _CEILING = 1e-30, 1 - 2.0**-25  # the least a float32 score tells apart from 0, the most from 1


def from_softmax(logits: Tensor, dim: int = -1) -> Tensor:
    """Log-odds of each class's softmax probability against all others: ``s_c - logsumexp(s_j, j != c)``.

    Args:
        logits: any shape, at least two classes along ``dim``.

    Returns:
        The same shape. For the best class the rivals are summed without it; for the others, whose probability is at
        most one half, the sum of all less their own share is exact enough.
    """
    if logits.shape[dim] == 2:
        first, second = logits.unbind(dim)
        return torch.stack((first - second, second - first), dim)
    best = logits.argmax(dim, keepdim=True)
    rivals = logits.scatter(dim, best, -math.inf).logsumexp(dim, keepdim=True)
    total = torch.logaddexp(logits.gather(dim, best), rivals)
    share = (logits - total).scatter(dim, best, -math.inf).exp()
    # the bound holds by construction; it only keeps rounding (a tie for best) from log(0)
    rest = total + torch.log1p(-share.clamp(max=0.75))
    return logits - rest.scatter(dim, best, 0.0) - torch.zeros_like(rest).scatter(dim, best, rivals)


def from_product(a: Tensor, b: Tensor) -> Tensor:
    """Log-odds of ``sigmoid(a) * sigmoid(b)``: ``-log(exp(s) - 1)`` with ``s = softplus(-a) + softplus(-b) = -log p``.

    Shapes broadcast. Exact where a or b is below 85; beyond, where 1 - p underflows in float32, constant.
    """
    s = (F.softplus(-a) + F.softplus(-b)).clamp(min=torch.finfo(a.dtype).tiny)
    return -(s + torch.log(-torch.expm1(-s)))


def from_root_product(a: Tensor, b: Tensor) -> Tensor:
    """Log-odds of ``sqrt(sigmoid(a) * sigmoid(b))``, FCOS's score. Shapes broadcast.

    With p the product and L its log-odds: ``L - log(p) / 2 + log(1 + sqrt(p))``, since 1 - p is
    (1 - sqrt p)(1 + sqrt p).
    """
    log_p = F.logsigmoid(a) + F.logsigmoid(b)
    return from_product(a, b) - log_p / 2 + torch.log1p(torch.exp(log_p / 2))


def from_log_probability(log_p: Tensor) -> Tensor:
    """Log-odds of ``exp(log_p)``, for scores that are other products or powers; log_p <= 0, any shape.

    ``log(1 - p)`` is taken as ``log(-expm1(log_p))`` near 0 and ``log1p(-exp(log_p))`` elsewhere.
    """
    log_p = log_p.clamp(max=-torch.finfo(log_p.dtype).tiny)
    near = log_p > _LOG_HALF
    close = torch.log(-torch.expm1(torch.where(near, log_p, _LOG_HALF)))
    far = torch.log1p(-torch.exp(torch.where(near, _LOG_HALF, log_p)))
    return log_p - torch.where(near, close, far)


def from_probability(p: Tensor) -> Tensor:
    """Log-odds of a probability that is all the model gives: clamped to [1e-30, 1 - 2**-25], computed in float64.

    Saturated scores keep a finite value here but have lost their gradient; prefer the model's logits.
    """
    wide = p.double().clamp(_FLOOR, _CEILING)
    return (wide.log() - torch.log1p(-wide)).to(torch.float32)
