"""Mutual information against closed forms and against sums over torch.distributions written out in full."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from delta_vae_core import DiagonalGaussian
from delta_vae_lab.information import Information, active_units, mutual_information


def standard_normal_information(mean: Tensor, scale: Tensor) -> Information:
    """Of a posterior of full length, (N, T, D), under a standard normal prior."""
    posterior = DiagonalGaussian(mean, scale.log())
    z = posterior.sample(torch.Generator().manual_seed(1))
    mask = torch.ones(mean.shape[:2], dtype=torch.bool)
    return mutual_information(posterior, mask, z, Normal(0.0, 1.0).log_prob(z), chunk=500)


def ar1_log_prob(z: Tensor, alpha: float) -> Tensor:
    first = Normal(0.0, 1.0).log_prob(z[:, :1])
    return torch.cat([first, Normal(alpha * z[:, :-1], math.sqrt(1 - alpha**2)).log_prob(z[:, 1:])], 1)


def ar1_complete(z: Tensor, lengths: Tensor, alpha: float) -> Tensor:
    z = z.clone()
    for t in range(1, z.shape[1]):
        draw = Normal(alpha * z[:, t - 1], math.sqrt(1 - alpha**2)).sample()
        z[:, t] = torch.where((t < lengths)[:, None], z[:, t], draw)
    return z


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_gaussian_channel(correlation: float) -> None:
    """x ~ N(0, 1), z_d | x_d ~ N(r x_d, 1 - r^2), d = 1, 2: I = -ln(1 - r^2) nats, within 4 standard errors."""
    torch.manual_seed(0)
    x = torch.randn(3000, 1, 2)
    information = standard_normal_information(
        correlation * x, torch.full_like(x, math.sqrt(1 - correlation**2))
    ).about_x
    error = float(information.std() / math.sqrt(len(information)))
    assert float(information.mean()) == pytest.approx(-math.log(1 - correlation**2), abs=4 * error)


def test_one_signal_seen_at_every_step() -> None:
    """z_t | x ~ N(c_t x, s^2), t = 1..4: I = 1/2 ln(1 + sum_t c_t^2 / s^2), within 4 standard errors."""
    torch.manual_seed(0)
    x, gain = torch.randn(3000, 1, 1), torch.tensor([0.1, 0.4, 0.2, 0.3])[None, :, None]
    information = standard_normal_information(x * gain, torch.full((3000, 4, 1), 0.5)).about_x
    error = float(information.std() / math.sqrt(len(information)))
    assert float(information.mean()) == pytest.approx(0.5 * math.log(1 + 0.3 / 0.25), abs=4 * error)


def test_a_posterior_that_ignores_x_knows_nothing() -> None:
    mean, scale = torch.randn(1, 6, 3), torch.rand(1, 6, 3) + 0.1
    information = standard_normal_information(mean.expand(200, 6, 3), scale.expand(200, 6, 3))
    torch.testing.assert_close(information.about_x, torch.zeros(200, dtype=torch.float64), atol=1e-10, rtol=0)


def test_copying_reaches_the_cap_and_is_exact_there() -> None:
    """Scales of 1e-3 about means a unit apart tell all N sequences from each other: log N, though z^2 / s^2 is 1e6."""
    torch.manual_seed(0)
    information = standard_normal_information(torch.randn(256, 8, 4), torch.full((256, 8, 4), 1e-3))
    assert information.cap == math.log(256)
    torch.testing.assert_close(information.about_x, torch.full((256,), math.log(256), dtype=torch.float64))


def test_every_sequence_twice_costs_log_two() -> None:
    torch.manual_seed(0)
    mean = torch.randn(64, 8, 4).repeat(2, 1, 1)
    information = standard_normal_information(mean, torch.full_like(mean, 1e-3))
    torch.testing.assert_close(information.about_x, torch.full((128,), math.log(64), dtype=torch.float64))


def test_sequences_of_different_lengths_against_the_definition() -> None:
    """Every log q(z_i|x_j) written out step by step: the posterior up to n_j, the AR(1) prior beyond."""
    torch.manual_seed(0)
    alpha, lengths = 0.7, torch.tensor([1, 4, 2, 5, 2, 4, 5])
    n, steps = len(lengths), int(lengths.max())
    mask = torch.arange(steps) < lengths[:, None]
    q = DiagonalGaussian(torch.randn(n, steps, 2), torch.randn(n, steps, 2) * 0.3 - 0.5)
    z = ar1_complete(q.sample(), lengths, alpha)
    prior_log_prob = ar1_log_prob(z, alpha)
    table = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            inside = Normal(q.mean[j], q.scale[j]).log_prob(z[i])[: lengths[j]].sum()
            table[i, j] = inside + prior_log_prob[i, lengths[j] :].sum()
    alike = lengths[:, None] == lengths
    own = table.diagonal()
    about_x = own - torch.stack([row.exp().mean().log() for row in table])
    given_length = own - torch.stack([row[same].exp().mean().log() for row, same in zip(table, alike, strict=True)])

    noisy = DiagonalGaussian(*(torch.where(mask[..., None], x, torch.nan) for x in (q.mean, q.log_scale)))
    information = mutual_information(noisy, mask, z, prior_log_prob, chunk=3)
    torch.testing.assert_close(information.about_x, about_x, atol=1e-5, rtol=0)
    torch.testing.assert_close(information.given_length, given_length, atol=1e-5, rtol=0)
    assert information.given_length_cap == pytest.approx(math.log(2) * 6 / 7)


def test_at_the_floor_z_tells_the_length_and_nothing_else() -> None:
    """q(z_t|x) the same for all x, with other scales than the prior's: where it ends is visible, x is not."""
    torch.manual_seed(0)
    alpha, lengths = 0.9, torch.tensor([3, 8]).repeat(100)
    mask = torch.arange(8) < lengths[:, None]
    q = DiagonalGaussian(torch.zeros(200, 8, 2), torch.full((200, 8, 2), math.log(0.05)))
    z = ar1_complete(q.sample(), lengths, alpha)
    information = mutual_information(q, mask, z, ar1_log_prob(z, alpha))
    torch.testing.assert_close(information.given_length, torch.zeros(200, dtype=torch.float64), atol=1e-10, rtol=0)
    assert float(information.about_x.mean()) == pytest.approx(math.log(2), abs=1e-3)


