"""Log-probabilities straight from features: those of the logits, with their gradients, kept or computed anew."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from delta_vae_decoders import CategoricalLikelihood, LinearCategoricalLikelihood, linear_log_prob
from delta_vae_decoders.linear_log_prob import linear_log_prob as log_prob

N, H, V = 7, 5, 11


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features, weight = (torch.randn(size, H, generator=generator).to(dtype).requires_grad_() for size in (N, V))
    return features, weight, torch.randint(V, (N,), generator=generator)


def limit(monkeypatch: pytest.MonkeyPatch, kept: int, rows: int) -> None:
    monkeypatch.setattr(linear_log_prob, "KEPT", kept)
    monkeypatch.setattr(linear_log_prob, "AT_ONCE", rows * V)


@pytest.mark.parametrize("kept", [0, N * V], ids=["anew", "kept"])
@pytest.mark.parametrize("rows", [1, 3, N])
def test_values_and_gradients_are_those_of_the_logits(kept: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, kept, rows)
    features, weight, x = example()
    wanted = -F.cross_entropy(features @ weight.t(), x, reduction="none")
    found = log_prob(features, weight, x)
    torch.testing.assert_close(found, wanted)
    upstream = torch.linspace(-1, 2, N, dtype=torch.float64)
    gradients = torch.autograd.grad(wanted, (features, weight), upstream)
    torch.testing.assert_close(torch.autograd.grad(found, (features, weight), upstream), gradients)


@pytest.mark.parametrize("kept", [0, N * V], ids=["anew", "kept"])
def test_gradients_are_finite_differences(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, kept, 2)
    features, weight, x = example()
    assert torch.autograd.gradcheck(lambda f, w: log_prob(f, w, x), (features, weight))


def test_a_second_backward_pass_finds_what_the_first_found() -> None:
    features, weight, x = example()
    total = log_prob(features, weight, x).sum()
    first = torch.autograd.grad(total, (features, weight), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(total, (features, weight)), first, rtol=0, atol=0)


@pytest.mark.parametrize("kept", [0, N * V], ids=["anew", "kept"])
def test_autocast_rounds_the_product_alone(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, kept, 3)
    features, weight, x = example(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_prob(features, weight, x)
        logits = features @ weight.t()
    assert logits.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits.float().log_softmax(1).gather(1, x[:, None])[:, 0])
    of_features, of_weight = torch.autograd.grad(found.sum(), (features, weight))
    assert of_features.dtype == of_weight.dtype == torch.float32
    wanted = torch.autograd.grad(log_prob(features, weight, x).sum(), (features, weight))
    torch.testing.assert_close((of_features, of_weight), wanted, rtol=0.05, atol=0.05)


def test_the_likelihood_of_features_is_that_of_their_logits() -> None:
    features, weight, x = example(torch.float32)
    found = LinearCategoricalLikelihood(features[None], weight)
    wanted = CategoricalLikelihood(F.linear(features[None], weight))
    torch.testing.assert_close(found.logits, wanted.logits)
    torch.testing.assert_close(found.log_prob(x[None]), wanted.log_prob(x[None]))
    draws = [likelihood.sample(torch.Generator().manual_seed(0)) for likelihood in (found, wanted)]
    assert torch.equal(*draws)
