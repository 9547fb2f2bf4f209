"""A pixel stack run a pixel at a time gives what the whole stack gives, row by row, pixel by pixel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from delta_vae_core import PixelConfig, PixelPreTrainedModel, PixelStack, PixelSteps, checked

HIDDEN, D, B = 8, 3, 2


@checked
class StepsConfig(PixelConfig):
    model_type = "pixel_steps_under_test"
    height: int = 4
    width: int = 4
    channels: int = 1
    hidden_size: int = HIDDEN
    num_layers: int = 3
    attention_layers: int = 1
    num_heads: int = 2
    latent_dim: int = 0


class StepsModel(PixelPreTrainedModel):
    config_class = StepsConfig

    def __init__(self, config: StepsConfig, latent_attention: str) -> None:
        super().__init__(config)
        self.stack = PixelStack(config, "strict", config.latent_dim, latent_attention)
        self.post_init()


VARIANTS: list[dict[str, Any]] = [
    {},
    {"channels": 3, "attention_layers": 0},
    {"channels": 3, "attention_layers": 2, "num_layers": 5, "activation": "elu"},
    {"kernel_size": 5, "height": 5, "width": 3},
    {"kernel_size": 5, "height": 3, "width": 5, "channels": 3, "latent_dim": D},
    {"latent_dim": D, "attention_layers": 2},
    {"latent_dim": D, "attention_layers": 0, "latent_attention": "full"},
    {"latent_dim": D, "attention_layers": 1, "latent_attention": "full", "height": 2},
    {"height": 1, "width": 1, "channels": 3},
    {"dropout": 0.5},
]


def build(latent_attention: str = "causal", **sizes: Any) -> PixelStack:
    """With biases and norms that matter, as they do after training."""
    torch.manual_seed(0)
    stack = StepsModel(StepsConfig(**sizes), latent_attention).eval().stack
    with torch.no_grad():
        for weight in stack.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    return stack


def example(variant: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Pixels (B, C, H, W) and, where there are any, latents (B, T, D)."""
    sizes = StepsConfig(**{key: value for key, value in variant.items() if key != "latent_attention"})
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(B, *sizes.image_shape, dtype=dtype, generator=generator) * 2 - 1
    z = torch.randn(B, sizes.height, D, dtype=dtype, generator=generator)
    return x, z if sizes.latent_dim else None


@torch.no_grad()
def stepped(stack: PixelStack, x: Tensor, *conditioning: Tensor | None) -> Tensor:
    """(B, hidden, H, W), every pixel of x fed back once its features are known."""
    steps, last, features = PixelSteps(stack, len(x), *conditioning), None, []
    for pixel in x.flatten(2).unbind(2):
        features.append(steps(last))
        last = pixel
    return torch.stack(features, 2).view(len(x), HIDDEN, *x.shape[2:])


@pytest.mark.parametrize("row_input", [False, True], ids=["", "row input"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_features_of_every_pixel_are_those_of_the_whole_stack(variant: dict[str, Any], row_input: bool) -> None:
    stack, (x, z) = build(**variant).double(), example(variant, torch.float64)
    rows = torch.randn(B, x.shape[2], HIDDEN, dtype=torch.float64) if row_input else None
    tolerance = 1e-10 if z is None else 1e-5  # rotary angles are float32 in any case
    torch.testing.assert_close(stepped(stack, x, z, rows), stack(x, z, rows), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_in_float32_they_differ_by_rounding_alone(variant: dict[str, Any]) -> None:
    stack, (x, z) = build(**variant), example(variant, torch.float32)
    torch.testing.assert_close(stepped(stack, x, z), stack(x, z), atol=2e-5, rtol=2e-5)


def test_stepping_changes_no_weight_and_a_second_time_is_as_the_first() -> None:
    variant = VARIANTS[5]
    stack, (x, z) = build(**variant), example(variant, torch.float32)
    before = {name: weight.clone() for name, weight in stack.state_dict().items()}
    first, second = stepped(stack, x, z), stepped(stack, x, z)
    assert torch.equal(first, second)
    assert all(torch.equal(weight, before[name]) for name, weight in stack.state_dict().items())


def test_a_pixels_features_come_before_the_pixel() -> None:
    """Those of pixel t are out when pixels 0 ... t - 1 have been given: what is given later cannot change them."""
    stack, (x, _) = build(), example({}, torch.float32)
    changed = x.clone()
    changed[:, :, 2, 1] += 1
    same = (stepped(stack, x) == stepped(stack, changed)).all(1).flatten(1).all(0)
    assert same.tolist() == [True] * 10 + [False] * 6
