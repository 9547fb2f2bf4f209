"""One pass over an evaluation set: rate, distortion and latents of every sequence or image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from delta_vae import DeltaVaeModel
from delta_vae_core import DiagonalGaussian
from delta_vae_lab.console import bar
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.modality import Modality
from delta_vae_lab.subject import Subject, as_subject


@dataclass(frozen=True)
class Record:
    """N sequences or images in the order of the evaluation set, on the CPU; T is the largest number of latent steps.

    rate, committed_rate, distortion, auxiliary_rate: (N,) nats, float64, for one draw of z each.
    x: (N, T) target tokens, the end of the sequence among them, (N, C, H, W) levels, or an outside VAE's (N, ...).
    mask: (N, T), the latent steps that count. units: (N,), predicted tokens or dimensions. batch_sizes: (batches,).
    places: (N,), each one's index in its data, which seeds its noise whatever its batch.
    posterior, z, kl (nats): (N, T, D), zero beyond a sequence's end; None for a model without latents.
    """

    modality: Modality
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
    def has_units(self) -> bool:
        """Whether there are tokens or dimensions to share a bound out to: of an outside VAE they may not be known."""
        return bool(self.units.any())

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


def measure(model: DeltaVaeModel | Subject, batches: Iterable[Batch], seed: int) -> Record:
    """The record of a model over an evaluation set, for the z that each example draws by its place in the data."""
    subject = as_subject(model)
    with subject.evaluating():
        parts = [_measure_batch(subject, batch.to(subject.device), seed) for batch in bar(batches, "measuring")]
    if not parts:
        raise ValueError("the evaluation set is empty; give it at least two sequences or images")
    record: Record = _join(parts)
    return record


def rate_profile(model: DeltaVaeModel | Subject, record: Record) -> RateProfile:
    """Mean KL by step and dimension; the committed share is the KL of the posterior that attains the floor."""
    subject = as_subject(model)
    if record.kl is None or subject.prior is None:
        raise ValueError("a model without latents has no rate; profile one with a prior")
    mask = record.mask.to(subject.device)
    statistics = torch.zeros(*mask.shape, 2 * record.kl.shape[2], device=mask.device)
    with torch.no_grad():
        floor = torch.zeros_like(record.kl)
        if subject.prior.committed_rate(mask.sum(1)).any():  # attained at statistics 0
            floor = subject.prior.kl(subject.prior.posterior(statistics, mask), mask).cpu()
    sequences = record.mask.sum(0)
    return RateProfile(
        kl=record.kl.double().sum(0) / sequences[:, None],
        committed=floor.double().sum(0) / sequences[:, None],
        sequences=sequences,
    )


def _measure_batch(subject: Subject, batch: Batch, seed: int) -> Record:
    x, out = subject.targets(batch), subject.bound(batch, seed)
    mask = batch.steps if out.mask is None else out.mask

    def counted(values: Tensor | None) -> Tensor:
        assert values is not None
        return values.float().masked_fill(~mask[..., None], 0.0).cpu()

    posterior = None
    if out.posterior is not None:
        posterior = DiagonalGaussian(counted(out.posterior.mean), counted(out.posterior.log_scale))
    return Record(
        modality=batch.modality,
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
    if isinstance(parts[0], Modality):
        return parts[0]
    if not isinstance(parts[0], Tensor):
        columns = ([getattr(part, field.name) for part in parts] for field in fields(parts[0]))
        return type(parts[0])(*map(_join, columns))
    if parts[0].dim() == 1:
        return torch.cat(list(parts))
    steps = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, 0) * (part.dim() - 2) + (0, steps - part.shape[1])) for part in parts])
