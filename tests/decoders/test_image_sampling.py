"""Images drawn pixel by pixel: cached as naive, and what decides them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from delta_vae_decoders import CategoricalPixels, DiscretizedLogisticMixture, ImageDecoder, ImageDecoderConfig

D, B = 2, 3
SIZES = {
    "height": 5,
    "width": 4,
    "levels": 7,
    "hidden_size": 8,
    "num_layers": 3,
    "attention_layers": 1,
    "num_heads": 2,
    "components": 3,
}
VARIANTS: list[dict[str, Any]] = [
    {"channels": 3, "latent_dim": D},
    {"channels": 1, "latent_dim": D, "add_latents": True, "attention_layers": 0, "activation": "elu"},
    {"channels": 3, "latent_dim": D, "latent_attention": "full", "likelihood": "categorical", "add_latents": True},
    {"channels": 1, "latent_dim": 0, "kernel_size": 5, "attention_layers": 2, "likelihood": "categorical"},
    {"channels": 3, "latent_dim": 0, "levels": 256, "height": 3, "width": 6},
]
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def build(**variant: Any) -> ImageDecoder:
    """With weights large enough that every pixel depends on all that comes before it."""
    torch.manual_seed(0)
    decoder = ImageDecoder(ImageDecoderConfig(**SIZES | variant)).eval()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    return decoder


def latents_for(decoder: ImageDecoder, batch: int = B) -> Tensor | None:
    z = torch.randn(batch, decoder.config.height, D, generator=torch.Generator().manual_seed(1))
    return z if decoder.config.latent_dim else None


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each_variant
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_cached_images_are_the_naive_ones(variant: dict[str, Any], temperature: float) -> None:
    decoder = build(**variant)
    z = latents_for(decoder)
    cached, naive = (
        decoder.sample(B, z, temperature=temperature, generator=seeded(), use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert cached.shape == (B, *decoder.config.image_shape)
    assert cached.dtype == torch.uint8
    assert torch.equal(cached, naive)


def test_at_full_size_rounding_moves_a_pixel_in_a_thousand_at_most_and_by_one_level() -> None:
    """Every pixel of cached images drawn again, from a full evaluation of what came before it and with the same noise.

    The decoder of the `ablation-low` preset, as it is initialised.
    """
    torch.manual_seed(0)
    decoder = ImageDecoder(ImageDecoderConfig(latent_dim=D)).eval()
    z, generator = latents_for(decoder, 2), seeded()
    drawn = decoder.sample(2, z, generator=seeded())
    with torch.no_grad():
        likelihood = decoder(drawn, z)
    pixels = [likelihood.pixel(r, c).sample(generator, 1.0) for r in range(32) for c in range(32)]
    again = torch.cat(pixels, dim=-1).view(2, 3, 32, 32)
    moved = (again - drawn.long()).abs()
    assert moved.max() <= 1
    assert moved.amax(1).count_nonzero() <= 2


def by_hand(decoder: ImageDecoder, z: Tensor | None) -> Tensor:
    """The most probable level, or the rounded mean of the most probable component, from `forward`, pixel by pixel."""
    x = torch.zeros(B, *decoder.config.image_shape, dtype=torch.long)
    top = decoder.config.levels - 1
    for r in range(decoder.config.height):
        for c in range(decoder.config.width):
            p = decoder(x, z)
            if isinstance(p, CategoricalPixels):
                x[:, :, r, c] = p.logits[:, r, c].argmax(-1)
                continue
            assert isinstance(p, DiscretizedLogisticMixture)
            for image, k in enumerate(p.logits[:, r, c].argmax(-1).tolist()):
                mean, slope = p.means[image, r, c, k].tolist(), p.coefficients[image, r, c, k].tolist()
                value: list[float] = []
                for channel in range(len(mean)):
                    slopes = slope[channel * (channel - 1) // 2 :]
                    drawn = mean[channel] + sum(s * v for s, v in zip(slopes, value, strict=False))
                    x[image, channel, r, c] = min(max(round((drawn + 1) * top / 2), 0), top)
                    value.append(2 * x[image, channel, r, c].item() / top - 1)
    return x


@each_variant
@torch.no_grad()
def test_temperature_0_is_the_most_probable_without_chance(variant: dict[str, Any]) -> None:
    decoder = build(**variant)
    z = latents_for(decoder)
    drawn = [decoder.sample(B, z, temperature=0, generator=seeded(seed)) for seed in (0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0].long(), by_hand(decoder, z))


@torch.no_grad()
@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_a_lower_temperature_draws_likelier_images(likelihood: str) -> None:
    """Of one component, for the most probable of several may be a flat one; with as much entropy in every context."""
    decoder = build(channels=1, latent_dim=0, likelihood=likelihood, components=1)
    decoder.head.weight.mul_(0.1)
    nats = []
    for temperature in (1.0, 0.5, 0.1):
        drawn = decoder.sample(64, temperature=temperature, generator=seeded())
        nats.append(decoder(drawn).log_prob(drawn).sum(1).mean().item())
    assert nats == sorted(nats)
    assert nats[2] > nats[0] + 0.5


@each_variant
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_generator_decides_and_the_global_state_is_left_alone(variant: dict[str, Any], use_cache: bool) -> None:
    decoder = build(**variant)
    z, state = latents_for(decoder), torch.random.get_rng_state()
    first, second, third = (decoder.sample(B, z, generator=seeded(seed), use_cache=use_cache) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_what_is_drawn_has_the_models_distribution(likelihood: str) -> None:
    """All 2 x 2 black-and-white images, against the probabilities that `forward` gives them."""
    decoder = build(channels=1, latent_dim=0, height=2, width=2, levels=2, likelihood=likelihood)
    every = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2)
    with torch.no_grad():
        expected = decoder(every).log_prob(every).sum(1).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-5)
    draws = 4000
    drawn = decoder.sample(draws, generator=seeded()).flatten(1).long()
    found = torch.bincount((drawn * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16) / draws
    # Five standard errors of a share estimated from 4,000 draws, and one draw where next to none is expected.
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / draws).sqrt() + 1 / draws).all()


@pytest.mark.parametrize("row", range(5))
def test_a_latent_changes_its_row_and_those_below_alone(row: int) -> None:
    """Most images of a batch change in the very row; all are the same above it."""
    decoder = build(channels=3, latent_dim=D, levels=256)
    z = torch.randn(16, 5, D, generator=seeded(1))
    changed = z.clone()
    changed[:, row] += 3
    before, after = (decoder.sample(16, latents, generator=seeded()) for latents in (z, changed))
    assert torch.equal(before[:, :, :row], after[:, :, :row])
    assert (before[:, :, row] != after[:, :, row]).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("use_cache", [True, False])
def test_dropout_is_off_while_drawing_and_the_mode_stays(use_cache: bool) -> None:
    decoder, same = build(channels=1, latent_dim=0, dropout=0.5), build(channels=1, latent_dim=0)
    decoder.train()
    decoder.stack.groups[0].eval()
    modes = [module.training for module in decoder.modules()]
    drawn = decoder.sample(B, generator=seeded(), use_cache=use_cache)
    assert torch.equal(drawn, same.sample(B, generator=seeded(), use_cache=use_cache))
    assert [module.training for module in decoder.modules()] == modes


@pytest.mark.parametrize("use_cache", [True, False])
def test_autocast_changes_nothing(use_cache: bool) -> None:
    decoder = build(channels=3, latent_dim=D)
    z = latents_for(decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drawn = decoder.sample(B, z, generator=seeded(), use_cache=use_cache)
    assert torch.equal(drawn, decoder.sample(B, z, generator=seeded(), use_cache=use_cache))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_a_bfloat16_decoder_draws_too(likelihood: str, use_cache: bool) -> None:
    decoder = build(channels=3, latent_dim=D, likelihood=likelihood).bfloat16()
    drawn = decoder.sample(B, latents_for(decoder), generator=seeded(), use_cache=use_cache)
    assert int(drawn.max()) < 7


def test_what_was_drawn_can_be_trained_on() -> None:
    decoder = build(channels=1, latent_dim=0)
    drawn = decoder.sample(B, generator=seeded())
    assert not drawn.is_inference()
    decoder(drawn).log_prob(drawn).sum().backward()


def test_more_levels_than_a_byte_holds_come_as_int64() -> None:
    decoder = build(channels=1, latent_dim=0, levels=300, likelihood="categorical")
    assert decoder.sample(B, generator=seeded()).dtype == torch.long


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (True, True), (False, False)])
def test_a_progress_bar_is_shown_where_asked_for(
    progress: bool | None, shown: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    build(channels=1, latent_dim=0).sample(generator=seeded(), progress=progress)
    printed = capfd.readouterr().err
    assert ("20/20" in printed) == shown
    assert bool(printed) == shown


def test_a_progress_bar_comes_by_itself_for_many_pixels_on_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, shown in ({"height": 16, "width": 64}, True), ({"height": 15, "width": 64}, False):
        decoder = build(channels=1, latent_dim=0, num_layers=1, attention_layers=0, **size)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        decoder.sample(generator=seeded())
        assert bool(capfd.readouterr().err) == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.5}, r"temperature=-0.5: use a finite number >= 0"),
        ({"temperature": float("nan")}, r"temperature=nan: use a finite number >= 0"),
        ({"temperature": float("inf")}, r"temperature=inf: use a finite number >= 0"),
        ({"num_images": 0}, r"num_images=0: draw at least 1"),
        ({"latents": None}, r"no latents were given to a decoder with latent_dim=2"),
        ({"latents": torch.zeros(1, 3, D)}, r"3 latents for 5 rows: pass \(1, 5, 2\), one latent a row"),
        (
            {"latents": torch.zeros(2, 5, D)},
            r"latents of shape \(2, 5, 2\) for 1 images: the decoder needs \(1, 5, 2\)",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_what_cannot_be_drawn_is_a_one_line_error(arguments: dict[str, Any], message: str, use_cache: bool) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build(channels=1, latent_dim=D).sample(**{"latents": torch.zeros(1, 5, D), "use_cache": use_cache} | arguments)
    assert "\n" not in str(error.value)


def test_a_cache_is_refused_where_something_stands_before_a_layer() -> None:
    decoder, z = build(channels=1, latent_dim=D), torch.zeros(1, 5, D)
    hook = decoder.stack.groups[0].layers[0].above.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ValueError, match=r"^use_cache=True: layers .* merge or remove them, or use use_cache=False$"):
        decoder.sample(1, z)
    decoder.sample(1, z, use_cache=False)
    hook.remove()
    decoder.sample(1, z)


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_on_a_gpu_the_generator_may_live_on_either_device(where: str) -> None:
    decoder = build(channels=3, latent_dim=D).cuda()
    z = latents_for(decoder).cuda()
    first, second = (decoder.sample(B, z, generator=torch.Generator(where).manual_seed(0)) for _ in range(2))
    assert first.device.type == "cuda"
    assert torch.equal(first, second)
