"""The likelihoods at the edges of float32 against float64: first and last level, far means, extreme scales and logits.

The same examples every time; with `NUMBERS_EXAMPLES=5000` in the environment others are looked for.
"""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from delta_vae_decoders import (
    CategoricalLikelihood,
    CategoricalPixels,
    DiscretizedLogisticMixture,
    LinearCategoricalLikelihood,
)
from tests.reliability.float32 import DTYPES, U, bounded


@dataclass(frozen=True)
class Mixture:
    """Unconstrained parameters of four pixels, and their levels."""

    levels: int
    channels: int
    components: int
    logits: float  # size
    middle: float  # of the means
    width: float  # of the means about it
    log_scale: float
    coefficients: float  # size
    level: str
    dtype: torch.dtype
    seed: int

    def parameters(self) -> Tensor:
        g, K, C = torch.Generator().manual_seed(self.seed), self.components, self.channels
        noise = [torch.randn(4, 1, 1, K * n, generator=g) for n in (1, C, C, C * (C - 1) // 2)]
        logits, means, log_scales, coefficients = noise
        parts = (self.logits * logits, self.middle + self.width * means)
        parts += (self.log_scale + log_scales, self.coefficients * coefficients)
        return torch.cat(parts, -1).to(self.dtype)

    def x(self) -> Tensor:
        g, top = torch.Generator().manual_seed(self.seed + 1), self.levels - 1
        drawn = torch.randint(self.levels, (4, self.channels, 1, 1), generator=g)
        return {"first": torch.zeros_like(drawn), "last": torch.full_like(drawn, top), "any": drawn}[self.level]

    def found(self, parameters: Tensor) -> Tensor:
        likelihood = DiscretizedLogisticMixture.from_parameters(parameters, self.channels, self.levels)
        return likelihood.log_prob(self.x()).flatten()

    def exact(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """ln p of the four pixels, by the difference of two sigmoids in float64, each from its near tail.

        And the sizes of the sigmoids' arguments, of the worst component that has a say.
        """
        K, C = self.components, self.channels
        parts = parameters.double().flatten(0, 2).split([K, K * C, K * C, K * C * (C - 1) // 2], -1)
        logits, (means, log_scales) = parts[0], (part.view(4, K, C) for part in parts[1:3])
        coefficients = parts[3].view(4, K, -1).tanh()
        log_scales = log_scales.clamp(math.log(2 / (self.levels - 1) / 8), 7.0)
        level = self.x().view(4, 1, C)
        value = 2 * level.double() / (self.levels - 1) - 1
        total, size, at = logits.log_softmax(-1), torch.zeros(4, K, dtype=torch.float64), 0
        for c in range(C):
            mean, about = means[..., c], 1 + value[..., c].abs() + means[..., c].abs()
            for j in range(c):
                mean = mean + coefficients[..., at] * value[..., j]
                about, at = about + 1, at + 1
            inverse = (-log_scales[..., c]).exp()
            b, a = ((value[..., c] - mean + side / (self.levels - 1)) * inverse for side in (1, -1))
            near, far = torch.where(a + b > 0, -a, b), torch.where(a + b > 0, -b, a)
            between = F.logsigmoid(near) + torch.log1p(-(F.logsigmoid(far) - F.logsigmoid(near)).exp())
            ends = torch.where(level[..., c] == 0, F.logsigmoid(b), F.logsigmoid(-a))
            inner = (level[..., c] > 0) & (level[..., c] < self.levels - 1)
            total = total + torch.where(inner, between, ends)
            size = size + (about * inverse * (1 + log_scales[..., c].abs())).detach()
        heard = total.detach().softmax(-1) > 1e-9
        size = 1 + total.detach().logsumexp(-1).abs() + logits.detach().abs().amax(-1) + (size * heard).amax(-1)
        return total.logsumexp(-1), size


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    return Mixture(
        levels=draw(st.sampled_from([2, 3, 17, 256, 1024])),
        channels=draw(st.sampled_from([1, 2, 3])),
        components=draw(st.integers(1, 10)),
        logits=draw(st.sampled_from([0.0, 1.0, 1e4])),
        middle=draw(st.sampled_from([0.0, 1.0, -1.0, 30.0, -1e4, 1e4]) | st.floats(-2, 2)),
        width=draw(st.sampled_from([0.0, 1.0, 1e3])),
        log_scale=draw(st.sampled_from([-1e4, -7.0, -2.0, 0.0, 7.0, 1e4]) | st.floats(-12, 9)),
        coefficients=draw(st.sampled_from([0.0, 1.0, 100.0])),
        level=draw(st.sampled_from(["first", "last", "any"])),
        dtype=draw(st.sampled_from(DTYPES)),
        seed=draw(st.integers(0, 2**20)),
    )


FAR = Mixture(256, 3, 10, 1.0, 1e4, 0.0, -1e4, 1.0, "first", torch.float16, 0)


@bounded(120)
@given(mixtures())
@example(FAR)
def test_the_mixture_of_logistics_is_float64s(case: Mixture) -> None:
    """All components thousands of scales away too. 16 roundings of the sigmoids' arguments; gradients likewise."""
    parameters = case.parameters().requires_grad_()
    found = case.found(parameters)
    wanted_parameters = case.parameters().double().requires_grad_()
    wanted, size = case.exact(wanted_parameters)
    allowed = 16 * U * size
    assert found.dtype == torch.float32
    assert ((found.double() - wanted).abs() <= allowed).all(), (found, wanted, allowed)
    assert (found <= 1e-6).all()
    (gradient,) = torch.autograd.grad(found.sum(), parameters)
    (by,) = torch.autograd.grad(wanted.sum(), wanted_parameters)
    inside = by.abs() < torch.finfo(case.dtype).max
    assert gradient[inside].isfinite().all()
    largest = by.abs().amax(-1, keepdim=True)
    own = torch.finfo(case.dtype).eps
    tolerance = (allowed.view(4, 1, 1, 1) + own + 1e-6) * (1 + largest)
    assert ((gradient.double() - by).abs() <= tolerance)[inside].all()


@bounded(60)
@given(mixtures())
@example(FAR)
def test_the_mixtures_probabilities_sum_to_one(case: Mixture) -> None:
    """Over every level of one channel, or every pixel of a few levels and all channels; to 1e-3."""
    levels = case.levels if case.channels == 1 else {2: 17, 3: 5}[case.channels]
    every = torch.tensor(list(itertools.product(range(levels), repeat=case.channels)))
    likelihood = DiscretizedLogisticMixture.from_parameters(case.parameters(), case.channels, levels)
    x = every.T.reshape(1, case.channels, len(every), 1).expand(4, -1, -1, -1)
    expanded = DiscretizedLogisticMixture(
        *(getattr(likelihood, name).expand(-1, len(every), *[-1] * (getattr(likelihood, name).dim() - 2))
          for name in ("logits", "means", "log_scales", "coefficients")),
        levels,
    )  # fmt: skip
    total = expanded.log_prob(x).double().exp().sum(1)
    assert ((total - 1).abs() < 1e-3).all(), total


@bounded(60)
@given(mixtures(), st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
@example(FAR, 1.0)
def test_what_the_mixture_draws_is_a_level(case: Mixture, temperature: float) -> None:
    likelihood = DiscretizedLogisticMixture.from_parameters(case.parameters(), case.channels, case.levels)
    drawn = likelihood.sample(torch.Generator().manual_seed(case.seed), temperature)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < case.levels


@pytest.mark.parametrize("kind", ["text", "linear", "pixels"])
@bounded(60)
@given(
    size=st.sampled_from([1.0, 1e2, 1e4, 3e4, 1e30]),
    choices=st.sampled_from([2, 17, 256]),
    dtype=st.sampled_from(DTYPES),
    ties=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_categorical_likelihoods_are_float64s(
    kind: str, size: float, choices: int, dtype: torch.dtype, ties: bool, seed: int
) -> None:
    """Logits to 10^30 (in float16 to 30,000), one far above all others or all the same. 8 roundings of the largest."""
    size = min(size, 3e4) if dtype == torch.float16 else size
    noise = torch.rand(6, choices, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    logits = (size * (torch.ones_like(noise) if ties else noise)).to(dtype).requires_grad_()
    x = torch.randint(choices, (6,), generator=torch.Generator().manual_seed(seed))
    one = torch.eye(6, dtype=dtype)[None]  # features that choose a row of what the product's weight holds
    likelihood = {
        "text": lambda: CategoricalLikelihood(logits[None]),
        "linear": lambda: LinearCategoricalLikelihood(one, logits.t()),
        "pixels": lambda: CategoricalPixels.from_parameters(logits.view(1, 6, 1, choices), 1, choices),
    }[kind]()
    shaped = x.view(1, 1, 6, 1) if kind == "pixels" else x[None]
    found = likelihood.log_prob(shaped).flatten()
    exact = logits.detach().double().requires_grad_()
    wanted = exact.log_softmax(-1).gather(1, x[:, None])[:, 0]
    assert found.dtype == torch.float32
    assert ((found.double() - wanted).abs() <= 8 * U * (1 + math.log(choices) + size)).all()
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    (by,) = torch.autograd.grad(wanted.sum(), exact)
    assert ((gradient.double() - by).abs() <= 16 * U * (1 + min(size, 1e4)) + torch.finfo(dtype).eps).all()
    drawn = likelihood.sample(torch.Generator().manual_seed(seed)).flatten()
    log_probability = exact.detach().log_softmax(-1).gather(1, drawn[:, None])
    assert (log_probability > -40).all(), "what has no probability is not drawn"
