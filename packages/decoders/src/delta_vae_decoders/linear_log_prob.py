"""Log-probabilities of tokens straight from features: the logits of a large vocabulary are never held as a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of the logits: up to so many are kept for the gradient; beyond, they are computed anew, rows by rows.
KEPT = 2**25
AT_ONCE = 2**21


def linear_log_prob(features: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """ln softmax(features weight^T) at x, in nats, float32 (float64 of float64): (N, H), (V, H), (N,) -> (N,).

    The product is in autocast's precision where that is on; all else is in float32.
    """
    device = features.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        log_prob: Tensor = _LinearLogProb.apply(features, weight.to(features.dtype), x)
    return log_prob


class _LinearLogProb(torch.autograd.Function):
    """ln p = (l_x - m) - ln s for logits l = features weight^T, m = max l, s = sum exp(l - m); dl = g (onehot(x) - p).

    Some rows at a time. Saved are the logits, if they are few, with m and s: of their logsumexp, m + ln s, a large m
    would leave no digits to ln s.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        count, vocabulary = len(features), len(weight)
        exact = torch.promote_types(features.dtype, torch.float32)
        log_prob, largest, total = (features.new_empty(count, dtype=exact) for _ in range(3))
        keep = count * vocabulary <= KEPT and any(ctx.needs_input_grad)
        kept = features @ weight.t() if keep else None
        for rows in _parts(count, vocabulary):
            logits = (features[rows] @ weight.t() if kept is None else kept[rows]).to(exact)
            largest[rows] = logits.amax(1)
            total[rows] = (logits - largest[rows, None]).exp_().sum(1)
            log_prob[rows] = logits.gather(1, x[rows, None])[:, 0] - largest[rows] - total[rows].log()
        ctx.save_for_backward(features, weight, x, largest, total, kept)
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight, x, largest, total, kept = ctx.saved_tensors
        of_features = torch.empty_like(features)
        of_weight = torch.zeros_like(weight, dtype=total.dtype)
        share = gradient / total
        for rows in _parts(len(features), len(weight)):
            logits = features[rows] @ weight.t() if kept is None else kept[rows]
            of_logits = (logits - largest[rows, None]).exp_().mul_(-share[rows, None])
            of_logits.scatter_add_(1, x[rows, None], gradient[rows, None])
            of_logits = of_logits.to(features.dtype)
            torch.mm(of_logits, weight, out=of_features[rows])
            of_weight += of_logits.t() @ features[rows]
        return of_features, of_weight.to(weight.dtype), None


def _parts(count: int, vocabulary: int) -> list[slice]:
    size = max(1, AT_ONCE // vocabulary)
    return [slice(start, start + size) for start in range(0, count, size)]
