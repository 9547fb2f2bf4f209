"""What a run's figures say, in words and in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from delta_vae_core import nats_to_bits
from delta_vae_lab.estimates import Estimate
from delta_vae_lab.modality import IMAGES, Modality, modality_of

# Nats a sentence or image. A tenth changes the perplexity of a sentence of 30 tokens by a third of a per cent, an 8x8
# grey image by 0.002 bits/dim and a 32x32 colour image by 0.00005: nobody would keep an encoder for that, however sure
# the measurement.
NEXT_TO_NOTHING = 0.1

_NATS = {
    "distortion_nats": "distortion",
    "rate_nats": "rate, training prior",
    "committed_rate_nats": "  of it committed",
    "slack_nats": "  of it slack",
    "auxiliary_rate_nats": "rate, auxiliary prior",
    "negative_elbo_nats": "negative ELBO, training prior",
    "auxiliary_negative_elbo_nats": "negative ELBO, auxiliary prior",
    "importance_weighted_nll_nats": "IW NLL, training prior",
    "importance_gain_nats": "  below their negative ELBO by",
    "auxiliary_importance_weighted_nll_nats": "IW NLL, auxiliary prior",
    "auxiliary_importance_gain_nats": "  below their negative ELBO by",
    "mutual_information_nats": "mutual information I(x; z)",
    "mutual_information_given_length_nats": "  beyond the length, I(x; z | n)",
    "marginal_kl_nats": "marginal KL, rate - I(x; z)",
    "shuffle_gap_nats": "shuffle gap",
}
_OF_LATENTS = {"rate_nats", "committed_rate_nats", "slack_nats"}
_PER_TOKEN = {
    "nats_per_token": "nats a token, training prior",
    "auxiliary_nats_per_token": "nats a token, auxiliary prior",
    "perplexity_per_token": "perplexity a token, training prior",
    "auxiliary_perplexity_per_token": "perplexity a token, auxiliary prior",
    "perplexity_per_word": "perplexity a word, training prior",
    "auxiliary_perplexity_per_word": "perplexity a word, auxiliary prior",
}


def verdict(metrics: Mapping[str, float | int]) -> str:
    """Collapsed or not, and why, on one line, from the metrics of `evaluate`.

    Collapsed means that any sentence's or image's z serves the decoder as well: another's costs it nothing within 3
    standard errors, or less than `NEXT_TO_NOTHING`. The rate alone cannot tell, for it never falls below its floor. Nor
    does the cost tell what z is worth: much of it is the harm of a wrong z. Only a decoder without latents shows that.
    """
    kind = modality_of(metrics)
    if "shuffle_gap_nats" not in metrics:
        needed = f"{Estimate.of(metrics, 'distortion_nats')} nats {kind.an_example}"
        return (
            f"No latents: the decoder alone needs {needed}, "
            f"{Estimate.of(metrics, kind.bound)} {kind.bound_unit.removeprefix('nats ')}. "
            "Latents are worth having where a model with them has a lower bound."
        )
    gap, slack = Estimate.of(metrics, "shuffle_gap_nats"), Estimate.of(metrics, "slack_nats")
    cost = f"another {kind.example}'s z costs the decoder {gap} nats {kind.an_example}"
    over_floor = f"{slack} nats of slack over a committed {metrics['committed_rate_nats']:.2f}"
    if not _is_something(gap):
        costs = "nothing within 3 standard errors" if abs(gap.value) <= 3 * gap.stderr else "next to nothing"
        paid = f"pays {over_floor} all the same" if _is_something(slack) else f"sits on its floor, {over_floor}"
        return f"Collapsed: {cost}, {costs}, and the rate {paid}."
    name, prior = kind.bound, ""
    if f"auxiliary_{name}" in metrics:
        name, prior = f"auxiliary_{name}", " against the auxiliary prior"
    return (
        f"Not collapsed: {cost}; for that the rate pays {over_floor} ({_content(metrics, kind)}). "
        f"The bound{prior} is {Estimate.of(metrics, name)} {kind.bound_unit}; "
        "whether latents lower it is for the decoder without latents (prior.kind=none) to say."
    )


def render_table(metrics: Mapping[str, float | int], *, data: str, seed: int) -> str:
    """The estimates with their standard errors as aligned plain text; what was not measured has no row.

    Images have one size, so everything of theirs is in bits/dim too.
    """
    kind = modality_of(metrics)
    examples, units = metrics[kind.examples], metrics[kind.units]
    title = f"{data}: {examples:,} held-out {kind.examples}, {units:,} {kind.units}, seed {seed}"
    scales = {"nats": 1.0, "bits": nats_to_bits(1.0)}
    if kind is IMAGES:
        scales["bits/dim"] = nats_to_bits(examples / units)
    rows = [[f"{kind.an_example}, ± standard error", *scales]]
    measured = set(metrics) if "latent_dim" in metrics else set(metrics) - _OF_LATENTS
    for name, label in _NATS.items():
        if name in measured:
            nats = Estimate.of(metrics, name)
            rows.append([label + _note(metrics, name), *(str(nats.scaled(scale)) for scale in scales.values())])
    more = [[label, str(Estimate.of(metrics, name))] for name, label in _PER_TOKEN.items() if name in metrics]
    if "active_units" in metrics:
        active = f"{metrics['active_units']} / {metrics['active_units_above_0.2']} of {metrics['latent_dim']}"
        more.append(["active units, variance > 0.01 / > 0.2", active])
    return "\n".join([title, "", *_aligned([*rows, [], *more] if more else rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of labels to the left and figures to the right; a row may end early."""
    columns = list(zip_longest(*rows, fillvalue=""))
    label_width, *widths = (max(map(len, column)) for column in columns)
    for label, *figures in zip(*columns, strict=True):
        cells = (f"  {figure:>{width}}" for figure, width in zip(figures, widths, strict=True))
        yield f"{label:<{label_width}}{''.join(cells)}".rstrip()


