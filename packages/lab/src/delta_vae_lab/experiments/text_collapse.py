"""`collapse` on sentences: the ordinary VAE in the course of training, with either encoder."""

from __future__ import annotations

from typing import Any

from delta_vae_lab.experiments import collapse
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.text_models import DELTA_VAE
from delta_vae_lab.experiments.trials import text_preset

TITLE = "Collapse without any mitigation, on sentences"
TAKES, SCALES = collapse.TAKES, collapse.SCALES
render, figures = collapse.render, collapse.figures


def run(request: Request) -> dict[str, Any]:
    """Train the three at every seed."""
    return collapse.run_on(request, text_preset(request), DELTA_VAE)
