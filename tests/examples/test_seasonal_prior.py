"""The seasonal prior against the one multivariate normal that it is, and its committed rate against a minimisation."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from seasonal_latents import SeasonalPrior, SeasonalPriorConfig
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from transformers import AutoModel

from delta_vae_core import DiagonalGaussian, lengths_to_mask
from delta_vae_priors import AR1Prior, AR1PriorConfig

D = 2
# Shorter than a period, whole periods, and part of one more.
STEPS = (1, 2, 3, 4, 6, 8)
each_process = pytest.mark.parametrize(("period", "alpha"), [(3, 0.9), (2, -0.6), (1, 0.95), (5, 0.0), (9, 0.7)])


def build(period: int, alpha: float) -> SeasonalPrior:
    return SeasonalPrior(SeasonalPriorConfig(latent_dim=D, period=period, alpha=alpha))


def process(period: int, alpha: float, steps: int) -> MultivariateNormal:
    """Cov(z_s, z_t) = alpha^(|s - t| / P) where P divides s - t, else 0; float64."""
    apart = (torch.arange(steps)[:, None] - torch.arange(steps)).abs()
    covariance = torch.where(apart % period == 0, torch.tensor(alpha, dtype=torch.float64) ** (apart // period), 0.0)
    return MultivariateNormal(torch.zeros(steps, dtype=torch.float64), covariance)


def random_posterior(*shape: int) -> DiagonalGaussian:
    return DiagonalGaussian(*torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))


@each_process
def test_kl_is_that_of_the_full_covariance_gaussians_for_every_prefix(period: int, alpha: float) -> None:
    posterior = random_posterior(1, 8, D)
    kl = build(period, alpha).kl(posterior).double().cumsum(1)
    for steps in range(1, 9):
        for k in range(D):
            scale = posterior.scale[0, :steps, k].double().diag()
            q = MultivariateNormal(posterior.mean[0, :steps, k].double(), scale_tril=scale)
            expected = kl_divergence(q, process(period, alpha, steps))
            torch.testing.assert_close(kl[0, steps - 1, k], expected, rtol=1e-5, atol=1e-5)


@each_process
@pytest.mark.parametrize("steps", STEPS)
def test_the_committed_rate_is_the_least_kl_of_any_independent_posterior(period: int, alpha: float, steps: int) -> None:
    """Found by minimising, and attained where the statistics are 0."""
    prior, target = build(period, alpha), process(period, alpha, steps)
    x = torch.randn(2, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def kl() -> Tensor:
        optimizer.zero_grad()
        value = kl_divergence(MultivariateNormal(x[0], scale_tril=x[1].exp().diag()), target)
        value.backward()
        return value.detach()

    optimizer.step(kl)
    least = D * kl().item()
    assert float(prior.committed_rate(steps)) == pytest.approx(least, abs=1e-8)
    attained = prior.kl(prior.posterior(torch.zeros(1, steps, 2 * D))).sum()
    assert float(attained) == pytest.approx(least, abs=1e-5)


@each_process
@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0, 3.0])
def test_no_posterior_undercuts_the_committed_rate(period: int, alpha: float, spread: float) -> None:
    prior, lengths = build(period, alpha), torch.arange(9)
    mask = lengths_to_mask(lengths, 8)
    statistics = spread * torch.randn(200, 9, 8, 2 * D, generator=torch.Generator().manual_seed(2))
    for some in statistics:
        rate = prior.kl(prior.posterior(some, mask), mask).double().sum((1, 2))
        assert bool((rate >= prior.committed_rate(lengths) - 1e-5).all())


def test_every_sequence_commits_by_its_own_length() -> None:
    prior, lengths = build(3, 0.9), torch.tensor([8, 0, 3, 5, 7])
    mask = lengths_to_mask(lengths)
    rate = prior.kl(prior.posterior(torch.zeros(5, 8, 2 * D), mask), mask).double().sum((1, 2))
    torch.testing.assert_close(rate, prior.committed_rate(lengths), atol=1e-5, rtol=0)


def test_of_period_one_it_is_the_ar1_prior() -> None:
    seasonal, ar1 = build(1, 0.9), AR1Prior(AR1PriorConfig(alpha=0.9, latent_dim=D))
    mask, posterior = lengths_to_mask(torch.tensor([7, 4, 1])), random_posterior(3, 7, D)
    torch.testing.assert_close(seasonal.kl(posterior, mask), ar1.kl(posterior, mask))
    torch.testing.assert_close(seasonal.log_prob(posterior.mean, mask), ar1.log_prob(posterior.mean, mask))
    torch.testing.assert_close(seasonal.committed_rate(mask.sum(1)), ar1.committed_rate(mask.sum(1)))


@each_process
def test_log_prob_is_that_of_the_process_for_every_prefix(period: int, alpha: float) -> None:
    z = random_posterior(1, 8, D).mean
    log_prob = build(period, alpha).log_prob(z).double().cumsum(1)
    for steps in range(1, 9):
        expected = process(period, alpha, steps).log_prob(z[0, :steps].T.double())
        torch.testing.assert_close(log_prob[0, steps - 1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [0, 2, 5, 8])
def test_completion_follows_the_conditional_law(given: int) -> None:
    """The joint normal, conditioned on the given steps. Five standard errors: a product's variance is at most 2."""
    draws, steps, period, alpha = 20_000, 8, 3, 0.8
    start = torch.randn(1, steps, D, generator=torch.Generator().manual_seed(3)).expand(draws, -1, -1)
    mask = (torch.arange(steps) < given).expand(draws, steps)
    z = build(period, alpha).complete(start, mask, torch.Generator().manual_seed(4))
    assert torch.equal(z[:, :given], start[:, :given])
    joint, tolerance = process(period, alpha, steps).covariance_matrix, 5 * math.sqrt(2 / draws)
    gain = joint[given:, :given] @ joint[:given, :given].inverse()
    for k in range(D):
        drawn = z[:, given:, k].double() - gain @ start[0, :given, k].double()
        covariance = joint[given:, given:] - gain @ joint[:given, given:]
        torch.testing.assert_close(drawn.mean(0), torch.zeros_like(drawn[0]), rtol=0, atol=tolerance)
        torch.testing.assert_close(drawn.T @ drawn / draws, covariance, rtol=0, atol=tolerance)


