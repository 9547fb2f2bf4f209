"""Figures of a run: how rate and distortion went in training, and where in a sentence or image the rate is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from delta_vae_core import nats_to_bits
from delta_vae_lab.measurement import RateProfile
from delta_vae_lab.modality import EXAMPLES, IMAGES, TEXT, Modality

# Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"

# The least share of sequences that must reach a step for it to be drawn: the means of the last steps are of very few.
_REACHED = 0.05

_STEP_LABELS = {
    TEXT: f"latent step t (those that {_REACHED:.0%} of the sequences reach)",
    IMAGES: "latent step t (row of the image)",
    EXAMPLES: "latent step t",
}
_EXAMPLES = {TEXT: "sequences", IMAGES: "images", EXAMPLES: "examples"}
_USE = [
    ("shuffle_gap", "shuffle gap", VERMILION),
    ("mutual_information", "mutual information I(x; z)", BLUE),
]
_RATES = [
    ("rate", "training prior", VERMILION),
    ("committed_rate", "of it committed", BLUE),
    ("auxiliary_rate", "auxiliary prior", PURPLE),
]

_TRAINING: dict[str, Any] = {"alpha": 0.45, "linewidth": 1}
_HELD_OUT: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.5}
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def write_figures(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    profile: RateProfile | None,
    *,
    data: str,
    seed: int,
    modality: Modality,
) -> None:
    """Every figure that there are numbers for, as PNG and SVG: `rows` of metrics.jsonl; a profile, given latents."""
    about: dict[str, Any] = {"data": data, "seed": seed, "modality": modality}
    if rows:
        save_figure(training_curves(rows, **about), folder, "training")
    if profile is not None:
        save_figure(rate_heat_map(profile, **about), folder, "rate_by_step_and_dimension")
        if len(profile.kl) > 1:
            save_figure(rate_by_position(profile, **about), folder, "rate_by_position")


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write folder/name.png and folder/name.svg; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.png", dpi=150)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def training_curves(rows: Sequence[Mapping[str, Any]], *, data: str, seed: int, modality: Modality) -> Figure:
    """Distortion, rate over its floor, and slack by step, of training batches and, `heldout_...`, held-out examples.

    And, where they were measured, what the decoder loses without its own z and what z tells, of these examples.

    A batch holds sequences of about one length, the next of another, so only nats a token compare from step to step.
    Those of images are in bits/dim.
    """
    trained = [row for row in rows if modality.units_per_example in row]
    evaluated = [row for row in rows if f"heldout_{modality.units}" in row]
    training = [_per_unit(row, "", row[modality.units_per_example], modality) for row in trained]
    held_out = [
        _per_unit(row, "heldout_", row[f"heldout_{modality.units}"] / row[f"heldout_{modality.examples}"], modality)
        for row in evaluated
    ]
    has_use = any(name in point for name, _, _ in _USE for point in held_out)
    has_rate = any(point["rate"] for point in training + held_out)
    examples = f", held-out n = {evaluated[-1][f'heldout_{modality.examples}']:,}" if evaluated else ""
    with mpl.rc_context(STYLE):
        panels = 1 if not has_rate else 3 + has_use
        figure = Figure(figsize=(1.2 + 3.1 * panels, 3.2), layout="constrained")
        figure.suptitle(f"{data}, seed {seed}{examples}", x=0.01, ha="left")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _curve(axes[0], training, "distortion", _TRAINING | {"color": BLUE, "label": "training batches"})
        _curve(axes[0], held_out, "distortion", _HELD_OUT | {"color": BLUE, "label": "held out"})
        axes[0].set_title("Distortion")
        axes[0].legend()
        if has_rate:
            for name, label, colour in _RATES:
                _curve(axes[1], training, name, _TRAINING | {"color": colour, "label": None if held_out else label})
                _curve(axes[1], held_out, name, _HELD_OUT | {"color": colour, "label": label})
            axes[1].set(title="Rate", ylim=(0, None))
            axes[1].legend()
            _curve(axes[2], training, "slack", _TRAINING | {"color": GREEN})
            _curve(axes[2], held_out, "slack", _HELD_OUT | {"color": GREEN})
            axes[2].axhline(0, color="black", linewidth=0.8)
            axes[2].set_title("Slack: rate less committed rate")
        if panels == 4:
            for name, label, colour in _USE:
                _curve(axes[3], held_out, name, _HELD_OUT | {"color": colour, "label": label})
            axes[3].axhline(0, color="black", linewidth=0.8)
            axes[3].set_title("Use of z, held out")
            axes[3].legend()
        for axis in axes:
            axis.set(xlabel="step", ylabel=modality.bound_unit)
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def rate_heat_map(profile: RateProfile, *, data: str, seed: int, modality: Modality) -> Figure:
    """KL by step and dimension, the share of it that the family commits, and the slack between them."""
    kl, committed, title = _reached(profile, data, seed, modality)
    largest = max(kl.max(), committed.max(), 1e-9)
    slack = kl - committed
    spread = max(np.abs(slack).max(), 1e-9)
    panels = [
        ("KL", kl, {"cmap": "viridis", "vmin": 0, "vmax": largest}),
        ("Committed share of it", committed, {"cmap": "viridis", "vmin": 0, "vmax": largest}),
        ("Slack, the difference", slack, {"cmap": "PuOr", "vmin": -spread, "vmax": spread}),
    ]
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(7, 2 + 0.9 * 3), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        axes = figure.subplots(3, 1, sharex=True, sharey=True)
        steps, dimensions = kl.shape
        for axis, (name, values, colours) in zip(axes, panels, strict=True):
            extent = (0.5, steps + 0.5, dimensions + 0.5, 0.5)
            image = axis.imshow(values.T, aspect="auto", interpolation="nearest", extent=extent, **colours)
            axis.set(title=name, ylabel="dimension")
            axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            figure.colorbar(image, ax=axis, label="nats")
        axes[-1].set_xlabel(_STEP_LABELS[modality])
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def rate_by_position(profile: RateProfile, *, data: str, seed: int, modality: Modality) -> Figure:
    """Rate and committed rate of each step, summed over dimensions."""
    kl, committed, title = _reached(profile, data, seed, modality)
    rate, floor = kl.sum(1), committed.sum(1)
    step = np.arange(1, len(rate) + 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        axis = figure.subplots()
        axis.plot(step, rate, color=VERMILION, label="rate")
        axis.plot(step, floor, color=BLUE, linestyle="--", label="committed")
        axis.fill_between(step, floor, rate, color=VERMILION, alpha=0.15, linewidth=0, label="slack")
        axis.set(xlabel=_STEP_LABELS[modality], ylabel="nats a step, all dimensions")
        axis.set_ylim(bottom=min(0, *rate, *floor))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
    return figure


def _per_unit(row: Mapping[str, Any], prefix: str, units: float, modality: Modality) -> dict[str, float]:
    """The row's step and, of an example of so many units, its distortion, rates and slack in `modality.bound_unit`."""
    scale = (nats_to_bits(1.0) if modality is IMAGES else 1.0) / units
    names = ["distortion", *(name for name, _, _ in [*_RATES, *_USE])]
    point = {name: row[f"{prefix}{name}_nats"] * scale for name in names if f"{prefix}{name}_nats" in row}
    return {"step": row["step"], **point, "slack": point["rate"] - point["committed_rate"]}


def _curve(axis: Axes, points: Sequence[Mapping[str, float]], name: str, line: dict[str, Any]) -> None:
    points = [point for point in points if name in point]
    if points:
        axis.plot([point["step"] for point in points], [point[name] for point in points], **line)


def _reached(profile: RateProfile, data: str, seed: int, modality: Modality) -> tuple[np.ndarray, np.ndarray, str]:
    """KL and committed share (T', D) up to the last step that enough examples reach, and the figure's title."""
    steps = int((profile.sequences >= _REACHED * profile.sequences[0]).sum())
    title = f"{data}, seed {seed}, n = {int(profile.sequences[0]):,} held-out {_EXAMPLES[modality]}"
    return profile.kl[:steps].numpy(), profile.committed[:steps].numpy(), title
