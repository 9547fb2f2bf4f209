"""Held-out estimates of a model: the bound and its parts, a tighter bound, and what the latents are used for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from delta_vae import DeltaVaeModel
from delta_vae_core import DiagonalGaussian, nats_to_bits
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.estimates import importance_weighted_nll, mean, perplexity, ratio
from delta_vae_lab.information import active_units, mutual_information
from delta_vae_lab.measurement import Record, evaluating, measure
from delta_vae_lab.modality import TEXT
from delta_vae_lab.randomness import derive_seed, latent_noise

Metrics = dict[str, float | int]

# Mutual information compares each with every other: seconds for so many sentences on one core, hours for all of LM1B's.
INFORMATION_EXAMPLES = 5_000


def evaluate(
    model: DeltaVaeModel,
    batches: Iterable[Batch],
    *,
    words: int | None = None,
    seed: int = 0,
    importance_samples: int = 64,
    importance_examples: int | None = None,
    information_examples: int | None = INFORMATION_EXAMPLES,
) -> Metrics:
    """Every estimate of results.json: nats a sentence or image unless its name says otherwise, `..._stderr` beside it.

    words: running words of sentences, by the convention of their data; the nats of the end of a sentence are in the
    numerator. importance_examples: how many, evenly spaced in the order given, get the importance-weighted bound; None
    is all. `importance_gain_nats` is what it gains over the ELBO of the same samples. information_examples: likewise
    those that mutual information and marginal KL are about, x uniform over them.

    Noise is drawn for each by its place in the data, so the batch size does not matter.
    """
    if importance_samples < 1:
        raise ValueError(f"importance_samples={importance_samples}: the bound is a mean over samples; take 1 or more")
    for name, limit in (
        ("importance_examples", importance_examples),
        ("information_examples", information_examples),
    ):
        if limit is not None and limit < 2:
            raise ValueError(f"{name}={limit}: a standard error needs 2 or more; or None for all")
    with evaluating(model):
        record = measure(model, batches, seed)
        metrics = bound_metrics(record) | _metrics_per_unit(record, words)
        if record.posterior is not None:
            completed = complete(model, record, seed)
            metrics |= _information_metrics(
                model, record, completed, _evenly_spaced(len(record.rate), information_examples)
            )
            metrics |= mean(shuffle_gap(model, record, completed)).named("shuffle_gap_nats")
            rows = _evenly_spaced(len(record.rate), importance_examples)
            log_weights = importance_log_weights(model, record, rows, importance_samples, seed)
            metrics |= _importance_metrics(log_weights, record.modality.examples)
    return metrics


def evaluate_bound(model: DeltaVaeModel, batches: Iterable[Batch], *, seed: int = 0) -> Metrics:
    """The bound and its parts alone, in one pass: for use during training, on a part of the held-out set."""
    return bound_metrics(measure(model, batches, seed))


def bound_metrics(record: Record) -> Metrics:
    """Rate, distortion and their sum. `smallest_batch_slack_nats`: of mean rate - mean committed rate over batches."""
    slack = record.rate - record.committed_rate
    values = {
        "rate_nats": record.rate,
        "committed_rate_nats": record.committed_rate,
        "slack_nats": slack,
        "distortion_nats": record.distortion,
        "negative_elbo_nats": record.rate + record.distortion,
    }
    if record.auxiliary_rate is not None:
        values["auxiliary_rate_nats"] = record.auxiliary_rate
        values["auxiliary_negative_elbo_nats"] = record.auxiliary_rate + record.distortion
    metrics: Metrics = {}
    for name, value in values.items():
        metrics |= mean(value).named(name)
    return metrics | {
        "smallest_batch_slack_nats": min(float(slack[rows].mean()) for rows in record.batches()),
        record.modality.examples: len(record.rate),
        record.modality.units: int(record.units.sum()),
    }


def complete(model: DeltaVaeModel, record: Record, seed: int) -> Tensor:
    """The record's z, each continued by the prior from its last step to step T: (N, T, D)."""
    assert record.z is not None
    assert model.prior is not None
    generator = torch.Generator().manual_seed(derive_seed(seed, "completion"))
    completed: Tensor = model.prior.complete(record.z.to(model.device), record.mask.to(model.device), generator)
    return completed.cpu()


def shuffle_gap(model: DeltaVaeModel, record: Record, completed: Tensor) -> Tensor:
    """Distortion under the z of the example before, less that under its own: (N,) nats.

    It tells whether the decoder heeds z, not what z is worth to it: a wrong z may do more harm than the right one good.

    completed: (N, T, D), for another sentence may be shorter. In an order by length it is about as long.
    """
    others = completed.roll(1, dims=0)
    shuffled = []
    for rows in record.batches():
        x, mask = _inputs(model, record, rows)
        shuffled.append(-_log_likelihood(model, x, others[rows, : mask.shape[1]].to(x.device), mask))
    return torch.cat(shuffled) - record.distortion


