"""Causal attention by products of matrices: that of torch's own kernel, no less exact in bfloat16."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from delta_vae_core.attention import AttentionLayout
from delta_vae_core.causal_products import LONGEST, causal_attention, is_faster

B, HEADS, L, SIZE = 2, 3, 7, 4


def example(dtype: torch.dtype, scale: float = 1.0, steps: int = L) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(B, HEADS, steps, SIZE, generator=generator) for _ in range(3)]
    return [(part * scale).to(dtype).requires_grad_() for part in parts]


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def values_and_gradients(attend: object, parts: list[Tensor]) -> list[Tensor]:
    out = attend(*parts)  # type: ignore[operator]
    upstream = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    return [out, *torch.autograd.grad(out, parts, upstream)]


def test_it_is_scaled_dot_product_attention_with_its_gradients() -> None:
    parts = example(torch.float32)
    torch.testing.assert_close(values_and_gradients(causal_attention, parts), values_and_gradients(fused, parts))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_in_bfloat16_it_is_as_exact_as_the_fused_kernel(scale: float) -> None:
    rounded = example(torch.bfloat16, scale, steps=64)
    exact = values_and_gradients(fused, [part.detach().double().requires_grad_() for part in rounded])
    for found, other, wanted in zip(
        values_and_gradients(causal_attention, rounded), values_and_gradients(fused, rounded), exact, strict=True
    ):
        assert (found - wanted).norm() < 2 * (other - wanted).norm() + 1e-3 * wanted.norm()


def test_autocast_leaves_the_scores_in_float32() -> None:
    parts = example(torch.bfloat16, 4.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = causal_attention(*parts)
    assert torch.equal(inside, causal_attention(*parts))


def test_it_is_taken_for_short_sequences_in_bfloat16_without_dropout() -> None:
    q, k, v = example(torch.bfloat16)
    assert is_faster(q, LONGEST, 0.0)
    assert not is_faster(q, LONGEST + 1, 0.0)
    assert not is_faster(q, L, 0.1)
    assert not is_faster(q.float(), L, 0.0)
    taken = AttentionLayout(None, None, 0, causal=True).attend(q, k, v, 0.0)
    assert torch.equal(taken, causal_attention(q, k, v))
