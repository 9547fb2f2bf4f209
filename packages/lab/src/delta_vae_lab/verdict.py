"""What a run's figures say, in one sentence and in a table."""

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
_PER_UNIT = {
    "nats_per_token": "nats a token, training prior",
    "auxiliary_nats_per_token": "nats a token, auxiliary prior",
    "perplexity_per_token": "perplexity a token, training prior",
    "auxiliary_perplexity_per_token": "perplexity a token, auxiliary prior",
    "perplexity_per_word": "perplexity a word, training prior",
    "auxiliary_perplexity_per_word": "perplexity a word, auxiliary prior",
}


def verdict(metrics: Mapping[str, float | int]) -> str:
    """Collapsed or not, and why: one sentence from the metrics of `evaluate_text`.

    Collapsed means that the decoder takes nothing from z: another sentence's z costs it nothing within 3 standard
    errors, or less than `NEXT_TO_NOTHING`. The rate alone cannot tell, for it never falls below its floor.
    """
    if "shuffle_gap_nats" not in metrics:
        distortion = Estimate.of(metrics, "distortion_nats")
        return f"No latents: the decoder alone needs {distortion} nats a sentence."
    gap, slack = Estimate.of(metrics, "shuffle_gap_nats"), Estimate.of(metrics, "slack_nats")
    over_floor = f"{slack} nats of slack over a committed {metrics['committed_rate_nats']:.2f}"
    if not _is_something(gap):
        taken = "nothing" if abs(gap.value) <= 3 * gap.stderr else "next to nothing"
        paid = f"pays {over_floor} all the same" if _is_something(slack) else f"sits on its floor, {over_floor}"
        return (
            f"Collapsed: the decoder takes {taken} from z (shuffling costs {gap} nats a sentence), and the rate {paid}."
        )
    content = Estimate.of(metrics, "mutual_information_given_length_nats")
    # Near its cap the estimate measures the number of sentences, not z.
    at_least = "at least " if content.value > 0.9 * metrics["mutual_information_given_length_cap_nats"] else ""
    return (
        f"Not collapsed: the decoder takes {gap} nats a sentence from z, paying {over_floor}; "
        f"beyond its length z tells {at_least}{content} nats about the sentence."
    )


def render_table(metrics: Mapping[str, float | int], *, data: str, seed: int) -> str:
    """The estimates with their standard errors as aligned plain text; what was not measured has no row."""
    title = f"{data}: {metrics['sentences']:,} held-out sentences, {metrics['tokens']:,} tokens, seed {seed}"
    rows = [("a sentence, ± standard error", "nats", "bits")]
    for name, label in _NATS.items():
        if name in metrics:
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
    """What a label must say to be read rightly: the samples of a bound, the largest value of an estimate."""
    if "importance_weighted" in name:
        return f" (K = {metrics['importance_samples']}, {metrics['importance_sentences']} sentences)"
    cap = metrics.get(name.replace("_nats", "_cap_nats"))
    return "" if cap is None else f" (at most {cap:.2f})"


def _is_something(estimate: Estimate) -> bool:
    return estimate.value > max(3 * estimate.stderr, NEXT_TO_NOTHING)
