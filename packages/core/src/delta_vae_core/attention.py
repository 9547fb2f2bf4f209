"""Multi-head attention: of a sequence over itself, and of a sequence over latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache

from delta_vae_core.causal_products import causal_attention, is_faster
from delta_vae_core.rotary import Rotary, split_heads


class AttentionSizes(Protocol):
    """What attention asks of a config."""

    hidden_size: int
    num_heads: int
    dropout: float | int


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence over itself, one fused projection."""

    def __init__(self, config: AttentionSizes, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        self.dropout = float(config.dropout)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = ResidualLinear(config.hidden_size, config.hidden_size)
        self.residual_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layout: AttentionLayout, cache: Cache | None) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.num_heads, 3, layout.query_rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        attended = layout.attend(q, k, v, self.dropout if self.training else 0.0)
        return self.residual_dropout(self.output(merge_heads(attended)))


class LatentAttention(nn.Module):
    """Multi-head attention of a sequence (B, L, H) over latents (B, T, D), by relative position."""

    def __init__(self, config: AttentionSizes, layer: int, latent_dim: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        self.dropout = float(config.dropout)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(latent_dim, 2 * config.hidden_size)
        self.output = ResidualLinear(config.hidden_size, config.hidden_size)
        self.residual_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, latents: Tensor, layout: AttentionLayout, cache: Cache | None) -> Tensor:
        (q,) = split_heads(self.query(x), self.num_heads, 1, layout.query_rotary)
        k, v = split_heads(self.key_value(latents), self.num_heads, 2, layout.key_rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        attended = layout.attend(q, k, v, self.dropout if self.training else 0.0)
        return self.residual_dropout(self.output(merge_heads(attended)))


class ResidualLinear(nn.Linear):
    """A projection back into the residual stream."""


@dataclass(frozen=True)
class AttentionLayout:
    """Where queries and keys stand, and which keys a query sees: those up to its own step, or all that `mask` counts.

    The rotaries are None where positions are learned; of a sequence over itself they are one.
    `past` steps came before the queries; `mask`, (B, keys) or (B, queries, keys), is for attention that is not causal.
    """

    query_rotary: Rotary | None
    key_rotary: Rotary | None
    past: int
    causal: bool
    mask: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Scaled dot-product attention, (B, heads, L, head size)."""
        queries, keys = q.shape[2], k.shape[2]
        if not self.causal:
            mask = self.mask
            if mask is not None:
                mask = (mask if mask.dim() == 3 else mask[:, None]).bool()[:, None]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        if keys == queries:
            if is_faster(q, queries, dropout):
                return causal_attention(q, k, v)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        if queries == 1 and keys == self.past + 1:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        # Several queries over a cache, or a static cache longer than what it holds.
        step = self.past + torch.arange(queries, device=q.device)
        mask = torch.arange(keys, device=q.device) <= step[:, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, L, H / heads) -> (B, L, H)."""
    return x.transpose(1, 2).flatten(2)
