"""Likelihoods p(x | z) that decoders return."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from delta_vae_core import scaled


@dataclass(frozen=True, eq=False)  # `==` of tensors is elementwise
class CategoricalLikelihood:
    """One categorical distribution a token: `logits` (B, L, V)."""

    logits: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x_t | x_{<t}, z) in nats, float32: (B, L) token ids -> (B, L)."""
        return -F.cross_entropy(self.logits.flatten(0, 1).float(), x.flatten(), reduction="none").view_as(x)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of every token given those that the decoder has read: (B, L)."""
        probabilities = self.logits.flatten(0, 1).float().softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator).view(self.logits.shape[:2])


@dataclass(frozen=True, eq=False)
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
        """From unconstrained (B, H, W, K (1 + 2 C + C (C - 1) / 2)): scales are bounded, coefficients in (-1, 1)."""
        pairs = channels * (channels - 1) // 2
        components = parameters.shape[-1] // (1 + 2 * channels + pairs)
        sizes = [components, components * channels, components * channels, components * pairs]
        logits, means, log_scales, coefficients = parameters.split(sizes, dim=-1)
        means, log_scales, coefficients = (
            part.unflatten(-1, (components, part.shape[-1] // components)) for part in (means, log_scales, coefficients)
        )
        # At an eighth of a bin's width a component has 96 % of its mass in one bin; at e^7 it is flat over all of them.
        narrowest = math.log(2 / (levels - 1) / 8)
        return cls(logits, means, log_scales.clamp(narrowest, 7.0), coefficients.tanh(), levels)

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
        x = x.movedim(1, -1).unsqueeze(-2)
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

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of every pixel given those that the decoder has read: (B, C, H, W) levels."""
        weights = self.logits.softmax(-1)
        component = torch.multinomial(weights.flatten(0, 2), 1, generator=generator).view(*weights.shape[:3], 1, 1)
        means, log_scales, coefficients = (
            part.take_along_dim(component, 3).squeeze(3) for part in (self.means, self.log_scales, self.coefficients)
        )
        uniform = torch.rand(means.shape, generator=generator, device=means.device, dtype=means.dtype)
        noise = log_scales.exp() * uniform.logit()
        levels, value = torch.zeros_like(means, dtype=torch.long), torch.zeros_like(means)
        for c in range(means.shape[-1]):
            drawn = _mean(means, coefficients, value, c) + noise[..., c]
            bins = ((drawn + 1) * (self.levels - 1) / 2).round().clamp(0, self.levels - 1)
            levels[..., c] = bins.long()
            value[..., c] = scaled(bins, self.levels, means.dtype)
        return levels.movedim(-1, 1)


@dataclass(frozen=True, eq=False)
class CategoricalPixels:
    """A categorical distribution over the levels for each channel: `logits` (B, H, W, C, levels).

    The channels of a pixel are independent given the earlier pixels; the mixture's are not.
    """

    logits: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor, channels: int, levels: int) -> CategoricalPixels:
        """From (B, H, W, C levels)."""
        return cls(parameters.unflatten(-1, (channels, levels)))

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p of every pixel, all channels together, in nats: (B, C, H, W) levels -> (B, H W)."""
        level = x.movedim(1, -1).unsqueeze(-1).long()
        return self.logits.log_softmax(-1).take_along_dim(level, -1).squeeze(-1).sum(-1).flatten(1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of every pixel given those that the decoder has read: (B, C, H, W) levels."""
        probabilities = self.logits.softmax(-1)
        drawn = torch.multinomial(probabilities.flatten(0, 3), 1, generator=generator)
        return drawn.view(self.logits.shape[:4]).movedim(-1, 1)


def _mean(means: Tensor, coefficients: Tensor, value: Tensor, c: int) -> Tensor:
    """m of channel c given the channels before it: (..., C), (..., C (C - 1) / 2), (..., C) -> (...)."""
    row = coefficients[..., c * (c - 1) // 2 : c * (c + 1) // 2]
    return means[..., c] + (row * value[..., :c]).sum(-1)
