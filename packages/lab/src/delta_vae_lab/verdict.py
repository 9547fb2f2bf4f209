"""What a run's figures say, in words and in a table."""

from __future__ import annotations

from collections.abc import Mapping

from delta_vae_core import nats_to_bits
from delta_vae_lab.estimates import Estimate

# Nats a sentence. A tenth changes the perplexity of a sentence of 30 tokens by a third of a per cent: nobody would
# keep an encoder for that, however sure the measurement.
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
_PER_UNIT = {
    "nats_per_token": "nats a token, training prior",
    "auxiliary_nats_per_token": "nats a token, auxiliary prior",
    "perplexity_per_token": "perplexity a token, training prior",
    "auxiliary_perplexity_per_token": "perplexity a token, auxiliary prior",
    "perplexity_per_word": "perplexity a word, training prior",
    "auxiliary_perplexity_per_word": "perplexity a word, auxiliary prior",
}


def verdict(metrics: Mapping[str, float | int]) -> str:
    """Collapsed or not, and why, on one line, from the metrics of `evaluate_text`.

    Collapsed means that any sentence's z serves the decoder as well: another's costs it nothing within 3 standard
    errors, or less than `NEXT_TO_NOTHING`. The rate alone cannot tell, for it never falls below its floor. Nor does
    the cost tell what z is worth: much of it is the harm of a wrong z. Only a decoder without latents shows that.
    """
    if "shuffle_gap_nats" not in metrics:
        needed = f"{Estimate.of(metrics, 'distortion_nats')} nats a sentence"
        return (
            f"No latents: the decoder alone needs {needed}, {Estimate.of(metrics, 'nats_per_token')} a token. "
            "Latents are worth having where a model with them has a lower bound."
        )
    gap, slack = Estimate.of(metrics, "shuffle_gap_nats"), Estimate.of(metrics, "slack_nats")
    cost = f"another sentence's z costs the decoder {gap} nats a sentence"
    over_floor = f"{slack} nats of slack over a committed {metrics['committed_rate_nats']:.2f}"
    if not _is_something(gap):
        costs = "nothing within 3 standard errors" if abs(gap.value) <= 3 * gap.stderr else "next to nothing"
        paid = f"pays {over_floor} all the same" if _is_something(slack) else f"sits on its floor, {over_floor}"
        return f"Collapsed: {cost}, {costs}, and the rate {paid}."
    name, prior = "nats_per_token", ""
    if f"auxiliary_{name}" in metrics:
        name, prior = f"auxiliary_{name}", " against the auxiliary prior"
    content = Estimate.of(metrics, "mutual_information_given_length_nats")
    at_least = "at least " if _near_cap(metrics, "mutual_information_given_length") else ""
    return (
        f"Not collapsed: {cost}; for that the rate pays {over_floor} "
        f"(beyond the length z tells {at_least}{content} nats about the sentence, I(x; z | n)). "
        f"The bound{prior} is {Estimate.of(metrics, name)} nats a token; "
        "whether latents lower it is for the decoder without latents (prior.kind=none) to say."
    )


def render_table(metrics: Mapping[str, float | int], *, data: str, seed: int) -> str:
    """The estimates with their standard errors as aligned plain text; what was not measured has no row."""
    title = f"{data}: {metrics['sentences']:,} held-out sentences, {metrics['tokens']:,} tokens, seed {seed}"
    rows = [("a sentence, ± standard error", "nats", "bits")]
    measured = set(metrics) if "latent_dim" in metrics else set(metrics) - _OF_LATENTS
    for name, label in _NATS.items():
        if name in measured:
            nats = Estimate.of(metrics, name)
            rows.append((label + _note(metrics, name), str(nats), str(nats.scaled(nats_to_bits(1.0)))))
    rows.append(("", "", ""))
    rows += [(label, str(Estimate.of(metrics, name)), "") for name, label in _PER_UNIT.items() if name in metrics]
    if "active_units" in metrics:
        units = f"{metrics['active_units']} / {metrics['active_units_above_0.2']} of {metrics['latent_dim']}"
        rows.append(("active units, variance > 0.01 / > 0.2", units, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (f"{label:<{widths[0]}}  {nats:>{widths[1]}}  {bits:>{widths[2]}}".rstrip() for label, nats, bits in rows)
    return "\n".join([title, "", *lines])


def _note(metrics: Mapping[str, float | int], name: str) -> str:
    """What a label must say to be read rightly: the samples of a bound, the sentences and limits of an estimate."""
    if "importance_weighted" in name:
        return f" (K = {metrics['importance_samples']}, {metrics['importance_sentences']} sentences)"
    notes = []
    if (cap := metrics.get(name.replace("_nats", "_cap_nats"))) is not None:
        notes.append(f"at most {cap:.2f}")
    elif name == "marginal_kl_nats":
        if _near_cap(metrics, "mutual_information"):
            notes.append("at most this, for I(x; z) is near its cap")
    else:
        return ""
    if metrics["information_sentences"] < metrics["sentences"]:
        notes.append(f"{metrics['information_sentences']:,} sentences")
    return f" ({'; '.join(notes)})" if notes else ""


def _near_cap(metrics: Mapping[str, float | int], name: str) -> bool:
    """Near its cap an estimate of information measures the number of sentences: it is a lower bound."""
    return metrics[f"{name}_nats"] >= 0.9 * metrics[f"{name}_cap_nats"]


def _is_something(estimate: Estimate) -> bool:
    return estimate.value > max(3 * estimate.stderr, NEXT_TO_NOTHING)
