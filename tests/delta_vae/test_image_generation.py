"""The image model: what it draws, rebuilds and interpolates, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from delta_vae import (
    DeltaVaeConfig,
    DeltaVaeForImageGeneration,
    DeltaVaeImageProcessor,
    DeltaVaeModel,
    spherical_interpolation,
)
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

H, W, C, D = 4, 5, 3, 2
SIZES = {
    "height": H,
    "width": W,
    "channels": C,
    "levels": 16,
    "hidden_size": 8,
    "num_layers": 2,
    "attention_layers": 1,
    "num_heads": 2,
}


def build(latent_dim: int = D, auxiliary: bool = True) -> DeltaVaeForImageGeneration:
    """With weights large enough that everything depends on everything."""
    torch.manual_seed(0)
    sizes = SIZES | {"latent_dim": latent_dim}
    parts: dict[str, Any] = {"decoder": ImageDecoderConfig(**sizes, components=3)}
    if latent_dim:
        parts["prior"] = AR1PriorConfig(latent_dim=latent_dim, alpha=[0.5, 0.9])
        parts["encoder"] = ImageEncoderConfig(**sizes, statistics_std=1.0)
        if auxiliary:
            parts["auxiliary_prior"] = AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=8)
    model = DeltaVaeForImageGeneration(DeltaVaeConfig(**parts)).eval()
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2) -> Tensor:
    return torch.randint(16, (batch, C, H, W), dtype=torch.uint8, generator=seeded(1))


def test_save_and_load_with_the_processor(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    DeltaVaeImageProcessor.for_model(model.config).save_pretrained(tmp_path)
    loaded = DeltaVaeForImageGeneration.from_pretrained(tmp_path)
    assert isinstance(loaded, DeltaVaeForImageGeneration)
    assert torch.equal(loaded.sample(2, generator=seeded()), model.sample(2, generator=seeded()))
    assert type(AutoModel.from_pretrained(tmp_path)) is DeltaVaeModel
    processor = DeltaVaeImageProcessor.from_pretrained(tmp_path)
    assert processor.to_dict() == DeltaVaeImageProcessor(H, W, C, 16).to_dict()
    assert processor(torch.zeros(2, C, H, W, dtype=torch.uint8))["pixel_values"].shape == (2, C, H, W)


def test_what_sharding_asks_of_a_model() -> None:
    """The classes of its layers, each in the model, and its table of embeddings: of pixels there is none."""
    model = build()
    classes = {type(module).__name__ for module in model.modules()}
    assert set(model._no_split_modules) == {"PixelGroup"} <= classes
    assert model.get_input_embeddings() is None
    assert model.get_output_embeddings() is None


def test_the_bound_is_the_base_models() -> None:
    model, x = build(), images()
    noise = torch.randn(2, H, D, generator=seeded())
    output, expected = model(pixel_values=x, noise=noise), DeltaVaeModel.forward(model, x, noise=noise)
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(model(x, generator=seeded()).loss, model(x, generator=seeded()).loss)
    assert torch.equal(model.encode(x).mean, expected.posterior.mean)


@pytest.mark.parametrize(("auxiliary", "source"), [(True, None), (True, "prior"), (False, None)])
def test_latents_are_drawn_first_and_then_the_pixels(auxiliary: bool, source: str | None) -> None:
    model, generator = build(auxiliary=auxiliary), seeded()
    latents = model.sample_latents(3, H, generator, source)
    expected = model.decode(latents, generator=generator)
    state = torch.random.get_rng_state()
    drawn = model.sample(3, generator=seeded(), source=source)
    assert drawn.shape == (3, C, H, W)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_two_priors_give_other_images() -> None:
    model = build()
    first, second = (model.sample(4, generator=seeded(), source=source) for source in ("auxiliary", "prior"))
    assert not torch.equal(first, second)


def test_given_latents_are_decoded_one_for_each_image_or_one_for_all() -> None:
    model = build()
    latents = torch.randn(3, H, D, generator=seeded(2))
    expected = model.decode(latents, generator=seeded())
    assert torch.equal(model.sample(latents=latents, generator=seeded()), expected)
    assert torch.equal(model.sample(3, latents, generator=seeded()), expected)
    many = model.sample(3, latents[:1], generator=seeded())
    assert torch.equal(many, model.decode(latents[:1].repeat(3, 1, 1), generator=seeded()))
    assert len({tuple(image.flatten().tolist()) for image in many}) == 3


def test_one_image_is_the_default_and_the_model_without_latents_draws_too() -> None:
    assert build().sample(generator=seeded()).shape == (1, C, H, W)
    model = build(latent_dim=0)
    assert model.sample(generator=seeded()).shape == (1, C, H, W)
    assert torch.equal(
        model.sample(2, generator=seeded()), model.sample(2, generator=seeded(), use_cache=False, progress=False)
    )
    assert model(images()).rate.eq(0).all()


def test_temperature_reaches_the_pixels() -> None:
    model = build()
    latents = torch.randn(2, H, D, generator=seeded(2))
    calls = (
        lambda seed: model.decode(latents, temperature=0, generator=seeded(seed)),
        lambda seed: model.sample(None, latents, 0, seeded(seed)),
        lambda seed: model.reconstruct(images(), temperature=0, generator=seeded(seed)),
        lambda seed: model.interpolate(*images(), steps=2, temperature=0, generator=seeded(seed)),
    )
    for call in calls:
        assert torch.equal(call(0), call(1))
    assert not torch.equal(model.decode(latents, generator=seeded(0)), model.decode(latents, generator=seeded(1)))


def test_a_reconstruction_decodes_the_posteriors_mean_or_a_sample_of_it() -> None:
    model, x = build(), images()
    posterior = model.encode(x)
    rebuilt = model.reconstruct(x, generator=seeded())
    assert torch.equal(rebuilt, model.decode(posterior.mean, generator=seeded()))
    generator = seeded()
    expected = model.decode(posterior.sample(generator), generator=generator)
    assert torch.equal(model.reconstruct(x, sample=True, generator=seeded()), expected)


def test_an_interpolation_runs_on_the_arc_between_two_posterior_means() -> None:
    model, (first, second) = build(), images()
    ends = model.encode(images()).mean
    expected = model.decode(spherical_interpolation(ends[0], ends[1], 4), temperature=0)
    assert torch.equal(model.interpolate(first, second, steps=4, temperature=0), expected)
    assert torch.equal(model.interpolate(first[None], second, 4, temperature=0), expected)
    # At the ends are the reconstructions; cos(pi / 2) is 0 up to rounding.
    assert torch.equal(expected[[0, -1]], model.reconstruct(images(), temperature=0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(images() / 15), r"images of dtype torch.float32: give integer levels 0 ... 15, not scaled"),
        (lambda m: m(images()[:, :1]), r"images of shape \(2, 1, 4, 5\) for a model of 3 x 4 x 5"),
        (lambda m: m.encode(images()[..., 1:]), r"images of shape \(2, 3, 4, 4\) for a model of 3 x 4 x 5"),
        (lambda m: m.reconstruct(images() + 3), r"level 1\d is outside 0 ... 15: quantise the images to levels=16"),
        (lambda m: m.decode(torch.zeros(1, 3, D)), r"3 latents for 4 rows: pass \(1, 4, 2\), one latent a row"),
        (lambda m: m.decode(torch.zeros(1, H, 3)), r"latents of shape \(1, 4, 3\) for 1 images: the decoder needs"),
        (lambda m: m.sample(5, torch.zeros(2, H, D)), r"latents of 2 images for num_images=5: give as many, or one"),
        (lambda m: m.sample(latents=torch.zeros(H, D)), r"latents of shape \(4, 2\) for"),
        (lambda m: m.sample(0), r"num_images=0: ask for at least 1"),
        (lambda m: m.sample(source="posterior"), r"source='posterior': draw latents from 'auxiliary' or 'prior'"),
        (lambda m: m.sample(latents=torch.zeros(1, H, D), source="prior"), r"source='prior' with latents given"),
        (lambda m: m.sample(temperature=-1), r"temperature=-1: use a finite number >= 0"),
        (lambda m: m.interpolate(*images(), steps=1), r"steps=1: an interpolation has at least its 2 ends"),
        (lambda m: m.interpolate(images(), images()[0]), r"of shape \(2, 3, 4, 5\): give one image \(C, H, W\)"),
        (lambda m: m(images(), noise=torch.zeros(2, H, 3)), r"noise of shape \(2, 4, 3\): z needs \(2, 4, 2\)"),
    ],
)
def test_what_does_not_fit_is_a_one_line_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call(build())
    assert "\n" not in str(error.value)


def test_a_model_without_latents_neither_takes_nor_gives_any() -> None:
    model, latents = build(latent_dim=0), torch.zeros(1, H, D)
    for call in (lambda: model.sample(latents=latents), lambda: model.decode(latents)):
        with pytest.raises(ValueError, match=r"latents were given to a decoder with latent_dim=0: leave them out"):
            call()
    for call in (lambda: model.sample(source="prior"), lambda: model.reconstruct(images())):
        with pytest.raises(ValueError, match=r"this model has no latents \(latent_dim=0\)"):
            call()


def test_text_and_images_are_not_mixed() -> None:
    text = {"vocab_size": 23, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "latent_dim": D}
    config = DeltaVaeConfig(decoder=TextDecoderConfig(**text))
    with pytest.raises(
        ValueError, match=r"'delta_vae_text_decoder': DeltaVaeForImageGeneration needs an image decoder"
    ):
        DeltaVaeForImageGeneration(config)
    with pytest.raises(ValueError, match=r"'delta_vae_text_decoder': a model of images is needed"):
        DeltaVaeImageProcessor.for_model(config)
    sizes = SIZES | {"latent_dim": D}
    for encoder, decoder, message in (
        (TextEncoderConfig(**text), ImageDecoderConfig(**sizes), "'delta_vae_text_encoder' reads text and .* images"),
        (ImageEncoderConfig(**sizes), TextDecoderConfig(**text), "'delta_vae_image_encoder' reads images and .* text"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            DeltaVaeConfig(encoder=encoder, decoder=decoder)
        assert "\n" not in str(error.value)
