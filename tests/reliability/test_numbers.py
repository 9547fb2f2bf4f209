"""Every prior at the edges of float32, whatever the inputs' precision, against float64 and to a stated tolerance.

alpha to 1 - 1e-7, standard deviations from 1e-6 to 1e6, means to 10,000, 4,096 steps, 512 dimensions. The same examples
every time; with `NUMBERS_EXAMPLES=5000` in the environment others are looked for.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import lambertw
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from delta_vae_core import DiagonalGaussian, lengths_to_mask
from delta_vae_priors import (
    AR1Prior,
    AR1PriorConfig,
    AuxiliaryPrior,
    AuxiliaryPriorConfig,
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    LSTMPrior,
    LSTMPriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)
from tests.reliability.float32 import DTYPES, U, bounded

ROUNDINGS = 16  # as many of each term's size are allowed
EDGES = [0.0, 0.5, -0.5, 0.9, -0.95, 0.9999, 1 - 1e-6, 1 - 1e-7, -(1 - 1e-7)]
STEPS = (0, 1, 2, 3, 17, 256, 4096)
DIMENSIONS = (1, 2, 8, 64, 512)


@dataclass(frozen=True)
class Case:
    """Statistics (B, T, 2D) of an encoder, a path z (B, T, D), and how long each row is."""

    alpha: list[float]
    lengths: list[int]
    steps: int
    dimensions: int
    form: str  # of the means in time
    size: float  # of the means and of z
    scale: float  # of the posterior, relative to its family's 0
    spread: float  # of ln scale
    dtype: torch.dtype
    seed: int

    @property
    def alphas(self) -> list[float]:
        return [self.alpha[k % len(self.alpha)] for k in range(self.dimensions)]

    @property
    def mask(self) -> Tensor:
        return lengths_to_mask(torch.tensor(self.lengths), self.steps)

    def path(self) -> Tensor:
        shape = (len(self.lengths), self.steps, self.dimensions)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        t = torch.arange(self.steps)[:, None]
        alpha = torch.tensor(self.alphas)
        forms = {"constant": torch.ones(()), "slow": (t / 40).cos(), "noise": noise, "decaying": alpha**t}
        return (self.size * forms[self.form].expand(shape)).to(self.dtype)

    def statistics(self) -> Tensor:
        mean = self.path()
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(self.seed + 1))
        log_scale = (math.log(self.scale) + self.spread * noise).clamp(math.log(1e-6), math.log(1e6))
        return torch.cat((mean, log_scale.to(self.dtype)), -1)


@st.composite
def cases(draw: st.DrawFn, most: int = 2**16, steps: tuple[int, ...] = STEPS) -> Case:
    rows, length = draw(st.integers(1, 3)), draw(st.sampled_from(steps))
    allowed = [d for d in DIMENSIONS if rows * length * d <= most]
    return Case(
        alpha=draw(st.lists(st.sampled_from(EDGES) | st.floats(-(1 - 1e-7), 1 - 1e-7), min_size=1, max_size=4)),
        lengths=draw(st.lists(st.integers(0, length), min_size=rows, max_size=rows)),
        steps=length,
        dimensions=draw(st.sampled_from(allowed)),
        form=draw(st.sampled_from(["constant", "slow", "noise", "decaying"])),
        size=draw(st.sampled_from([0.0, 1e-4, 1.0, 1e2, 1e4]) | st.floats(0, 1e4)),
        scale=10 ** draw(st.sampled_from([-6.0, 0.0, 6.0]) | st.floats(-6, 6)),
        spread=draw(st.sampled_from([0.0, 1e-3, 1.0, 8.0])),
        dtype=draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 2**20)),
    )


LARGEST = Case([1 - 1e-7, 0.9, -(1 - 1e-7), 0.0], [4096], 4096, 512, "slow", 1e4, 1.0, 0.0, torch.float32, 0)
ON_THE_FLOOR = Case([1 - 1e-7, -(1 - 1e-7), 0.5], [4096, 2], 4096, 8, "constant", 0.0, 1.0, 0.0, torch.bfloat16, 0)


def ar1(case: Case) -> AR1Prior:
    return AR1Prior(AR1PriorConfig(alpha=case.alphas))


def assert_within(found: Tensor, exact: Tensor, size: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """`found` is `exact`, to as many roundings of `size`, and one to `dtype`, whose range the exact value may leave."""
    limits = torch.finfo(dtype)
    inside = exact.abs() < limits.max
    own = 0.0 if dtype == torch.float32 else limits.eps
    tolerance = ROUNDINGS * U * size + own * exact.abs() + limits.smallest_normal
    assert found[inside].isfinite().all()
    excess = ((found.double() - exact).abs() - tolerance)[inside]
    worst = int(excess.argmax()) if excess.numel() else 0
    assert (excess <= 0).all(), (found[inside][worst], exact[inside][worst], tolerance.expand_as(exact)[inside][worst])


def shock(x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """x_t - alpha x_{t-1} in float64, and the size of what is subtracted, once neighbours are."""
    value = x[:, 1:] - alpha * x[:, :-1]
    return value, value.abs() + 2 * torch.minimum(alpha.abs(), 1 - alpha.abs()) * x[:, :-1].abs()


def ar1_kl(alphas: list[float], mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KL(q || p) of every step in float64; the sizes of its terms, and of those of its gradient (B, T, 2D)."""
    alpha = torch.tensor(alphas, dtype=torch.float64)
    innovation = (1 - alpha) * (1 + alpha)
    digits = (1 + innovation.log().abs()) / innovation
    variance, wide = (2 * log_scale).exp(), (2 * log_scale).exp() * (1 + 2 * log_scale.abs())
    e, e_size = shock(mean, alpha)
    first = 0.5 * (variance[:, :1] + mean[:, :1] ** 2 - 1 - 2 * log_scale[:, :1])
    spread = variance[:, 1:] + alpha**2 * variance[:, :-1] + e**2
    later = 0.5 * (spread / innovation - 1 - 2 * log_scale[:, 1:] + innovation.log())
    with torch.no_grad():
        rest = 1 + 2 * log_scale.abs() + innovation.log().abs()
        moved = torch.cat((mean[:, :1] ** 2, (e.abs() * e_size + U * e_size**2) * digits), 1)
        own = torch.cat((wide[:, :1], wide[:, 1:] * digits), 1)
        before = torch.cat((torch.zeros_like(wide[:, :1]), alpha**2 * wide[:, :-1] * digits), 1)
        by_mean = torch.cat((mean[:, :1].abs(), e_size * digits), 1)
        by_mean[:, :-1] += alpha.abs() * e_size * digits
        by_log_scale = 1 + own
        by_log_scale[:, :-1] += before[:, 1:]
    return torch.cat((first, later), 1), rest + moved + own + before, torch.cat((by_mean, by_log_scale), -1)


