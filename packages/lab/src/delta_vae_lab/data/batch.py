"""What the training loop and the evaluation ask of a batch, of whatever data."""

from typing import Protocol, Self

import torch
from torch import Tensor

from delta_vae_lab.modality import Modality


class Batch(Protocol):
    """Some examples, each with its place."""

    rows: list[int]
    """In training each example's index in the global batch, in evaluation in the evaluation set; it seeds the noise."""

    @property
    def modality(self) -> Modality:
        """Sentences or images."""
        ...

    @property
    def steps(self) -> Tensor:
        """(b, T), the latent steps that count."""
        ...

    @property
    def units(self) -> Tensor:
        """(b,), how many tokens or dimensions are predicted."""
        ...

    def inputs(self) -> dict[str, Tensor]:
        """The arguments of the model's forward."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same batch on the device."""
        ...

    def part(self, rows: slice) -> Self:
        """Some of its examples, each with its place."""
        ...
