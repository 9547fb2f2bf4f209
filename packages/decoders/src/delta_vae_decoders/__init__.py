"""Decoders of delta-VAEs: autoregressive likelihoods conditioned on latents."""

from transformers import AutoConfig, AutoModel

from delta_vae_decoders.image import ImageDecoder, ImageDecoderConfig
from delta_vae_decoders.likelihoods import CategoricalLikelihood, LinearCategoricalLikelihood
from delta_vae_decoders.pixel_likelihoods import CategoricalPixels, DiscretizedLogisticMixture
from delta_vae_decoders.text import TextDecoder, TextDecoderConfig

__all__ = [
    "CategoricalLikelihood",
    "CategoricalPixels",
    "DiscretizedLogisticMixture",
    "ImageDecoder",
    "ImageDecoderConfig",
    "LinearCategoricalLikelihood",
    "TextDecoder",
    "TextDecoderConfig",
]

for _model in (ImageDecoder, TextDecoder):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModel.register(_model.config_class, _model, exist_ok=True)