def with_gradient(rate: Callable[[Tensor], Tensor], statistics: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A (B, T, D) function of the statistics where the mask counts, and the gradient of its sum."""
    statistics = statistics.clone().requires_grad_()
    values = torch.where(mask[..., None], rate(statistics), 0.0)
    (gradient,) = torch.autograd.grad(values.sum(), statistics)
    return values.detach(), gradient


@bounded(40)
@given(cases())
@example(LARGEST)
@example(ON_THE_FLOOR)
def test_the_rate_against_ar1_is_float64s_and_keeps_the_floor(case: Case) -> None:
    prior, mask, statistics = ar1(case), case.mask, case.statistics()
    posterior = prior.posterior(statistics, mask)
    assert posterior.mean.dtype == posterior.log_scale.dtype == torch.float32
    same = torch.cat((posterior.mean, posterior.log_scale), -1).double()
    wanted, by = with_gradient(lambda s: ar1_kl(case.alphas, *s.chunk(2, -1))[0], same, mask)
    _, size, gradient_size = ar1_kl(case.alphas, *same.chunk(2, -1))
    kl, gradient = with_gradient(lambda s: prior.kl(prior.posterior(s, mask), mask), statistics, mask)
    assert_within(kl, wanted, size)
    assert_within(gradient, by, gradient_size, case.dtype)
    lengths, at_zero = torch.tensor(case.lengths), prior.posterior(torch.zeros_like(statistics), mask)
    for rate in (kl.sum((1, 2)), prior.kl(at_zero, mask).sum((1, 2))):
        assert (rate >= prior.committed_rate(lengths) * (1 - 1e-6) - 1e-6 * lengths * case.dimensions).all()


@bounded(30)
@given(cases())
@example(LARGEST)
def test_the_density_of_ar1_is_float64s(case: Case) -> None:
    prior, mask, z = ar1(case), case.mask, case.path()
    alpha = torch.tensor(case.alphas, dtype=torch.float64)
    innovation = (1 - alpha) * (1 + alpha)
    digits = (1 + innovation.log().abs()) / innovation

    def exact(z: Tensor) -> Tensor:
        later = Normal(0.0, innovation.sqrt()).log_prob(shock(z, alpha)[0])
        return torch.cat((Normal(0.0, 1.0).log_prob(z[:, :1]), later), 1)

    wanted, by = with_gradient(exact, z.double(), mask)
    log_prob, gradient = with_gradient(lambda z: prior.log_prob(z, mask), z, mask)
    e, e_size = shock(z.double(), alpha)
    moved = torch.cat((z[:, :1].double() ** 2, (e.abs() * e_size + U * e_size**2) * digits), 1)
    gradient_size = torch.cat((z[:, :1].double().abs(), e_size * digits), 1)
    gradient_size[:, :-1] += alpha.abs() * e_size * digits
    assert_within(log_prob, wanted, 1 + innovation.log().abs() + moved)
    assert_within(gradient, by, gradient_size, case.dtype)


def test_long_paths_of_ar1_have_the_process_shocks(seen: Callable[..., None]) -> None:
    """(z_t - alpha z_{t-1}) / sqrt(1 - alpha^2), taken in float64, is standard and white: to five standard errors."""
    off = 0.0
    for alpha in (1 - 1e-7, -(1 - 1e-7), 0.9999, 0.0):
        prior = AR1Prior(AR1PriorConfig(alpha=alpha, latent_dim=512))
        z = prior.sample(1, 4096, torch.Generator().manual_seed(0))
        assert z.isfinite().all()
        innovation = (1 - alpha) * (1 + alpha)
        white = shock(z.double(), torch.tensor(alpha, dtype=torch.float64))[0] / math.sqrt(innovation)
        count = white.numel()
        assert abs(float(white.mean())) < 5 / math.sqrt(count)
        assert abs(float(white.square().mean()) - 1) < 5 * math.sqrt(2 / count)
        assert abs(float((white[:, 1:] * white[:, :-1]).mean())) < 5 / math.sqrt(count)
        nats = 0.5 * math.log(2 * math.pi * math.e * innovation) + float(prior.log_prob(z)[:, 1:].double().mean())
        assert abs(nats) < 5 * math.sqrt(0.5 / count)
        off = max(off, abs(nats))
    seen(steps=4096, dimensions=512, nats_a_step_from_the_entropy=f"{off:.4f}")


@bounded(25)
@given(cases(most=2**14))
def test_a_path_of_ar1_goes_on_from_where_it_is(case: Case) -> None:
    """alpha^(t - n) z_n beyond step n, to the noise's six standard deviations; what is given stays as it is."""
    prior, mask, z = ar1(case), case.mask, case.path()
    completed = prior.complete(z, mask, torch.Generator().manual_seed(case.seed))
    assert torch.equal(completed[mask], z[mask].float())
    alpha = torch.tensor(case.alphas, dtype=torch.float64)
    for row, length in enumerate(case.lengths):
        since = torch.arange(1, case.steps - length + 1)[:, None]
        start = z[row, length - 1].double() if length else torch.zeros_like(alpha)
        allowed = 6 * (1 - alpha.abs() ** (2 * since)).clamp_min(1e-14).sqrt() if length else torch.full((1,), 6.0)
        rounding = 4 * U * (since + 1) * (alpha.abs() ** since * start.abs() + 6)
        assert ((completed[row, length:].double() - alpha**since * start).abs() <= allowed + rounding).all()


@bounded(40)
@given(cases())
def test_the_rate_of_an_ordinary_vae_is_float64s(case: Case) -> None:
    prior = StandardNormalPrior(StandardNormalPriorConfig(latent_dim=case.dimensions))
    mask, statistics = case.mask, case.statistics()
    mean, log_scale = statistics.double().chunk(2, -1)

    def exact(statistics: Tensor) -> Tensor:
        mean, log_scale = statistics.chunk(2, -1)
        return kl_divergence(Normal(mean, log_scale.exp()), Normal(0.0, 1.0))

    wide = (2 * log_scale).exp() * (1 + 2 * log_scale.abs())
    wanted, by = with_gradient(exact, statistics.double(), mask)
    kl, gradient = with_gradient(lambda s: prior.kl(prior.posterior(s, mask), mask), statistics, mask)
    assert_within(kl, wanted, 1 + 2 * log_scale.abs() + wide + mean**2)
    assert_within(gradient, by, torch.cat((mean.abs(), 1 + wide), -1), case.dtype)
    assert (kl >= -1e-6).all()
    z = case.path()
    wanted, by = with_gradient(lambda z: Normal(0.0, 1.0).log_prob(z), z.double(), mask)
    log_prob, gradient = with_gradient(lambda z: prior.log_prob(z, mask), z, mask)
    assert_within(log_prob, wanted, 1 + z.double() ** 2)
    assert_within(gradient, by, z.double().abs(), case.dtype)


@bounded(40)
@given(
    cases(), st.sampled_from([1e-7, 1e-3, 0.1, 5.0, 80.0]) | st.floats(1e-7, 80.0), st.sampled_from([1.0, 20.0, 6e4])
)
def test_every_step_of_an_independent_posterior_keeps_delta(case: Case, delta: float, gate: float) -> None:
    """KL = delta + relu(.) / 2 by the definition of the family, its scale between the two roots by Lambert's W.

    Along the gate the KL is constant. Allowed is 1e-6 of 1 + delta + sigma^2 + mu^2.
    """
    prior = IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=case.dimensions, delta=delta))
    mask, noise = case.mask, case.statistics().chunk(2, -1)[1].float()
    above = case.path()
    statistics = torch.cat((above, (gate * noise.clamp(-1, 1)).to(case.dtype)), -1)
    low, high = (math.sqrt(float(-lambertw(-math.exp(-2 * delta - 1), k).real)) for k in (0, -1))
    posterior = prior.posterior(statistics, mask)
    assert posterior.log_scale.exp().isfinite().all()
    assert (posterior.scale >= low * (1 - 1e-4)).all()
    assert (posterior.scale <= high * (1 + 1e-6)).all()
    kl, gradient = with_gradient(lambda s: prior.kl(prior.posterior(s, mask), mask), statistics, mask)
    wanted = torch.where(mask[..., None], delta + above.double().relu() / 2, 0.0)
    tolerance = 1e-6 * (1 + delta + high**2 + posterior.mean.double() ** 2)
    assert ((kl.double() - wanted).abs() <= tolerance).all()
    assert (kl.double() >= torch.where(mask[..., None], delta, 0.0) - tolerance).all()
    by = torch.where(mask[..., None], 0.5 * (above > 0), 0.0)
    by_above, by_gate = gradient.double().chunk(2, -1)
    assert ((by_above - by).abs() <= 2e-3).all()
    assert (by_gate.abs() <= 1e-5 * (1 + delta)).all()
    z, noise = posterior.sample(torch.Generator()), torch.ones_like(posterior.mean)
    assert z.isfinite().all()
    _, by_sample = with_gradient(lambda s: prior.posterior(s, mask).sample(noise=noise), statistics, mask)
    assert by_sample.isfinite().all()


