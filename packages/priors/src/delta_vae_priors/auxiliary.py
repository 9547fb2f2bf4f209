"""The auxiliary prior: a single-layer LSTM fitted to posterior samples after the fact.

It takes back what the training prior's floor costs: at equal distortion the rate against it can be far lower, and even
below the committed rate. It sees detached latents only, so encoder and decoder never know of it.
"""

# Like every config module: no `from __future__ import annotations`.
import torch
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core import DiagonalGaussian, StrictConfig, checked, gaussian_kl, require, standard_normal
from delta_vae_priors.prior import Prior, counted, full_precision


@checked
class AuxiliaryPriorConfig(StrictConfig):
    """`hidden_size` of the LSTM."""

    model_type = "delta_vae_auxiliary_prior"
    latent_dim: int = 8
    hidden_size: int = 128

    def validate_sizes(self) -> None:
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "must be at least 1")
        require(self.hidden_size, "hidden_size", self.hidden_size >= 1, "must be at least 1")


class AuxiliaryPrior(Prior):
    """p(z_t | z_{<t}) = N(mu(h_{t-1}), sigma(h_{t-1})^2), h the state of an LSTM; starts near N(0, 1)."""

    config_class = AuxiliaryPriorConfig
    config: AuxiliaryPriorConfig

    def __init__(self, config: AuxiliaryPriorConfig) -> None:
        super().__init__(config)
        self.lstm = nn.LSTM(config.latent_dim, config.hidden_size, batch_first=True)
        self.head = nn.Linear(config.hidden_size, 2 * config.latent_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            for parameter in module.parameters():
                init.uniform_(parameter, -(self.config.hidden_size**-0.5), self.config.hidden_size**-0.5)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.02)
            init.zeros_(module.bias)

    def forward(self, latents: Tensor) -> DiagonalGaussian:
        """z (B, T, D) -> the distribution of every z_t given z_{<t}; no gradient reaches the latents."""
        z = latents.detach().to(self.head.weight.dtype)
        previous = torch.cat((torch.zeros_like(z[:, :1]), z[:, :-1]), dim=1)
        with full_precision(z):
            hidden, _ = self.lstm(previous)
            return self._conditional(hidden)

    def _conditional(self, hidden: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(*self.head(hidden).float().chunk(2, dim=-1))

    def kl(self, posterior: DiagonalGaussian, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        """KL(q(z_t) || p(z_t | z_{<t})) per step and dimension, in nats: (B, T, D); z_{<t} are the given samples.

        Its expectation over z ~ q sums to KL(q || p). Trains this prior alone: posterior and latents are detached.
        """
        return counted(gaussian_kl(posterior.detach(), self(latents)), mask)

    def log_prob(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """ln p(z_t | z_{<t}) per step and dimension, in nats: (B, T, D)."""
        return counted(self(z).log_prob(z.float()), mask)

    @torch.no_grad()
    def complete(self, z: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Step by step: the given z_t where the mask counts it, else a draw given z_{<t}."""
        noise = standard_normal(z.shape, generator, z.device)
        previous, state = torch.zeros_like(z[:, :1], dtype=self.head.weight.dtype), None
        steps = []
        with full_precision(z):
            for t in range(z.shape[1]):
                hidden, state = self.lstm(previous, state)
                drawn = self._conditional(hidden).sample(noise=noise[:, t : t + 1])
                steps.append(torch.where(mask[:, t : t + 1, None].bool(), z[:, t : t + 1].float(), drawn))
                previous = steps[-1].to(previous.dtype)
        return torch.cat(steps, dim=1)
