"""What passes between an encoder, a prior and a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class EncoderOutput(ModelOutput):
    """An encoder's answer: `statistics` (B, T, 2D), unconstrained, and `mask` (B, T), true where a step counts."""

    statistics: Tensor | None = None
    mask: Tensor | None = None


class Likelihood(Protocol):
    """p(x | z) of a decoder."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of every token or pixel, in nats: (B, L)."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of every token or pixel given those before it, in the shape of x."""
        ...
