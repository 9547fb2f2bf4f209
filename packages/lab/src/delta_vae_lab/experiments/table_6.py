"""Table 6: anti-causal encoders beside non-causal ones, at a low and a high committed rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delta_vae_core import nats_to_bits
from delta_vae_lab.experiments.image_models import HIGH, LOW, delta_vae, non_causal
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import about, by_model, cell, errors, over_seeds, text_table
from delta_vae_lab.experiments.trials import image_preset, run_trials, shared, trials

TITLE = "Table 6: anti-causal against non-causal"
TAKES = ("data", "jobs")
SCALES = ("smoke", "small", "paper")

# Razavi et al. 2019, table 6, l8 h128 a2: bits/dim, the rate in parentheses.
_PAPER = [
    ("paper, CIFAR-10, l8 h128 a2", "low rate", "high rate"),
    ("non-causal, AR(1)", "3.01 (.03)", "3.32 (.22)"),
    ("non-causal, auxiliary", "2.98 (.004)", "3.11 (.02)"),
    ("anti-causal, AR(1)", "3.01 (.03)", "3.22 (.22)"),
    ("anti-causal, auxiliary", "2.98 (.006)", "3.03 (.03)"),
]


def run(request: Request) -> dict[str, Any]:
    """Train the four at every seed."""
    preset = image_preset(request)
    rates = {**delta_vae(*LOW[preset.family]), **delta_vae(*HIGH[preset.family])}
    models = {**rates, **non_causal(rates)}
    return shared(run_trials(trials(request, preset, models), request.jobs), preset)


def render(result: Mapping[str, Any]) -> str:
    """Bounds and use of z, means over seeds."""
    head = ["held out", "committed, bits", "bits/dim, AR(1)", "(rate)", "bits/dim, aux.", "(rate)", "I(x; z), nats",
            "shuffle gap, nats"]  # fmt: skip
    rows = [
        [
            name,
            f"{nats_to_bits(runs[0]['heldout']['committed_rate_nats']):.1f}",
            *(
                cell(over_seeds(runs, f"{prefix}{metric}"), 4)
                for prefix in ("", "auxiliary_")
                for metric in ("bits_per_dim", "rate_bits_per_dim")
            ),
            cell(over_seeds(runs, "mutual_information_nats"), 2),
            cell(over_seeds(runs, "shuffle_gap_nats"), 2),
        ]
        for name, runs in by_model(result).items()
    ]
    heads, *paper = _PAPER
    return "\n".join(
        [about(result), "", text_table(head, rows), "", f"{errors(result)}.", "", text_table(heads, paper)]
    )
