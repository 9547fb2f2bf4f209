"""Tiny text models, and one batch of sequences of different lengths for them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_decoders import TextDecoderConfig
from delta_vae_encoders import TextEncoderConfig
from delta_vae_priors import (
    AR1PriorConfig,
    AuxiliaryPriorConfig,
    IndependentDeltaPriorConfig,
    LSTMPriorConfig,
    StandardNormalPriorConfig,
)

SIZES = {"vocab_size": 23, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_positions": 32}
LENGTHS = (9, 2, 6, 4)  # BOS and EOS included


def build(
    prior: str = "ar1",
    *,
    direction: str = "anticausal",
    latent_attention: str = "causal",
    add_latents: bool = False,
    positions: str = "rotary",
    auxiliary: bool = True,
) -> DeltaVaeForCausalLM:
    """A model with weights large enough that everything depends on everything."""
    torch.manual_seed(0)
    sizes = SIZES | {"positions": positions, "initializer_range": 0.3}
    decoder = TextDecoderConfig(
        **sizes, latent_dim=0 if prior == "none" else 3, latent_attention=latent_attention, add_latents=add_latents
    )
    if prior == "none":
        return DeltaVaeForCausalLM(DeltaVaeConfig(decoder=decoder)).eval()
    priors = {
        "ar1": AR1PriorConfig(alpha=[0.5, 0.9, -0.6]),
        "independent_delta": IndependentDeltaPriorConfig(latent_dim=3, delta=0.1),
        "standard_normal": StandardNormalPriorConfig(latent_dim=3),
        "lstm": LSTMPriorConfig(latent_dim=3, hidden_size=8),
    }
    config = DeltaVaeConfig(
        prior=priors[prior],
        encoder=TextEncoderConfig(**sizes, latent_dim=3, direction=direction, statistics_std=0.3),
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=3, hidden_size=8) if auxiliary else None,
    )
    return DeltaVaeForCausalLM(config).eval()


MODELS = {
    "ar1": {"prior": "ar1"},
    "ar1 learned positions, added latents": {"prior": "ar1", "positions": "learned", "add_latents": True},
    "ar1 non-causal": {"prior": "ar1", "direction": "none", "latent_attention": "full"},
    "independent delta": {"prior": "independent_delta"},
    "ordinary VAE": {"prior": "standard_normal", "auxiliary": False},
    "lstm": {"prior": "lstm"},
    "without latents": {"prior": "none"},
}


@pytest.fixture
def build_model() -> Callable[..., DeltaVaeForCausalLM]:
    return build


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model(request: pytest.FixtureRequest) -> DeltaVaeForCausalLM:
    return build(**request.param)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """input_ids (4, 9), attention_mask (4, 9) and noise (4, 8, 3)."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, SIZES["vocab_size"], (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    input_ids[:, 0] = 0
    input_ids[~mask] = 2
    noise = torch.randn(len(LENGTHS), max(LENGTHS) - 1, 3, generator=generator)
    return input_ids, mask.long(), noise
