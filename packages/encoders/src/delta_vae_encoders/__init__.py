"""Encoders of delta-VAEs: they turn data into statistics of latents and know nothing of the prior."""

from transformers import AutoConfig, AutoModel

from delta_vae_encoders.image import ImageEncoder, ImageEncoderConfig
from delta_vae_encoders.text import TextEncoder, TextEncoderConfig

__all__ = ["ImageEncoder", "ImageEncoderConfig", "TextEncoder", "TextEncoderConfig"]

for _model in (ImageEncoder, TextEncoder):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModel.register(_model.config_class, _model, exist_ok=True)
