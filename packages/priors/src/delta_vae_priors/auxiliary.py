"""The auxiliary prior: an LSTM prior fitted to posterior samples after the fact.

It takes back what the training prior's floor costs: at equal distortion the rate against it can be far lower, and even
below the committed rate. It sees detached latents only, so encoder and decoder never know of it.
"""

# Like every config module: no `from __future__ import annotations`.
from torch import Tensor

from delta_vae_core import DiagonalGaussian, checked
from delta_vae_priors.lstm import LSTMNetwork, LSTMPriorConfig


@checked
class AuxiliaryPriorConfig(LSTMPriorConfig):
    """`hidden_size` of the LSTM."""

    model_type = "delta_vae_auxiliary_prior"


class AuxiliaryPrior(LSTMNetwork):
    """An LSTM prior that trains nothing but itself; without a posterior family, so no p(z) to train a model with."""

    config_class = AuxiliaryPriorConfig
    config: AuxiliaryPriorConfig

    def forward(self, latents: Tensor) -> DiagonalGaussian:
        """z (B, T, D) -> the distribution of every z_t given z_{<t}; no gradient reaches the latents."""
        return super().forward(latents.detach())

    def kl(self, posterior: DiagonalGaussian, mask: Tensor | None = None, latents: Tensor | None = None) -> Tensor:
        """KL(q(z_t) || p(z_t | z_{<t})) as of any LSTM prior, posterior and latents detached: (B, T, D) nats."""
        return super().kl(posterior.detach(), mask, latents)
