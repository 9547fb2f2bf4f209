"""Independent priors, N(0, I) over all steps: the ordinary VAE, and the independent delta-VAE."""

# Like every config module: no `from __future__ import annotations`.
import math

import torch
from torch import Tensor

from delta_vae_core import DiagonalGaussian, StrictConfig, checked, gaussian_kl, require, standard_normal
from delta_vae_priors.prior import WeightlessPrior, check_mask, counted, full_precision, split_statistics


@checked
class StandardNormalPriorConfig(StrictConfig):
    """The prior of an ordinary VAE; nothing is committed."""

    model_type = "delta_vae_standard_normal_prior"
    latent_dim: int = 8

    def validate_latent_dim(self) -> None:
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "must be at least 1")


@checked
class IndependentDeltaPriorConfig(StrictConfig):
    """`delta`: nats committed by every step of every dimension."""

    model_type = "delta_vae_independent_delta_prior"
    latent_dim: int = 8
    delta: float | int = 0.1

    def validate_delta(self) -> None:
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "must be at least 1")
        require(self.delta, "delta", self.delta > 0, "must be above 0 nats; for 0 use the standard normal prior")
        # At the lower root sigma is about e^(-delta - 1/2), which float32 must hold with all its digits.
        require(self.delta, "delta", self.delta <= 80, "must be at most 80 nats a step and dimension")


class StandardNormalPrior(WeightlessPrior):
    """p(z) = N(0, I), with an unconstrained diagonal Gaussian posterior."""

    config_class = StandardNormalPriorConfig
    config: StandardNormalPriorConfig

    def __init__(self, config: StandardNormalPriorConfig) -> None:
        super().__init__(config)
        self.post_init()

    def posterior(self, statistics: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """(B, T, 2D) -> mean and log-scale as they are."""
        return DiagonalGaussian(*split_statistics(statistics, self.config.latent_dim))

    def kl(self, posterior: DiagonalGaussian, mask: Tensor | None = None, latents: Tensor | None = None) -> Tensor:
        """KL(q || N(0, 1)) per step and dimension, in nats: (B, T, D)."""
        q = DiagonalGaussian(posterior.mean.float(), posterior.log_scale.float())
        with full_precision(q.mean):
            zero = torch.zeros_like(q.mean)
            return counted(gaussian_kl(q, DiagonalGaussian(zero, zero)), mask)

    def committed_rate(self, lengths: int | Tensor) -> Tensor:
        """Nothing: 0 nats, float64, shape as `lengths`."""
        return torch.zeros_like(torch.as_tensor(lengths), dtype=torch.float64)

    def log_prob(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """ln N(z; 0, 1) per step and dimension, in nats: (B, T, D)."""
        zero = torch.zeros_like(z, dtype=torch.float32)
        return counted(DiagonalGaussian(zero, zero).log_prob(z.float()), mask)

    def complete(self, z: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Missing steps are fresh N(0, 1) draws."""
        check_mask(mask)
        noise = standard_normal(z.shape, generator, z.device)
        return torch.where(mask.bool()[..., None], z.float(), noise)


class IndependentDeltaPrior(StandardNormalPrior):
    """p(z) = N(0, I); every step and dimension of the posterior keeps KL >= delta. Razavi et al. 2019, section 2.1.

    KL >= delta  <=>  mu^2 >= 2 delta + 1 + ln sigma^2 - sigma^2. The right side is positive for sigma^2 between the
    roots l < 1 < u of ln x - x + 2 delta + 1 = 0, so sigma is kept there and mu^2 is that plus what the encoder adds.
    """

    config_class = IndependentDeltaPriorConfig  # type: ignore[assignment]
    config: IndependentDeltaPriorConfig  # type: ignore[assignment]

    def __init__(self, config: IndependentDeltaPriorConfig) -> None:
        super().__init__(config)  # type: ignore[arg-type]
        lower, upper = variance_interval(config.delta)
        self._scale_low, self._scale_high = math.sqrt(lower), math.sqrt(upper)

    def posterior(self, statistics: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """(B, T, 2D) -> mu = sqrt(2 delta + 1 + ln sigma^2 - sigma^2 + relu(.)), sigma in [sqrt l, sqrt u]."""
        above, gate = split_statistics(statistics, self.config.latent_dim)
        scale = self._scale_low + (self._scale_high - self._scale_low) * gate.sigmoid()
        required = (2 * self.config.delta + 1 + 2 * scale.log() - scale**2).clamp_min(0)
        # The square root has no gradient at 0, which `required` only reaches where the sigmoid saturates.
        return DiagonalGaussian((required + above.relu() + 1e-10).sqrt(), scale.log())

    def committed_rate(self, lengths: int | Tensor) -> Tensor:
        """delta a step and dimension, in nats, float64, shape as `lengths`."""
        return torch.as_tensor(lengths).double() * self.config.latent_dim * self.config.delta


def variance_interval(delta: float) -> tuple[float, float]:
    """The two roots l < 1 < u of ln x - x + 2 delta + 1 = 0, by bisection to the last bit."""

    def excess(x: float) -> float:
        return math.log(x) - x + 2 * delta + 1

    def root(outside: float, inside: float) -> float:
        while (middle := 0.5 * (outside + inside)) not in (outside, inside):
            outside, inside = (outside, middle) if excess(middle) > 0 else (middle, inside)
        return inside

    # excess(x) = -x < 0 at x = exp(-2 delta - 1); by ln x <= x / 2 + ln 2 - 1 it is <= ln 2 - 2 at 4 + 4 delta.
    return root(math.exp(-2 * delta - 1), 1.0), root(4 + 4 * delta, 1.0)
