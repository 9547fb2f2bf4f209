"""What a user does with a model on an accelerator, with generators on the CPU: as on the CPU, and with bfloat16 inside.

Every test runs on the CPU too, where the comparison with the CPU is trivial and the rest is not.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_decoders import TextDecoderConfig
from delta_vae_encoders import TextEncoderConfig
from delta_vae_lab.data.text_batches import TextBatch, heldout_batches
from delta_vae_lab.data.tokens import TokenizedText
from delta_vae_lab.evaluation import evaluate
from delta_vae_priors import (
    AR1PriorConfig,
    AuxiliaryPriorConfig,
    IndependentDeltaPriorConfig,
    StandardNormalPriorConfig,
)

BOS, EOS, PAD, VOCABULARY, D = 0, 1, 2, 23, 3
LENGTHS = (9, 2, 6, 4)  # BOS and EOS included
PRIORS = {
    "ar1": AR1PriorConfig(alpha=[0.5, 0.9, -0.6]),
    "independent_delta": IndependentDeltaPriorConfig(latent_dim=D, delta=0.1),
    "standard_normal": StandardNormalPriorConfig(latent_dim=D),
}
MODELS: dict[str, dict[str, Any]] = {
    "ar1": {"prior": "ar1"},
    "ar1 non-causal": {"prior": "ar1", "direction": "none", "attention": "full"},
    "independent delta": {"prior": "independent_delta"},
    "ordinary VAE": {"prior": "standard_normal"},
    "without latents": {"prior": "none"},
}
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}  # cuDNN multiplies in TF32 inside the auxiliary prior's LSTM
WITH_LATENTS = [name for name in MODELS if name != "without latents"]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def build(kind: str, device: str = "cpu") -> DeltaVaeForCausalLM:
    """An untrained model whose posteriors differ from sentence to sentence; the same weights on every device."""
    options = {"direction": "anticausal", "attention": "causal"} | MODELS[kind]
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
    latent_dim = 0 if options["prior"] == "none" else D
    sizes |= {"latent_dim": latent_dim, "max_positions": 32, "initializer_range": 0.3}
    decoder = TextDecoderConfig(**sizes, latent_attention=options["attention"])
    config = DeltaVaeConfig(decoder=decoder)
    if latent_dim:
        config = DeltaVaeConfig(
            prior=PRIORS[options["prior"]],
            encoder=TextEncoderConfig(**sizes, direction=options["direction"], statistics_std=0.5),
            decoder=decoder,
            auxiliary_prior=AuxiliaryPriorConfig(latent_dim=D, hidden_size=8),
        )
    model = DeltaVaeForCausalLM(config).eval()
    nn.Module.to(model, device)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    """On the CPU, wherever the model is."""
    return torch.Generator().manual_seed(seed)


def sentences() -> list[list[int]]:
    generator = seeded(1)
    inner = [torch.randint(3, VOCABULARY, (length - 2,), generator=generator).tolist() for length in LENGTHS]
    return [[BOS, *tokens, EOS] for tokens in inner]


def batches() -> list[TextBatch]:
    rows = [np.array(sentence, dtype=np.int32) for sentence in sentences()]
    text = TokenizedText(np.concatenate(rows), np.cumsum([0] + [len(row) for row in rows]))
    return list(heldout_batches(text, 4, PAD))


def inputs(device: str) -> tuple[Tensor, Tensor]:
    (batch,) = batches()
    batch = batch.to(torch.device(device))
    return batch.input_ids, batch.attention_mask


@pytest.mark.parametrize("kind", MODELS)
def test_the_bound_is_that_of_the_cpu(kind: str, device: str) -> None:
    with torch.no_grad():
        here, there = (build(kind, where)(*inputs(where), generator=seeded()) for where in ("cpu", device))
    for name in ("loss", "rate", "distortion", "committed_rate", "auxiliary_rate", "kl", "latents"):
        if getattr(here, name) is not None:
            assert there[name].device.type == device, name
            torch.testing.assert_close(there[name].cpu(), here[name], **TOLERANCE)


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_reach_every_parameter_where_the_weights_are(kind: str, device: str) -> None:
    model = build(kind, device).train()
    out = model(*inputs(device), generator=seeded())
    (out.loss + (0 if out.auxiliary_rate is None else out.auxiliary_rate.mean())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.device.type == device, name
        assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("kind", WITH_LATENTS)
@pytest.mark.parametrize("source", ["prior", "auxiliary"])
def test_samples_are_those_of_the_cpu(kind: str, source: str, device: str) -> None:
    here, there = (build(kind, where).sample_latents(2, 7, seeded(), source) for where in ("cpu", device))
    assert there.device.type == device
    torch.testing.assert_close(there.cpu(), here, **TOLERANCE)


@pytest.mark.parametrize("kind", MODELS)
def test_generation_follows_from_the_generator_alone(kind: str, device: str) -> None:
    model = build(kind, device)
    options: dict[str, Any] = {"num_sequences": 3, "max_new_tokens": 8, "do_sample": True}
    first, again, other = (model.generate(generator=seeded(seed), **options) for seed in (1, 1, 2))
    assert first.device.type == device
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", WITH_LATENTS)
def test_reconstruction_and_interpolation_give_tokens_where_the_weights_are(kind: str, device: str) -> None:
    model = build(kind, device)
    input_ids, mask = inputs(device)
    for sample in (False, True):
        decoded = model.reconstruct(input_ids, mask, sample=sample, generator=seeded())
        assert decoded.device.type == device
        assert decoded.shape[0] == len(LENGTHS)
        assert bool((decoded[:, 0] == BOS).all())
    first, second = (torch.tensor(sentence, device=device) for sentence in sentences()[:2])
    way = model.interpolate(first, second, steps=3, generator=seeded())
    assert way.device.type == device
    assert way.shape[0] == 3


@pytest.mark.parametrize("kind", MODELS)
def test_estimates_are_those_of_the_cpu(kind: str, device: str) -> None:
    here, there = (evaluate(build(kind, w), batches(), words=17, importance_samples=3) for w in ("cpu", device))
    assert there == pytest.approx(here, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("kind", WITH_LATENTS)
def test_the_rate_under_bfloat16_autocast_is_that_of_float32(kind: str, device: str) -> None:
    """Statistics are rounded to 8 bits, 0.4 %, inside the encoder at every layer; the KL itself is taken in float32."""
    model = build(kind, device)
    input_ids, mask = inputs(device)
    with torch.no_grad():
        exact = model(input_ids, mask, generator=seeded())
        with torch.autocast(device, dtype=torch.bfloat16):
            rounded = model(input_ids, mask, generator=seeded())
    assert rounded.rate.dtype == rounded.kl.dtype == torch.float32
    torch.testing.assert_close(rounded.rate, exact.rate, rtol=0.05, atol=0.01)
    assert bool((rounded.rate >= rounded.committed_rate - 1e-4).all())
    assert all(math.isfinite(value) for value in rounded.distortion.tolist())
