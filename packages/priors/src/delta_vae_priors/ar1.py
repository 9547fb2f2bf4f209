"""The AR(1) prior and the mean-field posterior that it is paired with.

Razavi et al. 2019, section 2.1: z_1 ~ N(0, 1), z_t = alpha z_{t-1} + e_t, e_t ~ N(0, 1 - alpha^2), so that every
marginal is N(0, 1); one alpha a dimension. q(z_t | x) = N(mu_t, sigma_t^2), independent over steps: no such posterior
matches a correlated prior, and the least KL between them is the committed rate.
"""

# Like every config module: no `from __future__ import annotations`.
import math
from typing import Any, Self

import torch
from torch import Tensor

from delta_vae_core import DiagonalGaussian, StrictConfig, checked, standard_normal
from delta_vae_priors.committed_rate import ar1_best_log_scale, ar1_committed_rate, rate_in_nats, solve_alpha
from delta_vae_priors.prior import WeightlessPrior, check_mask, counted, full_precision, split_statistics

MOST_DIMENSIONS = 65_536  # each has its own alpha in the config


@checked
class AR1PriorConfig(StrictConfig):
    """`alpha`: one number for all dimensions or one for each (then `latent_dim` follows from it); |alpha| < 1.

    The default is the paper's low-rate image prior: 8 dimensions, alpha linear in [0.5, 0.95].
    """

    model_type = "delta_vae_ar1_prior"
    latent_dim: int | None = None
    alpha: list[float | int] | tuple[float, ...] | float | int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        if isinstance(self.alpha, tuple):
            self.alpha = list(self.alpha)
        dimensions: Any = self.latent_dim
        if dimensions is not None and (not isinstance(dimensions, int) or dimensions > MOST_DIMENSIONS):
            raise ValueError(f"latent_dim={dimensions!r}: must be a whole number, at most {MOST_DIMENSIONS:,}")
        if self.latent_dim is None:
            self.latent_dim = len(self.alpha) if isinstance(self.alpha, list) else 8
        if self.alpha is None:
            self.alpha = _linear(self.latent_dim, 0.5, 0.95)
        elif not isinstance(self.alpha, list):
            self.alpha = [self.alpha] * self.latent_dim
        super().__post_init__(**kwargs)

    def validate_alpha(self) -> None:
        assert self.latent_dim is not None
        if self.latent_dim < 1:
            raise ValueError(f"latent_dim={self.latent_dim}: must be at least 1")
        if len(self.alphas) != self.latent_dim:
            raise ValueError(f"{len(self.alphas)} alphas for latent_dim={self.latent_dim}: give one a dimension")
        for a in self.alphas:
            if not abs(a) < 1:
                raise ValueError(f"alpha={a}: must be inside (-1, 1), or the process is not stationary")

    @property
    def alphas(self) -> list[float]:
        """One alpha a dimension, whichever way it was given."""
        assert isinstance(self.alpha, list)
        return self.alpha

    @classmethod
    def linear(cls, latent_dim: int, low: float, high: float) -> Self:
        """Alphas spaced evenly from `low` to `high`, as in the paper's image models."""
        return cls(latent_dim=latent_dim, alpha=_linear(latent_dim, low, high))

    @classmethod
    def from_committed_rate(
        cls, *, bits: float | None = None, nats: float | None = None, steps: int, latent_dim: int
    ) -> Self:
        """One alpha for all dimensions, solved so that `steps` latents commit the rate. Errors: see `solve_alpha`."""
        return cls(latent_dim=latent_dim, alpha=solve_alpha(rate_in_nats(bits, nats), steps, latent_dim))


