"""Distributions, shared layers, the base config and the contracts between the parts of a delta-VAE."""

from delta_vae_core.configuration import StrictConfig, checked, require
from delta_vae_core.distributions import DiagonalGaussian, gaussian_kl, standard_normal
from delta_vae_core.images import check_images, rotate, scaled
from delta_vae_core.modes import evaluation_mode
from delta_vae_core.outputs import EncoderOutput, Likelihood
from delta_vae_core.pixel_steps import PixelSteps
from delta_vae_core.pixels import PixelConfig, PixelPreTrainedModel, PixelStack
from delta_vae_core.sequences import check_right_padded, check_token_ids, flip, lengths_to_mask
from delta_vae_core.step_layers import StepLinear, layers_as_built
from delta_vae_core.transformer import TransformerConfig, TransformerPreTrainedModel, TransformerStack
from delta_vae_core.transformer_steps import TransformerSteps
from delta_vae_core.units import bits_to_nats, nats_to_bits

__all__ = [
    "DiagonalGaussian",
    "EncoderOutput",
    "Likelihood",
    "PixelConfig",
    "PixelPreTrainedModel",
    "PixelStack",
    "PixelSteps",
    "StepLinear",
    "StrictConfig",
    "TransformerConfig",
    "TransformerPreTrainedModel",
    "TransformerStack",
    "TransformerSteps",
    "bits_to_nats",
    "check_images",
    "check_right_padded",
    "check_token_ids",
    "checked",
    "evaluation_mode",
    "flip",
    "gaussian_kl",
    "layers_as_built",
    "lengths_to_mask",
    "nats_to_bits",
    "require",
    "rotate",
    "scaled",
    "standard_normal",
]
