"""Wrong arguments in Python: configs, tokens, masks, images, latents."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_priors import AR1PriorConfig, IndependentDeltaPriorConfig, LSTMPriorConfig, StandardNormalPriorConfig

Case = tuple[Callable[[], Any], str]
TEXT: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "latent_dim": 2}
PIXELS: dict[str, Any] = {"channels": 1, "height": 4, "width": 4, "levels": 5, "hidden_size": 8, "num_layers": 1}
PIXELS |= {"num_heads": 2, "attention_layers": 0, "latent_dim": 2}
PRIOR = AR1PriorConfig(latent_dim=2, alpha=0.5)

CONFIGS: dict[str, Case] = {
    "alpha of 1": (lambda: AR1PriorConfig(latent_dim=2, alpha=1.0), "1.0"),
    "alpha not a number": (lambda: AR1PriorConfig(latent_dim=2, alpha=float("nan")), "nan"),
    "alpha infinite": (lambda: AR1PriorConfig(latent_dim=2, alpha=[0.5, float("inf")]), "inf"),
    "alpha in words": (lambda: AR1PriorConfig(latent_dim=2, alpha="high"), "high"),
    "too few alphas": (lambda: AR1PriorConfig(latent_dim=2, alpha=[0.5]), "latent_dim=2"),
    "no alphas": (lambda: AR1PriorConfig(alpha=[]), "latent_dim=0"),
    "no dimensions": (lambda: AR1PriorConfig(latent_dim=0), "latent_dim=0"),
    "fewer than none": (lambda: AR1PriorConfig(latent_dim=-1), "latent_dim=-1"),
    "dimensions in words": (lambda: AR1PriorConfig(latent_dim="two"), "two"),
    "half a dimension": (lambda: AR1PriorConfig(latent_dim=1.5), "1.5"),
    "dimensions without end": (lambda: AR1PriorConfig(latent_dim=10**13), "latent_dim=10000000000000"),
    "an unknown key": (lambda: AR1PriorConfig(latent_dim=2, alfa=0.5), "'alfa'"),
    "a rate below 0": (lambda: AR1PriorConfig.from_committed_rate(bits=-1, steps=8, latent_dim=2), "nats"),
    "a rate not a number": (
        lambda: AR1PriorConfig.from_committed_rate(nats=float("nan"), steps=8, latent_dim=2),
        "nan",
    ),
    "two rates": (lambda: AR1PriorConfig.from_committed_rate(bits=1, nats=1, steps=8, latent_dim=2), "bits=1"),
    "no rate": (lambda: AR1PriorConfig.from_committed_rate(steps=8, latent_dim=2), "bits=None"),
    "a rate of one step": (lambda: AR1PriorConfig.from_committed_rate(bits=1, steps=1, latent_dim=2), "steps=1"),
    "a rate out of reach": (lambda: AR1PriorConfig.from_committed_rate(bits=900, steps=2, latent_dim=2), "900"),
    "delta of 0": (lambda: IndependentDeltaPriorConfig(delta=0.0), "delta=0.0"),
    "delta infinite": (lambda: IndependentDeltaPriorConfig(delta=float("inf")), "delta=inf"),
    "no normal dimensions": (lambda: StandardNormalPriorConfig(latent_dim=0), "latent_dim=0"),
    "no LSTM": (lambda: LSTMPriorConfig(hidden_size=0), "hidden_size=0"),
    "a width of 0": (lambda: TextEncoderConfig(**TEXT | {"hidden_size": 0}), "hidden_size=0"),
    "a width in words": (lambda: TextEncoderConfig(**TEXT | {"hidden_size": "8"}), "'8'"),
    "heads that do not divide": (lambda: TextDecoderConfig(**TEXT | {"num_heads": 3}), "num_heads=3"),
    "a direction": (lambda: TextEncoderConfig(**TEXT, direction="causal"), "'causal'"),
    "positions": (lambda: TextDecoderConfig(**TEXT, positions="sinusoidal"), "'sinusoidal'"),
    "a dropout of 1": (lambda: TextDecoderConfig(**TEXT, dropout=1.0), "dropout=1.0"),
    "an even kernel": (lambda: ImageEncoderConfig(**PIXELS, kernel_size=4), "kernel_size=4"),
    "one level": (lambda: ImageDecoderConfig(**PIXELS | {"levels": 1}), "levels=1"),
    "a likelihood": (lambda: ImageDecoderConfig(**PIXELS, likelihood="normal"), "'normal'"),
    "two latent sizes": (
        lambda: DeltaVaeConfig(
            prior=AR1PriorConfig(latent_dim=3), encoder=TextEncoderConfig(**TEXT), decoder=TextDecoderConfig(**TEXT)
        ),
        "latent_dim=3",
    ),
    "images to text": (
        lambda: DeltaVaeConfig(prior=PRIOR, encoder=ImageEncoderConfig(**PIXELS), decoder=TextDecoderConfig(**TEXT)),
        "delta_vae_image_encoder",
    ),
    "an unknown part": (lambda: DeltaVaeConfig(decoder={"model_type": "nonsense"}), "nonsense"),
    "a prior without latents": (
        lambda: DeltaVaeConfig(prior=PRIOR, decoder=TextDecoderConfig(**TEXT | {"latent_dim": 0})),
        "latent_dim=0",
    ),
    "a number for a part": (lambda: DeltaVaeConfig(decoder=3), "decoder"),
    "a text model of images": (
        lambda: DeltaVaeForImageGeneration(DeltaVaeConfig(decoder=TextDecoderConfig(**TEXT))),
        "delta_vae_text_decoder",
    ),
}


@pytest.fixture(scope="module")
def text() -> DeltaVaeForCausalLM:
    encoder, decoder = TextEncoderConfig(**TEXT), TextDecoderConfig(**TEXT, bos_token_id=0, eos_token_id=1)
    return DeltaVaeForCausalLM(DeltaVaeConfig(prior=PRIOR, encoder=encoder, decoder=decoder)).eval()


@pytest.fixture(scope="module")
def images() -> DeltaVaeForImageGeneration:
    encoder, decoder = ImageEncoderConfig(**PIXELS), ImageDecoderConfig(**PIXELS, components=2)
    return DeltaVaeForImageGeneration(DeltaVaeConfig(prior=PRIOR, encoder=encoder, decoder=decoder)).eval()


def test_every_wrong_config_in_python_is_refused(
    refused_call: Callable[[Callable[[], Any], str], list[str]], all_refused: Callable[..., None]
) -> None:
    all_refused({name: refused_call(call, named) for name, (call, named) in CONFIGS.items()})


def test_every_wrong_tensor_is_refused(
    text: DeltaVaeForCausalLM,
    images: DeltaVaeForImageGeneration,
    refused_call: Callable[[Callable[[], Any], str], list[str]],
    all_refused: Callable[..., None],
) -> None:
    ids, z, x = torch.tensor([[0, 5, 6, 1]]), torch.zeros(1, 3, 2), torch.zeros(1, 1, 4, 4, dtype=torch.long)
    cases: dict[str, Case] = {
        "a token beyond the vocabulary": (lambda: text(torch.tensor([[0, 20, 1]])), "20"),
        "a token below 0": (lambda: text(torch.tensor([[0, -1, 1]])), "-1"),
        "no BOS": (lambda: text(ids[:, 1:]), "BOS=0"),
        "one row without a batch": (lambda: text(ids[0]), "(4,)"),
        "BOS alone": (lambda: text(ids[:, :1]), "(1, 1)"),
        "too long": (lambda: text(torch.zeros(1, 600, dtype=torch.long)), "max_positions=512"),
        "padding on the left": (lambda: text(ids, torch.tensor([[1, 0, 1, 1]])), "mask row 0"),
        "a mask of another shape": (lambda: text(ids, torch.ones(1, 3)), "(1, 3)"),
        "noise of another shape": (lambda: text(ids, noise=torch.zeros(1, 4, 2)), "(1, 4, 2)"),
        "latents of another width": (lambda: text.generate(latents=torch.zeros(1, 3, 5)), "5"),
        "latents without a batch": (lambda: text.generate(latents=z[0]), "(3, 2)"),
        "latents not numbers": (lambda: text.generate(latents=z * float("nan"), do_sample=False), "nan"),
        "latents of whole numbers": (lambda: text.generate(latents=z.long()), "int64"),
        "latents too few": (lambda: text.generate(latents=z, max_new_tokens=5), "3 latents"),
        "sequences fewer than one": (lambda: text.generate(num_sequences=0), "num_sequences=0"),
        "a source": (lambda: text.sample_latents(1, 3, source="posterior"), "'posterior'"),
        "one end of a way": (lambda: text.interpolate(ids[0], ids[0], 1), "steps=1"),
        "images of another size": (lambda: images(x[..., :3]), "(1, 1, 4, 3)"),
        "images of reals": (lambda: images(x.float()), "float32"),
        "a level too high": (lambda: images(x + 5), "level 5"),
        "a level below 0": (lambda: images(x - 1), "level -1"),
        "no images": (lambda: images.sample(0), "num_images=0"),
        "a temperature below 0": (lambda: images.sample(1, temperature=-1.0), "temperature=-1.0"),
        "rows of latents": (lambda: images.sample(latents=torch.zeros(1, 3, 2)), "3 latents"),
        "latents of a picture not numbers": (
            lambda: images.sample(latents=torch.full((1, 4, 2), float("nan"))),
            "nan",
        ),
        "latents and a source": (lambda: images.sample(latents=torch.zeros(1, 4, 2), source="prior"), "'prior'"),
    }
    all_refused({name: refused_call(call, named) for name, (call, named) in cases.items()})
