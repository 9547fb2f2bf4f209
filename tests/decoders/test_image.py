"""The image decoder: p(x_{r,c} | earlier pixels, z_{<=r}), by Jacobian and by changed pixels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from delta_vae_decoders import CategoricalPixels, DiscretizedLogisticMixture, ImageDecoder, ImageDecoderConfig

SIDE, D = 6, 2
SIZES = {
    "height": SIDE,
    "width": SIDE,
    "levels": 4,
    "hidden_size": 8,
    "num_layers": 4,
    "attention_layers": 1,
    "num_heads": 2,
    "components": 2,
}
VARIANTS = [
    {"latent_dim": D},
    {"latent_dim": D, "add_latents": True, "attention_layers": 0},
    {"latent_dim": D, "latent_attention": "full", "likelihood": "categorical"},
    {"latent_dim": 0},
]
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)
each_image = pytest.mark.parametrize("channels", [1, 3])


def build(channels: int = 1, **variant: object) -> ImageDecoder:
    """In double precision, so that no dependence is lost in rounding."""
    torch.manual_seed(0)
    return ImageDecoder(ImageDecoderConfig(**SIZES | variant, channels=channels)).double().eval()


def example(decoder: ImageDecoder, batch: int = 2) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(4, (batch, *decoder.config.image_shape), generator=generator)
    z = torch.randn(batch, SIDE, D, dtype=torch.float64, generator=generator)
    return x, z if decoder.config.latent_dim else None


def mixed(likelihood: DiscretizedLogisticMixture | CategoricalPixels) -> Tensor:
    """(H, W): a random mixture of a pixel's parameters stands for all of them."""
    parts = torch.cat([part[0].flatten(2) for part in vars(likelihood).values() if isinstance(part, Tensor)], dim=-1)
    weights = torch.randn(parts.shape[-1], dtype=parts.dtype, generator=torch.Generator().manual_seed(3))
    return (parts * weights).sum(-1)


