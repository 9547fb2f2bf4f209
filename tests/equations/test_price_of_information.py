"""What a nat of information costs at the floor, measured on a channel z_t = m + noise whose two sides are Gaussian."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from delta_vae_core import DiagonalGaussian
from delta_vae_priors import (
    AR1Prior,
    AR1PriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
    price_of_information,
)

SIGNAL = 1e-3  # standard deviation of m: small against the floor's noise over all steps, so that logarithms are linear


def floor(prior: AR1Prior, steps: int) -> DiagonalGaussian:
    return prior.posterior(torch.zeros(1, steps, 2))


def information(noise: Tensor) -> float:
    """I(m; z) in nats of z = m + noise, m ~ N(0, SIGNAL^2) constant over time: 1/2 ln det(N + S) - 1/2 ln det N."""
    covariance = noise.double().diag()
    return float(0.5 * ((covariance + SIGNAL**2).logdet() - covariance.logdet()))


def extra_rate(alpha: float, noise: Tensor) -> float:
    """E_m KL(q(z | m) || p) - KL(q(z | 0) || p) in nats, exact: the KL is quadratic in m, so m = SIGNAL is its mean."""
    steps = len(noise)
    t = torch.arange(steps, dtype=torch.float64)
    zero = torch.zeros(steps, dtype=torch.float64)
    prior = MultivariateNormal(zero, alpha ** (t[:, None] - t).abs())
    scale = noise.double().sqrt().diag()
    shifted, centred = (MultivariateNormal(mean, scale_tril=scale) for mean in (zero + SIGNAL, zero))
    return float(kl_divergence(shifted, prior) - kl_divergence(centred, prior))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9, -0.5])
def test_a_constant_signal_costs_its_price(alpha: float) -> None:
    """Rate and information that 100 more steps add, so that the two ends do not count."""
    prior = AR1Prior(AR1PriorConfig(alpha=[alpha]))
    short, long = (floor(prior, steps).scale.square().flatten() for steps in (100, 200))
    price = (extra_rate(alpha, long) - extra_rate(alpha, short)) / (information(long) - information(short))
    assert price == pytest.approx(price_of_information(alpha), rel=0.01)


def test_an_ordinary_vae_pays_a_nat_for_a_nat() -> None:
    """By the prior's own kl: E_m KL of q = N(m, 1 - SIGNAL^2) to N(0, 1) equals I(m; z), for any signal."""
    signal = 0.6
    prior = StandardNormalPrior(StandardNormalPriorConfig(latent_dim=1))
    m = signal * torch.tensor([-1.0, 1.0])  # the KL is quadratic in m: two points with its variance give the mean
    log_scale = torch.full((2, 1, 1), 1 - signal**2).log() / 2
    rate = float(prior.kl(DiagonalGaussian(m[:, None, None], log_scale)).mean())
    assert rate == pytest.approx(-0.5 * float(torch.tensor(1 - signal**2).log()), rel=1e-5)
