"""Causal attention over short sequences in bfloat16 on a CPU by products of matrices.

There torch's fused kernel is slower (`python -m benchmarks attention`). Scores and softmax are in float32, as in that
kernel; the other products are in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LONGEST = 256  # steps, up to which this is the faster way


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of as many queries as keys, each over those up to its own: (..., L, head size)."""
    flat = (part.flatten(0, -3) for part in (q, k, v))
    with torch.autocast("cpu", enabled=False):  # which would take the scores to bfloat16
        attended: Tensor = _CausalAttention.apply(*flat)
    return attended.view_as(q)


def is_faster(q: Tensor, steps: int, dropout: float) -> bool:
    """Whether `causal_attention` is for such queries, of a sequence of so many steps."""
    short_on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16 and steps <= LONGEST
    return short_on_cpu and dropout == 0 and not torch.compiler.is_compiling()


class _CausalAttention(torch.autograd.Function):
    """o = p v for p = softmax(s), s = q k^T / sqrt(size); ds = p (do v^T - sum(do o))."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        future = torch.full((q.shape[1], q.shape[1]), -torch.inf).triu_(1)
        scores = torch.baddbmm(future, q.float(), k.float().mT, alpha=q.shape[-1] ** -0.5)
        weights = scores.softmax(-1).to(v.dtype)
        out = torch.bmm(weights, v)
        ctx.save_for_backward(q, k, v, weights, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, weights, out = ctx.saved_tensors
        mean = (gradient.float() * out.float()).sum(-1, keepdim=True)
        of_weights = torch.bmm(gradient, v.mT).float()
        of_scores = of_weights.sub_(mean).mul_(q.shape[-1] ** -0.5).to(q.dtype).mul_(weights)
        return torch.bmm(of_scores, k), torch.bmm(of_scores.mT, q), torch.bmm(weights.mT, gradient)
