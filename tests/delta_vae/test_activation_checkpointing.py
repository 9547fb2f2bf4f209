"""Activation checkpointing: the loss and the gradients as without it, bit for bit, for a fraction of the memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.memory import LiveBytes
from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_core import layers_as_built
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.optimization import recompute_activations
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig


def text(layers: int = 4, dropout: float = 0.2) -> tuple[DeltaVaeForCausalLM, Tensor]:
    sizes: dict[str, Any] = {"vocab_size": 30, "hidden_size": 32, "num_layers": layers, "num_heads": 4}
    sizes |= {"latent_dim": 2, "dropout": dropout}
    torch.manual_seed(0)
    config = DeltaVaeConfig(
        prior=AR1PriorConfig(alpha=[0.5, 0.9]),
        encoder=TextEncoderConfig(**sizes),
        decoder=TextDecoderConfig(**sizes),
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=2, hidden_size=3),
    )
    x = torch.randint(3, 30, (4, 33))
    x[:, 0] = 0  # BOS
    return DeltaVaeForCausalLM(config).train(), x


def images(layers: int = 8, dropout: float = 0.2) -> tuple[DeltaVaeForImageGeneration, Tensor]:
    sizes: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "levels": 17, "hidden_size": 16, "latent_dim": 2}
    sizes |= {"num_layers": layers, "attention_layers": layers // 2, "num_heads": 2, "dropout": dropout}
    torch.manual_seed(0)
    config = DeltaVaeConfig(
        prior=AR1PriorConfig(alpha=[0.5, 0.9]),
        encoder=ImageEncoderConfig(**sizes),
        decoder=ImageDecoderConfig(**sizes, components=2),
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=2, hidden_size=3),
    )
    return DeltaVaeForImageGeneration(config).train(), torch.randint(0, 17, (4, 1, 8, 8))


each_kind = pytest.mark.parametrize("build", [text, images])


def step(model: Any, x: Tensor) -> tuple[dict[str, Tensor], LiveBytes]:
    """Loss and gradients, and what it took to make them, the gradients themselves apart."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.manual_seed(1)
    with LiveBytes() as memory:
        loss = model(x, generator=torch.Generator().manual_seed(2)).loss
        loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters()}, memory


@each_kind
def test_loss_and_gradients_are_the_same_dropout_included(build: Callable[..., Any]) -> None:
    model, x = build()
    without, _ = step(model, x)
    recompute_activations(model)
    computed_anew, _ = step(model, x)
    assert [name for name in without if not torch.equal(without[name], computed_anew[name])] == []
    without_dropout, _ = step(*build(dropout=0.0))
    assert without_dropout["loss"] != without["loss"]


@each_kind
def test_it_takes_less_than_half_of_the_memory(build: Callable[..., Any]) -> None:
    model, x = build()
    _, without = step(model, x)
    recompute_activations(model)
    _, computed_anew = step(model, x)
    assert computed_anew.peak < without.peak / 2


@each_kind
def test_a_layer_more_costs_its_inputs_alone(build: Callable[..., Any]) -> None:
    """A float a hidden unit, position and stream of each layer, in two stacks; without, many times that."""
    peaks = {}
    for layers in (4, 8):
        for anew in (False, True):
            model, x = build(layers=layers, dropout=0.0)
            if anew:
                recompute_activations(model)
            peaks[layers, anew] = step(model, x)[1].peak
    inputs = {text: 4 * 4 * 32 * 32, images: 2 * 2 * 4 * 64 * 16}[build]  # blocks x rows x L x H, and groups alike
    inputs *= 2 * 4  # stacks and bytes
    assert peaks[8, True] - peaks[4, True] <= 1.2 * inputs
    assert peaks[8, False] - peaks[4, False] > 5 * inputs


@each_kind
def test_an_evaluation_and_a_drawing_are_as_ever(build: Callable[..., Any]) -> None:
    """Nothing is computed twice without a gradient, and no hook stands in the way of drawing a step at a time."""
    model, x = build()
    expected = model.eval()(x, generator=torch.Generator().manual_seed(2)).loss
    recompute_activations(model)
    assert torch.equal(model(x, generator=torch.Generator().manual_seed(2)).loss, expected)
    assert layers_as_built(model.decoder)


def test_without_support_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = text()
    monkeypatch.setattr(DeltaVaeForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match="does not support"):
        recompute_activations(model)
