"""The likelihood p(x | z) that a text decoder returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
