"""The likelihoods p(x | z) of tokens: of logits, and of features whose logits need not be kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from delta_vae_decoders.linear_log_prob import linear_log_prob


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
class LinearCategoricalLikelihood:
    """The categorical distributions of logits `features` (B, L, H) times the transpose of `weight` (V, H).

    `log_prob` has the value and the gradients of `CategoricalLikelihood(logits)` up to rounding, and never holds more
    than some rows of the logits at a time where all of them would be large.
    """

    features: Tensor
    weight: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, L, V)."""
        return F.linear(self.features, self.weight)

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x_t | x_{<t}, z) in nats, float32: (B, L) token ids -> (B, L)."""
        return linear_log_prob(self.features.flatten(0, 1), self.weight, x.flatten()).view_as(x)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of every token given those that the decoder has read: (B, L)."""
        return CategoricalLikelihood(self.logits).sample(generator)


TokenLikelihood = CategoricalLikelihood | LinearCategoricalLikelihood
