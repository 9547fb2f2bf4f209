"""Independent priors: the ordinary VAE's N(0, I), and the family that keeps every element's KL at delta or above."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from delta_vae_core import DiagonalGaussian
from delta_vae_priors import (
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)

UNIT = Normal(0.0, 1.0)
each_prior = pytest.mark.parametrize(
    "prior",
    [
        StandardNormalPrior(StandardNormalPriorConfig(latent_dim=3)),
        IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=3, delta=0.1)),
    ],
    ids=["standard normal", "independent delta"],
)


@pytest.fixture
def statistics() -> Tensor:
    return 2 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))


@each_prior
def test_kl_and_log_prob_are_those_of_the_unit_normal(prior: StandardNormalPrior, statistics: Tensor) -> None:
    posterior = prior.posterior(statistics)
    q = Normal(posterior.mean, posterior.scale)
    torch.testing.assert_close(prior.kl(posterior), kl_divergence(q, UNIT), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(prior.log_prob(posterior.mean), UNIT.log_prob(posterior.mean))


@each_prior
def test_missing_steps_are_fresh_draws(prior: StandardNormalPrior) -> None:
    """Independent of the steps before them. Five standard errors: the variance of a product of two is at most 2."""
    draws = 40_000
    generator = torch.Generator().manual_seed(1)
    given = torch.full((draws, 3, 3), 7.0)
    z = prior.complete(given, torch.tensor([True, False, False]).expand(draws, 3), generator)
    assert z[:, 0].eq(7).all()
    fresh = z[:, 1:].flatten(1)
    tolerance = 5 * (2 / draws) ** 0.5
    torch.testing.assert_close(fresh.mean(0), torch.zeros(6), rtol=0, atol=tolerance)
    torch.testing.assert_close(fresh.T @ fresh / draws, torch.eye(6), rtol=0, atol=tolerance)


def test_an_ordinary_vae_leaves_the_posterior_free_and_commits_nothing(statistics: Tensor) -> None:
    prior = StandardNormalPrior(StandardNormalPriorConfig(latent_dim=3))
    posterior = prior.posterior(statistics)
    torch.testing.assert_close(posterior.mean, statistics[..., :3])
    torch.testing.assert_close(posterior.log_scale, statistics[..., 3:])
    assert prior.committed_rate(torch.tensor([0, 5])).tolist() == [0.0, 0.0]
    assert float(prior.kl(prior.posterior(torch.zeros(1, 5, 6))).sum()) == 0.0


def test_mean_and_variance_of_the_independent_delta_family(statistics: Tensor) -> None:
    """mu^2 = 2 delta + 1 + ln sigma^2 - sigma^2 + relu(.), so the KL is delta + relu(.) / 2."""
    delta = 0.1
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=3, delta=delta))
    posterior = prior.posterior(statistics)
    kl = kl_divergence(Normal(posterior.mean, posterior.scale), UNIT)
    torch.testing.assert_close(kl, delta + statistics[..., :3].clamp_min(0) / 2, rtol=1e-5, atol=1e-6)
    low, high = 0.4932**0.5, 1.7722**0.5
    torch.testing.assert_close(posterior.scale, low + (high - low) * statistics[..., 3:].sigmoid(), rtol=1e-4, atol=0)


def test_every_step_and_dimension_commits_delta() -> None:
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=3, delta=0.1))
    torch.testing.assert_close(
        prior.committed_rate(torch.tensor([0, 1, 7])), torch.tensor([0.0, 0.3, 2.1], dtype=torch.float64)
    )


@pytest.mark.parametrize("gate", [-200.0, -20.0, 0.0, 20.0, 200.0])
def test_gradients_are_finite_also_where_the_gate_saturates(gate: float) -> None:
    """At the roots mu is 0 and the bare square root would have an infinite slope."""
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=1, delta=0.1))
    statistics = torch.tensor([[[-1.0, gate]]], requires_grad=True)
    posterior: DiagonalGaussian = prior.posterior(statistics)
    (posterior.sample(torch.Generator().manual_seed(0)) + prior.kl(posterior)).sum().backward()
    assert statistics.grad is not None
    assert statistics.grad.isfinite().all()


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (
            IndependentDeltaPriorConfig,
            {"delta": 0.0},
            r"delta=0\.0: must be above 0 nats; for 0 use the standard",
        ),
        (IndependentDeltaPriorConfig, {"delta": -1}, "delta=-1"),
        (IndependentDeltaPriorConfig, {"latent_dim": 0}, "latent_dim=0: must be at least 1"),
        (IndependentDeltaPriorConfig, {"delta": "0.1"}, "IndependentDeltaPriorConfig: Field 'delta'"),
        (StandardNormalPriorConfig, {"latent_dim": 0}, "latent_dim=0: must be at least 1"),
    ],
)
def test_a_wrong_config_is_refused(config: type, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**wrong)
