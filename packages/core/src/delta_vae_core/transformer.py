"""The Transformer stack that text encoders and decoders share, with a direction.

Pre-norm blocks (self-attention, attention over latents where there are any, MLP) after Vaswani et al. 2017. Padding is
on the right, so a causal stack needs no mask: a step that counts never sees padding. An anti-causal stack is the causal
one on the reversed sequence, so both directions use the same fast causal kernels.
"""

# Like every config module: no `from __future__ import annotations`.
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache
from transformers import initialization as init

from delta_vae_core.attention import AttentionLayout, LatentAttention, ResidualLinear, SelfAttention
from delta_vae_core.configuration import StrictConfig, require
from delta_vae_core.recomputation import Recomputed, run
from delta_vae_core.rotary import Rotary
from delta_vae_core.sequences import flip
from delta_vae_core.verified import VerifiedPreTrainedModel

DIRECTIONS = ("causal", "anticausal", "none")


class TransformerConfig(StrictConfig):
    """Size of a `TransformerStack`.

    hidden_size H, num_layers, num_heads; feed_forward_size defaults to 4 H. `positions` is "rotary" or "learned";
    longer sequences than `max_positions` are refused either way.
    """

    vocab_size: int = 8192
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    feed_forward_size: int | None = None
    positions: str = "rotary"
    max_positions: int = 512
    dropout: float | int = 0.0
    latent_dim: int = 8
    initializer_range: float | int = 0.02

    def validate_sizes(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "max_positions"):
            require(getattr(self, name), name, getattr(self, name) >= 1, "must be at least 1")
        width = self.feed_forward_size
        require(width, "feed_forward_size", width is None or width >= 1, "must be at least 1, or None for 4 H")
        divides = self.hidden_size % self.num_heads == 0
        require(self.hidden_size, "hidden_size", divides, f"use a multiple of num_heads={self.num_heads}")
        head_size = self.hidden_size // self.num_heads
        require(
            head_size,
            "hidden_size / num_heads",
            head_size % 2 == 0,
            "rotary positions need an even head size; change either",
        )
        require(self.positions, "positions", self.positions in ("rotary", "learned"), "use 'rotary' or 'learned'")
        require(self.dropout, "dropout", 0 <= self.dropout < 1, "must be in [0, 1)")
        require(self.latent_dim, "latent_dim", self.latent_dim >= 0, "must be at least 0 (0 means no latents)")


class TransformerPreTrainedModel(VerifiedPreTrainedModel):
    """What components built on a `TransformerStack` have in common: initialisation and the attention backends."""

    config: TransformerConfig
    _no_split_modules = ["Block"]  # noqa: RUF012 - the form transformers reads; FSDP shards by it
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # GPT-2's rule: normal(0, 0.02), and what writes into the residual stream smaller by sqrt(2 layers).
        if isinstance(module, nn.Linear | nn.Embedding):
            std = self.config.initializer_range
            if isinstance(module, ResidualLinear):
                std /= math.sqrt(2 * self.config.num_layers)
            init.normal_(module.weight, mean=0.0, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class TransformerStack(nn.Module):
    """(B, L, H) -> (B, L, H). Step t sees steps <= t (causal), >= t (anticausal) or all (none).

    With `latent_dim` > 0 every block also attends over latents z (B, T, D): step t sees z_{<=t} where
    `latent_attention` is "causal" (then T = L), all of them where it is "full".
    """

    def __init__(
        self, config: TransformerConfig, direction: str, latent_dim: int = 0, latent_attention: str = "causal"
    ) -> None:
        super().__init__()
        assert direction in DIRECTIONS, direction
        assert latent_attention in ("causal", "full"), latent_attention
        self.direction = direction
        self.latents_causal = latent_attention == "causal"
        self.max_positions = config.max_positions
        self.head_size = config.hidden_size // config.num_heads
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.max_positions, config.hidden_size) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer, latent_dim) for layer in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """`mask` (B, L) and, for full attention over latents (B, T, D), `latent_mask` (B, T) say what counts.

        `cache` holds the keys and values of the steps before x.
        """
        if self.direction == "anticausal":
            assert latents is None, "an anti-causal stack encodes; it has no latents to attend to"
            assert cache is None, "an anti-causal stack takes the whole sequence at once"
            return flip(self._run(flip(x, mask), mask, None, None, None), mask)
        return self._run(x, mask, latents, latent_mask, cache)

    def check_length(self, steps: int) -> None:
        """Raise `ValueError` for a longer sequence than the stack was built for."""
        if steps > self.max_positions:
            raise ValueError(
                f"a sequence of {steps} steps is over max_positions={self.max_positions}: "
                "shorten it, or build the model with a larger max_positions"
            )

    def _run(
        self, x: Tensor, mask: Tensor | None, latents: Tensor | None, latent_mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        past = int(cache.get_seq_length()) if cache is not None else 0
        end = past + x.shape[1]
        self.check_length(end)
        steps = torch.arange(past, end, device=x.device)
        rotary = Rotary(steps, self.head_size)
        if self.positions is not None:
            x = x + self.positions(steps)
            own = AttentionLayout(None, None, past, self.direction != "none", mask)
        else:
            own = AttentionLayout(rotary, rotary, past, self.direction != "none", mask)
        if latents is None or self.latents_causal:
            over_latents, latent_cache = AttentionLayout(rotary, rotary, past, causal=True), cache
        else:
            every = Rotary(torch.arange(latents.shape[1], device=x.device), self.head_size)
            over_latents, latent_cache = AttentionLayout(rotary, every, past, causal=False, mask=latent_mask), None
        x = self.dropout(x)
        for block in self.blocks:
            inputs = (x, own, cache, latents, over_latents, latent_cache)
            x = run(block, *inputs) if cache is None else block(*inputs)  # a cache takes each step once
        return self.norm(x)


class Block(Recomputed):
    """(B, L, H) -> (B, L, H): attention over the sequence, over the latents if there are any, and an MLP."""

    def __init__(self, config: TransformerConfig, layer: int, latent_dim: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.attention_norm = nn.LayerNorm(hidden)
        self.attention = SelfAttention(config, layer)
        if latent_dim:
            self.latent_norm = nn.LayerNorm(hidden)
            # Caches 0 ... N-1 hold the tokens' keys and values, N ... 2N-1 the latents'.
            self.latent_attention = LatentAttention(config, config.num_layers + layer, latent_dim)
        self.mlp_norm = nn.LayerNorm(hidden)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        own: AttentionLayout,
        cache: Cache | None,
        latents: Tensor | None,
        over_latents: AttentionLayout,
        latent_cache: Cache | None,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), own, cache)
        if latents is not None:
            x = x + self.latent_attention(self.latent_norm(x), latents, over_latents, latent_cache)
        return x + self.mlp(self.mlp_norm(x))


class FeedForward(nn.Module):
    """GELU MLP, H -> feed_forward_size -> H."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.feed_forward_size or 4 * config.hidden_size
        self.inner = nn.Linear(config.hidden_size, width)
        self.output = ResidualLinear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.output(F.gelu(self.inner(x), approximate="tanh")))
