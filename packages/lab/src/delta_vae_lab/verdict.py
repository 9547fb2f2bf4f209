"""What a run's figures say, in words and in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from delta_vae_core import nats_to_bits
from delta_vae_lab.estimates import Estimate
from delta_vae_lab.modality import EXAMPLES, TEXT, Modality, modality_of

# Nats a sentence or image. A tenth changes the perplexity of a sentence of 30 tokens by a third of a per cent, an 8x8
# grey image by 0.002 bits/dim and a 32x32 colour image by 0.00005: nobody would keep an encoder for that, however sure
# the measurement.
NEXT_TO_NOTHING = 0.1

# Of its cap. With N examples a z that tells x from nearly all others is told apart from these N alone, and a larger
# evaluation set would show more.
_NEAR = 0.75

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
    "importance_weighted_perplexity_per_token": "perplexity a token, IW NLL, training prior",
    "auxiliary_importance_weighted_perplexity_per_token": "perplexity a token, IW NLL, auxiliary prior",
    "importance_weighted_perplexity_per_word": "perplexity a word, IW NLL, training prior",
    "auxiliary_importance_weighted_perplexity_per_word": "perplexity a word, IW NLL, auxiliary prior",
}


def is_collapsed(metrics: Mapping[str, float | int]) -> bool:
    """Whether any example's z serves the decoder as well; False of a decoder without latents.

    That is: another's costs it nothing within 3 standard errors, or less than `NEXT_TO_NOTHING`.
    """
    return "shuffle_gap_nats" in metrics and not _is_something(Estimate.of(metrics, "shuffle_gap_nats"))


def verdict(metrics: Mapping[str, float | int]) -> str:
    """Collapsed or not (`is_collapsed`), and why, on one line, from the metrics of `evaluate`.

    The rate alone cannot tell, for it never falls below its floor. Nor does the cost of another's z tell what z is
    worth: much of it is the harm of a wrong z. Only a decoder without latents shows that.
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
    if is_collapsed(metrics):
        paid = f"pays {over_floor} all the same" if _is_something(slack) else f"sits on its floor, {over_floor}"
        return f"Collapsed: {cost}, {_within_error(gap)}, and the rate {paid}."
    name, unit, prior = kind.bound, kind.bound_unit, ""
    if name not in metrics:  # an outside VAE whose dimensions are not known
        name, unit = "negative_elbo_nats", f"nats {kind.an_example}"
    if f"auxiliary_{name}" in metrics:
        name, prior = f"auxiliary_{name}", " against the auxiliary prior"
    without = "(prior.kind=none) to say" if kind is not EXAMPLES else "to say, trained alike"
    return (
        f"Not collapsed: {cost}; for that the rate pays {over_floor} ({_content(metrics, kind)}). "
        f"The bound{prior} is {Estimate.of(metrics, name)} {unit}; "
        f"whether latents lower it is for the decoder without latents {without}."
    )


def reasons(metrics: Mapping[str, float | int]) -> list[str]:
    """What was found, a sentence each: what z costs, what the decoder makes of it, and what it tells."""
    kind = modality_of(metrics)
    rate, slack, gap, marginal = (
        Estimate.of(metrics, f"{name}_nats") for name in ("rate", "slack", "shuffle_gap", "marginal_kl")
    )
    committed, floor = metrics["committed_rate_nats"], "of which the prior commits nothing"
    if committed > 0:
        place = "above its floor" if _is_something(slack) else "on its floor"
        floor = f"{place}: {slack} nats more than the {committed:.2f} that the prior commits"
    costs = f"shuffling costs {gap} nats {kind.an_example}"
    decoder = f"ignores z: {costs}, {_within_error(gap)}" if is_collapsed(metrics) else f"heeds z: {costs}"
    informs = _is_something(Estimate.of(metrics, f"{_information(kind)}_nats"))
    encoder = f"tells {kind.examples} apart" if informs else f"says the same of every {kind.example}"
    found = [
        f"The rate is {rate} nats {kind.an_example}, {floor}.",
        f"The decoder {decoder}.",
        f"The encoder {encoder}: {_content(metrics, kind)}.",
    ]
    if _is_something(marginal):
        most = "At most " if _near_cap(metrics, "mutual_information") else ""
        found.append(
            f"{most}{marginal} nats of the rate tell nothing: by so much the posteriors taken together, "
            "on which the decoder was trained, differ from the prior."
        )
    if "auxiliary_rate_nats" in metrics:
        found.append(f"Against the auxiliary prior the rate is {Estimate.of(metrics, 'auxiliary_rate_nats')} nats.")
    found.append(
        f"{metrics['active_units']} of {metrics['latent_dim']} latent dimensions move with the {kind.example} "
        f"(variance of their means > 0.01; {metrics['active_units_above_0.2']} above 0.2)."
    )
    return found


def render_table(metrics: Mapping[str, float | int], *, data: str, seed: int) -> str:
    """The estimates with their standard errors as aligned plain text; what was not measured has no row.

    Images have one size, so everything of theirs is in bits/dim too.
    """
    kind = modality_of(metrics)
    examples, units = metrics[kind.examples], metrics.get(kind.units)
    counted = f"{examples:,} held-out {kind.examples}" + (f", {units:,} {kind.units}" if units else "")
    scales = {"nats": 1.0, "bits": nats_to_bits(1.0)}
    if kind is not TEXT and units:
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
    title = f"{data}: {counted}, seed {seed}"
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
    name = _information(kind)
    beyond, symbol = ("beyond the length ", "I(x; z | n)") if kind is TEXT else ("", "I(x; z)")
    at_least = "at least " if _near_cap(metrics, name) else ""
    return f"{beyond}z tells {at_least}{Estimate.of(metrics, f'{name}_nats')} nats about the {kind.example}, {symbol}"


def _information(kind: Modality) -> str:
    """The metric of what z tells."""
    return "mutual_information_given_length" if kind is TEXT else "mutual_information"


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
    told_of = metrics.get(f"information_{examples}", metrics[examples])  # the first results do not say: of all
    if told_of < metrics[examples]:
        notes.append(f"{told_of:,} {examples}")
    return f" ({'; '.join(notes)})" if notes else ""


def _near_cap(metrics: Mapping[str, float | int], name: str) -> bool:
    """Near its cap an estimate of information measures the number of examples: it is a lower bound."""
    return metrics[f"{name}_nats"] >= _NEAR * metrics[f"{name}_cap_nats"]


def _within_error(gap: Estimate) -> str:
    """How little a gap is that is not something."""
    if abs(gap.value) <= 3 * gap.stderr:
        return "nothing within 3 standard errors"
    return "next to nothing" if gap.value > 0 else "less than nothing"


def _is_something(estimate: Estimate) -> bool:
    return estimate.value > max(3 * estimate.stderr, NEXT_TO_NOTHING)
