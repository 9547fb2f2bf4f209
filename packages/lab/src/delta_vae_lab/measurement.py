"""One pass over an evaluation set: rate, distortion and latents of every sequence or image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from delta_vae import DeltaVaeForCausalLM, DeltaVaeModel
from delta_vae_core import DiagonalGaussian
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.modality import IMAGES, TEXT, Modality
from delta_vae_lab.randomness import derive_seed, latent_noise


@dataclass(frozen=True)
class Record:
    """N sequences or images in the order of the evaluation set, on the CPU; T is the largest number of latent steps.

    rate, committed_rate, distortion, auxiliary_rate: (N,) nats, float64, for one draw of z each.
    x: (N, T) target tokens, the end of the sequence among them, or (N, C, H, W) levels. mask: (N, T), the latent steps
    that count. units: (N,), predicted tokens or dimensions. batch_sizes: (batches,).
    places: (N,), each one's index in its data, which seeds its noise whatever its batch.
    posterior, z, kl (nats): (N, T, D), zero beyond a sequence's end; None for a model without latents.
    """

    x: Tensor
    mask: Tensor
    units: Tensor
    batch_sizes: Tensor
    places: Tensor
    rate: Tensor
    committed_rate: Tensor
    distortion: Tensor
    auxiliary_rate: Tensor | None
    posterior: DiagonalGaussian | None
    z: Tensor | None
    kl: Tensor | None

    @property
    def modality(self) -> Modality:
        """Sentences or images."""
        return TEXT if self.x.dim() == 2 else IMAGES

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of every batch."""
        return torch.arange(len(self.rate)).split(self.batch_sizes.tolist())


@dataclass(frozen=True)
class RateProfile:
    """Where the rate is spent: mean nats at a step and dimension, over the sequences or images that reach the step.

    kl, committed: (T, D), the KL and the share of it that the family commits. sequences: (T,), how many reach the step.
    """

    kl: Tensor
    committed: Tensor
    sequences: Tensor


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradient inside; afterwards every module's mode is what it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: a constant that a prior caches here must serve training too
            yield
    finally:
        for module, training in modes:
            module.training = training


def measure(model: DeltaVaeModel, batches: Iterable[Batch], seed: int) -> Record:
    """The record of a model over an evaluation set, for the z that each example draws by its place in the data."""
    with evaluating(model):
        parts = [_measure_batch(model, batch.to(model.device), seed) for batch in batches]
    if not parts:
        raise ValueError("the evaluation set is empty; give it at least two sequences or images")
    record: Record = _join(parts)
    return record


def rate_profile(model: DeltaVaeModel, record: Record) -> RateProfile:
    """Mean KL by step and dimension; the committed share is the KL of the posterior that attains the floor."""
    if record.kl is None or model.prior is None:
        raise ValueError("a model without latents has no rate; profile one with a prior")
    mask = record.mask.to(model.device)
    statistics = torch.zeros(*mask.shape, 2 * record.kl.shape[2], device=mask.device)
    with torch.no_grad():
        floor = model.prior.kl(model.prior.posterior(statistics, mask), mask).cpu()  # attained where statistics are 0
    sequences = record.mask.sum(0)
    return RateProfile(
        kl=record.kl.double().sum(0) / sequences[:, None],
        committed=floor.double().sum(0) / sequences[:, None],
        sequences=sequences,
    )


def _measure_batch(model: DeltaVaeModel, batch: Batch, seed: int) -> Record:
    inputs, mask = batch.inputs(), batch.steps
    x = model.targets(**inputs)[0] if isinstance(model, DeltaVaeForCausalLM) else inputs["pixel_values"]
    noise = None
    if model.prior is not None:
        noise = latent_noise(mask.cpu(), model.config.latent_dim, derive_seed(seed, "evaluation"), 0, batch.rows)
        noise = noise.to(model.device)
    out = model(**inputs, noise=noise)

    def counted(values: Tensor) -> Tensor:
        return values.float().masked_fill(~mask[..., None], 0.0).cpu()

    posterior = None
    if out.posterior is not None:
        posterior = DiagonalGaussian(counted(out.posterior.mean), counted(out.posterior.log_scale))
    return Record(
        x=x.cpu(),
        mask=mask.cpu(),
        units=batch.units.cpu(),
        batch_sizes=torch.tensor([len(x)]),
        places=torch.tensor(batch.rows),
        rate=out.rate.cpu().double(),
        committed_rate=out.committed_rate.cpu().double(),
        distortion=out.distortion.cpu().double(),
        auxiliary_rate=None if out.auxiliary_rate is None else out.auxiliary_rate.cpu().double(),
        posterior=posterior,
        z=None if posterior is None else counted(out.latents),
        kl=None if posterior is None else counted(out.kl),
    )


def _join(parts: Sequence[Any]) -> Any:
    """The rows of several records in one, every (n, T, ...) widened with zeros to the longest T."""
    if parts[0] is None:
        return None
    if not isinstance(parts[0], Tensor):
        columns = ([getattr(part, field.name) for part in parts] for field in fields(parts[0]))
        return type(parts[0])(*map(_join, columns))
    if parts[0].dim() == 1:
        return torch.cat(list(parts))
    steps = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, 0) * (part.dim() - 2) + (0, steps - part.shape[1])) for part in parts])
