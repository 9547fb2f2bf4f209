"""The text models that several experiments share, as changes to a preset; one name, one model."""

from __future__ import annotations

from delta_vae_lab.experiments.image_models import Models
from delta_vae_lab.experiments.trials import Preset

# The preset's own: nothing but the floor keeps its rate.
DELTA_VAE: Models = {"delta-vae": ()}


def warmed_up(preset: Preset) -> Models:
    """The same with a rate that weighs nothing at first and all from the middle of training on."""
    steps = max(1, preset.config().optimization.steps // 2)
    return {"delta-vae-warm-up": ("objective.annealing=linear", f"objective.annealing_steps={steps}")}
