"""Where a model's samples come from."""

from __future__ import annotations

from delta_vae import DeltaVaeModel


def sample_sources(model: DeltaVaeModel) -> dict[str, str]:
    """The names of the sources that it has, as files and `sample_latents` call them, and in words."""
    if model.prior is None:
        return {"decoder": "from a decoder without latents"}
    sources = {"prior": "z from the training prior"}
    if model.auxiliary_prior is not None:
        sources["auxiliary"] = "z from the auxiliary prior"
    return sources
