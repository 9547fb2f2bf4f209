"""Table 3: a delta-VAE whose prior knows time beside one whose steps are independent, at one committed rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delta_vae_lab.experiments.image_models import LOW, delta_vae, independent_delta_vae
from delta_vae_lab.experiments.judging import image_references
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import about, by_model, cell, errors, over_seeds, text_table, told
from delta_vae_lab.experiments.trials import image_preset, run_trials, shared, trials

TITLE = "Table 3: independent against temporal delta-VAE"
TAKES = ("data", "jobs")
SCALES = ("smoke", "small", "paper")

# Razavi et al. 2019, table 3, second-hand: bits/dim, the rate in parentheses, and the linear probe.
_PAPER = [
    ("paper (second-hand), CIFAR-10", "bits/dim (rate)", "probe"),
    ("independent, delta .08", "3.08 (.08)", "66 %"),
    ("temporal, AR(1)", "3.02", "65 %"),
]


def run(request: Request) -> dict[str, Any]:
    """Train and probe both at every seed."""
    preset = image_preset(request)
    references = image_references(preset.config(), preset.data)  # first: it needs labels
    models = {**delta_vae(*LOW[preset.family]), **independent_delta_vae(preset)}
    outcomes = run_trials(trials(request, preset, models, probed=preset.data), request.jobs)
    return shared(outcomes, preset) | {"references": references}


def render(result: Mapping[str, Any]) -> str:
    """Bounds, use of z and probes, means over seeds."""
    head = ["held out", "bits/dim", "(rate)", "bits/dim, aux.", "(rate)", "I(x; z), nats", "shuffle gap, nats",
            "probe, means", "probe, a draw"]  # fmt: skip
    rows = [
        [
            name,
            *(
                cell(over_seeds(runs, f"{prefix}{metric}"), 4)
                for prefix in ("", "auxiliary_")
                for metric in ("bits_per_dim", "rate_bits_per_dim")
            ),
            cell(over_seeds(runs, "mutual_information_nats"), 2),
            cell(over_seeds(runs, "shuffle_gap_nats"), 2),
            cell(over_seeds(runs, "concatenated_accuracy", "probe"), 3),
            cell(over_seeds(runs, "concatenated_sample_accuracy", "probe"), 3),
        ]
        for name, runs in by_model(result).items()
    ]
    heads, *paper = _PAPER
    return "\n".join(
        [
            about(result),
            "",
            text_table(head, rows),
            "",
            f"{errors(result)}. {told(result['references'])}",
            "",
            text_table(heads, paper),
        ]
    )