def _content(metrics: Mapping[str, float | int], kind: Modality) -> str:
    """What z tells; of a sentence beyond its length, which the number of latents gives away."""
    name, beyond, symbol = "mutual_information", "", "I(x; z)"
    if kind is not IMAGES:
        name, beyond, symbol = f"{name}_given_length", "beyond the length ", "I(x; z | n)"
    at_least = "at least " if _near_cap(metrics, name) else ""
    information = Estimate.of(metrics, f"{name}_nats")
    return f"{beyond}z tells {at_least}{information} nats about the {kind.example}, {symbol}"


def _note(metrics: Mapping[str, float | int], name: str) -> str:
    """What a label must say to be read rightly: the samples of a bound, the examples and limits of an estimate."""
    examples = modality_of(metrics).examples
    if "importance_weighted" in name:
        return f" (K = {metrics['importance_samples']}, {metrics[f'importance_{examples}']} {examples})"
    notes = []
    if (cap := metrics.get(name.replace("_nats", "_cap_nats"))) is not None:
        notes.append(f"at most {cap:.2f}")
    elif name == "marginal_kl_nats":
        if _near_cap(metrics, "mutual_information"):
            notes.append("at most this, for I(x; z) is near its cap")
    else:
        return ""
    if metrics[f"information_{examples}"] < metrics[examples]:
        notes.append(f"{metrics[f'information_{examples}']:,} {examples}")
    return f" ({'; '.join(notes)})" if notes else ""


def _near_cap(metrics: Mapping[str, float | int], name: str) -> bool:
    """Near its cap an estimate of information measures the number of examples: it is a lower bound."""
    return metrics[f"{name}_nats"] >= 0.9 * metrics[f"{name}_cap_nats"]


def _is_something(estimate: Estimate) -> bool:
    return estimate.value > max(3 * estimate.stderr, NEXT_TO_NOTHING)
