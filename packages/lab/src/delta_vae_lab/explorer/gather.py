"""What the explorer shows of a model, as a plain dictionary that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from delta_vae import DeltaVaeModel, spherical_interpolation
from delta_vae_core import DiagonalGaussian, nats_to_bits
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.estimates import Estimate
from delta_vae_lab.evaluation import Metrics, estimate
from delta_vae_lab.explorer.medium import Medium
from delta_vae_lab.measurement import Record, measure, rate_profile
from delta_vae_lab.randomness import generator
from delta_vae_lab.subject import evaluating
from delta_vae_lab.verdict import verdict

SHIFTS = (-3, -2, -1, 0, 1, 2, 3)  # standard deviations of the prior
STEPS = 7  # of an interpolation, its two ends included
DRAWS = 8  # of one z
NEIGHBOURS = 5
PRIOR_DRAWS = 1_000  # for the standard deviation of a prior that has no closed form for it

# What is decoded grows as examples times dimensions; a page should open at once.
DECODED_EXAMPLES, DECODED_DIMENSIONS, DECODED_BYTES = 12, 8, 3_000_000
FEW = 4  # examples, for which dimensions are rather left out

_ESTIMATES = {
    "rate_nats": ("rate", "what z costs: KL(q(z|x) || p(z))"),
    "committed_rate_nats": ("committed rate", "the part of it that this prior and posterior cannot go below"),
    "slack_nats": ("slack", "rate less committed rate"),
    "auxiliary_rate_nats": ("rate, auxiliary prior", "the same against the prior fitted afterwards"),
    "mutual_information_nats": ("I(x; z)", "what z tells about x"),
    "mutual_information_given_length_nats": ("I(x; z | n)", "what z tells beyond the length n"),
    "shuffle_gap_nats": ("shuffle gap", "what another example's z costs the decoder"),
}


@dataclass(frozen=True)
class Plan:
    """How many of the examples are decoded, and along how many latent dimensions."""

    examples: int
    dimensions: int


def plan(examples: int, latent_dim: int, decoding_bytes: int) -> Plan:
    """As many as fit: dimensions are left out before fewer than `FEW` examples are decoded."""
    most, affordable = min(examples, DECODED_EXAMPLES), 0
    for dimensions in range(min(latent_dim, DECODED_DIMENSIONS), 0, -1):
        each = decoding_bytes * (dimensions * (len(SHIFTS) - 1) + 1 + DRAWS + 2 * STEPS)
        affordable = min(most, DECODED_BYTES // each)
        if affordable >= min(most, FEW):
            return Plan(affordable, dimensions)
    return Plan(max(2, affordable), 1)


def gather(
    model: DeltaVaeModel,
    batches: Sequence[Batch],
    medium: Medium,
    *,
    examples: int,
    about: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """All that the page needs; `about` (the model's name, the data's) leads it.

    The estimates are of all the batches; shown are the first `examples` of their data.
    """
    if model.prior is None:
        raise ValueError("this model has no latents (latent_dim=0): explore one with a prior and an encoder")
    record = measure(model, batches, seed)
    metrics = estimate(model, record, seed=seed, importance_samples=None)
    order = record.places.argsort()[:examples]
    with evaluating(model):
        dimensions = _dimensions(model, record)
        shown = _examples(record, order, medium, _committed(model, record.mask[order]))
        planned = plan(len(order), len(dimensions), medium.size(record.mask.shape[1]))
        dimensions = dimensions[: planned.dimensions]
        rows = order[: planned.examples]
        distances = latent_distances(record.posterior, record.mask, order, medium.pooled)
        _add_neighbours(shown, distances)
        _add_decodings(shown, model, medium, record, rows, dimensions, distances, seed)
    return {
        **about,
        "seed": seed,
        "measured": len(record.rate),
        "modality": record.modality.examples,
        "example": record.modality.example,
        "verdict": verdict(metrics),
        "estimates": _estimates(metrics),
        "latent_dim": metrics["latent_dim"],
        "dimensions": dimensions,
        "scale_nats": max(max(example["rate_nats"] + example["committed_nats"]) for example in shown),
        "how": medium.how,
        "distance": "Euclidean distance between posterior means"
        + (", each averaged over its steps" if medium.pooled else " of all steps"),
        "shifts": list(SHIFTS),
        "examples": shown,
    }


def latent_distances(posterior: DiagonalGaussian | None, mask: Tensor, rows: Tensor, pooled: bool) -> Tensor:
    """Euclidean distances between the posterior means of these rows: (n, n).

    pooled: between their means over the steps that count, (D,) each; else over all T D numbers.
    """
    assert posterior is not None
    mean = posterior.mean[rows].double() * mask[rows, :, None]
    points = mean.sum(1) / mask[rows].sum(1, keepdim=True) if pooled else mean.flatten(1)
    return (points[:, None] - points).norm(dim=-1)


def _estimates(metrics: Metrics) -> list[dict[str, Any]]:
    found = []
    for name, (label, meaning) in _ESTIMATES.items():
        if name in metrics:
            cap = metrics.get(name.replace("_nats", "_cap_nats"))
            value = Estimate.of(metrics, name)
            note = "" if cap is None else f"; from so many examples at most {cap:.2f} nats"
            found.append(
                {
                    "label": label,
                    "nats": value.value,
                    "in_nats": str(value),
                    "in_bits": str(value.scaled(nats_to_bits(1.0))),
                    "meaning": meaning + note,
                }
            )
    return found


def _dimensions(model: DeltaVaeModel, record: Record) -> list[dict[str, Any]]:
    """All of them, that of the highest rate first: rate and committed rate in nats an example."""
    assert record.kl is not None
    profile = rate_profile(model, record)
    rate = record.kl.double().sum((0, 1)) / len(record.kl)
    committed = (profile.committed * profile.sequences[:, None]).sum(0) / len(record.kl)
    draws = model.prior.sample(PRIOR_DRAWS, record.mask.shape[1], generator(0, "explorer prior"), model.device)
    deviations = draws.double().cpu().flatten(0, 1).std(0)
    return [
        {
            "index": k,
            "rate_nats": round(float(rate[k]), 4),
            "committed_nats": round(float(committed[k]), 4),
            "prior_standard_deviation": round(float(deviations[k]), 2),
        }
        for k in rate.argsort(descending=True).tolist()
    ]


def _committed(model: DeltaVaeModel, mask: Tensor) -> Tensor:
    """The KL by step of the posterior that attains the floor, at statistics 0: (N, T) nats; no floor is 0."""
    mask = mask.to(model.device)
    if not bool(model.prior.committed_rate(mask.sum(1)).any()):
        return torch.zeros(mask.shape)
    statistics = torch.zeros(*mask.shape, 2 * model.config.latent_dim, device=mask.device)
    floor: Tensor = model.prior.kl(model.prior.posterior(statistics, mask), mask).sum(2).cpu()
    return floor


def _examples(record: Record, order: Tensor, medium: Medium, committed: Tensor) -> list[dict[str, Any]]:
    assert record.kl is not None
    examples = []
    x = record.x[order]
    for i, (text, row) in enumerate(zip(medium.shown(x), order.tolist(), strict=True)):
        steps = int(record.mask[row].sum())
        examples.append(
            {
                "place": int(record.places[row]),
                "shown": text,
                "pieces": medium.pieces(x[i, :steps]),
                "rate_nats": _rounded(record.kl[row, :steps].double().sum(1)),
                "committed_nats": _rounded(committed[i, :steps]),
                "total_rate_nats": round(float(record.rate[row]), 4),
                "total_committed_nats": round(float(record.committed_rate[row]), 4),
                "distortion_nats": round(float(record.distortion[row]), 4),
            }
        )
    return examples


def _add_neighbours(shown: list[dict[str, Any]], distances: Tensor) -> None:
    for i, example in enumerate(shown):
        nearest = [j for j in distances[i].argsort(stable=True).tolist() if j != i][:NEIGHBOURS]
        example["neighbours"] = [{"example": j, "distance": round(float(distances[i, j]), 4)} for j in nearest]


def _add_decodings(
    shown: list[dict[str, Any]],
    model: DeltaVaeModel,
    medium: Medium,
    record: Record,
    rows: Tensor,
    dimensions: Sequence[Mapping[str, Any]],
    distances: Tensor,
    seed: int,
) -> None:
    """`decodings` of each of the M examples `rows`, from its posterior mean, which goes on from the prior."""
    assert record.posterior is not None
    assert record.z is not None
    mask = record.mask[rows].to(model.device)
    mask = mask[:, : int(mask.sum(1).max())]
    posterior_mean, z = (
        model.prior.complete(values[rows, : mask.shape[1]].to(model.device), mask, generator(seed, "explorer latents"))
        for values in (record.posterior.mean, record.z)
    )
    moved = [posterior_mean]
    for dimension in dimensions:
        direction = functional.one_hot(torch.tensor(dimension["index"]), posterior_mean.shape[2]).to(posterior_mean)
        unit = dimension["prior_standard_deviation"] * direction
        moved += [posterior_mean + shift * unit for shift in SHIFTS if shift]
    unmoved, *variants = medium.decoded(torch.stack(moved), mask)
    along = iter(variants)
    by_dimension = [[next(along) if shift else unmoved for shift in SHIFTS] for _ in dimensions]
    drawn = medium.drawn(z, mask, DRAWS)
    ways = _ways(posterior_mean, mask, medium, distances[: len(rows), : len(rows)])
    for i, example in enumerate(shown[: len(rows)]):
        example["decodings"] = {
            "unmoved": unmoved[i],
            "by_dimension": [[variant[i] for variant in shifted] for shifted in by_dimension],
            "drawn": drawn[i],
            "ways": ways[i],
        }


def _ways(ends: Tensor, mask: Tensor, medium: Medium, distances: Tensor) -> list[list[dict[str, Any]]]:
    """For each example the arcs to the nearest and to the farthest of the others, decoded."""
    count = len(ends)
    others = distances.clone().fill_diagonal_(torch.inf).argsort(stable=True)[:, : count - 1]
    ways: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for which, partner in (("nearest", others[:, 0]), ("farthest", others[:, -1])):
        arcs = [spherical_interpolation(ends[i], ends[j], STEPS) for i, j in enumerate(partner.tolist())]
        decoded = medium.decoded(torch.stack(arcs, dim=1), mask | mask[partner])
        for i, j in enumerate(partner.tolist()):
            if all(way["to"] != j for way in ways[i]):
                ways[i].append({"to": j, "which": which, "decoded": [step[i] for step in decoded]})
    return ways


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
