"""Rotary positions: the fused split into turned heads against the plain expression, with its gradients."""

import pytest
import torch
from torch import Tensor

from delta_vae_core.rotary import Rotary, split_heads

B, L, HEADS, SIZE = 2, 5, 3, 4


def plain(x: Tensor, parts: int, rotary: Rotary) -> tuple[Tensor, ...]:
    split = [part.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for part in x.chunk(parts, -1)]
    return tuple(rotary(part) if parts == 1 or i < parts - 1 else part for i, part in enumerate(split))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_heads_are_turned_and_values_are_not(parts: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(B, L, parts * HEADS * SIZE, dtype=torch.float64, requires_grad=True)
    rotary = Rotary(torch.arange(3, 3 + L), SIZE)
    found, wanted = split_heads(x, HEADS, parts, rotary), plain(x, parts, rotary)
    torch.testing.assert_close(found, wanted)
    upstream = [torch.randn_like(part) for part in wanted]
    torch.testing.assert_close(torch.autograd.grad(found, x, upstream), torch.autograd.grad(wanted, x, upstream))
    assert torch.autograd.gradcheck(lambda x: split_heads(x, HEADS, parts, rotary), x)


def test_without_positions_heads_are_only_split() -> None:
    x = torch.randn(B, L, 3 * HEADS * SIZE)
    for found, part in zip(split_heads(x, HEADS, 3), x.chunk(3, -1), strict=True):
        assert torch.equal(found, part.unflatten(-1, (HEADS, SIZE)).transpose(1, 2))
