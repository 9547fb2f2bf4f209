"""Pixel likelihoods against enumeration, finite differences, closed forms and frequencies."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from delta_vae_decoders import CategoricalPixels, DiscretizedLogisticMixture

K = 3
Likelihood = CategoricalPixels | DiscretizedLogisticMixture
each_image = pytest.mark.parametrize("channels", [1, 3])


def parameters(channels: int, batch: int = 2, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """(B, 1, 2, P), unconstrained."""
    size = DiscretizedLogisticMixture.initial_parameters(K, channels).numel()
    return scale * torch.randn(batch, 1, 2, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def mixture(channels: int, levels: int = 4, **options: object) -> DiscretizedLogisticMixture:
    return DiscretizedLogisticMixture.from_parameters(parameters(channels, **options), channels, levels)


def categorical(channels: int, levels: int = 4) -> CategoricalPixels:
    logits = torch.randn(2, 1, 2, channels * levels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return CategoricalPixels.from_parameters(logits, channels, levels)


def every_pixel(channels: int, levels: int = 4) -> Tensor:
    """(levels ** channels, C): all values that a pixel can have."""
    return torch.tensor(list(itertools.product(range(levels), repeat=channels)))


def image_of(pixel: Tensor) -> Tensor:
    """One value (C,) at both pixels of both images: (2, C, 1, 2)."""
    return pixel[None, :, None, None].expand(2, -1, 1, 2)


@each_image
@pytest.mark.parametrize("likelihood", [mixture, categorical])
def test_probabilities_sum_to_one_over_every_pixel(likelihood: Callable, channels: int) -> None:
    p = likelihood(channels)
    total = sum(p.log_prob(image_of(pixel)).exp() for pixel in every_pixel(channels))
    torch.testing.assert_close(total, torch.ones(2, 2, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_any_number_of_levels_sums_to_one_in_float32(levels: int) -> None:
    p = mixture(1, levels, dtype=torch.float32)
    total = sum(p.log_prob(image_of(pixel)).exp() for pixel in every_pixel(1, levels))
    torch.testing.assert_close(total, torch.ones(2, 2), atol=1e-4, rtol=0)


def by_hand(p: DiscretizedLogisticMixture, image: int, column: int, pixel: list[int], levels: int) -> float:
    """ln P of one pixel with Python's own numbers, from the definition."""

    def sigmoid(y: float) -> float:
        return 1 / (1 + math.exp(-y))

    weights = [math.exp(w) for w in p.logits[image, 0, column].tolist()]
    x, half, total = [2 * level / (levels - 1) - 1 for level in pixel], 1 / (levels - 1), 0.0
    for k in range(K):
        mean, log_scale, coefficient = (
            part[image, 0, column, k].tolist() for part in (p.means, p.log_scales, p.coefficients)
        )
        mean[1] += coefficient[0] * x[0]
        mean[2] += coefficient[1] * x[0] + coefficient[2] * x[1]
        mass = weights[k] / sum(weights)
        for c in range(3):
            scale = math.exp(log_scale[c])
            upper = 1.0 if pixel[c] == levels - 1 else sigmoid((x[c] - mean[c] + half) / scale)
            lower = 0.0 if pixel[c] == 0 else sigmoid((x[c] - mean[c] - half) / scale)
            mass *= upper - lower
        total += mass
    return math.log(total)


def test_the_mixture_is_that_of_its_definition() -> None:
    p = mixture(3, scale=0.7)
    x = torch.randint(4, (2, 3, 1, 2), generator=torch.Generator().manual_seed(1))
    x[0, :, 0, 0] = torch.tensor([0, 3, 0])
    expected = [[by_hand(p, i, c, x[i, :, 0, c].tolist(), 4) for c in range(2)] for i in range(2)]
    torch.testing.assert_close(p.log_prob(x), torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=1e-10)


@each_image
@pytest.mark.parametrize("level", [0, 1, 255])
def test_gradients_match_finite_differences_at_the_edges_and_between(channels: int, level: int) -> None:
    x = torch.full((2, channels, 1, 2), level)

    def log_prob(free: Tensor) -> Tensor:
        return DiscretizedLogisticMixture.from_parameters(free, channels, 256).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, parameters(channels, scale=0.5).requires_grad_())


@each_image
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_parameters_give_finite_values_and_gradients(channels: int, size: float) -> None:
    for levels, level in itertools.product((4, 256), (0, 1, 3)):
        free = parameters(channels, batch=8, scale=size, dtype=torch.float32).requires_grad_()
        x = torch.full((8, channels, 1, 2), {3: levels - 1}.get(level, level))
        log_prob = DiscretizedLogisticMixture.from_parameters(free, channels, levels).log_prob(x)
        log_prob.sum().backward()
        assert log_prob.isfinite().all()
        assert (log_prob <= 1e-6).all()
        assert free.grad.isfinite().all()


