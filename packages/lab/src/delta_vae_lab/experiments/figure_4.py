"""Figure 4: rate, distortion and linear probes of delta-VAEs and their rivals: one encoder, one decoder, one budget.

The rivals keep a rate by their objective (beta-VAE, with N(0, 1) or an LSTM as its prior; free bits) or hope to by
annealing; the ordinary VAE does nothing. The decoder without latents is what all of them are to be set beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from delta_vae_core import nats_to_bits
from delta_vae_lab.estimates import Estimate
from delta_vae_lab.experiments.image_models import (
    ORDINARY,
    WITHOUT_LATENTS,
    Models,
    committed_nats,
    delta_vae,
)
from delta_vae_lab.experiments.judging import image_references
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import about, by_model, cell, errors, in_bits, over_seeds, text_table, told
from delta_vae_lab.experiments.trials import ROWS, Preset, image_preset, run_trials, shared, trials
from delta_vae_lab.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION

TITLE = "Figure 4: rate and distortion of delta-VAEs and their rivals"
TAKES = ("data", "jobs")
SCALES = ("smoke", "small", "paper")

# Lowest and highest alpha of the delta-VAEs, which free bits get the committed rates of; weights of the rate.
_ALPHAS = {
    "smoke": [(0.5, 0.95)],
    "small": [(0.0, 0.8), (0.0, 0.95), (0.5, 0.95), (0.8, 0.95)],
    "paper": [(0.0, 0.8), (0.0, 0.95), (0.3, 0.95), (0.5, 0.95), (0.6, 0.96)],
}
_BETAS = {"smoke": [0.5], "small": [0.1, 0.25, 0.5], "paper": [0.1, 0.25, 0.5, 0.75]}


@dataclass(frozen=True)
class _Family:
    """How a kind of model is drawn: those whose names start with `name`."""

    name: str
    label: str
    colour: str
    marker: str


_FAMILIES = (
    _Family("delta-vae", "δ-VAE", VERMILION, "o"),
    _Family("free-bits", "free bits", BLUE, "s"),
    _Family("beta-normal", "β-VAE, N(0, 1) prior", GREEN, "^"),
    _Family("beta-lstm", "β-VAE, LSTM prior", PURPLE, "v"),
    _Family("linear-annealing", "linear annealing", ORANGE, "D"),
    _Family("cyclical-annealing", "cyclical annealing", SKY, "P"),
    _Family("ordinary-vae", "ordinary VAE", BLACK, "X"),
)


def run(request: Request) -> dict[str, Any]:
    """Train every model at every seed, and probe it."""
    preset = image_preset(request)
    references = image_references(preset.config(), preset.data)  # first: it needs labels
    outcomes = run_trials(trials(request, preset, rivals(preset), probed=preset.data), request.jobs)
    return shared(outcomes, preset) | {"references": references}


def rivals(preset: Preset) -> Models:
    """The models, by name."""
    config = preset.config()
    latent_dim, steps = config.prior.latent_dim, config.optimization.steps
    cells = ROWS[preset.family] * latent_dim
    models: dict[str, tuple[str, ...]] = {}
    for low, high in _ALPHAS[preset.scale]:
        models |= delta_vae(latent_dim, low, high)
    for low, high in _ALPHAS[preset.scale]:
        floor = committed_nats(preset, latent_dim, low, high) / cells
        models[f"free-bits-{nats_to_bits(floor * cells):.1f}-bits"] = (
            "prior.kind=standard_normal",
            "objective.name=free_bits",
            f"objective.floor_nats={floor:.6f}",
        )
    for kind, prior in (("normal", "standard_normal"), ("lstm", "lstm")):
        for beta in _BETAS[preset.scale]:
            weight = ("objective.name=beta", f"objective.beta={beta}")
            models[f"beta-{kind}-{beta:g}"] = (f"prior.kind={prior}", *weight)
    models["beta-lstm-1"] = ("prior.kind=lstm",)
    for name, over in (("linear", max(1, steps // 2)), ("cyclical", steps)):
        annealing = (f"objective.annealing={name}", f"objective.annealing_steps={over}")
        models[f"{name}-annealing"] = ("prior.kind=standard_normal", *annealing)
    return {**models, **ORDINARY, **WITHOUT_LATENTS}


def render(result: Mapping[str, Any]) -> str:
    """Held-out estimates of every model, means over seeds."""
    head = ["bits an image, held out", "rate", "committed", "rate, aux.", "distortion", "bits/dim, aux.", "I(x; z)",
            "shuffle gap", "probe, means", "probe, a draw"]  # fmt: skip
    rows = []
    for name, runs in by_model(result).items():
        bits = [in_bits(over_seeds(runs, f"{metric}_nats")) for metric in ("rate", "committed_rate", "auxiliary_rate")]
        bound = over_seeds(runs, "auxiliary_bits_per_dim") or over_seeds(runs, "bits_per_dim")
        rows.append(
            [
                name,
                cell(bits[0], 2),
                "-" if bits[1] is None else f"{bits[1].value:.2f}",
                cell(bits[2], 2),
                cell(in_bits(over_seeds(runs, "distortion_nats")), 2),
                cell(bound, 4),
                cell(in_bits(over_seeds(runs, "mutual_information_nats")), 2),
                cell(in_bits(over_seeds(runs, "shuffle_gap_nats")), 2),
                cell(over_seeds(runs, "concatenated_accuracy", "probe"), 3),
                cell(over_seeds(runs, "concatenated_sample_accuracy", "probe"), 3),
            ]
        )
    notes = f"{errors(result)}. {told(result['references'])}"
    return "\n".join([about(result), "", text_table(head, rows), "", notes])


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Rate and distortion, of training and held-out images; and what a linear classifier tells from z."""
    return {"rate_distortion": _rate_distortion(result), "probe": _probe(result)}


