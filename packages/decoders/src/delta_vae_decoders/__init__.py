"""Decoders of delta-VAEs: autoregressive likelihoods conditioned on latents."""

from transformers import AutoConfig, AutoModel

from delta_vae_decoders.likelihoods import CategoricalLikelihood
from delta_vae_decoders.text import TextDecoder, TextDecoderConfig

__all__ = ["CategoricalLikelihood", "TextDecoder", "TextDecoderConfig"]

AutoConfig.register(TextDecoderConfig.model_type, TextDecoderConfig, exist_ok=True)
AutoModel.register(TextDecoderConfig, TextDecoder, exist_ok=True)
