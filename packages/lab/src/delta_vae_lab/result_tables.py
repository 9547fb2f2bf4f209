"""Tables of committed results in Markdown: runs of the recipes, and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delta_vae_lab.estimates import Estimate
from delta_vae_lab.modality import IMAGES, TEXT, Modality, modality_of

# Column heads, and the metric that stands below each.
_COLUMNS = {
    TEXT: {
        "rate": "rate_nats",
        "committed": "committed_rate_nats",
        "slack": "slack_nats",
        "I(x; z \\| n)": "mutual_information_given_length_nats",
        "shuffle gap": "shuffle_gap_nats",
        "distortion": "distortion_nats",
        "rate, auxiliary prior": "auxiliary_rate_nats",
        "negative ELBO a token": "nats_per_token",
        "the same, auxiliary prior": "auxiliary_nats_per_token",
        "perplexity a word, auxiliary prior": "auxiliary_perplexity_per_word",
    },
    IMAGES: {
        "rate": "rate_nats",
        "committed": "committed_rate_nats",
        "slack": "slack_nats",
        "I(x; z)": "mutual_information_nats",
        "shuffle gap": "shuffle_gap_nats",
        "distortion": "distortion_nats",
        "rate, auxiliary prior": "auxiliary_rate_nats",
        "bits/dim (rate)": "bits_per_dim",
        "the same, auxiliary prior": "auxiliary_bits_per_dim",
    },
}
_RATES = {"rate_nats", "committed_rate_nats", "slack_nats", "auxiliary_rate_nats"}


def benchmark_table(results: Sequence[Mapping[str, Any]]) -> str:
    """The medians of benchmarks of one kind, one row each, and a line on where they are from."""
    names = [name for name in results[0]["rows"][0] if not name.endswith(("_min", "_max"))]
    heads = ["threads", *(name.removesuffix("_s").replace("_", " ") for name in names)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for result in results:
        for row in result["rows"]:
            cells = [result["threads"], *(_figure(row[name], name) for name in names)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    where = {f"{result['device']}, torch {result['versions']['torch']}" for result in results}
    return "\n".join([*lines, "", f"{' '.join(results[0]['notes'])} {'; '.join(sorted(where))}."])


def _figure(value: float, name: str) -> str:
    return f"{value:,.3g} s" if name.endswith("_s") else f"{value:,.0f}"


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One row a run, in nats a sentence or image ± standard error, and a line on where they are from."""
    kind = modality_of(results[0]["metrics"])
    if any(modality_of(result["metrics"]) is not kind for result in results):
        raise ValueError("results of text and of images in one table: give each a block of its own")
    columns, timed = _COLUMNS[kind], any("training_seconds" in result["metrics"] for result in results)
    heads = ["run", *columns, *(["training hours"] if timed else [])]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    ordered = sorted(results, key=lambda result: (_has_latents(result), result["metrics"]["committed_rate_nats"]))
    for result in ordered:
        cells = [result["run"], *(_cell(result, name) for name in columns.values())]
        lines.append(f"| {' | '.join([*cells, *([_hours(result)] if timed else [])])} |")
    return "\n".join([*lines, "", _sources(ordered, kind)])


def _has_latents(result: Mapping[str, Any]) -> bool:
    return "latent_dim" in result["metrics"]


def _cell(result: Mapping[str, Any], name: str) -> str:
    metrics = result["metrics"]
    if not _has_latents(result) and name not in _RATES:
        name = name.removeprefix("auxiliary_")  # its one bound is what it is under either prior
    if f"{name}_stderr" not in metrics or (name in _RATES and not _has_latents(result)):
        return "-"
    rate = name.replace("bits_per_dim", "rate_bits_per_dim")
    share = f" ({metrics[rate]:.4f})" if rate != name and _has_latents(result) else ""
    return f"{Estimate.of(metrics, name)}{share}"


def _hours(result: Mapping[str, Any]) -> str:
    """Of training, if it was never interrupted."""
    seconds = result["metrics"].get("training_seconds")
    return "-" if seconds is None else f"{seconds / 3600:.2f}"


def _fitted(result: Mapping[str, Any]) -> str:
    return f" of fitting an auxiliary prior to {result['fitted_to']}" if "fitted_to" in result else ""


def _sources(results: Sequence[Mapping[str, Any]], kind: Modality) -> str:
    """What the rows have in common, and what they do not, without repeating it."""
    seeds: dict[str, set[int]] = {}
    for result in results:
        metrics = result["metrics"]
        where = (
            f"{result['data']['name']}, {metrics[kind.examples]:,} held-out {kind.examples} of {_size(result, kind)}, "
            f"{metrics['steps']:,} steps{_fitted(result)}, {result['device']}, torch {result['versions']['torch']}"
        )
        seeds.setdefault(where, set()).add(result["seed"])
    sources = [f"{where}, seed {' and '.join(map(str, sorted(seeds[where])))}" for where in seeds]
    parts = ", that of the rate in parentheses" if kind is IMAGES else ""
    return (
        f"Nats {kind.an_example} ± standard error over {kind.examples}; bounds in {kind.bound_unit}{parts}. "
        f"{'; '.join(sources)}. Command, commit and data fingerprint are in each results file."
    )


def _size(result: Mapping[str, Any], kind: Modality) -> str:
    """The tokens of all sentences, or the dimensions and levels of one image: bits/dim only compare at one of each."""
    units = result["metrics"][kind.units]
    if kind is TEXT:
        return f"{units:,} tokens"
    levels = f" at {result['data']['levels']} levels" if "levels" in result["data"] else ""
    return f"{units // result['metrics'][kind.examples]:,} dimensions{levels}"
