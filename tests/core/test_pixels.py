"""The shared pixel stack: what a pixel sees (zero Jacobians), its layers against masked convolutions, its sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delta_vae_core import PixelConfig, PixelPreTrainedModel, PixelStack, check_images, checked, rotate, scaled
from delta_vae_core.pixels import DownConv, GatedResidual, PixelLayer, RightConv, down
from delta_vae_core.transformer import ResidualLinear

SIDE, HIDDEN, D = 6, 8, 3
PIXELS = SIDE * SIDE


@checked
class StackConfig(PixelConfig):
    model_type = "pixel_stack_under_test"
    height: int = SIDE
    width: int = SIDE
    channels: int = 1
    levels: int = 4
    hidden_size: int = HIDDEN
    num_layers: int = 4
    num_heads: int = 2
    latent_dim: int = 0


class StackModel(PixelPreTrainedModel):
    config_class = StackConfig

    def __init__(self, config: StackConfig, mode: str, latent_attention: str) -> None:
        super().__init__(config)
        self.stack = PixelStack(config, mode, config.latent_dim, latent_attention)
        self.post_init()


def stack(mode: str, latent_attention: str = "causal", **sizes: Any) -> PixelStack:
    """In double precision, so that no dependence is lost in rounding."""
    torch.manual_seed(0)
    return StackModel(StackConfig(**sizes), mode, latent_attention).double().eval().stack


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MIXTURE = randn(HIDDEN, 1, 1, seed=9)


def seen(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(pixels out, pixels or rows in) bool: true where d out / d x is not zero. x is (1, C, H, W) or (1, T, D).

    A random mixture of a pixel's features stands for all of them, and every channel of x must be seen alike.
    """
    jacobian = torch.autograd.functional.jacobian(lambda x: (run(x)[0] * MIXTURE).sum(0), x)
    assert isinstance(jacobian, Tensor)
    sees = jacobian.squeeze(2).movedim(2 if x.dim() == 4 else 3, 0).flatten(3).flatten(1, 2) != 0
    assert (sees == sees[0]).all()
    return sees[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("attention_layers", "kernel_size"), [(0, 3), (2, 3), (1, 5)])
@pytest.mark.parametrize(("mode", "diagonal"), [("strict", -1), ("inclusive", 0)])
def test_a_pixel_sees_all_earlier_pixels_and_no_other(
    channels: int, attention_layers: int, kernel_size: int, mode: str, diagonal: int
) -> None:
    """Every pair of pixels in raster order: strictly earlier, or itself as well. There is no blind spot."""
    run = stack(mode, channels=channels, attention_layers=attention_layers, kernel_size=kernel_size)
    earlier = torch.ones(PIXELS, PIXELS, dtype=torch.bool).tril(diagonal)
    assert torch.equal(seen(run, randn(1, channels, SIDE, SIDE)), earlier)


def test_an_inclusive_stack_sees_what_a_strict_one_sees_on_the_padded_image() -> None:
    """Razavi et al. 2019: a row on top, a column on the right, a strict stack, the bottom-right crop."""
    strict = stack("strict", height=SIDE + 1, width=SIDE + 1, num_layers=5)
    padded = seen(lambda x: strict(F.pad(x, (0, 1, 1, 0)))[..., 1:, 1:], randn(1, 1, SIDE, SIDE))
    assert torch.equal(padded, seen(stack("inclusive"), randn(1, 1, SIDE, SIDE)))


@pytest.mark.parametrize("attention_layers", [0, 2])
@pytest.mark.parametrize("latent_attention", ["causal", "full"])
def test_a_pixel_sees_the_latents_of_its_row_and_those_above_or_all(
    attention_layers: int, latent_attention: str
) -> None:
    run = stack("strict", latent_attention, latent_dim=D, attention_layers=attention_layers)
    x = randn(1, 1, SIDE, SIDE)
    allowed = torch.ones(SIDE, SIDE, dtype=torch.bool)
    if latent_attention == "causal":
        allowed = allowed.tril()
    assert torch.equal(seen(lambda z: run(x, z), randn(1, SIDE, D, seed=1)), allowed.repeat_interleave(SIDE, 0))


