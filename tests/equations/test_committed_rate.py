"""The committed rate is the least KL that the posterior family can reach: found by minimising, and never undercut."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from delta_vae_core import lengths_to_mask
from delta_vae_priors import (
    AR1Prior,
    AR1PriorConfig,
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    ar1_committed_rate,
)

deterministic = settings(derandomize=True, deadline=None, max_examples=150)


def ar1_covariance(alpha: float, steps: int) -> Tensor:
    """Cov(z_s, z_t) = alpha^|s - t|, float64."""
    t = torch.arange(steps, dtype=torch.float64)
    return alpha ** (t[:, None] - t).abs()


def minimum(objective: Callable[[Tensor], Tensor], start: Tensor) -> tuple[float, Tensor]:
    """Least value of the objective and where it lies, by L-BFGS."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=2000, tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(x)
        value.backward()
        return value.detach()

    optimizer.step(closure)
    return objective(x).item(), x.detach()


def least_mean_field_kl(covariance: Tensor) -> tuple[float, Tensor, Tensor]:
    """min KL(q || N(0, covariance)) over all factorised Gaussians q, with the minimiser's means and variances."""
    prior = MultivariateNormal(torch.zeros(len(covariance), dtype=torch.float64), covariance)

    def kl(mean_and_log_scale: Tensor) -> Tensor:
        mean, log_scale = mean_and_log_scale
        return kl_divergence(MultivariateNormal(mean, scale_tril=log_scale.exp().diag()), prior)

    start = torch.randn(2, len(covariance), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    least, (mean, log_scale) = minimum(kl, start)
    return least, mean, (2 * log_scale).exp()


def random_precision(size: int) -> Tensor:
    root = torch.randn(size, size + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def general_minimum(precision: Tensor) -> float:
    """1/2 (sum_t ln L_tt - ln det L)."""
    return float(0.5 * (precision.diagonal().log().sum() - precision.logdet()))


each_process = pytest.mark.parametrize(
    ("steps", "alpha"),
    [(1, 0.9), (2, 0.5), (2, -0.95), (3, 0.95), (5, 0.0), (7, 0.9), (7, -0.6), (12, 0.3), (12, -0.99)],
)


@each_process
def test_closed_form_is_the_numerical_minimum(steps: int, alpha: float) -> None:
    least, mean, variance = least_mean_field_kl(ar1_covariance(alpha, steps))
    prior = AR1Prior(AR1PriorConfig(alpha=[alpha]))
    assert ar1_committed_rate([alpha], steps) == pytest.approx(least, abs=1e-9)
    assert float(prior.committed_rate(steps)) == pytest.approx(least, abs=1e-9)
    attained_at = prior.posterior(torch.zeros(1, steps, 2))
    torch.testing.assert_close(attained_at.mean.flatten().double(), mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(attained_at.scale.square().flatten().double(), variance, atol=1e-4, rtol=1e-4)


@each_process
def test_the_bound_is_attained(steps: int, alpha: float) -> None:
    """mu = 0, sigma_1^2 = sigma_n^2 = 1 - a^2, sigma_t^2 = (1 - a^2) / (1 + a^2) in between; N(0, 1) for n = 1."""
    variance = torch.full((steps,), (1 - alpha**2) / (1 + alpha**2), dtype=torch.float64)
    variance[0] = variance[-1] = 1 - alpha**2 if steps > 1 else 1.0
    zero = torch.zeros(steps, dtype=torch.float64)
    minimiser = MultivariateNormal(zero, variance.diag())
    least = kl_divergence(minimiser, MultivariateNormal(zero, ar1_covariance(alpha, steps)))
    assert float(least) == pytest.approx(ar1_committed_rate([alpha], steps), abs=1e-12)


def test_every_sequence_commits_by_its_own_length() -> None:
    """A posterior head at 0 sits on the floor, whatever the padding; dimensions add up."""
    prior = AR1Prior(AR1PriorConfig(alpha=[0.9, -0.4]))
    lengths = torch.tensor([7, 1, 0, 2, 3])
    mask = lengths_to_mask(lengths)
    rate = prior.kl(prior.posterior(torch.zeros(5, 7, 4), mask), mask).double().sum((1, 2))
    least = [
        sum(least_mean_field_kl(ar1_covariance(alpha, n))[0] for alpha in (0.9, -0.4)) if n else 0.0
        for n in lengths.tolist()
    ]
    assert prior.committed_rate(lengths).tolist() == pytest.approx(least, abs=1e-9)
    assert rate.tolist() == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_general_gaussian_minimum(size: int) -> None:
    """Any precision L: 1/2 (sum_t ln L_tt - ln det L), at mu = 0 and sigma_t^2 = 1 / L_tt."""
    precision = random_precision(size)
    least, mean, variance = least_mean_field_kl(precision.inverse())
    assert general_minimum(precision) == pytest.approx(least, abs=1e-9)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(variance, 1 / precision.diagonal(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.9, -0.5])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_the_general_minimum_of_the_ar1_precision_is_the_committed_rate(steps: int, alpha: float) -> None:
    """L is tridiagonal: (1, 1 + a^2, ..., 1 + a^2, 1) on the diagonal and -a beside it, over 1 - a^2."""
    beside = torch.full((steps - 1,), -alpha, dtype=torch.float64)
    inner = torch.full((steps,), 1 + alpha**2, dtype=torch.float64)
    inner[0] = inner[-1] = 1.0
    precision = (inner.diag() + beside.diag(1) + beside.diag(-1)) / (1 - alpha**2)
    torch.testing.assert_close(precision.inverse(), ar1_covariance(alpha, steps))
    assert ar1_committed_rate([alpha], steps) == pytest.approx(general_minimum(precision), abs=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [((4, 0.9), (3, 0.5)), ((2, -0.7), (5, 0.8))])
def test_a_separable_two_dimensional_prior_commits_n2_r1_plus_n1_r2(
    rows: tuple[int, float], columns: tuple[int, float]
) -> None:
    (n1, a1), (n2, a2) = rows, columns
    precision = torch.kron(ar1_covariance(a1, n1), ar1_covariance(a2, n2)).inverse()
    separable = n2 * ar1_committed_rate([a1], n1) + n1 * ar1_committed_rate([a2], n2)
    assert separable == pytest.approx(general_minimum(precision), abs=1e-9)


@pytest.mark.parametrize("delta", [0.01, 0.08, 0.15, 2.0])
def test_the_independent_family_reaches_delta_and_no_less(delta: float) -> None:
    """Minimised over the family's own parameters; every step and dimension commits delta."""
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=2, delta=delta))

    def rate(statistics: Tensor) -> Tensor:
        posterior = prior.posterior(statistics)
        return kl_divergence(Normal(posterior.mean, posterior.scale), Normal(0.0, 1.0)).sum()

    start = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(1)) + torch.tensor([2.0, 2.0, 0.0, 0.0])
    least, _ = minimum(rate, start)
    assert rate(start).item() > 6 * delta + 0.5
    assert least == pytest.approx(6 * delta, abs=2e-6)
    assert float(prior.committed_rate(3)) == pytest.approx(6 * delta, abs=1e-12)


