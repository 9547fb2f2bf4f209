"""Table 1: is likelihood lost? A delta-VAE beside its own decoder without latents, and an ordinary VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delta_vae_lab.experiments.image_models import LOW, ORDINARY, WITHOUT_LATENTS, delta_vae
from delta_vae_lab.experiments.judging import image_references
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import (
    Runs,
    about,
    by_model,
    cell,
    difference,
    errors,
    over_seeds,
    text_table,
    told,
)
from delta_vae_lab.experiments.trials import image_preset, run_trials, shared, trials

TITLE = "Table 1: latents against none"
TAKES = ("data", "jobs")
SCALES = ("smoke", "small", "paper")

# Bits/dim, the rate in parentheses. Razavi et al. 2019, table 1.
_PAPER = [
    ("paper, bits/dim (rate)", "CIFAR-10 test", "ImageNet 32x32 valid"),
    ("delta-VAE, AR(1) prior", "2.85 (0.02)", "3.78 (0.08)"),
    ("delta-VAE, auxiliary prior", "2.83 (0.01)", "3.77 (0.07)"),
    ("its decoder without latents", "2.83", "3.77"),
]


def run(request: Request) -> dict[str, Any]:
    """Train the three at every seed, and probe those with latents."""
    preset = image_preset(request)
    references = image_references(preset.config(), preset.data)  # first: it needs labels
    models = {**delta_vae(*LOW[preset.family]), **ORDINARY, **WITHOUT_LATENTS}
    outcomes = run_trials(trials(request, preset, models, probed=preset.data), request.jobs)
    return shared(outcomes, preset) | {"references": references}


def render(result: Mapping[str, Any]) -> str:
    """Bounds of the held-out images, and what the bound loses to the decoder without latents at the same seed."""
    models = by_model(result)
    alone = models["without-latents"]
    head = ["bits/dim, held out", "training prior", "(rate)", "auxiliary prior", "(rate)", "less the decoder alone",
            "shuffle gap, nats", "I(x; z), nats", "probe, means", "probe, a draw"]  # fmt: skip
    rows = [_row(name, runs, alone) for name, runs in models.items()]
    heads, *paper = _PAPER
    notes = f"{errors(result)}. {told(result['references'])}"
    return "\n".join([about(result), "", text_table(head, rows), "", notes, "", text_table(heads, paper)])


def _row(name: str, runs: Runs, alone: Runs) -> list[str]:
    if runs is alone:
        return [name, cell(over_seeds(runs, "bits_per_dim"), 4), *["-"] * 8]
    return [
        name,
        cell(over_seeds(runs, "bits_per_dim"), 4),
        cell(over_seeds(runs, "rate_bits_per_dim"), 4),
        cell(over_seeds(runs, "auxiliary_bits_per_dim"), 4),
        cell(over_seeds(runs, "auxiliary_rate_bits_per_dim"), 4),
        cell(difference(runs, "auxiliary_bits_per_dim", alone, "bits_per_dim"), 4),
        cell(over_seeds(runs, "shuffle_gap_nats"), 2),
        cell(over_seeds(runs, "mutual_information_nats"), 2),
        cell(over_seeds(runs, "concatenated_accuracy", "probe"), 3),
        cell(over_seeds(runs, "concatenated_sample_accuracy", "probe"), 3),
    ]
