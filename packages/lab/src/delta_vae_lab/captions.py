"""What the pictures and texts of a run say of themselves, on its card and where it is watched; in the order shown."""

from __future__ import annotations

TRAINING = "Distortion, rate over its committed part, and slack, by step"
# Of figures/ but for the training curves, which are for who trains.
FIGURES = {
    "rate_by_step_and_dimension": "Where the rate is spent, by latent step and dimension",
    "rate_by_position": "The rate by latent step, over what is committed",
}
SAMPLES = {
    "samples_prior": "Samples, z from the training prior",
    "samples_auxiliary": "Samples, z from the auxiliary prior",
    "samples_decoder": "Samples of a decoder without latents",
    "fixed_z": "Decodings of one z",
    "reconstructions": "Reconstructions of held-out examples",
    "interpolations": "Interpolations between held-out examples",
}