def test_with_latents_the_pixels_seen_are_the_same() -> None:
    run, z = stack("strict", latent_dim=D), randn(1, SIDE, D, seed=1)
    earlier = torch.ones(PIXELS, PIXELS, dtype=torch.bool).tril(-1)
    assert torch.equal(seen(lambda x: run(x, z), randn(1, 1, SIDE, SIDE)), earlier)


@pytest.mark.parametrize("row_latents", [True, False])
def test_a_row_input_reaches_its_row_and_those_below(row_latents: bool) -> None:
    run = stack("strict", latent_dim=D if row_latents else 0)
    x, z = randn(1, 1, SIDE, SIDE), randn(1, SIDE, D, seed=1) if row_latents else None
    allowed = torch.ones(SIDE, SIDE, dtype=torch.bool).tril().repeat_interleave(SIDE, 0)
    assert torch.equal(seen(lambda rows: run(x, z, rows), randn(1, SIDE, HIDDEN, seed=2)), allowed)


def test_images_that_are_not_square() -> None:
    run = stack("strict", height=3, width=5)
    assert run(randn(2, 1, 3, 5)).shape == (2, HIDDEN, 3, 5)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_windows_are_those_of_masked_convolutions(kernel_size: int) -> None:
    """A square kernel with the later rows, or all but the left half of the middle row, set to 0."""
    torch.manual_seed(0)
    x, reach = randn(2, SIDE, SIDE, 3), kernel_size // 2
    image = x.permute(0, 3, 1, 2)

    vertical = DownConv(3, 4, kernel_size).double()
    square = F.pad(vertical.weight, (0, 0, 0, reach))
    expected = F.conv2d(image, square, vertical.bias, padding=reach)
    torch.testing.assert_close(vertical(x).permute(0, 3, 1, 2), expected)

    for shift in (0, 1):
        horizontal = RightConv(3, 4, kernel_size, shift=bool(shift)).double()
        square = F.pad(horizontal.weight, (0, reach + 2 * shift, reach + shift, reach + shift))
        expected = F.conv2d(image, square, horizontal.bias, padding=reach + shift)
        torch.testing.assert_close(horizontal(x).permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_layer_can_be_run_a_row_and_then_a_pixel_at_a_time(kernel_size: int) -> None:
    """What sampling needs: the vertical stream of a row from the rows above it, then its pixels from left to right."""
    torch.manual_seed(0)
    layer = PixelLayer(StackConfig(kernel_size=kernel_size)).double()
    v, h = randn(2, SIDE, SIDE, HIDDEN), randn(2, SIDE, SIDE, HIDDEN, seed=1)
    expected_v, expected_h = layer(v, h)

    reach = kernel_size // 2
    rows = F.pad(layer.vertical_norm(v), (0, 0, 0, 0, reach, 0))
    pixels = F.pad(layer.horizontal_norm(h), (0, 0, reach, 0))
    above = torch.zeros(2, 1, SIDE, HIDDEN, dtype=torch.float64)
    for r in range(SIDE):
        row = layer.vertical_gate(v[:, r : r + 1], layer.vertical.read(rows[:, r : r + reach + 1]))
        torch.testing.assert_close(row, expected_v[:, r : r + 1])
        for c in range(SIDE):
            update = layer.horizontal.read(pixels[:, r : r + 1, c : c + reach + 1]) + above[:, :, c : c + 1]
            pixel = layer.horizontal_gate(h[:, r : r + 1, c : c + 1], update)
            torch.testing.assert_close(pixel, expected_h[:, r : r + 1, c : c + 1])
        above = layer.above(row)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", lambda u: u.clamp(min=0)), ("elu", lambda u: torch.where(u > 0, u, u.exp() - 1))],
)
def test_a_gate_is_that_of_its_definition(activation: str, expected: Callable[[Tensor], Tensor]) -> None:
    """x + a sigmoid(b), (a, b) = W f(update) + bias."""
    torch.manual_seed(0)
    gate, x, update = (
        GatedResidual(StackConfig(activation=activation)).double(),
        randn(4, HIDDEN),
        randn(4, HIDDEN, seed=1),
    )
    both = expected(update) @ gate.output.weight.T + gate.output.bias
    a, b = both[:, :HIDDEN], both[:, HIDDEN:]
    torch.testing.assert_close(gate(x, update), x + a / (1 + (-b).exp()))


