"""What the training loop and the evaluation ask of a batch, of whatever data, and the rules that all batches keep."""

from typing import Any, Protocol, Self

import torch
from torch import Tensor

from delta_vae_lab.modality import Modality


class Batch(Protocol):
    """Some examples, each with its place."""

    @property
    def rows(self) -> list[int]:
        """In training each one's index in the global batch, in evaluation in the evaluation set; it seeds the noise."""
        ...

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


def rows_per_process(batch_size: int, world_size: int) -> int:
    """The rows that each process takes of a global batch."""
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"batch_size={batch_size} cannot be shared by {world_size} processes; use a multiple of {world_size}"
        )
    return batch_size // world_size


def check_position(position: dict[str, Any], order: dict[str, Any]) -> None:
    """A position means something only in the order in which it was taken."""
    for key, value in order.items():
        if position.get(key) != value:
            raise ValueError(
                f"the position to resume from has {key}={position.get(key)}, this run has {key}={value}; "
                f"resume with the data and settings of the run, or start anew"
            )
