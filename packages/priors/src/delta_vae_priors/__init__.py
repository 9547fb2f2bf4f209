"""Priors and their committed rates, each with the posterior family that keeps it."""

from transformers import AutoConfig, AutoModel

from delta_vae_priors.ar1 import AR1Prior, AR1PriorConfig
from delta_vae_priors.auxiliary import AuxiliaryPrior, AuxiliaryPriorConfig
from delta_vae_priors.committed_rate import ar1_committed_rate, price_of_information, solve_alpha
from delta_vae_priors.independent import (
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)
from delta_vae_priors.lstm import LSTMPrior, LSTMPriorConfig
from delta_vae_priors.prior import Prior, WeightlessPrior, counted, full_precision, split_statistics

__all__ = [
    "AR1Prior",
    "AR1PriorConfig",
    "AuxiliaryPrior",
    "AuxiliaryPriorConfig",
    "IndependentDeltaPrior",
    "IndependentDeltaPriorConfig",
    "LSTMPrior",
    "LSTMPriorConfig",
    "Prior",
    "StandardNormalPrior",
    "StandardNormalPriorConfig",
    "WeightlessPrior",
    "ar1_committed_rate",
    "counted",
    "full_precision",
    "price_of_information",
    "solve_alpha",
    "split_statistics",
]

for _model in (AR1Prior, AuxiliaryPrior, IndependentDeltaPrior, LSTMPrior, StandardNormalPrior):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModel.register(_model.config_class, _model, exist_ok=True)
