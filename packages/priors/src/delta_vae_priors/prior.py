"""What every prior answers, and how a prior without weights is saved and loaded."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from delta_vae_core import StrictConfig, check_right_padded
from delta_vae_core.checksums import CHECKSUMS
from delta_vae_core.verified import VerifiedPreTrainedModel, verify_local

CONFIG = "config.json"


class Prior(VerifiedPreTrainedModel, ABC):
    """A family of distributions over latents z (B, T, D), paired with the posterior family that keeps its promise.

    Every prior has `posterior(statistics, mask)`, `kl(posterior, mask, latents)`, `committed_rate(lengths)`,
    `log_prob(z, mask)`, `complete(z, mask, generator)` and `sample(batch, steps, generator)`; the auxiliary prior,
    which no model is trained with, has no `posterior` and no `committed_rate`. Masks are (B, T), ones and then zeros; a
    masked step counts nothing. Arithmetic is in float32 whatever the model's precision; the LSTM of a prior that has
    one is cast with the model.

    `kl` is (B, T, D) nats. With a closed form it is exact and `latents` are ignored. A prior that reads z_{<t} from an
    LSTM has none and needs the posterior's samples, `latents` (B, T, D): its mean over them sums to KL(q || p).
    """

    config: StrictConfig
    base_model_prefix = "prior"

    @abstractmethod
    def complete(self, z: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The steps of z (B, T, D) that the mask counts, the others drawn from the prior given those before them."""

    def sample(
        self,
        batch: int,
        steps: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """(batch, steps, D) draws, on `device`; if not given, where the weights are, else where the generator is."""
        home = next((weight.device for weight in self.parameters()), getattr(generator, "device", None))
        z = torch.zeros(batch, steps, self.config.latent_dim, device=device or home)
        return self.complete(z, torch.zeros(batch, steps, dtype=torch.bool, device=z.device), generator)


class WeightlessPrior(Prior):
    """A prior that its config says everything about: a saved one is a config.json."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")  # it answers on the device of what it is asked about

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        if is_main_process:
            Path(save_directory, CHECKSUMS).unlink(missing_ok=True)  # of what was there before
            self.config.architectures = [type(self).__name__]
            self.config.save_pretrained(save_directory, **kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, path: str | os.PathLike[str], *, config: StrictConfig | None = None, **kwargs: Any
    ) -> Self:
        assert cls.config_class is not None
        verify_local(path, kwargs.get("subfolder"), [CONFIG])
        return cls(cls.config_class.from_pretrained(path, **kwargs) if config is None else config).eval()


def full_precision(x: Tensor) -> torch.autocast:
    """Context in which products on x's device are not cast down."""
    return torch.autocast(x.device.type, enabled=False)


def split_statistics(statistics: Tensor, latent_dim: int) -> tuple[Tensor, Tensor]:
    """An encoder's (B, T, 2D) as two float32 halves."""
    if statistics.shape[-1] != 2 * latent_dim:
        raise ValueError(
            f"statistics of width {statistics.shape[-1]}: a prior of latent_dim={latent_dim} needs {2 * latent_dim}; "
            "give encoder and prior one latent_dim"
        )
    first, second = statistics.float().chunk(2, dim=-1)
    return first, second


def check_mask(mask: Tensor | None) -> None:
    """Raise `ValueError` unless every row is ones and then zeros; on an accelerator it would have to be waited for."""
    if mask is not None and mask.device.type == "cpu" and not torch.compiler.is_compiling():
        check_right_padded(mask)


def counted(values: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, D) with the masked steps at zero, also where they are not finite."""
    check_mask(mask)
    return values if mask is None else torch.where(mask.bool()[..., None], values, 0.0)