alphas = st.floats(-(1 - 1e-6), 1 - 1e-6)


@deterministic
@given(
    alpha=st.lists(alphas, min_size=1, max_size=3),
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    spread=st.sampled_from([0.0, 1e-4, 1e-2, 0.1, 1.0, 4.0]),
    seed=st.integers(0, 2**31),
)
@example(alpha=[1 - 1e-6], lengths=[12], spread=0.0, seed=0)
@example(alpha=[-(1 - 1e-6)], lengths=[12], spread=1e-4, seed=0)
def test_no_posterior_undercuts_the_committed_rate(
    alpha: list[float], lengths: list[int], spread: float, seed: int
) -> None:
    """Any mean and log-scale, on the floor or far from it; float32 may round off 1e-6 nats a step and dimension."""
    prior = AR1Prior(AR1PriorConfig(alpha=list(alpha)))
    length = torch.tensor(lengths)
    mask = lengths_to_mask(length, 12)
    statistics = spread * torch.randn(len(lengths), 12, 2 * len(alpha), generator=torch.Generator().manual_seed(seed))
    rate = prior.kl(prior.posterior(statistics, mask), mask).double().sum((1, 2))
    assert bool((rate >= prior.committed_rate(length) - 1e-6 * length * len(alpha)).all())


@deterministic
@given(
    delta=st.floats(1e-3, 10.0),
    above=st.floats(-1e4, 1e4, width=32),
    gate=st.floats(-1e4, 1e4, width=32),
)
def test_no_element_of_an_independent_posterior_undercuts_delta(delta: float, above: float, gate: float) -> None:
    """Whatever the statistics; float32 may round off 1e-6 nats and as much of delta."""
    posterior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=1, delta=delta)).posterior(
        torch.tensor([[[above, gate]]])
    )
    exact = kl_divergence(Normal(posterior.mean.double(), posterior.scale.double()), Normal(0.0, 1.0))
    assert float(exact) >= delta - 1e-6 * (1 + delta)
