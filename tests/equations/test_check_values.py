"""The figures of Razavi et al. 2019, section 2.1, and those that follow from it by hand."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from delta_vae_core import nats_to_bits
from delta_vae_priors import (
    AR1Prior,
    AR1PriorConfig,
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    ar1_committed_rate,
    price_of_information,
)


def committed_nats(config: AR1PriorConfig, steps: int) -> float:
    return float(AR1Prior(config).committed_rate(steps))


@pytest.mark.parametrize(
    ("steps", "alpha", "nats"), [(2, 0.5, 0.1438), (2, 0.8, 0.5108), (2, 0.95, 1.1640), (7, 0.9, 2.3137)]
)
def test_committed_rate_of_one_dimension(steps: int, alpha: float, nats: float) -> None:
    assert ar1_committed_rate([alpha], steps) == pytest.approx(nats, abs=5e-5)
    assert committed_nats(AR1PriorConfig(alpha=alpha, latent_dim=1), steps) == pytest.approx(nats, abs=5e-5)


@pytest.mark.parametrize(
    ("latent_dim", "high", "bits", "printed"), [(8, 0.95, 79.447, 79.44), (64, 0.99, 666.63, 666.6)]
)
def test_committed_rate_of_the_image_models(latent_dim: int, high: float, bits: float, printed: float) -> None:
    """32 rows, alpha linear from 0.5: 79.44 and 666.6 bits an image in the paper, which cuts where we would round."""
    rate = nats_to_bits(committed_nats(AR1PriorConfig.linear(latent_dim, 0.5, high), 32))
    assert rate == pytest.approx(bits, abs=5e-3)
    digits = 10 ** len(str(printed).partition(".")[2])
    assert math.floor(rate * digits) / digits == printed


def test_the_default_prior_is_the_low_rate_image_model() -> None:
    assert nats_to_bits(committed_nats(AR1PriorConfig(), 32)) == pytest.approx(79.447, abs=5e-4)


def test_committed_rate_of_the_text_model() -> None:
    text = AR1PriorConfig(alpha=[0.2, 0.4])
    assert committed_nats(text, 64) == pytest.approx(5.924, abs=5e-4)
    assert committed_nats(text, 10**6) / 10**6 == pytest.approx(0.0938, abs=5e-5)


@pytest.mark.parametrize("alpha", [0.3, 0.9, 0.999999, -0.99])
def test_away_from_the_ends_a_dimension_commits_less_than_half_a_bit_a_step(alpha: float) -> None:
    rates = [nats_to_bits(ar1_committed_rate([alpha], steps)) for steps in (2, 3, 102)]
    assert 0 < rates[1] - rates[0] < 0.5
    assert rates[2] - rates[0] < 50


def test_half_a_bit_is_the_ceiling() -> None:
    assert nats_to_bits(ar1_committed_rate([1 - 1e-9], 3) - ar1_committed_rate([1 - 1e-9], 2)) == pytest.approx(0.5)


@pytest.mark.parametrize(("alpha", "price"), [(0.9, 0.0055), (0.4, 0.31), (0.0, 1.0)])
def test_price_of_information(alpha: float, price: float) -> None:
    assert price_of_information(alpha) == pytest.approx(price, rel=0.005)


@pytest.mark.parametrize(
    ("delta", "low", "high"), [(0.08, 0.5356, 1.6770), (0.1, 0.4932, 1.7722), (0.15, 0.4111, 1.9862)]
)
def test_independent_delta_keeps_its_variances_between_the_roots(delta: float, low: float, high: float) -> None:
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=1, delta=delta))
    gate = torch.tensor([-1e3, 1e3])
    variance = prior.posterior(torch.stack((torch.zeros(2), gate), dim=-1)[None]).scale.square().flatten()
    assert variance.tolist() == pytest.approx([low, high], abs=5e-5)


def test_the_square_root_matters() -> None:
    """Without it, as some transcriptions have it, delta = 0.08 can drop to 0.0128."""
    delta = 0.08
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=1, delta=delta))
    gate = torch.linspace(-12, 12, 4001)
    posterior = prior.posterior(torch.stack((torch.zeros(4001), gate), dim=-1)[None])
    unit = Normal(torch.zeros(()), torch.ones(()))
    without_root = kl_divergence(Normal(posterior.mean**2, posterior.scale), unit).min()
    with_root = kl_divergence(Normal(posterior.mean, posterior.scale), unit).min()
    assert float(without_root) == pytest.approx(0.0128, abs=5e-5)
    assert float(with_root) == pytest.approx(delta, abs=1e-6)
