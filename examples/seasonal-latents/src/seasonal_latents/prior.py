"""A seasonal prior: what repeats every `period` steps is cheap to tell, and every season commits its rate.

z_t = alpha z_{t-P} + e_t, e_t ~ N(0, 1 - alpha^2), and z_t ~ N(0, 1) for the first P steps: P interleaved AR(1) chains.
The posterior is independent over steps. Whatever its parameters are, a Gaussian prior of precision L then commits
1/2 (sum_t ln L_tt - ln det L) nats, attained at mean 0 and variance 1 / L_tt.
"""

# No `from __future__ import annotations` where there is a config: its types would not be checked.
import math
from typing import Self

import torch
from torch import Tensor

from delta_vae_core import DiagonalGaussian, StrictConfig, checked, require, standard_normal
from delta_vae_priors import WeightlessPrior, counted, full_precision, solve_alpha, split_statistics


@checked
class SeasonalPriorConfig(StrictConfig):
    """`period` P in steps; `alpha` in (-1, 1), the correlation of a step with the one a period before it."""

    model_type = "seasonal_latents_prior"
    latent_dim: int = 8
    period: int = 7
    alpha: float | int = 0.9

    def validate_sizes(self) -> None:
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "must be at least 1")
        require(self.period, "period", self.period >= 1, "must be at least 1 step")
        require(self.alpha, "alpha", abs(self.alpha) < 1, "must be inside (-1, 1), or the process is not stationary")

    @classmethod
    def from_committed_rate(cls, *, nats: float, steps: int, latent_dim: int, period: int) -> Self:
        """The alpha with which `steps` latents, whole periods of them, commit `nats`."""
        require(period, "period", period >= 1, "must be at least 1 step")
        require(steps, "steps", steps % period == 0, f"use a multiple of period={period}")
        alpha = solve_alpha(nats, steps // period, latent_dim * period)
        return cls(latent_dim=latent_dim, period=period, alpha=alpha)


class SeasonalPrior(WeightlessPrior):
    """p(z) = prod_{t<=P} N(z_t; 0, 1) prod_{t>P} N(z_t; alpha z_{t-P}, 1 - alpha^2), in every dimension."""

    config_class = SeasonalPriorConfig
    config: SeasonalPriorConfig

    def __init__(self, config: SeasonalPriorConfig) -> None:
        super().__init__(config)
        self.period, self.alpha = config.period, float(config.alpha)
        self.log_innovation = math.log1p(-(self.alpha**2))  # ln(1 - alpha^2)
        self.post_init()

    def posterior(self, statistics: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """(B, T, 2D) -> the mean, and a log-scale relative to the best one: statistics 0 attain the committed rate."""
        mean, log_scale = split_statistics(statistics, self.config.latent_dim)
        steps = mean.shape[1]
        t = torch.arange(steps, device=mean.device)
        length = torch.full((1, 1), steps, device=mean.device) if mask is None else mask.sum(1, keepdim=True)
        neighbours = (t >= self.period).long() + (t + self.period < length)  # 0, 1 or 2 a step, (B, T)
        best = [0.0, self.log_innovation, self.log_innovation - math.log1p(self.alpha**2)]  # ln 1 / L_tt
        return DiagonalGaussian(mean, log_scale + 0.5 * torch.tensor(best, device=mean.device)[neighbours][..., None])

    def kl(self, posterior: DiagonalGaussian, mask: Tensor | None = None, latents: Tensor | None = None) -> Tensor:
        """KL(q || p) by the chain rule, per step and dimension, in nats: (B, T, D); its sum is the rate."""
        mean, log_scale = posterior.mean.float(), posterior.log_scale.float()
        with full_precision(mean):
            variance, past = (2 * log_scale).exp(), mean.shape[1] - self.period
            first = variance + mean**2 - 1 - 2 * log_scale
            if past <= 0:
                return counted(0.5 * first, mask)
            spread = variance[:, self.period :] + self.alpha**2 * variance[:, :past]
            spread = spread + (mean[:, self.period :] - self.alpha * mean[:, :past]) ** 2
            later = spread * math.exp(-self.log_innovation) - 1 - 2 * log_scale[:, self.period :] + self.log_innovation
            return counted(0.5 * torch.cat((first[:, : self.period], later), dim=1), mask)

    def committed_rate(self, lengths: int | Tensor) -> Tensor:
        """min over posteriors of KL(q || p) for sequences of n = `lengths` steps, in nats, float64, in their shape.

        D/2 [ inner ln(1 + alpha^2) - chains ln(1 - alpha^2) ], with as many steps that have both neighbours a period
        away, and as many chains of two steps or more.
        """
        n = torch.as_tensor(lengths).double()
        inner = (n - 2 * self.period).clamp_min(0)
        chains = (n - self.period).clamp_min(0) - inner
        return 0.5 * self.config.latent_dim * (inner * math.log1p(self.alpha**2) - chains * self.log_innovation)

    def log_prob(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """ln p(z_t | z_{<t}) per step and dimension, in nats: (B, T, D)."""
        z = z.float()
        start = torch.zeros_like(z[:, : self.period])
        mean = torch.cat((start, self.alpha * z[:, : -self.period]), dim=1)
        log_scale = torch.full_like(mean, 0.5 * self.log_innovation)
        log_scale[:, : self.period] = 0.0
        return counted(DiagonalGaussian(mean, log_scale).log_prob(z), mask)

    def complete(self, z: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A period at a time: the steps that the mask counts, the others alpha z_{t-P} + noise."""
        noise = standard_normal(z.shape, generator, z.device)
        seasons: list[Tensor] = []
        for start in range(0, z.shape[1], self.period):
            season = slice(start, start + self.period)
            drawn = noise[:, season]
            if seasons:
                before = seasons[-1][:, : drawn.shape[1]]
                drawn = self.alpha * before + math.exp(0.5 * self.log_innovation) * drawn
            seasons.append(torch.where(mask[:, season, None].bool(), z[:, season].float(), drawn))
        return torch.cat(seasons, dim=1)
