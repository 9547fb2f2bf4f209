"""The models that are timed, ours and those of transformers at equal size, and a training step of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM
from delta_vae_decoders import TextDecoderConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LATENT_DIM = 8
SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


Device = torch.device | str
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class TextSize:
    """The text model of the benchmarks, the same for ours and the peers', and its batches."""

    layers: int = 6
    hidden: int = 384
    heads: int = 6
    vocabulary: int = 8192
    batch: int = 16
    tokens: int = 128


SMOKE = TextSize(layers=1, hidden=16, heads=2, vocabulary=50, batch=2, tokens=8)


def text_model(size: TextSize, latent_dim: int = LATENT_DIM, device: Device = "cpu") -> DeltaVaeForCausalLM:
    """The delta-VAE of this size in training mode, or with `latent_dim` 0 its decoder without latents."""
    decoder = TextDecoderConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_layers=size.layers,
        num_heads=size.heads,
        max_positions=max(size.tokens, 64),
        latent_dim=latent_dim,
        **SPECIAL,
    )
    torch.manual_seed(0)
    return on(DeltaVaeForCausalLM(DeltaVaeConfig(decoder=decoder)), device)


def gpt2(size: TextSize, device: Device = "cpu") -> GPT2LMHeadModel:
    """GPT-2 of this size, without dropout."""
    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_embd=size.hidden,
        n_layer=size.layers,
        n_head=size.heads,
        n_positions=max(size.tokens, 65),
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        **SPECIAL,
    )
    torch.manual_seed(0)
    return on(GPT2LMHeadModel(config), device)


def llama(size: TextSize, device: Device = "cpu") -> LlamaForCausalLM:
    """Llama of this size: its MLP has three matrices, so with 8/3 H of width as many parameters as two of 4 H."""
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=8 * size.hidden // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.tokens,
        tie_word_embeddings=True,
        **SPECIAL,
    )
    torch.manual_seed(0)
    return on(LlamaForCausalLM(config), device)


def on(model: Model, device: Device) -> Model:
    """The model on the device, in training mode."""
    nn.Module.to(model, device)
    return model.train()


def token_ids(size: TextSize, device: Device, batch: int | None = None) -> Tensor:
    """BOS and `size.tokens` random tokens, (batch, tokens + 1)."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch or size.batch, size.tokens + 1)
    ids = torch.randint(3, size.vocabulary, shape, generator=generator)
    ids[:, 0] = SPECIAL["bos_token_id"]
    return ids.to(device)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Fused AdamW over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def forward_backward(loss: Callable[[], Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """The loss, under autocast unless `dtype` is float32, and its gradients."""
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        value = loss()
    value.backward()


def training_step(
    model: nn.Module, loss: Callable[[], Tensor], device: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    """Forward, backward, optimizer, gradients away."""
    optimizer = adamw(model)

    def step() -> None:
        forward_backward(loss, device, dtype)
        optimizer.step()
        optimizer.zero_grad()

    return step


def parameters(model: Any) -> int:
    """How many, tied ones once."""
    return sum(weight.numel() for weight in model.parameters())
