"""Rotary positions, and the split of a fused projection into heads that carry them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Rotary:
    """Rotary positions (Su et al. 2021): features (i, i + head_size / 2) turn by step * 10000^(-2i / head_size)."""

    def __init__(self, steps: Tensor, head_size: int) -> None:
        exponent = torch.arange(0, head_size, 2, device=steps.device, dtype=torch.float32) / head_size
        angle = steps[:, None].float() * 10000.0**-exponent
        self.cos, self.sin = angle.cos(), angle.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """(..., L, head size) -> the same, turned."""
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def split_heads(x: Tensor, num_heads: int, parts: int = 1, rotary: Rotary | None = None) -> tuple[Tensor, ...]:
    """A projection (B, L, parts H) as `parts` of (B, heads, L, H / heads).

    The last of several parts holds values; all others, or a single one, are turned by `rotary` if it is given.
    """
    split = x.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4)
    if rotary is None:
        return split.unbind()
    turned = max(1, parts - 1)
    if torch.compiler.is_compiling():  # which fuses the plain expression
        return *rotary(split[:turned]).unbind(), *split[turned:].unbind()
    parts_of: tuple[Tensor, ...] = _TurnedParts.apply(split, rotary.cos.to(x.dtype), rotary.sin.to(x.dtype), turned)
    return parts_of


class _TurnedParts(torch.autograd.Function):
    """The first `turned` of the parts of (P, B, heads, L, size) turned, in as few passes over memory as can be.

    A turn by -angle is the gradient of a turn by angle. The parts come out contiguous, as attention reads them fastest,
    and their gradients go straight into one tensor in the memory order of the projection.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        ctx.turned = turned
        parts = [x.new_empty(x.shape[1:]) for _ in x]
        for i, part in enumerate(parts):
            _turn(x[i], cos, sin, part) if i < turned else part.copy_(x[i])
        return tuple(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        batch, heads, steps, size = gradients[0].shape
        packed = gradients[0].new_empty(batch, steps, len(gradients), heads, size).permute(2, 0, 3, 1, 4)
        for i, gradient in enumerate(gradients):
            _turn(gradient, cos, -sin, packed[i]) if i < ctx.turned else packed[i].copy_(gradient)
        return packed, None, None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    (a, b), (first, second) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=first)
    first.addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second)
    second.addcmul_(a, sin)