def _rate_distortion(result: Mapping[str, Any]) -> Figure:
    """Above against the training prior, below the auxiliary; to the left of training images, to the right held out."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 7.2), layout="constrained")
        figure.suptitle(f"{about(result)}; bars: standard error over seeds", x=0.01, ha="left")
        axes = figure.subplots(2, 2, sharey="col")
        for row, (rate, prior) in enumerate(
            (("rate_nats", "training prior"), ("auxiliary_rate_nats", "auxiliary prior"))
        ):
            for axis, part, title in zip(
                axes[row], ("train", "heldout"), ("Training images", "Held-out images"), strict=True
            ):
                _points(axis, result, rate, part)
                axis.set(
                    title=f"{title}, {prior}",
                    xlabel=f"rate, {prior} (bits an image)",
                    ylabel="distortion (bits an image)",
                )
                _spread(axis)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def _points(axis: Axes, result: Mapping[str, Any], rate: str, part: str) -> None:
    """Every model with latents as a point, what none is below and left of joined, and the decoder alone as a line."""
    models, ends = by_model(result), []
    for family in _FAMILIES:
        x, y = [], []
        for name, runs in models.items():
            if name.startswith(family.name):
                x.append(_bits(runs, rate, part))
                y.append(_bits(runs, "distortion_nats", part))
        _bars(axis, family, x, y)
        ends += [(a.value, b.value) for a, b in zip(x, y, strict=True)]
    frontier = pareto(ends)
    axis.plot(*zip(*frontier, strict=True), color="0.6", linewidth=1, zorder=1, label="frontier")
    if "without-latents" in models:
        alone = _bits(models["without-latents"], "distortion_nats", part)
        axis.axhline(alone.value, color=BLACK, linestyle=":", linewidth=1, label="decoder without latents")


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other is below and left of, from left to right."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept


def _probe(result: Mapping[str, Any]) -> Figure:
    """Accuracy against rate: from the posterior means, and from one draw of z."""
    readings = {
        "concatenated_accuracy": "posterior means, all steps",
        "concatenated_sample_accuracy": "one draw of z, all steps",
    }
    models, references = by_model(result), result["references"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.4), layout="constrained")
        figure.suptitle(f"{about(result)}; bars: standard error over seeds", x=0.01, ha="left")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (reading, title) in zip(axes, readings.items(), strict=True):
            for family in _FAMILIES:
                chosen = [runs for name, runs in models.items() if name.startswith(family.name)]
                x = [_bits(runs, "rate_nats", "heldout") for runs in chosen]
                y = [over_seeds(runs, reading, "probe") for runs in chosen]
                _bars(axis, family, x, [point for point in y if point is not None])
            axis.axhline(references["pixels_accuracy"], color=BLACK, linewidth=1, label="pixels")
            axis.axhline(
                references["majority_accuracy"], color=BLACK, linestyle="--", linewidth=1, label="commonest class"
            )
            axis.set(
                title=title, xlabel="rate, training prior (bits an image)", ylabel="accuracy, held out", ylim=(0, 1)
            )
            _spread(axis)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def _spread(axis: Axes) -> None:
    """Rates at square-root distances, for most are small and some are not."""
    axis.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    axis.set_xlim(left=-0.05)
    axis.set_xticks([tick for tick in (0, 1, 5, 10, 20, 30, 40, 60, 80, 100) if tick <= axis.get_xlim()[1]])


def _bars(axis: Axes, family: _Family, x: Sequence[Estimate], y: Sequence[Estimate]) -> None:
    if x:
        axis.errorbar(
            [point.value for point in x],
            [point.value for point in y],
            xerr=np.nan_to_num([point.stderr for point in x]),
            yerr=np.nan_to_num([point.stderr for point in y]),
            color=family.colour,
            marker=family.marker,
            markersize=5,
            linestyle="none",
            elinewidth=1,
            label=family.label,
        )


def _bits(runs: Sequence[Mapping[str, Any]], name: str, part: str) -> Estimate:
    found = in_bits(over_seeds(runs, name, part))
    assert found is not None
    return found
