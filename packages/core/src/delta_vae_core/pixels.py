"""The causal pixel stack that image encoders and decoders share.

Gated convolutions in two streams (van den Oord et al. 2016, Gated PixelCNN), interleaved with attention over the
earlier pixels (Chen et al. 2018, PixelSNAIL). At pixel (r, c) the vertical stream reads rows <= r, to both sides; the
horizontal one reads it shifted down by a row, and row r up to c: together every earlier pixel, without a blind spot.
The vertical stream knows nothing of the horizontal one, so it can be run a row at a time, and the horizontal stream
then a pixel at a time. Causality comes from padding and shifts; no weight is masked.

Inside, images are (B, H, W, hidden): linear layers and norms act on the last axis, and convolutions see channels_last.
"""

# Like every config module: no `from __future__ import annotations`.
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core.attention import AttentionLayout, LatentAttention, ResidualLinear, SelfAttention
from delta_vae_core.configuration import StrictConfig, require
from delta_vae_core.recomputation import Recomputed, run
from delta_vae_core.rotary import Rotary
from delta_vae_core.verified import VerifiedPreTrainedModel

MODES = ("strict", "inclusive")
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {"relu": F.relu, "elu": F.elu}
RASTER = AttentionLayout(None, None, past=0, causal=True)  # itself included: a strict stack's h has not read its pixel


class PixelConfig(StrictConfig):
    """Size of the images, `channels` x `height` x `width` of integers 0 ... `levels` - 1, and of a `PixelStack`.

    `num_layers` gated layers with windows of `kernel_size`, in as many groups as there are `attention_layers`, each of
    which ends with attention over the pixels before; with 0 of them there is one group, and no attention.
    `activation`: "relu" or "elu", of what enters a gate.
    """

    height: int = 32
    width: int = 32
    channels: int = 3
    levels: int = 256
    hidden_size: int = 128
    num_layers: int = 8
    attention_layers: int = 2
    num_heads: int = 4
    kernel_size: int = 3
    activation: str = "relu"
    dropout: float | int = 0.0
    latent_dim: int = 8

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def validate_sizes(self) -> None:
        for name in ("height", "width", "channels", "hidden_size", "num_layers", "num_heads"):
            require(getattr(self, name), name, getattr(self, name) >= 1, "must be at least 1")
        require(self.levels, "levels", self.levels >= 2, "must be at least 2")
        fits = 0 <= self.attention_layers <= self.num_layers
        require(self.attention_layers, "attention_layers", fits, f"must be 0 to num_layers={self.num_layers}")
        divides = self.hidden_size % self.num_heads == 0
        require(self.hidden_size, "hidden_size", divides, f"use a multiple of num_heads={self.num_heads}")
        head_size = self.hidden_size // self.num_heads
        require(
            head_size,
            "hidden_size / num_heads",
            head_size % 2 == 0,
            "rotary positions need an even head size; change either",
        )
        odd = self.kernel_size >= 3 and self.kernel_size % 2 == 1
        require(self.kernel_size, "kernel_size", odd, "must be odd and at least 3")
        known = self.activation in ACTIVATIONS
        require(self.activation, "activation", known, f"use {' or '.join(map(repr, ACTIVATIONS))}")
        require(self.dropout, "dropout", 0 <= self.dropout < 1, "must be in [0, 1)")
        require(self.latent_dim, "latent_dim", self.latent_dim >= 0, "must be at least 0 (0 means no latents)")


class PixelPreTrainedModel(VerifiedPreTrainedModel):
    """What components built on a `PixelStack` have in common: initialisation and the attention backends."""

    config: PixelConfig
    _no_split_modules = ["PixelGroup"]  # noqa: RUF012 - the form transformers reads; FSDP shards by it
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # normal(0, 1 / fan-in) keeps the variance; what writes into a residual stream is smaller by sqrt(2 layers).
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            std = module.weight[0].numel() ** -0.5
            if isinstance(module, ResidualLinear):
                std /= math.sqrt(2 * self.config.num_layers)
            init.normal_(module.weight, mean=0.0, std=std)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class PixelStack(nn.Module):
    """(B, C, H, W) in [-1, 1] -> (B, hidden, H, W). A pixel sees those before it, and itself if "inclusive".

    "strict" is a decoder's mode, "inclusive" an encoder's. With `latent_dim` > 0 every group opens with attention over
    row latents z (B, T, D), T = H: a pixel of row r sees z_{<=r} where `latent_attention` is "causal", all of them
    where it is "full".
    """

    def __init__(self, config: PixelConfig, mode: str, latent_dim: int = 0, latent_attention: str = "causal") -> None:
        super().__init__()
        assert mode in MODES, mode
        assert latent_attention in ("causal", "full"), latent_attention
        self.latents_causal = latent_attention == "causal"
        self.head_size = config.hidden_size // config.num_heads
        self.row_positions = nn.Embedding(config.height, config.hidden_size)
        self.column_positions = nn.Embedding(config.width, config.hidden_size)
        self.vertical = DownConv(config.channels, config.hidden_size, config.kernel_size)
        self.horizontal = RightConv(config.channels, config.hidden_size, config.kernel_size, shift=mode == "strict")
        count = max(1, config.attention_layers)
        ends = [config.num_layers * (group + 1) // count for group in range(count)]
        sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        self.groups = nn.ModuleList(PixelGroup(config, group, size, latent_dim) for group, size in enumerate(sizes))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, x: Tensor, latents: Tensor | None = None, row_input: Tensor | None = None) -> Tensor:
        """`latents` (B, T, D); `row_input` (B, H, hidden) is added to every pixel of its row and may depend on z_r."""
        x = x.permute(0, 2, 3, 1)
        rows = None if latents is None else self._rows(latents, x.shape[2])
        positions = self.row_positions.weight[:, None] + self.column_positions.weight
        if row_input is not None:
            positions = positions + row_input[:, :, None]
        v, h = self.vertical(x) + positions, self.horizontal(x) + positions
        for group in self.groups:
            v, h = run(group, v, h, latents, rows)
        return self.norm(h).permute(0, 3, 1, 2)

    def _rows(self, latents: Tensor, width: int) -> AttentionLayout:
        """Pixels in raster order over the latents of the rows."""
        steps = torch.arange(latents.shape[1], device=latents.device)
        rows = steps.repeat_interleave(width)
        mask = (steps <= rows[:, None])[None] if self.latents_causal else None
        return AttentionLayout(Rotary(rows, self.head_size), Rotary(steps, self.head_size), 0, False, mask)


