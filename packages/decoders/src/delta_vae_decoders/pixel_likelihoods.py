"""Likelihoods p(x | z) of pixels, at integer levels, that an image decoder returns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from delta_vae_core import scaled


@dataclass(frozen=True, eq=False)  # `==` of tensors is elementwise
class DiscretizedLogisticMixture:
    """K logistics a pixel, binned to integer levels (Salimans et al. 2017, PixelCNN++), over x (B, C, H, W).

    On the scale where the levels run from -1 to 1, component k says of channel c of a pixel

        P(x_c | x_{<c}) = sigmoid((x_c - m + w) / s) - sigmoid((x_c - m - w) / s),
        m = means_c + sum_{j<c} coefficients_{cj} x_j,   s = exp(log_scales_c),   w = 1 / (levels - 1),

    the first and the last level reaching to infinity; a pixel's component is one for all its channels.

    logits        (B, H, W, K)        log-weights, up to a constant
    means         (B, H, W, K, C)
    log_scales    (B, H, W, K, C)
    coefficients  (B, H, W, K, C (C - 1) / 2), those of channel 1, then those of channel 2 ...
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor
    levels: int

    @classmethod
    def from_parameters(cls, parameters: Tensor, channels: int, levels: int) -> DiscretizedLogisticMixture:
        """From unconstrained (B, H, W, K (1 + 2 C + C (C - 1) / 2)): scales are bounded, coefficients in (-1, 1).

        In float32 at least: in bfloat16 a mean would be as coarse as 256 levels, in float16 a tail would be infinite.
        """
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        pairs = channels * (channels - 1) // 2
        *pixels, size = parameters.shape
        components = size // (1 + 2 * channels + pairs)
        each = (1, channels, channels, pairs)
        parts = parameters.split([components * count for count in each], dim=-1)
        logits, means, log_scales, coefficients = (
            part.view(*pixels, components, count) for part, count in zip(parts, each, strict=True)
        )
        # At an eighth of a bin's width a component has 96 % of its mass in one bin; at e^7 it is flat over all of them.
        narrowest = math.log(2 / (levels - 1) / 8)
        return cls(logits.squeeze(-1), means, log_scales.clamp(narrowest, 7.0), coefficients.tanh(), levels)

    @staticmethod
    def initial_parameters(components: int, channels: int) -> Tensor:
        """Parameters (P,) near the uniform distribution: components evenly over the range, wide enough to overlap."""
        means = torch.linspace(-1, 1, components + 2, device="cpu")[1:-1].repeat_interleave(channels)
        log_scales = torch.full_like(means, -1.0)
        pairs = channels * (channels - 1) // 2
        zeros = torch.zeros(components, device="cpu")
        return torch.cat((zeros, means, log_scales, zeros.repeat(pairs)))

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p of every pixel, all channels together, in nats: (B, C, H, W) levels -> (B, H W)."""
        x = x.movedim(1, -1).unsqueeze(-2).long()  # compared with a level beyond a byte, bytes would wrap around
        value = scaled(x, self.levels, self.means.dtype)
        channels = range(self.means.shape[-1])
        means = torch.stack([_mean(self.means, self.coefficients, value, c) for c in channels], dim=-1)
        inverse_scale = (-self.log_scales).exp()
        half = 1 / (self.levels - 1)
        upper = (value - means + half) * inverse_scale
        lower = (value - means - half) * inverse_scale
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of near numbers, and at an
        # edge, where b or -a is infinite, the factors that become 1 are left out.
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        between = below + above + (-(-2 * half * inverse_scale).expm1()).log()
        log_prob = torch.where(x == 0, below, torch.where(x == self.levels - 1, above, between)).sum(-1)
        return (self.logits.log_softmax(-1) + log_prob).logsumexp(-1).flatten(1)

    def sample(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """One draw of every pixel given those that the decoder has read: (B, C, H, W) levels.

        `temperature` divides the log-weights and multiplies the scales; at 0 it is the most probable component's mean.
        """
        *pixels, components, channels = self.means.shape
        noise = _gumbel((*pixels, components + 2 * channels), generator, temperature, self.means)
        gumbel, first, second = noise.split((components, channels, channels), dim=-1)
        component = (self.logits + gumbel).argmax(-1, keepdim=True).unsqueeze(-1)
        parts = torch.cat((self.means, self.log_scales, self.coefficients), dim=-1)
        chosen = parts.gather(-2, component.expand(*pixels, 1, parts.shape[-1])).squeeze(-2)
        means, log_scales, coefficients = chosen.split((channels, channels, parts.shape[-1] - 2 * channels), dim=-1)
        # The difference of two Gumbel variables is logistic. From here on in levels: x = (level - middle) / middle.
        middle = (self.levels - 1) / 2
        drawn = (means + log_scales.exp() * (first - second)).mul_(middle).add_(middle)
        coefficient = iter(coefficients.unbind(-1))
        levels: list[Tensor] = []
        for own in drawn.unbind(-1):
            level = own
            for earlier in levels:
                level = torch.addcmul(level, next(coefficient), earlier - middle)
            levels.append(level.round().clamp_(0, self.levels - 1))
        return torch.stack(levels, 1).long()

    def pixel(self, row: int, column: int) -> DiscretizedLogisticMixture:
        """Of one pixel: every field with H = W = 1."""
        logits, means, log_scales, coefficients = (
            _pixel(field, row, column) for field in (self.logits, self.means, self.log_scales, self.coefficients)
        )
        return DiscretizedLogisticMixture(logits, means, log_scales, coefficients, self.levels)


@dataclass(frozen=True, eq=False)
class CategoricalPixels:
    """A categorical distribution over the levels for each channel: `logits` (B, H, W, C, levels).

    The channels of a pixel are independent given the earlier pixels; the mixture's are not.
    """

    logits: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor, channels: int, levels: int) -> CategoricalPixels:
        """From (B, H, W, C levels); in float32 at least."""
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        return cls(parameters.unflatten(-1, (channels, levels)))

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p of every pixel, all channels together, in nats: (B, C, H, W) levels -> (B, H W)."""
        level = x.movedim(1, -1).unsqueeze(-1).long()
        return self.logits.log_softmax(-1).take_along_dim(level, -1).squeeze(-1).sum(-1).flatten(1)

    def sample(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """One draw of every pixel given those that the decoder has read: (B, C, H, W) levels.

        `temperature` divides the logits; at 0 it is the most probable level.
        """
        gumbel = _gumbel(self.logits.shape, generator, temperature, self.logits)
        return (self.logits + gumbel).argmax(-1).movedim(-1, 1)

    def pixel(self, row: int, column: int) -> CategoricalPixels:
        """Of one pixel: H = W = 1."""
        return CategoricalPixels(_pixel(self.logits, row, column))


PixelLikelihood = DiscretizedLogisticMixture | CategoricalPixels


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` unless 0 <= temperature < infinity."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature}: use a finite number >= 0 (0: most probable, 1: the model's own)")


def _gumbel(
    shape: tuple[int, ...] | torch.Size, generator: torch.Generator | None, temperature: float, like: Tensor
) -> Tensor:
    """Gumbel draws times `temperature`; a generator of another device draws on its own and the values are moved.

    argmax(logits + t gumbel) = argmax(logits / t + gumbel) is a draw of softmax(logits / t), for t = 0 too.
    """
    check_temperature(temperature)
    source = generator.device if generator is not None else like.device
    exponential = torch.empty(shape, device=source, dtype=like.dtype).exponential_(generator=generator)
    return exponential.to(like.device).log_().mul_(-temperature)


def _pixel(field: Tensor, row: int, column: int) -> Tensor:
    return field[:, row : row + 1, column : column + 1]


def _mean(means: Tensor, coefficients: Tensor, value: Tensor, c: int) -> Tensor:
    """m of channel c given the channels before it: (..., C), (..., C (C - 1) / 2), (..., C) -> (...)."""
    row = coefficients[..., c * (c - 1) // 2 : c * (c + 1) // 2]
    return means[..., c] + (row * value[..., :c]).sum(-1)
