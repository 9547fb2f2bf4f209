"""What an ordinary VAE's rate does in the course of training, with an anti-causal and with a non-causal encoder.

Nothing keeps it: prior N(0, 1), the plain ELBO. Beside them a delta-VAE, which cannot fall below what it commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from delta_vae_lab.experiments.image_models import LOW, ORDINARY, Models, delta_vae, non_causal
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import (
    Runs,
    about,
    by_model,
    cell,
    errors,
    estimate_of,
    over_seeds,
    text_table,
)
from delta_vae_lab.experiments.trials import Preset, image_preset, run_trials, shared, trials
from delta_vae_lab.figures import BLUE, ORANGE, STYLE, VERMILION
from delta_vae_lab.verdict import is_collapsed

TITLE = "Collapse without any mitigation"
TAKES = ("data", "jobs")
SCALES = ("smoke", "small", "paper")
_COLOURS = (VERMILION, BLUE, ORANGE)


def run(request: Request) -> dict[str, Any]:
    """Train the three at every seed."""
    preset = image_preset(request)
    return run_on(request, preset, delta_vae(*LOW[preset.family]))


def run_on(request: Request, preset: Preset, ours: Models) -> dict[str, Any]:
    """Train a delta-VAE and, with either encoder, the ordinary VAE."""
    models = {**ours, **ORDINARY, **non_causal(ORDINARY)}
    return shared(run_trials(trials(request, preset, models), request.jobs), preset)


def render(result: Mapping[str, Any]) -> str:
    """Rates at some steps and in the end, means over seeds; and how many of the seeds ended collapsed."""
    steps = _shown([point["step"] for point in result["runs"][0]["curve"]])
    head = ["rate, nats, held out, at step", *map(str, steps), "at the end", "I(x; z)", "shuffle gap", "collapsed"]
    rows = []
    for name, runs in by_model(result).items():
        course = [cell(estimate_of([_at(run, step) for run in runs])) for step in steps]
        measured = [
            cell(over_seeds(runs, f"{metric}_nats")) for metric in ("rate", "mutual_information", "shuffle_gap")
        ]
        collapsed = sum(is_collapsed(run["heldout"]) for run in runs)
        rows.append([name, *course, *measured, f"{collapsed} of {len(runs)}"])
    return "\n".join([about(result), "", text_table(head, rows), "", f"{errors(result)}."])


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The rate and the shuffle gap in the course of training, a line a seed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        figure.suptitle(f"{about(result)}; one line a seed", x=0.01, ha="left")
        axes = figure.subplots(1, 2)
        for colour, (name, runs) in zip(_COLOURS, by_model(result).items(), strict=True):
            for axis, metric in zip(axes, ("rate_nats", "shuffle_gap_nats"), strict=True):
                _lines(axis, runs, metric, colour, name)
        committed = result["runs"][0]["heldout"]["committed_rate_nats"]
        axes[0].axhline(committed, color=_COLOURS[0], linestyle=":", linewidth=1, label="committed by the δ-VAE")
        axes[0].set_yscale("log")
        unit = "nats an image" if "images" in result["runs"][0]["heldout"] else "nats a sentence"
        axes[0].set(title="Rate, held out", xlabel="step", ylabel=unit)
        axes[1].set(title="Shuffle gap, held out", xlabel="step", ylabel=unit)
        axes[0].legend(fontsize="small", loc="center right")
    return {"curves": figure}


def _lines(axis: Axes, runs: Runs, metric: str, colour: str, name: str) -> None:
    for place, run in enumerate(runs):
        points = [(point["step"], point[metric]) for point in run["curve"] if metric in point]
        axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=2, label=None if place else name)


def _shown(steps: Sequence[int]) -> list[int]:
    """Three of the steps: the first, one in the middle and the last."""
    return sorted({steps[0], steps[len(steps) // 2], steps[-1]})


def _at(run: Mapping[str, Any], step: int) -> float:
    return float(next(point["rate_nats"] for point in run["curve"] if point["step"] == step))
