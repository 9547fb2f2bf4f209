"""Floating-point operations that a training step cannot do without, and those a second that the device can do at best.

A multiplication and an addition count as two. Counted are matrix products, convolutions at the size that is executed,
and attention, of which causality needs half the square: two products forward, four backward. What a kernel computes
anew in the backward pass, and all elementwise work, counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measurement import seconds

Shape = tuple[int, ...]

SIDE = 2048


def operations(loss: Callable[[], Tensor]) -> int:
    """Of computing the loss and its gradients on the CPU, for one example.

    Of one, since then the likelihood of text keeps its logits and has none to compute anew; a batch of B takes B times
    as many.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    counting = {attention: _attention, backward: _attention_backward}
    with FlopCounterMode(display=False, custom_mapping=counting) as counter:
        loss().backward()
    return counter.get_total_flops()


def ceiling(device: torch.device, dtype: torch.dtype, side: int = SIDE) -> Callable[[], float]:
    """A timer: the seconds of one operation in a product of two square matrices."""
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: seconds(partial(torch.mm, a, b, out=out), device, calls=3) / (2 * side**3)


def _attention(
    q: Shape, k: Shape, v: Shape, dropout: float = 0.0, causal: bool = False, **options: Any
) -> int:  # (B, heads, L, size) each
    assert not dropout
    rectangle = 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])
    return rectangle // 2 if causal or options.get("attn_mask") is not None else rectangle  # every mask is causal here


def _attention_backward(
    gradient: Shape, q: Shape, k: Shape, v: Shape, out: Shape, lse: Shape, dropout: float, causal: bool, **options: Any
) -> int:
    del gradient, out, lse
    return 2 * _attention(q, k, v, dropout, causal, **options)
