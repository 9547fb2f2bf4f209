"""Delta-VAEs as transformers models: ask for bits, get at least those bits."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

# Not by its short name, under which older releases ask for torchvision.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from delta_vae.configuration_delta_vae import DeltaVaeConfig
from delta_vae.image_processing_delta_vae import DeltaVaeImageProcessor
from delta_vae.modeling_causal_lm import DeltaVaeCausalLMOutput, DeltaVaeForCausalLM
from delta_vae.modeling_delta_vae import DeltaVaeModel, DeltaVaeOutput, spherical_interpolation
from delta_vae.modeling_image_generation import DeltaVaeForImageGeneration
from delta_vae_core import DiagonalGaussian

__all__ = [
    "DeltaVaeCausalLMOutput",
    "DeltaVaeConfig",
    "DeltaVaeForCausalLM",
    "DeltaVaeForImageGeneration",
    "DeltaVaeImageProcessor",
    "DeltaVaeModel",
    "DeltaVaeOutput",
    "DiagonalGaussian",
    "spherical_interpolation",
]

AutoConfig.register(DeltaVaeConfig.model_type, DeltaVaeConfig, exist_ok=True)
AutoModel.register(DeltaVaeConfig, DeltaVaeModel, exist_ok=True)
AutoModelForCausalLM.register(DeltaVaeConfig, DeltaVaeForCausalLM, exist_ok=True)
AutoImageProcessor.register(DeltaVaeConfig, image_processor_classes={"pil": DeltaVaeImageProcessor}, exist_ok=True)