class PixelGroup(Recomputed):
    """Attention over the latents if there are any, gated layers, attention over the earlier pixels if there is any."""

    def __init__(self, config: PixelConfig, group: int, size: int, latent_dim: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.latent_attention = LatentAttention(config, group, latent_dim) if latent_dim else None
        self.latent_norm = nn.LayerNorm(hidden) if latent_dim else None
        self.layers = nn.ModuleList(PixelLayer(config) for _ in range(size))
        self.attention = SelfAttention(config, group) if config.attention_layers else None
        self.attention_norm = nn.LayerNorm(hidden) if config.attention_layers else None

    def forward(
        self, v: Tensor, h: Tensor, latents: Tensor | None, rows: AttentionLayout | None
    ) -> tuple[Tensor, Tensor]:
        """Vertical and horizontal stream, each (B, H, W, hidden) -> the same."""
        if self.latent_attention is not None and self.latent_norm is not None:
            assert latents is not None, "a stack with latent_dim > 0 needs latents"
            found = self.latent_attention(h.flatten(1, 2), latents, rows, None)
            h = self.latent_norm(h + found.view_as(h))
        for layer in self.layers:
            v, h = layer(v, h)
        if self.attention is not None and self.attention_norm is not None:
            attended = self.attention(h.flatten(1, 2), RASTER, None)
            h = self.attention_norm(h + attended.view_as(h))
        return v, h


class PixelLayer(nn.Module):
    """One gated layer of each stream; the horizontal one also reads the new vertical one, a row further up."""

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.vertical_norm = nn.LayerNorm(hidden)
        self.vertical = DownConv(hidden, hidden, config.kernel_size)
        self.vertical_gate = GatedResidual(config)
        self.above = nn.Linear(hidden, hidden, bias=False)
        self.horizontal_norm = nn.LayerNorm(hidden)
        self.horizontal = RightConv(hidden, hidden, config.kernel_size)
        self.horizontal_gate = GatedResidual(config)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        v = self.vertical_gate(v, self.vertical(self.vertical_norm(v)))
        above = down(self.above(v))
        return v, self.horizontal_gate(h, self.horizontal(self.horizontal_norm(h)) + above)


class GatedResidual(nn.Module):
    """x + a sigmoid(b), with (a, b) from the update by activation, dropout and a linear layer; pixel by pixel."""

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.dropout)
        self.output = ResidualLinear(config.hidden_size, 2 * config.hidden_size)

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        a, b = self.output(self.dropout(self.activation(update))).chunk(2, dim=-1)
        return x + a * b.sigmoid()


class DownConv(nn.Conv2d):
    """(B, H, W, in) -> (B, H, W, out): a pixel reads its own row and the `kernel_size` // 2 rows above, centred."""

    def __init__(self, channels: int, out: int, kernel_size: int) -> None:
        reach = kernel_size // 2
        super().__init__(channels, out, (reach + 1, kernel_size), padding=(0, reach))
        self.rows_above = reach

    def forward(self, x: Tensor) -> Tensor:
        return self.read(F.pad(x, (0, 0, 0, 0, self.rows_above, 0)))

    def read(self, x: Tensor) -> Tensor:
        """The same for rows given together with those above them: (B, R + rows_above, W, in) -> (B, R, W, out)."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class RightConv(nn.Conv2d):
    """(B, H, W, in) -> (B, H, W, out): a pixel reads itself and the `kernel_size` // 2 pixels to the left.

    With `shift` it reads one pixel further left, and so not itself.
    """

    def __init__(self, channels: int, out: int, kernel_size: int, shift: bool = False) -> None:
        reach = kernel_size // 2
        super().__init__(channels, out, (1, reach + 1))
        self.columns_left = reach
        self.shift = int(shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(F.pad(x, (0, 0, self.columns_left + self.shift, -self.shift)))

    def read(self, x: Tensor) -> Tensor:
        """The same for pixels given with what they read: (B, R, N + columns_left, in) -> (B, R, N, out)."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def down(x: Tensor) -> Tensor:
    """Shift (B, H, W, .) down by a row: row r becomes what row r - 1 was, row 0 is 0."""
    return F.pad(x, (0, 0, 0, 0, 1, -1))
