"""ELBO <= IW_K <= log p(x), on a linear-Gaussian state-space model whose log p(x) is known in closed form."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from delta_vae_lab.estimates import importance_weighted_nll

STEPS, ALPHA, NOISE = 5, 0.8, 0.6


def covariance() -> Tensor:
    """Of z_1..T, stationary AR(1): a^|i - j|."""
    step = torch.arange(STEPS, dtype=torch.float64)
    return ALPHA ** (step[:, None] - step).abs()


def prior() -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(STEPS, dtype=torch.float64), covariance())


def marginal() -> MultivariateNormal:
    """p(x) for x_t = z_t + NOISE e_t."""
    return MultivariateNormal(
        torch.zeros(STEPS, dtype=torch.float64), covariance() + NOISE**2 * torch.eye(STEPS, dtype=torch.float64)
    )


def exact_posterior(x: Tensor) -> MultivariateNormal:
    """p(z | x): precision L + I / NOISE^2, mean its inverse times x / NOISE^2."""
    precision = torch.linalg.inv(covariance()) + torch.eye(STEPS, dtype=torch.float64) / NOISE**2
    return MultivariateNormal(torch.linalg.solve(precision, x.T / NOISE**2).T, precision_matrix=precision)


def log_weights(x: Tensor, z: Tensor, log_q: Tensor) -> Tensor:
    """log p(x|z) + log p(z) - log q(z|x): (K, B)."""
    return Normal(z, NOISE).log_prob(x).sum(-1) + prior().log_prob(z) - log_q


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return marginal().sample((400,))


@pytest.fixture
def mean_field(x: Tensor) -> Normal:
    """q(z|x) = prod_t N(0.6 x_t, 0.5^2): a family that cannot be exact here."""
    return Normal(0.6 * x, 0.5)


def test_with_the_exact_posterior_every_sample_gives_log_p(x: Tensor) -> None:
    posterior = exact_posterior(x)
    z = posterior.sample((3,))
    nll = importance_weighted_nll(log_weights(x, z, posterior.log_prob(z)))
    torch.testing.assert_close(nll, -marginal().log_prob(x))


def test_one_sample_is_the_negative_elbo(x: Tensor, mean_field: Normal) -> None:
    z = mean_field.sample((1,))
    weights = log_weights(x, z, mean_field.log_prob(z).sum(-1))
    torch.testing.assert_close(importance_weighted_nll(weights), -weights[0])


def test_elbo_then_the_bound_with_more_samples_then_log_p(x: Tensor, mean_field: Normal) -> None:
    z = mean_field.sample((2048,))
    weights = log_weights(x, z, mean_field.log_prob(z).sum(-1))
    bounds = [-weights.mean(0)] + [
        torch.stack([importance_weighted_nll(part) for part in weights.split(samples)]).mean(0)
        for samples in (1, 4, 32, 256, 2048)
    ]
    means = [float(bound.mean()) for bound in bounds]
    assert means[0] == pytest.approx(means[1])
    assert means[1:] == sorted(means[1:], reverse=True)
    gap = bounds[-1] + marginal().log_prob(x)
    assert bool((bounds[0] >= bounds[-1]).all()), "Jensen holds for the same samples, sequence by sequence"
    assert float(gap.mean()) == pytest.approx(0.0, abs=0.02)
    assert means[0] > means[-1] + 0.3, "the family is not exact, so the ELBO must be loose"


def test_the_weights_are_unbiased_for_p_of_x(x: Tensor, mean_field: Normal) -> None:
    z = mean_field.sample((4096,))
    weights = log_weights(x[:1], z[:, :1], mean_field.log_prob(z).sum(-1)[:, :1]).exp().squeeze(1)
    error = float(weights.std() / math.sqrt(len(weights)))
    assert float(weights.mean()) == pytest.approx(float(marginal().log_prob(x[0]).exp()), abs=4 * error)


def test_weights_far_from_one_neither_overflow_nor_vanish() -> None:
    torch.testing.assert_close(
        importance_weighted_nll(torch.full((7, 2), -5000.0)), torch.full((2,), 5000.0, dtype=torch.float64)
    )


def test_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="importance_samples=0.*take 1 or more"):
        importance_weighted_nll(torch.empty(0, 3))
