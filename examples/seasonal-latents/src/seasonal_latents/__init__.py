"""Components for delta-VAEs that the house does not know: a seasonal prior, an encoder of any backbone, a GRU decoder.

Importing the package registers them with the Auto classes of transformers. An installed one needs no import to load a
checkpoint: the entry points of its pyproject.toml tell `delta_vae` which model_type is whose.
"""

from transformers import AutoConfig, AutoModel

from seasonal_latents.decoder import GRUDecoder, GRUDecoderConfig
from seasonal_latents.encoder import BackboneEncoder, BackboneEncoderConfig
from seasonal_latents.prior import SeasonalPrior, SeasonalPriorConfig

__all__ = [
    "BackboneEncoder",
    "BackboneEncoderConfig",
    "GRUDecoder",
    "GRUDecoderConfig",
    "SeasonalPrior",
    "SeasonalPriorConfig",
]

for _model in (BackboneEncoder, GRUDecoder, SeasonalPrior):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModel.register(_model.config_class, _model, exist_ok=True)
