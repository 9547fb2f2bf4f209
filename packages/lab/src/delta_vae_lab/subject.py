"""What the estimates ask of a VAE, and how our models answer; any other answers through `outside.OutsideVae`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeModel, DeltaVaeOutput
from delta_vae_core import evaluation_mode
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.modality import IMAGES, TEXT
from delta_vae_lab.randomness import derive_seed, latent_noise


class Subject(Protocol):
    """A VAE under examination. What it is given and gives is on `device`, unless said otherwise."""

    @property
    def device(self) -> torch.device:
        """Where its inputs and latents belong."""
        ...

    @property
    def prior(self) -> Any:
        """p(z), one of our priors; None for a decoder without latents."""
        ...

    @property
    def auxiliary_prior(self) -> Any:
        """The prior fitted afterwards, or None."""
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """No dropout and no gradient inside."""
        ...

    def targets(self, batch: Batch) -> Tensor:
        """What is predicted: tokens (b, L), or anything else (b, ...)."""
        ...

    def bound(self, batch: Batch, seed: int) -> DeltaVaeOutput:
        """The parts of the bound, on the z that each example draws by its place in the data."""
        ...

    def log_likelihood(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        """log p(x|z) of targets x, z (b, T, D) and mask (b, T): (b,) nats, float64, on the CPU."""
        ...


@dataclass(frozen=True)
class OurVae:
    """A `DeltaVaeModel` as a `Subject`."""

    model: DeltaVaeModel

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def prior(self) -> Any:
        return self.model.prior

    @property
    def auxiliary_prior(self) -> Any:
        return self.model.auxiliary_prior

    def evaluating(self) -> AbstractContextManager[None]:
        return evaluating(self.model)

    def targets(self, batch: Batch) -> Tensor:
        self._check_modality(batch)
        inputs = batch.inputs()
        return (
            self.model.targets(**inputs)[0] if isinstance(self.model, DeltaVaeForCausalLM) else inputs["pixel_values"]
        )

    def bound(self, batch: Batch, seed: int) -> DeltaVaeOutput:
        self._check_modality(batch)
        noise = None
        if self.prior is not None:
            noise = evaluation_noise(batch.steps.cpu(), self.model.config.latent_dim, seed, batch.rows).to(self.device)
        return self.model(**batch.inputs(), noise=noise)

    def log_likelihood(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        with _gathered(self.model):
            if isinstance(self.model, DeltaVaeForCausalLM):
                return sum_over_steps(self.model.decoder(x, z, mask).log_prob(x), mask)
            return self.model.decoder(x, z).log_prob(x).cpu().double().sum(1)  # of images every pixel counts

    def _check_modality(self, batch: Batch) -> None:
        for kind, modality in ((DeltaVaeForCausalLM, TEXT), (DeltaVaeForImageGeneration, IMAGES)):
            if isinstance(self.model, kind) and batch.modality is not modality:
                raise ValueError(
                    f"a batch of {batch.modality.examples} for {kind.__name__}, a model of {modality.examples}: "
                    f"give it {modality.examples}"
                )


def as_subject(model: DeltaVaeModel | Subject) -> Subject:
    """The model as the estimates see it."""
    return OurVae(model) if isinstance(model, DeltaVaeModel) else model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradient inside; afterwards every module's mode is what it was."""
    # not inference_mode: a constant that a prior caches here must serve training too
    with evaluation_mode(model), torch.no_grad():
        yield


def evaluation_noise(mask: Tensor, latent_dim: int, seed: int, places: list[int]) -> Tensor:
    """The standard normal noise of z in an evaluation, (b, T) -> (b, T, D) on the CPU."""
    return latent_noise(mask, latent_dim, derive_seed(seed, "evaluation"), 0, places)


def sum_over_steps(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of (b, T) or (b, T, D) over the steps that count: (b,), float64, on the CPU."""
    beyond = ~mask.cpu().reshape(*mask.shape, *[1] * (values.dim() - 2))
    return values.cpu().double().masked_fill(beyond, 0.0).flatten(1).sum(1)


@contextmanager
def _gathered(model: nn.Module) -> Iterator[None]:
    """Under FSDP, what the whole model's own forward would gather first: a part alone does not."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()
