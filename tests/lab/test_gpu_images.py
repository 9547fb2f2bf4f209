"""What a user does with an image model on an accelerator, with generators on the CPU: as on the CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from delta_vae import DeltaVaeConfig, DeltaVaeForImageGeneration
from delta_vae_decoders import ImageDecoderConfig
from delta_vae_encoders import ImageEncoderConfig
from delta_vae_lab.data import ImageBatch, heldout_image_batches
from delta_vae_lab.evaluation import evaluate
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

D, SHAPE, LEVELS = 2, (3, 5, 4), 4
MODELS: dict[str, dict[str, Any]] = {
    "causal": {},
    "non-causal": {"direction": "none", "latent_attention": "full"},
    "categorical": {"likelihood": "categorical", "add_latents": True},
    "without latents": {"latent_dim": 0},
}
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def build(kind: str, device: str = "cpu") -> DeltaVaeForImageGeneration:
    """An untrained model whose posteriors differ from image to image; the same weights on every device."""
    options = {"direction": "anticausal", "latent_dim": D} | MODELS[kind]
    direction, latent_dim = options.pop("direction"), options.pop("latent_dim")
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(zip(("channels", "height", "width"), SHAPE, strict=True))
    sizes |= {"levels": LEVELS, "hidden_size": 16, "num_layers": 2, "attention_layers": 1, "num_heads": 2}
    sizes |= {"latent_dim": latent_dim}
    parts: dict[str, Any] = {"decoder": ImageDecoderConfig(**sizes, **options, components=2)}
    if latent_dim:
        parts |= {
            "prior": AR1PriorConfig(alpha=[0.5, 0.9]),
            "encoder": ImageEncoderConfig(**sizes, direction=direction, statistics_std=0.5),
            "auxiliary_prior": AuxiliaryPriorConfig(latent_dim=D, hidden_size=8),
        }
    model = DeltaVaeForImageGeneration(DeltaVaeConfig(**parts)).eval()
    nn.Module.to(model, device)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    """On the CPU, wherever the model is."""
    return torch.Generator().manual_seed(seed)


def batches() -> list[ImageBatch]:
    images = np.random.default_rng(0).integers(0, LEVELS, (5, *SHAPE), dtype=np.uint8)
    return list(heldout_image_batches(images, 3))


@pytest.mark.parametrize("kind", MODELS)
def test_the_bound_and_its_gradients_are_those_of_the_cpu(kind: str, device: str) -> None:
    outputs, gradients = [], []
    for where in ("cpu", device):
        model = build(kind, where)
        out = model(batches()[0].pixel_values.to(where), generator=seeded())
        out.loss.backward()
        outputs.append(out)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name in ("loss", "rate", "distortion", "committed_rate", "auxiliary_rate", "latents"):
        if getattr(outputs[0], name) is not None:
            assert outputs[1][name].device.type == device, name
            torch.testing.assert_close(outputs[1][name].cpu(), outputs[0][name], **TOLERANCE)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name].cpu(), gradient, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_images_follow_from_the_generator_alone(kind: str, use_cache: bool, device: str) -> None:
    model = build(kind, device)
    first, again, other = (model.sample(3, generator=seeded(seed), use_cache=use_cache) for seed in (1, 1, 2))
    assert first.device.type == device
    assert first.shape == (3, *SHAPE)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "without latents"])
def test_reconstruction_and_interpolation_give_images_where_the_weights_are(kind: str, device: str) -> None:
    model, x = build(kind, device), batches()[0].pixel_values.to(device)
    for sample in (False, True):
        rebuilt = model.reconstruct(x, sample=sample, generator=seeded())
        assert (rebuilt.device.type, rebuilt.shape) == (device, x.shape)
    way = model.interpolate(x[0], x[1], steps=3, generator=seeded())
    assert (way.device.type, way.shape) == (device, (3, *SHAPE))


@pytest.mark.parametrize("kind", MODELS)
def test_estimates_are_those_of_the_cpu(kind: str, device: str) -> None:
    here, there = (evaluate(build(kind, where), batches(), importance_samples=3) for where in ("cpu", device))
    assert there == pytest.approx(here, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_nats_under_bfloat16_autocast_are_near_those_of_float32(kind: str, device: str) -> None:
    """Features are rounded to 8 bits at every layer; the rate and the likelihood are taken in float32."""
    model, x = build(kind, device), batches()[0].pixel_values.to(device)
    with torch.no_grad():
        exact = model(x, generator=seeded())
        with torch.autocast(device, dtype=torch.bfloat16):
            rounded = model(x, generator=seeded())
    assert rounded.rate.dtype == rounded.distortion.dtype == torch.float32
    torch.testing.assert_close(rounded.rate, exact.rate, rtol=0.05, atol=0.01)
    torch.testing.assert_close(rounded.distortion, exact.distortion, rtol=0.05, atol=0.1)
    assert bool((rounded.rate >= rounded.committed_rate - 1e-4).all())
