"""Diagonal Gaussians against `torch.distributions`, and nats against bits."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from delta_vae_core import DiagonalGaussian, bits_to_nats, gaussian_kl, nats_to_bits, standard_normal

SHAPE = (3, 4, 2)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def gaussian(generator: torch.Generator) -> DiagonalGaussian:
    return DiagonalGaussian(*torch.randn(2, *SHAPE, generator=generator))


def oracle(gaussian: DiagonalGaussian) -> Normal:
    return Normal(gaussian.mean, gaussian.log_scale.exp())


def test_log_prob_is_elementwise(gaussian: DiagonalGaussian, generator: torch.Generator) -> None:
    value = torch.randn(SHAPE, generator=generator)
    torch.testing.assert_close(gaussian.log_prob(value), oracle(gaussian).log_prob(value))


def test_kl_is_elementwise_and_a_function_of_two(gaussian: DiagonalGaussian, generator: torch.Generator) -> None:
    other = DiagonalGaussian(*torch.randn(2, *SHAPE, generator=generator))
    torch.testing.assert_close(gaussian_kl(gaussian, other), kl_divergence(oracle(gaussian), oracle(other)))
    torch.testing.assert_close(gaussian_kl(other, gaussian), kl_divergence(oracle(other), oracle(gaussian)))
    assert gaussian_kl(gaussian, gaussian).eq(0).all()


def test_a_sample_is_mean_plus_scale_times_noise(gaussian: DiagonalGaussian) -> None:
    noise = torch.full(SHAPE, -2.0)
    torch.testing.assert_close(gaussian.sample(noise=noise), gaussian.mean - 2 * gaussian.log_scale.exp())


def test_samples_have_the_mean_and_the_scale(generator: torch.Generator) -> None:
    """Five standard errors of 40,000 draws."""
    draws = 40_000
    z = DiagonalGaussian(torch.full((draws,), 3.0), torch.full((draws,), math.log(0.5))).sample(generator)
    assert float(z.mean()) == pytest.approx(3.0, abs=5 * 0.5 / math.sqrt(draws))
    assert float(z.std()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(2 * draws))


def test_gradients_flow_through_a_sample_unless_detached() -> None:
    mean, log_scale = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    noise = torch.tensor([1.0, -3.0])
    gaussian = DiagonalGaussian(mean, log_scale)
    by_mean, by_log_scale = torch.autograd.grad(gaussian.sample(noise=noise).sum(), (mean, log_scale))
    torch.testing.assert_close(by_mean, torch.ones(2))
    torch.testing.assert_close(by_log_scale, noise)
    assert not gaussian.detach().sample(noise=noise).requires_grad


def test_a_generator_decides_and_the_global_state_is_untouched(gaussian: DiagonalGaussian) -> None:
    before = torch.get_rng_state()
    first, again, other = (gaussian.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_has_the_precision_asked_for(dtype: torch.dtype) -> None:
    assert standard_normal((2,), dtype=dtype).dtype == dtype
    gaussian = DiagonalGaussian(torch.zeros(2, dtype=dtype), torch.zeros(2, dtype=dtype))
    assert gaussian.sample().dtype == dtype


@pytest.mark.gpu
def test_a_generator_on_the_cpu_draws_the_same_for_an_accelerator() -> None:
    there = standard_normal((5,), torch.Generator().manual_seed(0), "cuda")
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), standard_normal((5,), torch.Generator().manual_seed(0)), rtol=0, atol=0)


def test_a_nat_is_1_4427_bits() -> None:
    assert nats_to_bits(1.0) == pytest.approx(1.4427, abs=5e-5)
    assert nats_to_bits(math.log(8.0)) == pytest.approx(3.0)
    assert bits_to_nats(1.0) == pytest.approx(0.6931, abs=5e-5)
    torch.testing.assert_close(
        nats_to_bits(torch.tensor([0.0, math.log(2), math.log(256)])), torch.tensor([0.0, 1.0, 8.0])
    )
    torch.testing.assert_close(bits_to_nats(torch.tensor([3.0])), torch.tensor([math.log(8.0)]))
