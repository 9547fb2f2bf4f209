"""The image encoder: which pixels the statistics of a row may depend on."""

import pytest
import torch
from torch import Tensor

from delta_vae_core import rotate
from delta_vae_encoders import ImageEncoder, ImageEncoderConfig

SIDE, D = 6, 2
SIZES = {
    "height": SIDE,
    "width": SIDE,
    "levels": 4,
    "hidden_size": 8,
    "num_layers": 4,
    "attention_layers": 1,
    "num_heads": 2,
    "latent_dim": D,
}
each_image = pytest.mark.parametrize("channels", [1, 3])


def build(direction: str = "anticausal", channels: int = 1, **sizes: object) -> ImageEncoder:
    """In double precision, so that no dependence is lost in rounding."""
    torch.manual_seed(0)
    config = ImageEncoderConfig(**SIZES | sizes, channels=channels, direction=direction, statistics_std=0.5)
    return ImageEncoder(config).double().eval()


def pixels(channels: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(1, channels, SIDE, SIDE, dtype=torch.float64, generator=generator) - 1


def levels(channels: int = 1, batch: int = 3) -> Tensor:
    return torch.randint(4, (batch, channels, SIDE, SIDE), generator=torch.Generator().manual_seed(1))


@each_image
@pytest.mark.parametrize("attention_layers", [0, 1])
def test_anticausal_statistics_depend_on_their_row_and_those_below_alone(channels: int, attention_layers: int) -> None:
    encoder = build(channels=channels, attention_layers=attention_layers)
    jacobian = torch.autograd.functional.jacobian(encoder.read, pixels(channels))[0, :, :, 0]
    sees = jacobian.abs().amax(1)  # (T, C, H, W): every channel of every pixel
    row = torch.arange(SIDE)
    allowed = (row >= row[:, None])[:, None, :, None].expand(sees.shape)
    assert torch.equal(sees > 0, allowed)


@each_image
def test_noncausal_statistics_depend_on_every_pixel(channels: int) -> None:
    jacobian = torch.autograd.functional.jacobian(build("none", channels).read, pixels(channels))
    assert (jacobian.abs().amax(2) > 0).all()


@each_image
def test_features_depend_on_the_pixel_itself_and_all_later_ones(channels: int) -> None:
    encoder = build(channels=channels)
    mixture = torch.randn(8, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def mixed(x: Tensor) -> Tensor:
        """(H, W): a random mixture of a pixel's features stands for all of them."""
        return (rotate(encoder.stack(rotate(x)))[0] * mixture).sum(0)

    sees = torch.autograd.functional.jacobian(mixed, pixels(channels))[:, :, 0].movedim(2, 0) != 0
    sees = sees.reshape(channels, SIDE * SIDE, SIDE * SIDE)
    assert torch.equal(sees, torch.ones_like(sees).triu())


@each_image
def test_statistics_are_those_of_an_encoder_that_hides_the_past_pixel_by_pixel(channels: int) -> None:
    """By brute force: the feature at a pixel from an image whose earlier pixels are replaced by noise."""
    encoder, x = build(channels=channels), pixels(channels)
    features = torch.empty(encoder.config.hidden_size, SIDE, SIDE, dtype=torch.float64)
    raster = torch.arange(SIDE * SIDE).view(SIDE, SIDE)
    for r in range(SIDE):
        for c in range(SIDE):
            visible = torch.where(raster >= raster[r, c], x, pixels(channels, seed=2))
            features[:, r, c] = encoder.stack(visible.flip(2, 3)).flip(2, 3)[0, :, r, c]
    expected = encoder.statistics(encoder.norm(features.mean(2).T))
    torch.testing.assert_close(encoder.read(x)[0], expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("direction", ["anticausal", "none"])
def test_a_latent_a_row_and_every_row_counts(direction: str) -> None:
    output = build(direction, channels=3, width=4)(levels(3)[..., :4])
    assert output.statistics.shape == (3, SIDE, 2 * D)
    assert output.mask.shape == (3, SIDE)
    assert output.mask.dtype == torch.bool
    assert output.mask.all()


def test_both_directions_have_the_same_parameters_but_for_the_last_layer() -> None:
    anticausal, noncausal = (dict(build(direction).named_parameters()) for direction in ("anticausal", "none"))
    differ = {name for name in anticausal if anticausal[name].shape != noncausal[name].shape}
    assert anticausal.keys() == noncausal.keys()
    assert differ == {"statistics.weight"}


def test_statistics_start_small_and_not_at_zero() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(**SIZES | {"hidden_size": 64, "latent_dim": 8})).eval()
    statistics = encoder(torch.randint(4, (32, 3, SIDE, SIDE))).statistics
    assert 0.03 < statistics.std().item() < 0.07  # statistics_std = 0.05
    assert statistics.std(0).mean().item() > 0.005


def test_bytes_are_levels() -> None:
    encoder = build()
    assert torch.equal(encoder(levels().byte()).statistics, encoder(levels()).statistics)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (levels(3), r"images of shape \(3, 3, 6, 6\) for a model of 1 x 6 x 6"),
        (levels()[..., :5], r"images of shape \(3, 1, 6, 5\) for a model of 1 x 6 x 6"),
        (levels() + 1, r"level 4 is outside 0 ... 3"),
        (levels() / 4, r"images of dtype torch.float32: give integer levels"),
    ],
)
def test_images_that_do_not_fit_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(x)


def test_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask was given with images: leave it out"):
        build()(levels(), torch.ones(3, SIDE))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"direction": "causal"}, r"direction='causal': use 'anticausal' or 'none'"),
        ({"latent_dim": 0}, r"latent_dim=0: an encoder needs at least one"),
        ({"hight": 32}, r"unknown key 'hight'; did you mean 'height'\?"),
    ],
)
def test_wrong_configs_are_one_line_errors(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ImageEncoderConfig(**wrong)
    assert "\n" not in str(error.value)
