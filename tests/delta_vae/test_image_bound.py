"""The bound of image models: saved and loaded, averaged over a batch, and made of what it says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from delta_vae import DeltaVaeConfig, DeltaVaeModel
from delta_vae_decoders import ImageDecoderConfig
from delta_vae_encoders import ImageEncoderConfig
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

SIZES = {
    "height": 4,
    "width": 5,
    "levels": 7,
    "hidden_size": 8,
    "num_layers": 2,
    "attention_layers": 1,
    "num_heads": 2,
}
MODELS = {
    "grey": {"channels": 1},
    "colour, added latents": {"channels": 3, "add_latents": True},
    "colour, categorical": {"channels": 3, "likelihood": "categorical"},
    "colour, non-causal": {"channels": 3, "direction": "none", "latent_attention": "full"},
    "without latents": {"channels": 3, "latent_dim": 0},
}


def build(
    channels: int = 3, latent_dim: int = 2, direction: str = "anticausal", **decoder_options: object
) -> DeltaVaeModel:
    torch.manual_seed(0)
    sizes = SIZES | {"channels": channels, "latent_dim": latent_dim}
    decoder = ImageDecoderConfig(**sizes, components=3, **decoder_options)
    if not latent_dim:
        return DeltaVaeModel(DeltaVaeConfig(decoder=decoder)).eval()
    config = DeltaVaeConfig(
        prior=AR1PriorConfig(latent_dim=latent_dim, alpha=[0.5, 0.9]),
        encoder=ImageEncoderConfig(**sizes, direction=direction, statistics_std=0.3),
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=8),
    )
    return DeltaVaeModel(config).eval()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> DeltaVaeModel:
    return build(**MODELS[request.param])


def batch(model: DeltaVaeModel, size: int = 3) -> tuple[Tensor, Tensor | None]:
    """Levels (B, C, H, W), and the noise (B, T, D) of one sample of z."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(7, (size, *model.config.decoder.image_shape), generator=generator)
    return x, torch.randn(size, 4, 2, generator=generator) if model.config.latent_dim else None


def test_save_and_load_give_equal_outputs(model: DeltaVaeModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    x, noise = batch(model)
    before = model(x, noise=noise)
    for loader in (DeltaVaeModel, AutoModel):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is DeltaVaeModel
        expected = model.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
        after = loaded(x, noise=noise)
        for part in ("loss", "rate", "distortion", "committed_rate"):
            assert torch.equal(after[part], before[part])


def test_a_batchs_loss_is_the_mean_of_its_members(model: DeltaVaeModel) -> None:
    x, noise = batch(model)
    alone = [model(x[i : i + 1], noise=None if noise is None else noise[i : i + 1]).loss for i in range(len(x))]
    torch.testing.assert_close(model(x, noise=noise).loss, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


def test_the_loss_is_rate_and_distortion_and_the_rate_is_at_least_the_committed(model: DeltaVaeModel) -> None:
    x, noise = batch(model)
    output = model(x, noise=noise)
    torch.testing.assert_close(output.loss, (output.rate + output.distortion).mean())
    torch.testing.assert_close(output.distortion, -model.decoder(x, output.latents).log_prob(x).sum(1))
    assert (output.rate >= output.committed_rate - 1e-4).all()
    if model.config.latent_dim:
        assert output.latents.shape == output.kl.shape == (3, 4, 2)
        assert output.mask.all()
        torch.testing.assert_close(output.committed_rate, torch.full((3,), model.prior.committed_rate(4).item()))


def test_every_weight_has_a_gradient(model: DeltaVaeModel) -> None:
    x, noise = batch(model)
    model(x, noise=noise).loss.backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_rates_and_distortions_are_float32_under_autocast(model: DeltaVaeModel) -> None:
    x, noise = batch(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x, noise=noise)
    assert {output[part].dtype for part in ("rate", "distortion", "committed_rate")} == {torch.float32}
    torch.testing.assert_close(output.loss, model(x, noise=noise).loss, atol=1.0, rtol=0.02)


def test_the_committed_rates_of_the_papers_presets() -> None:
    """Table 6: 79.447 and 666.63 bits an image of 32 rows."""
    for latent_dim, high, bits in ((8, 0.95, 79.447), (64, 0.99, 666.63)):
        prior = AutoModel.from_config(AR1PriorConfig.linear(latent_dim, 0.5, high))
        assert prior.committed_rate(32).item() / torch.tensor(2.0).log().item() == pytest.approx(bits, abs=0.01)


def test_a_prior_and_an_encoder_of_other_sizes_are_refused() -> None:
    decoder = ImageDecoderConfig(**SIZES, latent_dim=2)
    with pytest.raises(ValueError, match=r"encoder.latent_dim=3 and decoder.latent_dim=2: give all one value"):
        DeltaVaeConfig(decoder=decoder, encoder=ImageEncoderConfig(**SIZES, latent_dim=3))
    for size in ("height", "width", "channels", "levels"):
        encoder = ImageEncoderConfig(**SIZES | {size: 9}, latent_dim=2)
        with pytest.raises(ValueError, match=rf"encoder.{size}=9 and decoder.{size}=\d: give both one value"):
            DeltaVaeConfig(decoder=decoder, encoder=encoder)


def test_an_image_decoder_is_not_given_a_text_encoder() -> None:
    with pytest.raises(ValueError, match="encoder=None: a delta_vae_image_decoder has no default encoder; give"):
        DeltaVaeConfig(decoder=ImageDecoderConfig(**SIZES, latent_dim=2))


def test_images_that_do_not_fit_are_refused() -> None:
    model = build()
    x, _ = batch(model)
    for edit, message in (
        (x[:, :1], r"images of shape \(3, 1, 4, 5\) for a model of 3 x 4 x 5"),
        (x + 7, r"is outside 0 ... 6"),
    ):
        with pytest.raises(ValueError, match=message):
            model(edit)
        with pytest.raises(ValueError, match=message):
            model.encode(edit)
