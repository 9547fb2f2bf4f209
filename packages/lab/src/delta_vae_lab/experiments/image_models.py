"""The image models that several experiments share, as changes to a preset; one name, one model."""

from __future__ import annotations

from collections.abc import Mapping

from delta_vae_lab.experiments.trials import ROWS, Preset
from delta_vae_priors import AR1PriorConfig
from delta_vae_priors.committed_rate import ar1_committed_rate

Models = Mapping[str, tuple[str, ...]]

# Latent dimensions, lowest and highest alpha. Of 32 rows they are the paper's: 79.447 and 666.63 bits an image.
LOW = {"digits": (4, 0.5, 0.95), "images": (8, 0.5, 0.95)}
HIGH = {"digits": (4, 0.9, 0.99), "images": (64, 0.5, 0.99)}

ORDINARY: Models = {"ordinary-vae": ("prior.kind=standard_normal",)}
WITHOUT_LATENTS: Models = {"without-latents": ("prior.kind=none",)}
NON_CAUSAL = ("encoder.direction=none", "decoder.latent_attention=full")


def delta_vae(latent_dim: int, low: float, high: float) -> Models:
    """A delta-VAE with alpha linear in [low, high]."""
    name = f"delta-vae-{latent_dim}-dims-alpha-{low:g}-{high:g}"
    return {name: (f"prior.latent_dim={latent_dim}", f"prior.alpha_low={low}", f"prior.alpha_high={high}")}


def independent_delta_vae(preset: Preset) -> Models:
    """An independent delta-VAE that commits what the low rate does, shared out evenly."""
    latent_dim, *_ = LOW[preset.family]
    delta = committed_nats(preset, *LOW[preset.family]) / (ROWS[preset.family] * latent_dim)
    shared_out = (f"prior.latent_dim={latent_dim}", f"prior.delta={delta:.6f}")
    return {"independent-delta-vae": ("prior.kind=independent_delta", *shared_out)}


def committed_nats(preset: Preset, latent_dim: int, low: float, high: float) -> float:
    """What alpha linear in [low, high] commits over the rows of an image, nats."""
    return ar1_committed_rate(AR1PriorConfig.linear(latent_dim, low, high).alphas, ROWS[preset.family])


def non_causal(models: Models) -> Models:
    """The same with q(z | x) and p(x_t | x_<t, z): every latent sees, and serves, the whole image."""
    return {f"{name}-non-causal": (*overrides, *NON_CAUSAL) for name, overrides in models.items()}