def test_down_moves_every_row_to_the_next() -> None:
    x = randn(1, 3, 2, 1)
    assert torch.equal(down(x)[:, 1:], x[:, :-1])
    assert (down(x)[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("num_layers", "attention_layers", "sizes"), [(6, 0, [6]), (8, 2, [4, 4]), (5, 2, [2, 3]), (30, 6, [5] * 6)]
)
def test_attention_is_spread_evenly(num_layers: int, attention_layers: int, sizes: list[int]) -> None:
    groups = stack("strict", num_layers=num_layers, attention_layers=attention_layers).groups
    assert [len(group.layers) for group in groups] == sizes
    assert sum(group.attention is not None for group in groups) == attention_layers


def test_dropout_acts_in_training_alone() -> None:
    run, x = stack("strict", dropout=0.5), randn(1, 1, SIDE, SIDE)
    assert torch.equal(run(x), run(x))
    run.train()
    assert not torch.equal(run(x), run(x))


def test_weights_start_with_the_variance_that_their_inputs_keep() -> None:
    torch.manual_seed(0)
    for module in StackModel(StackConfig(hidden_size=64, num_layers=8), "strict", "causal").modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            expected = (fan_in * (16 if isinstance(module, ResidualLinear) else 1)) ** -0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert module.bias is None or module.bias.eq(0).all()


def test_levels_are_scaled_to_the_interval() -> None:
    assert scaled(torch.arange(5), 5).tolist() == [-1, -0.5, 0, 0.5, 1]
    assert scaled(torch.tensor([0, 255], dtype=torch.uint8), 256).tolist() == [-1, 1]


def test_rotation_reverses_the_raster_order() -> None:
    x = torch.arange(12).view(1, 1, 3, 4)
    assert rotate(x).flatten().tolist() == list(range(11, -1, -1))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 6, 6, dtype=torch.long), r"images of shape \(2, 3, 6, 6\) for a model of 1 x 6 x 6: give"),
        (torch.zeros(2, 1, 6, 5, dtype=torch.long), r"images of shape \(2, 1, 6, 5\) for a model of 1 x 6 x 6: give"),
        (torch.zeros(1, 6, 6, dtype=torch.long), r"images of shape \(1, 6, 6\) for a model of 1 x 6 x 6: give"),
        (torch.zeros(2, 1, 6, 6), r"images of dtype torch.float32: give integer levels 0 ... 3, not scaled values"),
        (torch.full((2, 1, 6, 6), 4), r"level 4 is outside 0 ... 3: quantise the images to levels=4"),
        (torch.full((2, 1, 6, 6), -1), r"level -1 is outside 0 ... 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_images(x, (1, 6, 6), 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 10, "num_heads": 4}, "hidden_size=10: use a multiple of num_heads=4"),
        ({"hidden_size": 6, "num_heads": 2}, "hidden_size / num_heads=3: rotary positions need an even head size"),
        ({"attention_layers": 5}, "attention_layers=5: must be 0 to num_layers=4"),
        ({"kernel_size": 4}, "kernel_size=4: must be odd and at least 3"),
        ({"kernel_size": 1}, "kernel_size=1: must be odd and at least 3"),
        ({"activation": "gelu"}, "activation='gelu': use 'relu' or 'elu'"),
        ({"levels": 1}, "levels=1: must be at least 2"),
        ({"height": 0}, "height=0: must be at least 1"),
        ({"dropout": 1.0}, r"dropout=1\.0: must be in \[0, 1\)"),
        ({"latent_dim": -1}, r"latent_dim=-1: must be at least 0 \(0 means no latents\)"),
    ],
)
def test_a_wrong_size_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"StackConfig: {message}"):
        StackConfig(**wrong)
