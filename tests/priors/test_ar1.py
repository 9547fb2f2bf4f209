"""The AR(1) prior against the one multivariate normal that it is: Cov(z_s, z_t) = alpha^|s - t| in every dimension."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from delta_vae_core import DiagonalGaussian, lengths_to_mask
from delta_vae_priors import AR1Prior, AR1PriorConfig
from delta_vae_priors.ar1 import ar1_filter

ALPHA = [0.9, 0.0, -0.6, 0.99]
LENGTHS = [9, 1, 4, 0]
DRAWS = 40_000


def covariance(alpha: float, steps: int) -> Tensor:
    t = torch.arange(steps, dtype=torch.float64)
    return alpha ** (t[:, None] - t).abs()


def process(alpha: float, steps: int) -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(steps, dtype=torch.float64), covariance(alpha, steps))


@pytest.fixture
def prior() -> AR1Prior:
    return AR1Prior(AR1PriorConfig(alpha=list(ALPHA)))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def posterior(generator: torch.Generator) -> DiagonalGaussian:
    return DiagonalGaussian(*torch.randn(2, len(LENGTHS), max(LENGTHS), len(ALPHA), generator=generator))


@pytest.fixture
def mask() -> Tensor:
    return lengths_to_mask(torch.tensor(LENGTHS))


def test_kl_is_that_of_the_full_covariance_gaussians_for_every_prefix(
    prior: AR1Prior, posterior: DiagonalGaussian
) -> None:
    """q is independent over steps, so the chain rule's first n terms are the KL of the first n steps."""
    kl = prior.kl(posterior).double().cumsum(1)
    for b, k, n in torch.cartesian_prod(*map(torch.arange, (len(LENGTHS), len(ALPHA), max(LENGTHS)))).tolist():
        steps = n + 1
        q = MultivariateNormal(
            posterior.mean[b, :steps, k].double(), scale_tril=posterior.scale[b, :steps, k].double().diag()
        )
        expected = kl_divergence(q, process(ALPHA[k], steps))
        torch.testing.assert_close(kl[b, n, k], expected, rtol=2e-6, atol=1e-6)


def test_masked_steps_count_nothing(prior: AR1Prior, posterior: DiagonalGaussian, mask: Tensor) -> None:
    """And what they hold, were it infinite, changes nothing."""
    inf = torch.tensor(math.inf)
    padding = ~mask[..., None]
    overwritten = DiagonalGaussian(
        posterior.mean.masked_fill(padding, math.nan), posterior.log_scale.masked_fill(padding, inf)
    )
    kl = prior.kl(overwritten, mask)
    torch.testing.assert_close(kl, prior.kl(posterior) * mask[..., None], rtol=0, atol=0)
    assert kl[padding.expand_as(kl)].eq(0).all()
    log_prob = prior.log_prob(overwritten.mean, mask)
    torch.testing.assert_close(log_prob, prior.log_prob(posterior.mean) * mask[..., None], rtol=0, atol=0)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(alpha=st.floats(-0.9999, 0.9999), steps=st.integers(1, 10), seed=st.integers(0, 2**31))
def test_kl_for_any_alpha(alpha: float, steps: int, seed: int) -> None:
    mean, log_scale = torch.randn(2, 1, steps, 1, generator=torch.Generator().manual_seed(seed))
    rate = AR1Prior(AR1PriorConfig(alpha=[alpha])).kl(DiagonalGaussian(mean, log_scale)).sum()
    q = MultivariateNormal(mean.flatten().double(), scale_tril=log_scale.flatten().double().exp().diag())
    torch.testing.assert_close(rate.double(), kl_divergence(q, process(alpha, steps)), rtol=1e-5, atol=1e-5)


def test_log_prob_is_the_joint_density_of_every_prefix(prior: AR1Prior, posterior: DiagonalGaussian) -> None:
    z = posterior.mean
    log_prob = prior.log_prob(z).double().cumsum(1)
    for k, alpha in enumerate(ALPHA):
        for n in range(max(LENGTHS)):
            expected = process(alpha, n + 1).log_prob(z[:, : n + 1, k].double())
            torch.testing.assert_close(log_prob[:, n, k], expected, rtol=2e-6, atol=1e-5)


def test_samples_have_the_covariance_of_the_process(prior: AR1Prior, generator: torch.Generator) -> None:
    """Unit marginals included. Five standard errors: the variance of z_s z_t is at most 2."""
    steps, tolerance = 6, 5 * math.sqrt(2 / DRAWS)
    z = prior.sample(DRAWS, steps, generator)
    assert z.shape == (DRAWS, steps, len(ALPHA))
    joint = z.flatten(1).double()
    expected = torch.zeros(steps, len(ALPHA), steps, len(ALPHA), dtype=torch.float64)
    for k, alpha in enumerate(ALPHA):
        expected[:, k, :, k] = covariance(alpha, steps)
    torch.testing.assert_close(joint.mean(0), torch.zeros_like(joint[0]), rtol=0, atol=tolerance)
    torch.testing.assert_close(joint.T @ joint / DRAWS, expected.flatten(2).flatten(0, 1), rtol=0, atol=tolerance)


def test_a_single_step_is_standard_normal(prior: AR1Prior, generator: torch.Generator) -> None:
    z = prior.sample(DRAWS, 1, generator)
    tolerance = 5 * math.sqrt(2 / DRAWS)
    assert float(z.mean()) == pytest.approx(0, abs=tolerance)
    assert float(z.var()) == pytest.approx(1, abs=tolerance)
    assert float(prior.committed_rate(1)) == 0.0