def test_a_delta_whose_scale_float32_does_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="delta=80.5: must be at most 80 nats a step and dimension"):
        IndependentDeltaPriorConfig(delta=80.5)


@bounded(30)
@given(cases(most=2**11, steps=(0, 1, 2, 3, 65)), st.booleans())
def test_an_lstm_prior_is_float64s(case: Case, auxiliary: bool) -> None:
    """torch's own LSTM in float64, of the same weights. Allowed is 1e-4 of the largest term of a row."""
    torch.manual_seed(0)
    kind, config = (AuxiliaryPrior, AuxiliaryPriorConfig) if auxiliary else (LSTMPrior, LSTMPriorConfig)
    prior = kind(config(latent_dim=case.dimensions, hidden_size=6)).eval()
    torch.nn.init.normal_(prior.head.weight, std=0.5)
    lstm, head, mask = copy.deepcopy(prior.lstm).double(), copy.deepcopy(prior.head).double(), case.mask
    z, statistics = case.path(), case.statistics().float()

    def conditional(z: Tensor) -> Normal:
        before = torch.cat((torch.zeros_like(z[:, :1]), z[:, :-1]), 1)
        mean, log_scale = head(lstm(before)[0] if z.shape[1] else z.new_zeros(*z.shape[:2], 6)).chunk(2, -1)
        return Normal(mean, log_scale.exp())

    def exact(statistics: Tensor) -> Tensor:
        mean, log_scale = statistics.chunk(2, -1)
        return kl_divergence(Normal(mean, log_scale.exp()), conditional(z.double()))

    def found(statistics: Tensor) -> Tensor:
        return prior.kl(DiagonalGaussian(*statistics.chunk(2, -1)), mask, z)

    pairs = [(prior.log_prob(z, mask), torch.where(mask[..., None], conditional(z.double()).log_prob(z.double()), 0.0))]
    if auxiliary:
        pairs.append((found(statistics), torch.where(mask[..., None], exact(statistics.double()), 0.0)))
    else:
        pairs += zip(
            with_gradient(found, statistics, mask), with_gradient(exact, statistics.double(), mask), strict=True
        )
    for value, wanted in pairs:
        assert value.isfinite().all()
        largest = wanted.abs().amax((1, 2), keepdim=True) if wanted.numel() else wanted.abs()
        assert ((value.double() - wanted).abs() <= 1e-4 * (1 + largest)).all()
    completed = prior.complete(z, mask, torch.Generator().manual_seed(0))
    assert completed.isfinite().all()
    assert torch.equal(completed[mask], z[mask].float())