def test_masked_steps_count_nothing_whatever_they_hold() -> None:
    prior, mask, posterior = build(3, 0.9), lengths_to_mask(torch.tensor([8, 1, 4])), random_posterior(3, 8, D)
    padding = ~mask[..., None]
    broken = DiagonalGaussian(
        posterior.mean.masked_fill(padding, math.nan), posterior.log_scale.masked_fill(padding, math.inf)
    )
    expected = prior.kl(posterior) * mask[..., None]
    torch.testing.assert_close(prior.kl(broken, mask), expected, rtol=0, atol=0)
    expected = prior.log_prob(posterior.mean) * mask[..., None]
    torch.testing.assert_close(prior.log_prob(broken.mean, mask), expected, rtol=0, atol=0)


def test_no_cast_reaches_its_arithmetic() -> None:
    prior, posterior = build(3, 0.9), random_posterior(3, 8, D)
    exact = prior.kl(posterior)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(prior.to(torch.bfloat16).kl(posterior), exact, rtol=0, atol=0)


def test_a_saved_prior_is_its_config(tmp_path: Path) -> None:
    prior, posterior = build(3, 0.9), random_posterior(3, 8, D)
    prior.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is SeasonalPrior
    assert torch.equal(loaded.kl(posterior), prior.kl(posterior))


def test_alpha_is_solved_for_the_rate_that_is_asked_for() -> None:
    config = SeasonalPriorConfig.from_committed_rate(nats=20, steps=24, latent_dim=3, period=4)
    assert float(SeasonalPrior(config).committed_rate(24)) == pytest.approx(20, abs=1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 1.0}, r"alpha=1.0: must be inside \(-1, 1\)"),
        ({"period": 0}, "period=0: must be at least 1 step"),
        ({"latent_dim": 0}, "latent_dim=0: must be at least 1"),
        ({"perid": 3}, "unknown key 'perid'; did you mean 'period'"),
    ],
)
def test_a_wrong_config_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SeasonalPriorConfig(**wrong)
    assert "\n" not in str(error.value)


def test_a_rate_for_part_of_a_period_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=25: use a multiple of period=4"):
        SeasonalPriorConfig.from_committed_rate(nats=20, steps=25, latent_dim=3, period=4)