class AR1Prior(WeightlessPrior):
    """p(z) = prod_k N(z_1k; 0, 1) prod_{t>=2} N(z_tk; alpha_k z_{t-1,k}, 1 - alpha_k^2)."""

    config_class = AR1PriorConfig
    config: AR1PriorConfig

    def __init__(self, config: AR1PriorConfig) -> None:
        super().__init__(config)
        self._on_device: dict[torch.device, tuple[Tensor, ...]] = {}
        self.post_init()

    def _constants(self, device: torch.device) -> tuple[Tensor, ...]:
        """alpha, ln(1 - alpha^2), the best log-scales at the ends and in between, and alpha in two parts; (D,) float32.

        The parts are the nearest integer and the rest. Taken in double precision from the config, which no cast of the
        model to bfloat16 can change.
        """
        if device not in self._on_device:
            rows = [(a, math.log1p(-a * a), *ar1_best_log_scale(a), round(a), a - round(a)) for a in self.config.alphas]
            with torch.inference_mode(False):  # kept for training too, though inference may ask first
                self._on_device[device] = tuple(torch.tensor(rows, device=device, dtype=torch.float32).unbind(1))
        return self._on_device[device]

    def posterior(self, statistics: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """(B, T, 2D) -> mean-field posterior: the mean, and a log-scale relative to that which attains the floor.

        At statistics 0 the rate is the committed rate: training starts near the floor instead of searching for it.
        """
        check_mask(mask)
        mean, log_scale = split_statistics(statistics, len(self.config.alphas))
        _, _, end, between, _, _ = self._constants(mean.device)
        steps = mean.shape[1]
        t = torch.arange(steps, device=mean.device)
        length = torch.full((1, 1), steps, device=mean.device) if mask is None else mask.sum(1, keepdim=True)
        ends = ((t == 0) | (t == length - 1))[..., None]
        best = torch.where(ends, end, between)
        best = torch.where(length[..., None] == 1, 0.0, best)  # a single step is N(0, 1)
        return DiagonalGaussian(mean, log_scale + best)

    def kl(self, posterior: DiagonalGaussian, mask: Tensor | None = None, latents: Tensor | None = None) -> Tensor:
        """KL(q || p) by the chain rule, per step and dimension, in nats: (B, T, D); its sum is the rate.

        1/2 [ (sigma_t^2 + alpha^2 sigma_{t-1}^2 + (mu_t - alpha mu_{t-1})^2) / (1 - alpha^2)
              - 1 - ln(sigma_t^2 / (1 - alpha^2)) ],   and KL(q(z_1) || N(0, 1)) at the first step.
        """
        mean, log_scale = posterior.mean.float(), posterior.log_scale.float()
        with full_precision(mean):
            alpha, log_innovation, *_ = self._constants(mean.device)
            variance = (2 * log_scale).exp()
            first = 0.5 * (variance[:, :1] + mean[:, :1] ** 2 - 1 - 2 * log_scale[:, :1])
            spread = variance[:, 1:] + alpha**2 * variance[:, :-1] + self._shocks(mean) ** 2
            later = 0.5 * (spread * (-log_innovation).exp() - 1 - 2 * log_scale[:, 1:] + log_innovation)
            return counted(torch.cat((first, later), dim=1), mask)

    def committed_rate(self, lengths: int | Tensor) -> Tensor:
        """min over posteriors of KL(q || p) for sequences of these lengths, in nats, float64, shape as `lengths`."""
        n = torch.as_tensor(lengths).double()
        alone, step = ar1_committed_rate(self.config.alphas, 2), ar1_committed_rate(self.config.alphas, 3)
        return torch.where(n < 2, 0.0, alone + (n - 2) * (step - alone))

    def log_prob(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """ln p(z_t | z_{t-1}) per step and dimension, in nats: (B, T, D)."""
        z = z.float()
        log_innovation = self._constants(z.device)[1]
        shocks = torch.cat((z[:, :1], self._shocks(z)), dim=1)
        first = torch.arange(z.shape[1], device=z.device)[:, None] == 0
        log_scale = torch.where(first, 0.0, 0.5 * log_innovation).expand_as(z)
        return counted(DiagonalGaussian(torch.zeros_like(z), log_scale).log_prob(shocks), mask)

    def _shocks(self, x: Tensor) -> Tensor:
        """x_t - alpha x_{t-1} of every step but the first: (B, T, D) -> (B, T - 1, D).

        For alpha near 1 the difference of neighbours comes first: it keeps the digits that x_t and alpha x_{t-1} share.
        """
        *_, nearest, rest = self._constants(x.device)
        return (x[:, 1:] - nearest * x[:, :-1]) - rest * x[:, :-1]

    def complete(self, z: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Steps beyond the n that the mask counts: z_t = alpha^(t-n) z_n + a fresh AR(1) path."""
        check_mask(mask)
        if not z.shape[1]:
            return z.float()
        alpha, log_innovation, *_ = self._constants(z.device)
        t = torch.arange(z.shape[1], device=z.device)
        missing = ~mask.bool()[..., None]
        scale = torch.where(t[:, None] == 0, 1.0, (0.5 * log_innovation).exp())
        noise = standard_normal(z.shape, generator, z.device)
        path = ar1_filter(torch.where(missing, scale * noise, 0.0), alpha)
        length = mask.bool().sum(1)
        last = z.float().gather(1, (length - 1).clamp_min(0)[:, None, None].expand(-1, 1, z.shape[2]))
        last = torch.where((length > 0)[:, None, None], last, 0.0)
        since = (t + 1 - length[:, None]).clamp_min(0)[..., None]
        return torch.where(missing, alpha**since * last + path, z.float())


def ar1_filter(e: Tensor, alpha: Tensor) -> Tensor:
    """z_t = alpha z_{t-1} + e_t from z_0 = 0, for (B, T, D) and alpha (D,), in log2(T) vectorised passes.

    After pass i, z_t holds the last 2^i terms of sum_j alpha^j e_{t-j}; powers below 1e-30 end it early.
    """
    z, power, shift = e, alpha, 1
    while shift < e.shape[1] and float(power.abs().max()) > 1e-30:
        z = torch.cat((z[:, :shift], z[:, shift:] + power * z[:, :-shift]), dim=1)
        power, shift = power**2, 2 * shift
    return z


def _linear(latent_dim: int, low: float, high: float) -> list[float]:
    if latent_dim < 2:
        return [float(high)] * latent_dim
    return [low + (high - low) * k / (latent_dim - 1) for k in range(latent_dim)]