def test_rate_is_information_plus_marginal_kl() -> None:
    """x = -1 or 1, equally often; q(z|x) = N(x m, s^2), p(z) = N(0, 1): KL(q(z) || p(z)) by quadrature."""
    m, s, n = 0.8, 0.5, 4000
    x = torch.tensor([-1.0, 1.0]).repeat(n // 2)[:, None, None]
    information = standard_normal_information(m * x, torch.full_like(x, s)).about_x
    rate = 0.5 * (m**2 + s**2 - 1 - math.log(s**2))
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    q = 0.5 * (Normal(m, s).log_prob(grid).exp() + Normal(-m, s).log_prob(grid).exp())
    marginal_kl = torch.trapezoid(q * (q.log() - Normal(0.0, 1.0).log_prob(grid)), grid)
    error = float(information.std() / math.sqrt(n))
    assert float(information.mean()) == pytest.approx(rate - float(marginal_kl), abs=4 * error)


def test_an_estimate_below_zero_is_not_clamped() -> None:
    """Posteriors nearly equal: single terms of the estimate fall on both sides of zero."""
    torch.manual_seed(0)
    information = standard_normal_information(torch.randn(100, 2, 1) * 1e-3, torch.ones(100, 2, 1)).about_x
    assert float(information.min()) < 0 < float(information.max())


def test_active_units_counts_dimensions_by_the_variance_over_x() -> None:
    """Standard deviations over x: .05 (variance .0025), .2 (.04), .7 (.49); one more moves with t alone."""
    torch.manual_seed(0)
    over_x = torch.randn(5000, 6, 3) * torch.tensor([0.05, 0.2, 0.7])
    by_position = torch.linspace(-2, 2, 6)[None, :, None].expand(5000, 6, 1)
    mean = torch.cat([over_x, by_position], 2)
    mask = torch.arange(6) < torch.randint(1, 7, (5000, 1))
    mean = mean.masked_fill(~mask[..., None], torch.nan)
    assert active_units(mean, mask, threshold=0.01) == 2
    assert active_units(mean, mask, threshold=0.2) == 1
