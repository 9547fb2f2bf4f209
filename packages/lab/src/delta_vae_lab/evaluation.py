"""Held-out estimates of a model: the bound and its parts, a tighter bound, and what the latents are used for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from delta_vae import DeltaVaeModel
from delta_vae_core import DiagonalGaussian, nats_to_bits
from delta_vae_lab.console import bar
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.estimates import Estimate, importance_weighted_nll, mean, perplexity, ratio
from delta_vae_lab.information import active_units, mutual_information
from delta_vae_lab.measurement import Record, measure
from delta_vae_lab.modality import TEXT
from delta_vae_lab.randomness import derive_seed, latent_noise
from delta_vae_lab.subject import Subject, as_subject, sum_over_steps

Metrics = dict[str, float | int]

# Mutual information compares each with every other: seconds for so many sentences on one core, hours for all of LM1B's.
INFORMATION_EXAMPLES = 5_000


def evaluate(
    model: DeltaVaeModel | Subject,
    batches: Iterable[Batch],
    *,
    words: int | None = None,
    seed: int = 0,
    importance_samples: int | None = 64,
    importance_examples: int | None = None,
    information_examples: int | None = INFORMATION_EXAMPLES,
) -> Metrics:
    """Every estimate of results.json: nats a sentence or image unless its name says otherwise, `..._stderr` beside it.

    words: running words of sentences, by the convention of their data; the nats of the end of a sentence are in the
    numerator. importance_samples: K of the importance-weighted bound; None leaves it out. importance_examples: how
    many, evenly spaced in the order given, get that bound; None is all. `importance_gain_nats` is what it gains over
    the ELBO of the same samples. information_examples: likewise those that mutual information and marginal KL are
    about, x uniform over them.

    Noise is drawn for each by its place in the data, so the batch size does not matter.
    """
    limits = {"importance_examples": importance_examples, "information_examples": information_examples}
    check_limits(importance_samples, **limits)
    return estimate(
        model, measure(model, batches, seed), words=words, seed=seed, importance_samples=importance_samples, **limits
    )


def check_limits(importance_samples: int | None, **limits: int | None) -> None:
    """Raise `ValueError` unless there are samples for a bound and examples for a standard error."""
    if importance_samples is not None and importance_samples < 1:
        raise ValueError(f"importance_samples={importance_samples}: the bound is a mean over samples; take 1 or more")
    for name, limit in limits.items():
        if limit is not None and limit < 2:
            raise ValueError(f"{name}={limit}: a standard error needs 2 or more; or None for all")


def estimate(
    model: DeltaVaeModel | Subject,
    record: Record,
    *,
    words: int | None = None,
    seed: int = 0,
    importance_samples: int | None = 64,
    importance_examples: int | None = None,
    information_examples: int | None = INFORMATION_EXAMPLES,
) -> Metrics:
    """`evaluate` of what was measured already, with the same seed."""
    subject = as_subject(model)
    metrics = bound_metrics(record) | _metrics_per_unit(record, words)
    if record.posterior is None:
        return metrics
    with subject.evaluating():
        completed = complete(subject, record, seed)
        metrics |= _information_metrics(
            subject, record, completed, _evenly_spaced(len(record.rate), information_examples)
        )
        metrics |= mean(shuffle_gap(subject, record, completed, seed)).named("shuffle_gap_nats")
        if importance_samples is not None:
            rows = _evenly_spaced(len(record.rate), importance_examples)
            log_weights = importance_log_weights(subject, record, rows, importance_samples, seed)
            metrics |= _importance_metrics(log_weights, record, rows, words)
    return metrics


def evaluate_bound(model: DeltaVaeModel | Subject, batches: Iterable[Batch], *, seed: int = 0) -> Metrics:
    """The bound and its parts alone, in one pass."""
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
    metrics["smallest_batch_slack_nats"] = min(float(slack[rows].mean()) for rows in record.batches())
    metrics[record.modality.examples] = len(record.rate)
    return metrics | ({record.modality.units: int(record.units.sum())} if record.has_units else {})


def complete(model: DeltaVaeModel | Subject, record: Record, seed: int) -> Tensor:
    """The record's z, each continued by the prior from its last step to step T: (N, T, D)."""
    assert record.z is not None
    subject = as_subject(model)
    generator = torch.Generator().manual_seed(derive_seed(seed, "completion"))
    completed: Tensor = subject.prior.complete(record.z.to(subject.device), record.mask.to(subject.device), generator)
    return completed.cpu()


def shuffle_gap(model: DeltaVaeModel | Subject, record: Record, completed: Tensor, seed: int) -> Tensor:
    """Distortion under the z of another example, less that under its own: (N,) nats.

    It tells whether the decoder heeds z, not what z is worth to it: a wrong z may do more harm than the right one good.

    completed: (N, T, D), for another sentence may be shorter. Sentences are in an order by length, so of them the other
    is the one before, about as long; else it is drawn, for data may lie class by class.
    """
    subject, order = as_subject(model), torch.arange(len(completed))
    if record.modality is not TEXT:
        generator = torch.Generator().manual_seed(derive_seed(seed, "shuffle"))
        order = torch.randperm(len(completed), generator=generator)
    others = torch.empty_like(completed)
    others[order] = completed[order.roll(1)]
    shuffled = []
    for rows in bar(record.batches(), "shuffle gap"):
        x, mask = _inputs(subject, record, rows)
        shuffled.append(-subject.log_likelihood(x, others[rows, : mask.shape[1]].to(x.device), mask))
    return torch.cat(shuffled) - record.distortion