def importance_log_weights(model: DeltaVaeModel, record: Record, rows: Tensor, samples: int, seed: int) -> Tensor:
    """log p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), of the n examples `rows`: (P, K, n) nats.

    Against the P priors that the model has, the auxiliary one last, with the same samples. Never are more
    decoded at a time than their batch had.
    """
    columns = []
    for batch in record.batches():
        chosen = batch[torch.isin(batch, rows)]
        if len(chosen):
            at_once = max(1, len(batch) // len(chosen))
            draws = [range(samples)[k : k + at_once] for k in range(0, samples, at_once)]
            columns.append(torch.cat([_log_weights(model, record, chosen, ks, seed) for ks in draws], dim=1))
    return torch.cat(columns, dim=2)


def _log_weights(model: DeltaVaeModel, record: Record, rows: Tensor, draws: Sequence[int], seed: int) -> Tensor:
    assert record.posterior is not None
    x, mask = _inputs(model, record, rows)
    steps = mask.shape[1]
    seed = derive_seed(seed, "importance")
    noise = [latent_noise(mask.cpu(), model.config.latent_dim, seed, k, record.places[rows].tolist()) for k in draws]
    x, mask = torch.cat([x] * len(draws)), mask.repeat(len(draws), 1)
    posterior = (record.posterior.mean, record.posterior.log_scale)
    q = DiagonalGaussian(*(values[rows, :steps].repeat(len(draws), 1, 1).to(x.device) for values in posterior))
    z = q.sample(noise=torch.cat(noise).to(x.device))
    priors = [prior for prior in (model.prior, model.auxiliary_prior) if prior is not None]
    log_prior = torch.stack([_total(prior.log_prob(z, mask), mask) for prior in priors])
    log_weights = _log_likelihood(model, x, z, mask) + log_prior - _total(q.log_prob(z), mask)
    return log_weights.reshape(len(priors), len(draws), len(rows))


def _metrics_per_unit(record: Record, words: int | None) -> Metrics:
    """Bits/dim; or nats a token and the perplexities that the bounds promise; against either prior."""
    metrics: Metrics = {}
    for prefix, rate in (("", record.rate), ("auxiliary_", record.auxiliary_rate)):
        if rate is None:
            continue
        if record.modality is not TEXT:
            for name, nats in (("bits_per_dim", rate + record.distortion), ("rate_bits_per_dim", rate)):
                metrics |= ratio(nats, record.units).scaled(nats_to_bits(1.0)).named(f"{prefix}{name}")
            continue
        per_token = ratio(rate + record.distortion, record.units)
        metrics |= per_token.named(f"{prefix}nats_per_token")
        metrics |= perplexity(per_token).named(f"{prefix}perplexity_per_token")
        if words is not None:
            # Tokens a word are a constant of data and tokenizer, so the error is that of the nats a token.
            metrics |= perplexity(per_token.scaled(int(record.units.sum()) / words)).named(
                f"{prefix}perplexity_per_word"
            )
    return metrics if words is None else metrics | {"words": words}


def _information_metrics(model: DeltaVaeModel, record: Record, completed: Tensor, rows: Tensor) -> Metrics:
    """What z knows of `rows`, each compared with each, and the active units of all examples."""
    assert record.posterior is not None
    assert model.prior is not None
    mask, z = record.mask[rows], completed[rows]
    posterior = DiagonalGaussian(record.posterior.mean[rows], record.posterior.log_scale[rows])
    prior_log_prob = model.prior.log_prob(z.to(model.device), torch.ones_like(mask).to(model.device))
    information = mutual_information(posterior, mask, z, prior_log_prob)
    beyond_length: Metrics = {}
    if record.modality is TEXT:  # images have one size
        beyond_length |= mean(information.given_length).named("mutual_information_given_length_nats")
        beyond_length["mutual_information_given_length_cap_nats"] = information.given_length_cap
    return {
        **mean(information.about_x).named("mutual_information_nats"),
        "mutual_information_cap_nats": information.cap,
        **beyond_length,
        **mean(record.rate[rows] - information.about_x).named("marginal_kl_nats"),
        f"information_{record.modality.examples}": len(rows),
        "active_units": active_units(record.posterior.mean, record.mask, 0.01),
        "active_units_above_0.2": active_units(record.posterior.mean, record.mask, 0.2),
        "latent_dim": model.config.latent_dim,
    }


def _importance_metrics(log_weights: Tensor, examples: str) -> Metrics:
    """Of (P, K, n) log weights; `examples` is what the n are called."""
    _, samples, count = log_weights.shape
    metrics: Metrics = {"importance_samples": samples, f"importance_{examples}": count}
    for prefix, weights in zip(("", "auxiliary_"), log_weights, strict=False):
        nll = importance_weighted_nll(weights)
        metrics |= mean(nll).named(f"{prefix}importance_weighted_nll_nats")
        metrics |= mean(-weights.mean(0) - nll).named(f"{prefix}importance_gain_nats")
    return metrics


def _inputs(model: DeltaVaeModel, record: Record, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What is predicted of these rows and their mask (n, T), on the model's device; tokens to the longest's end."""
    x, mask = record.x[rows], record.mask[rows]
    if record.modality is TEXT:
        longest = int(record.units[rows].max())
        x, mask = x[:, :longest], mask[:, :longest]
    return x.to(model.device), mask.to(model.device)


def _log_likelihood(model: DeltaVaeModel, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """log p(x|z): (B,) nats, float64, on the CPU."""
    if x.dim() > 2:  # images, of which every pixel counts
        return model.decoder(x, z).log_prob(x).cpu().double().sum(1)
    return _total(model.decoder(x, z, mask).log_prob(x), mask)


def _total(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of (B, T) or (B, T, D) over the steps that count: (B,), float64, on the CPU."""
    beyond = ~mask.cpu().reshape(*mask.shape, *[1] * (values.dim() - 2))
    return values.cpu().double().masked_fill(beyond, 0.0).flatten(1).sum(1)


def _evenly_spaced(total: int, limit: int | None) -> Tensor:
    """At most `limit` of range(total), the first and the last among them: a fair sample of an order by length."""
    return torch.linspace(0, total - 1, total if limit is None else min(total, limit)).round().long()
