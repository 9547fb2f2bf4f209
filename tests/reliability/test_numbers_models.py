"""Whole models: bfloat16 autocast beside float32, and sequences of no token, of one, and alone in their batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeModel
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_priors import (
    AR1PriorConfig,
    AuxiliaryPriorConfig,
    IndependentDeltaPriorConfig,
    LSTMPriorConfig,
    StandardNormalPriorConfig,
)

D = 2
PRIORS: dict[str, Callable[[], Any]] = {
    "ar1": lambda: AR1PriorConfig(alpha=[0.9, 1 - 1e-7]),
    "independent_delta": lambda: IndependentDeltaPriorConfig(latent_dim=D),
    "standard_normal": lambda: StandardNormalPriorConfig(latent_dim=D),
    "lstm": lambda: LSTMPriorConfig(latent_dim=D, hidden_size=4),
}
TEXT = {"vocab_size": 23, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_positions": 16, "latent_dim": D}
IMAGES = {"channels": 3, "height": 4, "width": 5, "levels": 256, "hidden_size": 8, "num_layers": 2, "num_heads": 2}
IDS = torch.tensor([[0, 5, 7, 9, 1], [0, 1, 2, 2, 2], [0, 2, 2, 2, 2], [0, 22, 3, 1, 2]])  # BOS 0, EOS 1, padding 2
LENGTHS = torch.tensor([5, 2, 1, 4])
MASK = (torch.arange(5) < LENGTHS[:, None]).long()


def text_model(prior: str) -> DeltaVaeForCausalLM:
    torch.manual_seed(0)
    auxiliary = AuxiliaryPriorConfig(latent_dim=D, hidden_size=4)
    encoder, decoder = TextEncoderConfig(**TEXT), TextDecoderConfig(**TEXT)
    return DeltaVaeForCausalLM(
        DeltaVaeConfig(prior=PRIORS[prior](), encoder=encoder, decoder=decoder, auxiliary_prior=auxiliary)
    ).eval()


def image_model(prior: str, likelihood: str = "mixture") -> DeltaVaeForImageGeneration:
    torch.manual_seed(0)
    auxiliary = AuxiliaryPriorConfig(latent_dim=D, hidden_size=4)
    encoder = ImageEncoderConfig(**IMAGES, latent_dim=D)
    decoder = ImageDecoderConfig(**IMAGES, latent_dim=D, likelihood=likelihood, components=3)
    return DeltaVaeForImageGeneration(
        DeltaVaeConfig(prior=PRIORS[prior](), encoder=encoder, decoder=decoder, auxiliary_prior=auxiliary)
    ).eval()


def bound_and_gradients(model: DeltaVaeModel, inputs: tuple[Tensor, ...], noise: Tensor) -> tuple[Any, Tensor]:
    model.zero_grad()
    output = model(*inputs, noise=noise)
    output.loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return output, torch.cat(gradients)


def assert_near(model: DeltaVaeModel, inputs: tuple[Tensor, ...], noise: Tensor) -> float:
    """To 2 % of the loss, and of the gradient as a whole to 10 %; the rates' arithmetic is float32's in both."""
    exact, gradient = bound_and_gradients(model, inputs, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, by = bound_and_gradients(model, inputs, noise)
    for name in ("loss", "rate", "distortion", "auxiliary_rate"):
        found, wanted = getattr(rounded, name), getattr(exact, name)
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
    committed = model.prior.committed_rate(exact.mask.sum(1))
    assert (rounded.rate >= committed - 1e-6 * exact.mask.sum(1) * D).all()
    assert by.isfinite().all()
    assert (by - gradient).norm() <= 0.1 * gradient.norm()
    return abs(float((rounded.loss / exact.loss).detach()) - 1)


def test_losses_of_text_under_bfloat16_autocast_are_near_float32s(seen: Callable[..., None]) -> None:
    noise = torch.randn(4, 4, D, generator=torch.Generator().manual_seed(0))
    worst = max(assert_near(text_model(prior), (IDS, MASK), noise) for prior in PRIORS)
    seen(models=len(PRIORS), percent_of_the_loss=f"{100 * worst:.2f}")


def test_losses_of_images_under_bfloat16_autocast_are_near_float32s(seen: Callable[..., None]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (3, 3, 4, 5), generator=generator, dtype=torch.uint8)
    x[0], x[1] = 0, 255
    noise = torch.randn(3, 4, D, generator=generator)
    models = [*(image_model(prior) for prior in PRIORS), image_model("ar1", "categorical")]
    worst = max(assert_near(model, (x,), noise) for model in models)
    seen(models=len(models), percent_of_the_loss=f"{100 * worst:.2f}")


@pytest.mark.parametrize("prior", PRIORS)
def test_sequences_of_no_token_and_of_one_are_as_alone(prior: str) -> None:
    """The bound of each row is that of its own in a batch of one; of BOS alone it is nothing."""
    model = text_model(prior)
    noise = torch.randn(4, 4, D, generator=torch.Generator().manual_seed(0))
    output, gradient = bound_and_gradients(model, (IDS, MASK), noise)
    assert gradient.isfinite().all()
    for row, length in enumerate(LENGTHS.tolist()):
        if length == 1:
            nats = (output.rate, output.distortion, output.committed_rate, output.auxiliary_rate)
            assert [float(part[row].detach()) for part in nats] == [0.0] * 4
            continue
        alone = model(IDS[row : row + 1, :length], noise=noise[row : row + 1, : length - 1])
        for name in ("rate", "distortion", "committed_rate", "auxiliary_rate"):
            torch.testing.assert_close(getattr(output, name)[row : row + 1], getattr(alone, name), rtol=1e-5, atol=1e-5)
        assert (alone.rate >= alone.committed_rate - 1e-6 * length * D).all()


def test_a_batch_of_nothing_but_bos_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"input_ids of shape \(2, 1\): give \(batch, BOS ... EOS\), at least 2 long"):
        text_model("ar1")(torch.zeros(2, 1, dtype=torch.long))


@pytest.mark.parametrize("row", [[0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 0, 1]])
def test_a_model_refuses_padding_that_is_not_on_the_right(row: list[int]) -> None:
    mask = MASK.clone()
    mask[3] = torch.tensor(row)
    with pytest.raises(ValueError, match="mask row 3 has a one after a zero: pad on the right") as error:
        text_model("ar1")(IDS, mask)
    assert "\n" not in str(error.value)