@each_image
@each_variant
def test_a_pixel_depends_on_earlier_pixels_alone(variant: dict, channels: int) -> None:
    decoder = build(channels, **variant)
    z = example(decoder, 1)[1]
    pixels = torch.randn(1, channels, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    jacobian = torch.autograd.functional.jacobian(lambda x: mixed(decoder.read(x, z)), pixels)
    sees = jacobian[:, :, 0].movedim(2, 0) != 0  # (C, H, W, H, W): every channel of every pixel
    sees = sees.reshape(channels, SIDE * SIDE, SIDE * SIDE)
    assert torch.equal(sees, torch.ones_like(sees).tril(-1))


@each_variant
def test_log_prob_depends_on_the_pixel_itself_and_earlier_ones(variant: dict) -> None:
    decoder = build(3, **variant)
    x, z = example(decoder)
    for t in range(SIDE * SIDE):
        changed = x.clone()
        changed[:, 0, t // SIDE, t % SIDE] = (x[:, 0, t // SIDE, t % SIDE] + 1) % 4
        same = (decoder(changed, z).log_prob(changed) == decoder(x, z).log_prob(x)).all(0)
        assert same.tolist() == [True] * t + [False] * (SIDE * SIDE - t)


@each_image
@pytest.mark.parametrize("variant", VARIANTS[:3], ids=str)
def test_row_r_depends_on_z_up_to_r_alone_unless_attention_is_full(variant: dict, channels: int) -> None:
    decoder = build(channels, **variant)
    x, z = example(decoder, 1)
    jacobian = torch.autograd.functional.jacobian(lambda latents: mixed(decoder(x, latents)), z)
    sees = jacobian[:, :, 0].abs().amin(-1)  # (H, W, T), the least of the D
    allowed = torch.ones(SIDE, SIDE, dtype=torch.bool)
    if variant.get("latent_attention") != "full":
        allowed = allowed.tril()
    assert torch.equal(sees > 0, allowed[:, None].expand(sees.shape))


@each_image
@each_variant
def test_a_pixels_nats_and_samples_have_the_image_s_shape(variant: dict, channels: int) -> None:
    decoder = build(channels, **variant)
    x, z = example(decoder)
    likelihood = decoder(x, z)
    assert isinstance(likelihood, CategoricalPixels if "likelihood" in variant else DiscretizedLogisticMixture)
    assert likelihood.log_prob(x).shape == (2, SIDE * SIDE)
    assert (likelihood.log_prob(x) < 0).all()
    drawn = likelihood.sample(torch.Generator().manual_seed(0))
    assert drawn.shape == x.shape
    assert decoder(drawn, z).log_prob(drawn).isfinite().all()


@each_image
@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_nats_are_finite_and_float32_under_autocast_at_extreme_scales(likelihood: str, channels: int) -> None:
    decoder = build(channels, latent_dim=D, likelihood=likelihood).float()
    with torch.no_grad():
        decoder.head.weight.mul_(1e4)
    x, z = example(decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = decoder(x, z.float()).log_prob(x)
    log_prob.sum().backward()
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in decoder.parameters())


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_bfloat16_weights_give_float32_nats(likelihood: str) -> None:
    decoder = build(3, latent_dim=D, likelihood=likelihood)
    x, z = example(decoder)
    expected = decoder(x, z).log_prob(x)
    found = decoder.to(torch.bfloat16)(x, z).log_prob(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=0.2, rtol=0.05)


def test_bytes_are_levels() -> None:
    decoder = build(latent_dim=0)
    x, _ = example(decoder)
    assert torch.equal(decoder(x.byte()).log_prob(x.byte()), decoder(x).log_prob(x))


def test_training_starts_near_the_uniform_distribution() -> None:
    decoder = build(3, latent_dim=0, components=10, levels=256)
    x = torch.randint(256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    nats_a_channel = -decoder(x).log_prob(x).mean().item() / 3
    assert nats_a_channel == pytest.approx(torch.tensor(256.0).log().item(), abs=0.5)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (None, r"no latents were given to a decoder with latent_dim=2: pass \(B, T, 2\)"),
        (torch.zeros(2, SIDE - 1, D), r"5 latents for 6 rows: pass \(2, 6, 2\), one latent a row"),
        (
            torch.zeros(1, SIDE, D),
            r"latents of shape \(1, 6, 2\) for 2 images: the decoder needs \(2, 6, 2\), one latent a row",
        ),
        (torch.zeros(2, SIDE, 3), r"latents of shape \(2, 6, 3\)"),
        (torch.zeros(SIDE, D), r"latents of shape \(6, 2\)"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latents: Tensor | None, message: str) -> None:
    decoder = build(latent_dim=D)
    with pytest.raises(ValueError, match=message):
        decoder(example(decoder)[0], latents)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda x: x.repeat(1, 3, 1, 1), r"images of shape \(2, 3, 6, 6\) for a model of 1 x 6 x 6"),
        (lambda x: x[:, :, :5], r"images of shape \(2, 1, 5, 6\) for a model of 1 x 6 x 6"),
        (lambda x: x + 2, r"level \d is outside 0 ... 3: quantise the images to levels=4"),
        (lambda x: x / 2, r"images of dtype torch.float32: give integer levels 0 ... 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(edit: Callable[[Tensor], Tensor], message: str) -> None:
    decoder = build(latent_dim=0)
    with pytest.raises(ValueError, match=message):
        decoder(edit(example(decoder)[0]))


def test_latents_for_a_decoder_without_and_masks_are_refused() -> None:
    decoder = build(latent_dim=0)
    x, _ = example(decoder)
    with pytest.raises(ValueError, match="latent_dim=0: leave them out"):
        decoder(x, torch.zeros(2, SIDE, D))
    with pytest.raises(ValueError, match="a mask was given with images: leave it out"):
        decoder(x, None, torch.ones(2, SIDE * SIDE))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_attention": "some"}, r"latent_attention='some': use 'causal' or 'full'"),
        ({"likelihood": "gaussian"}, r"likelihood='gaussian': use 'mixture' or 'categorical'"),
        ({"components": 0}, r"components=0: must be at least 1"),
        ({"componets": 5}, r"unknown key 'componets'; did you mean 'components'\?"),
    ],
)
def test_wrong_configs_are_one_line_errors(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ImageDecoderConfig(**wrong)
    assert "\n" not in str(error.value)
