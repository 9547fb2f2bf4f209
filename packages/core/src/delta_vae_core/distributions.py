"""Diagonal Gaussians, and the KL divergence as a function of two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)  # `==` of tensors is elementwise
class DiagonalGaussian:
    """N(mean, exp(log_scale)^2), independent over all elements; both parameters have one shape, often (B, T, D)."""

    mean: Tensor
    log_scale: Tensor

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def sample(self, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """mean + scale * noise, reparameterised. `noise` is standard normal, drawn from `generator` if not given."""
        if noise is None:
            noise = standard_normal(self.mean.shape, generator, self.mean.device, self.mean.dtype)
        return self.mean + self.scale * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of every element, in nats."""
        return -0.5 * ((value - self.mean) / self.scale) ** 2 - self.log_scale - _HALF_LOG_TAU

    def detach(self) -> DiagonalGaussian:
        """The same distribution, through which no gradient flows."""
        return DiagonalGaussian(self.mean.detach(), self.log_scale.detach())


def gaussian_kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) of every element, in nats."""
    log_ratio = q.log_scale - p.log_scale
    return 0.5 * ((2 * log_ratio).exp() + ((q.mean - p.mean) / p.scale) ** 2 - 1 - 2 * log_ratio)


def standard_normal(
    shape: tuple[int, ...] | torch.Size,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """N(0, 1) draws on `device`; a generator of another device draws on its own and the values are moved."""
    source = generator.device if generator is not None else device
    return torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device or source)
