"""Tables of committed results in Markdown: runs of the recipes, and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """Benchmarks, a table for each device: medians, the spread of each ratio, and targets; and how it was measured."""
    return "\n\n".join(map(_of_device, results))


def benchmark_cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """The heads, and the cells of each row of one benchmark.

    A ratio is ours over the peer's, the median with the least and the greatest over the rounds. The target is of it, or
    of ours where there is no peer; then ours has the spread.
    """
    yield ["", "ours", "peer", "its", "ratio", "target"]
    for row in rows:
        ours = f"{_figure(row['ours'])} {row['unit']}"
        if row["peer"] is None:
            yield [row["row"], f"{ours} {_spread(row, 'ours')}", "-", "-", "-", _target(row, row["ours"])]
            continue
        theirs = f"{_figure(row['theirs'])} {row['unit']}"
        ratio = f"{_figure(row['ratio'])} {_spread(row, 'ratio')}"
        yield [row["row"], ours, row["peer"], theirs, ratio, _target(row, row["ratio"])]


def _of_device(result: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for name, benchmark in result["benchmarks"].items():
        heads, *cells = benchmark_cells(benchmark["rows"])
        if not lines:
            lines = [f"| {' | '.join(['benchmark', *heads])} |", f"|{'---|' * (1 + len(heads))}"]
        lines += [f"| {' | '.join([name, *cell])} |" for cell in cells]
    notes = [f"- {name}: {' '.join(one['notes'])}" for name, one in result["benchmarks"].items() if one["notes"]]
    where = {
        f"{result['device']}, {one['threads']} {'thread' if one['threads'] == 1 else 'threads'}, "
        f"torch {one['versions']['torch']}, transformers {one['versions']['transformers']}"
        for one in result["benchmarks"].values()
    }
    closing = f"Medians over rounds, and in parentheses the least and the greatest. {'; '.join(sorted(where))}."
    return "\n".join([*lines, "", closing, *(["", *notes] if notes else [])])


def _target(row: Mapping[str, Any], value: float) -> str:
    if row["at_least"] is not None:
        return f"≥ {_figure(row['at_least'])}{'' if value >= row['at_least'] else ', missed'}"
    if row["at_most"] is not None:
        return f"≤ {_figure(row['at_most'])}{'' if value <= row['at_most'] else ', missed'}"
    return "-"


def _spread(row: Mapping[str, Any], name: str) -> str:
    return f"({_figure(row[f'{name}_min'])} to {_figure(row[f'{name}_max'])})"


def _figure(value: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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
