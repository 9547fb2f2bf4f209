"""Autoregressive priors of a single-layer LSTM: the network, and the prior that is trained with the model."""

# Like every config module: no `from __future__ import annotations`.
import torch
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core import DiagonalGaussian, StrictConfig, checked, gaussian_kl, require, standard_normal
from delta_vae_priors.prior import Prior, check_mask, counted, full_precision, split_statistics


@checked
class LSTMPriorConfig(StrictConfig):
    """`hidden_size` of the LSTM."""

    model_type = "delta_vae_lstm_prior"
    latent_dim: int = 8
    hidden_size: int = 128

    def validate_sizes(self) -> None:
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "must be at least 1")
        require(self.hidden_size, "hidden_size", self.hidden_size >= 1, "must be at least 1")


class LSTMNetwork(Prior):
    """p(z_t | z_{<t}) = N(mu(h_{t-1}), sigma(h_{t-1})^2), h the state of an LSTM; starts near N(0, 1)."""

    config: LSTMPriorConfig

    def __init__(self, config: LSTMPriorConfig) -> None:
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
        """z (B, T, D) -> the distribution of every z_t given z_{<t}."""
        z = latents.to(self.head.weight.dtype)
        if not z.shape[1]:  # which torch's LSTM refuses
            return DiagonalGaussian(z.float(), z.float())
        previous = torch.cat((torch.zeros_like(z[:, :1]), z[:, :-1]), dim=1)
        with full_precision(z):
            hidden, _ = self.lstm(previous)
            return self._conditional(hidden)

    def _conditional(self, hidden: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(*self.head(hidden).float().chunk(2, dim=-1))

    def kl(self, posterior: DiagonalGaussian, mask: Tensor | None = None, latents: Tensor | None = None) -> Tensor:
        """KL(q(z_t) || p(z_t | z_{<t})) per step and dimension, in nats: (B, T, D); z_{<t} are the given samples.

        Its expectation over z ~ q sums to KL(q || p).
        """
        if latents is None:
            raise ValueError(
                f"latents=None: the KL to a {type(self).__name__} is taken at samples of the posterior; "
                "give kl(posterior, mask, latents)"
            )
        q = DiagonalGaussian(posterior.mean.float(), posterior.log_scale.float())
        return counted(gaussian_kl(q, self(latents)), mask)

    def log_prob(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """ln p(z_t | z_{<t}) per step and dimension, in nats: (B, T, D)."""
        return counted(self(z).log_prob(z.float()), mask)

    @torch.no_grad()
    def complete(self, z: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Step by step: the given z_t where the mask counts it, else a draw given z_{<t}."""
        check_mask(mask)
        noise = standard_normal(z.shape, generator, z.device)
        previous, state = torch.zeros_like(z[:, :1], dtype=self.head.weight.dtype), None
        steps = []
        with full_precision(z):
            for t in range(z.shape[1]):
                hidden, state = self.lstm(previous, state)
                drawn = self._conditional(hidden).sample(noise=noise[:, t : t + 1])
                steps.append(torch.where(mask[:, t : t + 1, None].bool(), z[:, t : t + 1].float(), drawn))
                previous = steps[-1].to(previous.dtype)
        return torch.cat(steps, dim=1) if steps else z.float()


class LSTMPrior(LSTMNetwork):
    """p(z) of a VAE, trained with it; the posterior is an unconstrained diagonal Gaussian and nothing is committed.

    The rival of figure 4 in Razavi et al. 2019: a prior as strong as the auxiliary one, without a floor.
    """

    config_class = LSTMPriorConfig

    def posterior(self, statistics: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """(B, T, 2D) -> mean and log-scale as they are."""
        return DiagonalGaussian(*split_statistics(statistics, self.config.latent_dim))

    def committed_rate(self, lengths: int | Tensor) -> Tensor:
        """Nothing: 0 nats, float64, shape as `lengths`."""
        return torch.zeros_like(torch.as_tensor(lengths), dtype=torch.float64)
