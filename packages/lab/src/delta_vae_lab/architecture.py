"""From a run config to a model config: the architecture without the run."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from delta_vae import DeltaVaeConfig
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.sections import ImageRunConfig, PriorSection, RunConfig, TextRunConfig
from delta_vae_priors import (
    AR1PriorConfig,
    AuxiliaryPriorConfig,
    IndependentDeltaPriorConfig,
    LSTMPriorConfig,
    StandardNormalPriorConfig,
)

_PARTS: dict[type[RunConfig], tuple[tuple[str, type[PreTrainedConfig]], ...]] = {
    TextRunConfig: (("encoder", TextEncoderConfig), ("decoder", TextDecoderConfig)),
    ImageRunConfig: (("encoder", ImageEncoderConfig), ("decoder", ImageDecoderConfig)),
}


def text_model_config(config: TextRunConfig, tokenizer: PreTrainedTokenizerBase) -> DeltaVaeConfig:
    """The model of a run over a tokenizer's vocabulary; without prior, encoder and latents if `prior.kind` is none."""
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "latent_dim": latent_dim(config.prior),
        "positions": config.positions,
        "max_positions": config.max_length,
    }
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    decoder = TextDecoderConfig(**vars(config.decoder), **shared, **tokens)
    if not shared["latent_dim"]:
        return DeltaVaeConfig(decoder=decoder)
    return _with_latents(config, TextEncoderConfig(**vars(config.encoder), **shared), decoder)


def image_model_config(config: ImageRunConfig, shape: tuple[int, int, int], levels: int) -> DeltaVaeConfig:
    """The model of a run over images (C, H, W) of so many levels; the decoder alone if `prior.kind` is none."""
    channels, height, width = shape
    shared: dict[str, Any] = {
        "channels": channels,
        "height": height,
        "width": width,
        "levels": levels,
        "latent_dim": latent_dim(config.prior),
    }
    decoder = ImageDecoderConfig(**vars(config.decoder), **shared)
    if not shared["latent_dim"]:
        return DeltaVaeConfig(decoder=decoder)
    return _with_latents(config, ImageEncoderConfig(**vars(config.encoder), **shared), decoder)


def check_architecture(config: RunConfig) -> None:
    """Raise `ValueError` for sizes that no model can have: before any data are read, which tell the rest of them."""
    for section, part in _PARTS[type(config)]:
        try:
            part(**vars(getattr(config, section)))
        except ValueError as error:
            raise ValueError(f"{section}.{str(error).removeprefix(f'{part.__name__}: ')}") from None
    with warnings.catch_warnings(action="ignore"):  # it will be said when the model is built
        prior_config(config.prior)


def latent_dim(prior: PriorSection) -> int:
    """D, 0 for the decoder without latents."""
    return 0 if prior.kind == "none" else prior.latent_dim


def _with_latents(config: RunConfig, encoder: PreTrainedConfig, decoder: PreTrainedConfig) -> DeltaVaeConfig:
    auxiliary = config.auxiliary_prior
    return DeltaVaeConfig(
        prior=prior_config(config.prior),
        encoder=encoder,
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=config.prior.latent_dim, hidden_size=auxiliary.hidden_size)
        if auxiliary.enabled
        else None,
    )


def prior_config(
    prior: PriorSection,
) -> AR1PriorConfig | IndependentDeltaPriorConfig | LSTMPriorConfig | StandardNormalPriorConfig:
    """The prior's config, alpha solved for where a committed rate is asked for."""
    if prior.kind == "standard_normal":
        return StandardNormalPriorConfig(latent_dim=prior.latent_dim)
    if prior.kind == "independent_delta":
        return IndependentDeltaPriorConfig(latent_dim=prior.latent_dim, delta=prior.delta)
    if prior.kind == "lstm":
        return LSTMPriorConfig(latent_dim=prior.latent_dim, hidden_size=prior.hidden_size)
    if prior.committed_bits is not None:
        assert prior.steps is not None
        bits, steps = prior.committed_bits, prior.steps
        return AR1PriorConfig.from_committed_rate(bits=bits, steps=steps, latent_dim=prior.latent_dim)
    if prior.alpha_low is not None:
        assert prior.alpha_high is not None
        return AR1PriorConfig.linear(prior.latent_dim, prior.alpha_low, prior.alpha_high)
    return AR1PriorConfig(latent_dim=prior.latent_dim, alpha=prior.alpha)