def importance_log_weights(
    model: DeltaVaeModel | Subject, record: Record, rows: Tensor, samples: int, seed: int
) -> Tensor:
    """log p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x), of the n examples `rows`: (P, K, n) nats.

    Against the P priors that the model has, the auxiliary one last, with the same samples. Never are more
    decoded at a time than their batch had.
    """
    subject, columns = as_subject(model), []
    for batch in bar(record.batches(), "importance weights"):
        chosen = batch[torch.isin(batch, rows)]
        if len(chosen):
            at_once = max(1, len(batch) // len(chosen))
            draws = [range(samples)[k : k + at_once] for k in range(0, samples, at_once)]
            columns.append(torch.cat([_log_weights(subject, record, chosen, ks, seed) for ks in draws], dim=1))
    return torch.cat(columns, dim=2)


def _log_weights(subject: Subject, record: Record, rows: Tensor, draws: Sequence[int], seed: int) -> Tensor:
    assert record.posterior is not None
    x, mask = _inputs(subject, record, rows)
    steps, latent_dim = mask.shape[1], record.posterior.mean.shape[2]
    seed = derive_seed(seed, "importance")
    noise = [latent_noise(mask.cpu(), latent_dim, seed, k, record.places[rows].tolist()) for k in draws]
    x, mask = torch.cat([x] * len(draws)), mask.repeat(len(draws), 1)
    posterior = (record.posterior.mean, record.posterior.log_scale)
    q = DiagonalGaussian(*(values[rows, :steps].repeat(len(draws), 1, 1).to(x.device) for values in posterior))
    z = q.sample(noise=torch.cat(noise).to(x.device))
    priors = [prior for prior in (subject.prior, subject.auxiliary_prior) if prior is not None]
    log_prior = torch.stack([sum_over_steps(prior.log_prob(z, mask), mask) for prior in priors])
    log_weights = subject.log_likelihood(x, z, mask) + log_prior - sum_over_steps(q.log_prob(z), mask)
    return log_weights.reshape(len(priors), len(draws), len(rows))


def _metrics_per_unit(record: Record, words: int | None) -> Metrics:
    """Bits/dim; or nats a token and the perplexities that the bounds promise; against either prior."""
    metrics: Metrics = {} if words is None else {"words": words}
    for prefix, rate in (("", record.rate), ("auxiliary_", record.auxiliary_rate)):
        if rate is None:
            continue
        metrics |= _shared_out(rate + record.distortion, record, slice(None), words, prefix)
        if record.modality is not TEXT and record.has_units:
            metrics |= _bits_per_dim(rate, record.units).named(f"{prefix}rate_bits_per_dim")
    return metrics


def _shared_out(nats: Tensor, record: Record, rows: Tensor | slice, words: int | None, prefix: str) -> Metrics:
    """A bound (n,) of these rows a unit of theirs."""
    units = record.units[rows]
    if not record.has_units:
        return {}
    if record.modality is not TEXT:
        return _bits_per_dim(nats, units).named(f"{prefix}bits_per_dim")
    per_token = ratio(nats, units)
    metrics: Metrics = {
        **per_token.named(f"{prefix}nats_per_token"),
        **perplexity(per_token).named(f"{prefix}perplexity_per_token"),
    }
    if words is not None:
        # Tokens a word are a constant of data and tokenizer, so the error is that of the nats a token.
        per_word = per_token.scaled(int(record.units.sum()) / words)
        metrics |= perplexity(per_word).named(f"{prefix}perplexity_per_word")
    return metrics


def _bits_per_dim(nats: Tensor, units: Tensor) -> Estimate:
    return ratio(nats, units).scaled(nats_to_bits(1.0))


def _information_metrics(subject: Subject, record: Record, completed: Tensor, rows: Tensor) -> Metrics:
    """What z knows of `rows`, each compared with each, and the active units of all examples."""
    assert record.posterior is not None
    mask, z = record.mask[rows], completed[rows]
    posterior = DiagonalGaussian(record.posterior.mean[rows], record.posterior.log_scale[rows])
    prior_log_prob = subject.prior.log_prob(z.to(subject.device), torch.ones_like(mask).to(subject.device))
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
        "latent_dim": record.posterior.mean.shape[2],
    }


def _importance_metrics(log_weights: Tensor, record: Record, rows: Tensor, words: int | None) -> Metrics:
    """Of the (P, K, n) log weights of these n rows."""
    _, samples, count = log_weights.shape
    metrics: Metrics = {"importance_samples": samples, f"importance_{record.modality.examples}": count}
    for prefix, weights in zip(("", "auxiliary_"), log_weights, strict=False):
        nll = importance_weighted_nll(weights)
        metrics |= mean(nll).named(f"{prefix}importance_weighted_nll_nats")
        metrics |= mean(-weights.mean(0) - nll).named(f"{prefix}importance_gain_nats")
        metrics |= _shared_out(nll, record, rows, words, f"{prefix}importance_weighted_")
    return metrics


def _inputs(subject: Subject, record: Record, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What is predicted of these rows and their mask (n, T), on the model's device; tokens to the longest's end."""
    x, mask = record.x[rows], record.mask[rows]
    if record.modality is TEXT:
        longest = int(record.units[rows].max())
        x, mask = x[:, :longest], mask[:, :longest]
    return x.to(subject.device), mask.to(subject.device)


def _evenly_spaced(total: int, limit: int | None) -> Tensor:
    """At most `limit` of range(total), the first and the last among them: a fair sample of an order by length."""
    return torch.linspace(0, total - 1, total if limit is None else min(total, limit)).round().long()
