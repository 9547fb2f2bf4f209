"""Encoders of delta-VAEs: they turn data into statistics of latents and know nothing of the prior."""

from transformers import AutoConfig, AutoModel

from delta_vae_encoders.text import TextEncoder, TextEncoderConfig

__all__ = ["TextEncoder", "TextEncoderConfig"]

AutoConfig.register(TextEncoderConfig.model_type, TextEncoderConfig, exist_ok=True)
AutoModel.register(TextEncoderConfig, TextEncoder, exist_ok=True)