@pytest.mark.parametrize("given_steps", [0, 1, 3, 6])
def test_completion_follows_the_conditional_law(prior: AR1Prior, generator: torch.Generator, given_steps: int) -> None:
    """E z_t = alpha^(t - n) z_n, Var z_t = 1 - alpha^(2 (t - n)): the joint normal, conditioned on the given steps."""
    steps, tolerance = 6, 5 * math.sqrt(2 / DRAWS)
    start = torch.randn(1, steps, len(ALPHA), generator=generator)
    mask = (torch.arange(steps) < given_steps).expand(DRAWS, steps)
    z = prior.complete(start.expand(DRAWS, -1, -1), mask, generator)
    torch.testing.assert_close(z[:, :given_steps], start[:, :given_steps].expand(DRAWS, -1, -1), rtol=0, atol=0)
    for k, alpha in enumerate(ALPHA):
        joint = covariance(alpha, steps)
        seen, cross, unseen = (
            joint[:given_steps, :given_steps],
            joint[given_steps:, :given_steps],
            joint[given_steps:, given_steps:],
        )
        gain = cross @ seen.inverse()
        drawn = z[:, given_steps:, k].double()
        mean = gain @ start[0, :given_steps, k].double()
        torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=tolerance)
        drawn = drawn - mean
        torch.testing.assert_close(drawn.T @ drawn / DRAWS, unseen - gain @ cross.T, rtol=0, atol=tolerance)


def test_completion_of_sequences_of_several_lengths(prior: AR1Prior, posterior: DiagonalGaussian, mask: Tensor) -> None:
    """Each from its own last step: with the same noise, row by row equals all together."""
    together = prior.complete(posterior.mean, mask, torch.Generator().manual_seed(3))
    torch.testing.assert_close(together[mask], posterior.mean[mask], rtol=0, atol=0)
    for row, length in enumerate(LENGTHS):
        longer = prior.complete(posterior.mean, mask[row].expand_as(mask), torch.Generator().manual_seed(3))
        torch.testing.assert_close(together[row, length:], longer[row, length:])


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 33])
def test_the_vectorised_filter_is_the_recursion(steps: int, generator: torch.Generator) -> None:
    """z_t = alpha z_{t-1} + e_t."""
    alpha = torch.tensor([0.0, 0.7, -0.999, 1 - 1e-6, 1e-20])
    e = torch.randn(2, steps, len(alpha), generator=generator)
    z, last = [], torch.zeros_like(e[:, 0])
    for t in range(steps):
        last = alpha * last + e[:, t]
        z.append(last)
    torch.testing.assert_close(ar1_filter(e, alpha), torch.stack(z, 1), rtol=1e-5, atol=1e-5)


def test_the_rate_is_a_slowness_filter(generator: torch.Generator) -> None:
    """The mean's part is (mu_t - alpha mu_{t-1})^2 / (2 (1 - alpha^2)): at equal size a slow mean costs less."""
    alpha, steps = 0.9, 64
    prior = AR1Prior(AR1PriorConfig(alpha=[alpha]))
    t = torch.arange(steps)
    waves = torch.stack([(2 * math.pi * frequency * t / steps).cos() for frequency in (1, 4, 16, 31)])[..., None]
    zero = torch.zeros_like(waves)
    cost = (prior.kl(DiagonalGaussian(waves, zero)) - prior.kl(DiagonalGaussian(zero, zero))).sum((1, 2)).double()
    by_hand = [
        0.5 * (wave[0] ** 2 + ((wave[1:] - alpha * wave[:-1]) ** 2).sum() / (1 - alpha**2)) for wave in waves.double()
    ]
    torch.testing.assert_close(cost, torch.stack(by_hand).flatten(), rtol=1e-4, atol=0)
    assert cost.tolist() == sorted(cost.tolist())


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        (AR1PriorConfig(alpha=[0.2, 0.4]), [0.2, 0.4]),
        (AR1PriorConfig(alpha=0.5, latent_dim=3), [0.5, 0.5, 0.5]),
        (AR1PriorConfig(alpha=0), [0] * 8),
        (AR1PriorConfig.linear(3, 0.5, 0.9), [0.5, 0.7, 0.9]),
        (AR1PriorConfig.linear(1, 0.5, 0.9), [0.9]),
    ],
)
def test_one_alpha_a_dimension(config: AR1PriorConfig, alpha: list[float]) -> None:
    assert config.alphas == pytest.approx(alpha)
    assert config.latent_dim == len(alpha)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": [0.5, 1.0]}, r"AR1PriorConfig: alpha=1\.0: must be inside \(-1, 1\)"),
        ({"alpha": math.nan}, "alpha=nan"),
        ({"alpha": -1.5}, r"alpha=-1\.5"),
        ({"alpha": [0.5], "latent_dim": 3}, "1 alphas for latent_dim=3: give one a dimension"),
        ({"latent_dim": 0}, "latent_dim=0: must be at least 1"),
        ({"alpha": "0.5"}, "AR1PriorConfig: Field 'alpha'"),
        ({"alhpa": [0.5]}, "AR1PriorConfig: unknown key 'alhpa'; did you mean 'alpha'"),
    ],
)
def test_a_wrong_config_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        AR1PriorConfig(**wrong)
    assert "\n" not in str(error.value)
