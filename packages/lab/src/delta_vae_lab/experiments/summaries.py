"""Runs over seeds: means with their standard errors, and tables of them in plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from delta_vae_core import nats_to_bits
from delta_vae_lab.estimates import Estimate, mean

Runs = Sequence[Mapping[str, Any]]


def by_model(result: Mapping[str, Any]) -> dict[str, Runs]:
    """The runs of every model, one a seed, in the order of the result."""
    runs = result["runs"]
    return {name: [run for run in runs if run["model"] == name] for name in dict.fromkeys(run["model"] for run in runs)}


def over_seeds(runs: Runs, name: str, part: str = "heldout") -> Estimate | None:
    """Mean of a metric over seeds and its standard error, NaN of one seed; None if a run has no such metric."""
    if any(name not in run[part] for run in runs):
        return None
    return estimate_of([run[part][name] for run in runs])


def difference(runs: Runs, name: str, others: Runs, their_name: str) -> Estimate:
    """Mean over seeds of a held-out metric less that of the other model at the same seed."""
    theirs = {run["seed"]: run["heldout"][their_name] for run in others}
    return estimate_of([run["heldout"][name] - theirs[run["seed"]] for run in runs])


def estimate_of(values: Sequence[float]) -> Estimate:
    """The mean and its standard error; NaN of one value."""
    if len(values) < 2:
        return Estimate(values[0], math.nan)
    return mean(torch.tensor(values, dtype=torch.float64))


def cell(estimate: Estimate | None, decimals: int | None = None) -> str:
    """`3.29 ± 0.10`; without an error, of one seed, the value; `-` if there is none."""
    if estimate is None:
        return "-"
    if math.isnan(estimate.stderr):
        return f"{estimate.value:,.{3 if decimals is None else decimals}f}"
    if decimals is None:
        return str(estimate)
    return f"{estimate.value:,.{decimals}f} ± {estimate.stderr:,.{decimals}f}"


def in_bits(estimate: Estimate | None) -> Estimate | None:
    """Nats as bits."""
    return None if estimate is None else estimate.scaled(nats_to_bits(1.0))


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def about(result: Mapping[str, Any]) -> str:
    """The data, how many held-out examples, steps and seeds: one line of every table and figure."""
    heldout = result["runs"][0]["heldout"]
    kind = "images" if "images" in heldout else "sentences"
    seeds = ", ".join(map(str, result["seeds"]))
    steps = result["config"]["optimization.steps"]
    return (
        f"{result['data']['name']}, {heldout[kind]:,} held-out {kind}, {steps:,} steps, "
        f"seed{'s' if len(result['seeds']) > 1 else ''} {seeds}"
    )


def told(references: Mapping[str, float]) -> str:
    """What the probes of images are to be set beside."""
    return (
        f"A linear classifier of the pixels: {references['pixels_accuracy']:.3f}; "
        f"the commonest class: {references['majority_accuracy']:.3f}."
    )


def errors(result: Mapping[str, Any]) -> str:
    """What the errors of a table are."""
    return "± standard error over seeds" if len(result["seeds"]) > 1 else "one seed: no errors"