def test_bytes_are_levels_where_there_are_more_levels_than_a_byte_holds() -> None:
    """Of 300 levels the last is 299, which as a byte would be 43."""
    p = mixture(1, 300)
    levels = torch.tensor([43, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    assert torch.equal(p.log_prob(levels), p.log_prob(levels.long()))


def test_a_level_far_in_the_tail_keeps_its_log_probability() -> None:
    """Where the difference of two float32 sigmoids is 0: ln P = -(m - x - w) / s to first order."""
    free = torch.tensor([0.0, 1.0, -4.0]).view(1, 1, 1, 3)
    p = DiscretizedLogisticMixture.from_parameters(free, 1, 256)
    found = p.log_prob(torch.ones(1, 1, 1, 1, dtype=torch.long)).item()
    x, half, scale = 2 / 255 - 1, 1 / 255, math.exp(-4.0)
    width = 2 * half / scale
    assert found == pytest.approx((x - 1 + half) / scale + math.log(1 - math.exp(-width)), rel=1e-5)
    assert found < -100


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_training_starts_near_the_uniform_distribution(channels: int) -> None:
    free = DiscretizedLogisticMixture.initial_parameters(10, channels).view(1, 1, 1, -1)
    p = DiscretizedLogisticMixture.from_parameters(free, channels, 17)
    assert p.means.shape == (1, 1, 1, 10, channels)
    levels = torch.arange(17).view(-1, 1, 1, 1).expand(-1, channels, 1, 1)
    nats = torch.stack([-p.log_prob(level[None]) for level in levels]).mean()
    assert nats.item() == pytest.approx(channels * math.log(17), rel=0.1)


def tempered(p: Likelihood, temperature: float) -> Likelihood:
    """Log-weights divided by the temperature, scales multiplied by it."""
    if isinstance(p, CategoricalPixels):
        return CategoricalPixels(p.logits / temperature)
    log_scales = p.log_scales + math.log(temperature)
    return DiscretizedLogisticMixture(p.logits / temperature, p.means, log_scales, p.coefficients, p.levels)


@each_image
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("likelihood", [mixture, categorical])
def test_sampling_frequencies_match_the_probabilities(
    likelihood: Callable[..., Likelihood], temperature: float, channels: int
) -> None:
    p, draws = likelihood(channels), 4000
    generator, state = torch.Generator().manual_seed(0), torch.random.get_rng_state()
    many = partial(torch.repeat_interleave, repeats=draws, dim=0)
    fields = {name: many(value) if isinstance(value, Tensor) else value for name, value in vars(p).items()}
    x = type(p)(**fields).sample(generator, temperature)
    assert x.shape == (2 * draws, channels, 1, 2)
    assert x.dtype == torch.long
    assert torch.equal(torch.random.get_rng_state(), state)
    radix = 4 ** torch.arange(channels - 1, -1, -1)
    code = (x.movedim(1, -1) * radix).sum(-1).view(2, draws, 2)
    tempered_p = tempered(p, temperature)
    expected = torch.stack([tempered_p.log_prob(image_of(pixel)).exp() for pixel in every_pixel(channels)], -1)
    found = torch.nn.functional.one_hot(code, 4**channels).double().mean(1)
    # Five standard errors of a share estimated from 4,000 draws, and one draw where next to none is expected.
    allowed = 5 * (expected * (1 - expected) / draws).sqrt() + 1 / draws
    assert ((found - expected).abs() <= allowed).all()


def test_temperature_0_is_the_most_probable_components_mean_or_level() -> None:
    logits = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)
    means = torch.tensor([[-1.0, -1.0], [0.4, 0.3]]).view(1, 1, 1, 2, 2)
    coefficients = torch.tensor([[0.9], [-0.5]]).view(1, 1, 1, 2, 1)
    p = DiscretizedLogisticMixture(logits, means, torch.full_like(means, 3.0), coefficients, levels=5)
    # Of levels at -1, -0.5, 0, 0.5 and 1: 0.4 is nearest 0.5, and 0.3 - 0.5 * 0.5 = 0.05 is nearest 0.
    assert p.sample(torch.Generator(), temperature=0).flatten().tolist() == [3, 2]
    free = torch.tensor([[0.1, 0.3, 0.2], [0.9, 0.0, 0.1]]).view(1, 1, 1, 2, 3)
    assert CategoricalPixels(free).sample(torch.Generator(), temperature=0).flatten().tolist() == [1, 0]


@pytest.mark.parametrize("likelihood", [mixture, categorical])
@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(likelihood: Callable[..., Likelihood], temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature=(-1.0|nan|inf): use a finite number >= 0 \(0: most probable"):
        likelihood(3).sample(temperature=temperature)


@each_image
@pytest.mark.parametrize("likelihood", [mixture, categorical])
def test_one_pixels_likelihood_is_that_of_the_image_there(likelihood: Callable[..., Likelihood], channels: int) -> None:
    p = likelihood(channels)
    x = torch.randint(4, (2, channels, 1, 2), generator=torch.Generator().manual_seed(2))
    for column in range(2):
        alone = p.pixel(0, column).log_prob(x[..., column : column + 1])
        assert torch.equal(alone, p.log_prob(x)[:, column : column + 1])


@pytest.mark.parametrize("likelihood", [mixture, categorical])
def test_the_generator_decides(likelihood: Callable) -> None:
    first, second, third = (likelihood(3).sample(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@each_image
def test_the_mixture_couples_channels_and_the_categorical_does_not(channels: int) -> None:
    """The last channel's marginal, given each value of the first."""
    for likelihood in (mixture, categorical):
        p = likelihood(channels)
        joint = torch.stack([p.log_prob(image_of(pixel))[0, 0].exp() for pixel in every_pixel(channels)])
        joint = joint.view([4] * channels)
        pair = joint.sum(tuple(range(1, channels - 1))) if channels > 1 else joint[None]
        conditional = pair / pair.sum(1, keepdim=True)
        coupled = (conditional - conditional[0]).abs().max().item() > 1e-6
        assert coupled == (likelihood is mixture and channels > 1)
