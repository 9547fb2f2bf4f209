"""The operations that the benchmarks count are those of the formulas, whatever a kernel computes anew."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import TextSize, text_model, token_ids
from benchmarks.operations import operations
from delta_vae_decoders import linear_log_prob

L, H, V, LAYERS, D = 8, 16, 50, 2, 8
SIZE = TextSize(layers=LAYERS, hidden=H, heads=2, vocabulary=V, batch=3, tokens=L)
BLOCK = (
    2 * L * 12 * H**2 + 2 * 2 * L * L * H // 2
)  # 12 H^2 weights a token, and half of q k^T and of its product with v
OVER_LATENTS = 2 * L * (2 * H**2 + 2 * H * D) + 2 * 2 * L * L * H // 2  # query and output, keys and values


@pytest.mark.parametrize(
    ("latent_dim", "forward"),
    [
        (0, LAYERS * BLOCK + 2 * L * H * V),
        (D, LAYERS * (2 * BLOCK + OVER_LATENTS) + 2 * L * H * V + 2 * L * H * 2 * D),
    ],
    ids=["decoder", "delta-VAE"],
)
def test_a_text_model_takes_twice_as_much_backward_as_forward(latent_dim: int, forward: int) -> None:
    model, ids = text_model(SIZE, latent_dim), token_ids(SIZE, "cpu", batch=1)
    assert operations(lambda: model(ids).loss) == 3 * forward


def test_the_operations_of_a_batch_are_those_of_one_example_times_its_size() -> None:
    model = text_model(SIZE)
    one, three = (operations(lambda b=b: model(token_ids(SIZE, "cpu", batch=b)).loss) for b in (1, 3))
    assert three == 3 * one


def test_attention_counts_half_of_the_square_where_it_is_causal() -> None:
    q, k, v = (torch.randn(1, 2, L, H, requires_grad=True) for _ in range(3))
    square = 3 * 2 * 2 * 2 * L * L * H
    causal = torch.ones(L, L, dtype=torch.bool).tril()
    assert operations(lambda: functional.scaled_dot_product_attention(q, k, v).sum()) == square
    assert operations(lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True).sum()) == square // 2
    assert operations(lambda: functional.scaled_dot_product_attention(q, k, v, attn_mask=causal).sum()) == square // 2


def test_a_convolution_counts_its_executed_size() -> None:
    conv, x = nn.Conv2d(3, 5, (2, 3), padding=(0, 1)), torch.randn(1, 3, 7, 6)
    out = 5 * 6 * 6  # a window of 2 rows fits into 7 six times
    assert operations(lambda: conv(x).sum()) == 2 * 2 * out * 3 * 2 * 3  # the image takes no gradient


def test_a_large_vocabulary_is_computed_anew_which_is_why_one_example_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, weight = torch.randn(L, H, requires_grad=True), torch.randn(V, H, requires_grad=True)
    x = torch.zeros(L, dtype=torch.long)

    def counted() -> int:
        with FlopCounterMode(display=False) as counter:
            linear_log_prob.linear_log_prob(features, weight, x).sum().backward()
        return counter.get_total_flops()

    assert TextSize().tokens * TextSize().vocabulary < linear_log_prob.KEPT
    assert counted() == 3 * 2 * L * H * V
    monkeypatch.setattr(linear_log_prob, "KEPT", 0)
    assert counted() == 4 * 2 * L * H * V
