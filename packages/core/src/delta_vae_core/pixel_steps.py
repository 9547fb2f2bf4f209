"""A causal pixel stack run a pixel at a time, in raster order, each pixel in constant work apart from attention.

The vertical stream is computed once a row, from the finished rows above; the horizontal stream once a pixel, from the
last few columns; attention reads the keys and values of the earlier pixels from a cache. A pixel is so little work that
the time goes into starting operations, so there are few: what belongs to a row (positions, what comes from above, the
latents' keys) is prepared at its start, windows are views made once, and a convolution is one product of matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delta_vae_core.attention import LatentAttention, SelfAttention
from delta_vae_core.pixels import PixelGroup, PixelLayer, PixelStack, RightConv
from delta_vae_core.rotary import Rotary
from delta_vae_core.step_layers import StepNorm


class PixelSteps:
    """`PixelStack.forward` of a "strict" stack in evaluation mode: every call gives the features of the next pixel.

    `latents` (B, T, D) and `row_input` (B, H, hidden) are the whole image's. The features are the stack's own up to
    rounding. There are no gradients: call it under `torch.no_grad`.
    """

    def __init__(
        self, stack: PixelStack, batch: int, latents: Tensor | None = None, row_input: Tensor | None = None
    ) -> None:
        assert stack.horizontal.shift, "a pixel of an inclusive stack needs itself"
        assert not stack.training, "there is no dropout here: call eval() first"
        rows, columns = stack.row_positions.weight, stack.column_positions.weight
        self.height, self.width = len(rows), len(columns)
        self.row, self.column = -1, self.width - 1
        self.pixels = _Columns(stack.horizontal, batch, self.width)
        self.vertical = stack.vertical
        self.finished = rows.new_zeros(batch, self.vertical.rows_above + 1, self.width, self.vertical.in_channels)
        self.positions = (rows[:, None] + columns).expand(batch, -1, -1, -1)  # (B, H, W, hidden)
        if row_input is not None:
            self.positions = self.positions + row_input[:, :, None]
        self.input: tuple[Tensor, ...] = ()
        self.groups = [_Group(stack, group, batch, latents) for group in stack.groups if isinstance(group, PixelGroup)]
        self.norm = StepNorm(stack.norm)

    def __call__(self, last: Tensor | None = None) -> Tensor:
        """Features (B, hidden) of the next pixel, given the value (B, C) in [-1, 1] of the one before it."""
        assert (last is None) == (self.row < 0), "every pixel but the first has one before it"
        if last is not None:
            self.pixels.slots[self.column].copy_(last)
        self.column += 1
        if self.column == self.width:
            self._start_row()
        h = self.pixels.read(self.column, self.input[self.column])
        for group in self.groups:
            h = group.pixel(h, self.row, self.column)
        return self.norm(h)

    def _start_row(self) -> None:
        self.row, self.column = self.row + 1, 0
        assert self.row < self.height, "the image is finished"
        v = None
        if self.row:
            self.finished = torch.cat((self.finished[:, 1:], self.pixels.row()[:, None]), dim=1)
            v = self.vertical.read(self.finished) + self.positions[:, self.row - 1 : self.row]
        self.input = (self.positions[:, self.row] + self.pixels.bias).unbind(1)
        for group in self.groups:
            v = group.start_row(v, self.row)


class _Columns:
    """What a `RightConv` reads: a row of pixels (B, in) after zeros, `slots` to write them to, windows to read.

    A new row overwrites the one before from left to right, and no window reaches beyond what is overwritten.
    """

    def __init__(self, conv: RightConv, batch: int, width: int) -> None:
        assert conv.bias is not None
        size, padding, window = conv.in_channels, conv.columns_left + conv.shift, conv.columns_left + 1
        self.shape = (batch, width, size)
        self.padded = conv.weight.new_zeros(batch, (padding + width) * size)
        self.slots = [self.padded[:, (padding + c) * size : (padding + c + 1) * size] for c in range(width)]
        self.windows = [self.padded[:, c * size : (c + window) * size] for c in range(width)]
        self.weight = conv.weight.squeeze(2).permute(2, 1, 0).flatten(0, 1).contiguous()  # (window * in, out)
        self.bias = conv.bias

    def read(self, column: int, added: Tensor) -> Tensor:
        """The convolution at a pixel, (B, out), with `added` in place of the bias."""
        return torch.addmm(added, self.windows[column], self.weight)

    def row(self) -> Tensor:
        """(B, W, in)."""
        _, width, size = self.shape
        return self.padded[:, -width * size :].view(self.shape)


class _Group:
    """A `PixelGroup`. The vertical stream is (B, 1, W, hidden), of the row above; None above the first row."""

    def __init__(self, stack: PixelStack, group: PixelGroup, batch: int, latents: Tensor | None) -> None:
        height, width = stack.row_positions.num_embeddings, stack.column_positions.num_embeddings
        self.width = width
        self.over_latents: _OverLatents | None = None
        self.over_pixels: _OverPixels | None = None
        if group.latent_attention is not None and group.latent_norm is not None:
            assert latents is not None, "a stack with latent_dim > 0 needs latents"
            self.over_latents = _OverLatents(
                group.latent_attention, group.latent_norm, latents, stack.latents_causal, height
            )
        if group.attention is not None and group.attention_norm is not None:
            self.over_pixels = _OverPixels(group.attention, group.attention_norm, batch, height * width)
        self.layers = [_Layer(layer, batch, width) for layer in group.layers if isinstance(layer, PixelLayer)]

    def start_row(self, v: Tensor | None, row: int) -> Tensor | None:
        if self.over_latents is not None:
            self.over_latents.start_row(row)
        if v is not None:
            for layer in self.layers:
                v = layer.start_row(v)
        return v

    def pixel(self, h: Tensor, row: int, column: int) -> Tensor:
        if self.over_latents is not None:
            h = self.over_latents.pixel(h)
        for layer in self.layers:
            h = layer.pixel(h, column)
        if self.over_pixels is not None:
            h = self.over_pixels.pixel(h, row * self.width + column)
        return h


class _Layer:
    """A `PixelLayer`."""

    def __init__(self, layer: PixelLayer, batch: int, width: int) -> None:
        self.layer = layer
        hidden = layer.above.in_features
        self.columns = _Columns(layer.horizontal, batch, width)
        self.rows = layer.above.weight.new_zeros(batch, layer.vertical.rows_above + 1, width, hidden)
        self.above = self.columns.bias.expand(batch, width, hidden).unbind(1)
        self.norm = StepNorm(layer.horizontal_norm)
        self.activation = layer.horizontal_gate.activation
        self.gate = _Linear(layer.horizontal_gate.output, batch)

    def start_row(self, v: Tensor) -> Tensor:
        layer = self.layer
        self.rows = torch.cat((self.rows[:, 1:], layer.vertical_norm(v)), dim=1)
        v = layer.vertical_gate(v, layer.vertical.read(self.rows))
        self.above = F.linear(v[:, 0], layer.above.weight, self.columns.bias).unbind(1)
        return v

    def pixel(self, h: Tensor, column: int) -> Tensor:
        self.columns.slots[column].copy_(self.norm(h))
        update = self.columns.read(column, self.above[column])
        return F.glu(self.gate(self.activation(update, inplace=True)), -1).add_(h)


class _OverPixels:
    """`SelfAttention` of a pixel over itself and those before, whose keys and values are kept, and the norm after it.

    For one query two products of matrices are faster than fused attention, with the keys stored (head, pixels).
    """

    def __init__(self, attention: SelfAttention, norm: nn.LayerNorm, batch: int, pixels: int) -> None:
        self.qkv, self.output = _Linear(attention.qkv, batch), _Linear(attention.output, batch)
        self.norm = StepNorm(norm)
        hidden = attention.output.in_features
        size = hidden // attention.num_heads
        self.qkv.scale(slice(hidden), size**-0.5)
        self.shape = (batch, 3, attention.num_heads, size)
        # With a power of 2 between its elements a column would fall on few of a CPU cache's sets.
        self.keys = attention.output.weight.new_empty(batch * attention.num_heads, size, pixels + 16)
        self.values = attention.output.weight.new_empty(batch * attention.num_heads, pixels, size)

    def pixel(self, h: Tensor, index: int) -> Tensor:
        """`index` counts the pixels before."""
        batch, _, heads, size = self.shape
        q, k, v = self.qkv(h).view(self.shape).transpose(0, 1).reshape(3, batch * heads, 1, size).unbind()
        self.keys.narrow(2, index, 1).copy_(k.transpose(1, 2))
        self.values.narrow(1, index, 1).copy_(v)
        weights = torch.bmm(q, self.keys.narrow(2, 0, index + 1)).softmax(-1)
        attended = torch.bmm(weights, self.values.narrow(1, 0, index + 1))
        return self.norm(self.output(attended.view(batch, -1)).add_(h))


class _OverLatents:
    """`LatentAttention` of a pixel over the latents of its row and those above, or of all rows, and the norm after it.

    Only distances count, so a row turns its keys by theirs, and its pixels need not turn their queries.
    """

    def __init__(
        self, attention: LatentAttention, norm: nn.LayerNorm, latents: Tensor, causal: bool, height: int
    ) -> None:
        batch = len(latents)
        self.query, self.output = _Linear(attention.query, batch), _Linear(attention.output, batch)
        self.norm = StepNorm(norm)
        self.causal, self.size = causal, attention.query.out_features // attention.num_heads
        both = attention.key_value(latents).view(batch, height, 2, attention.num_heads, self.size)
        self.every_key, self.every_value = both.permute(2, 0, 3, 1, 4).flatten(1, 2)  # (B heads, T, head)
        self.steps = torch.arange(height, device=latents.device)
        self.keys = self.values = self.every_value

    def start_row(self, row: int) -> None:
        end = row + 1 if self.causal else len(self.steps)
        turned = Rotary(self.steps[:end] - row, self.size)(self.every_key[:, :end])
        self.keys = (turned * self.size**-0.5).transpose(1, 2).contiguous()
        self.values = self.every_value[:, :end]

    def pixel(self, h: Tensor) -> Tensor:
        weights = torch.bmm(self.query(h).view(-1, 1, self.size), self.keys).softmax(-1)
        attended = torch.bmm(weights, self.values)
        return self.norm(self.output(attended.view(h.shape)).add_(h))


class _Linear:
    """`nn.Linear` of (B, in), without a module's overhead."""

    def __init__(self, linear: nn.Linear, batch: int) -> None:
        assert linear.bias is not None
        self.weight = linear.weight.t().contiguous()
        self.bias = linear.bias.repeat(batch, 1)

    def scale(self, outputs: slice, factor: float) -> None:
        """Multiply some of the outputs."""
        factors = torch.ones_like(self.bias[0])
        factors[outputs] = factor
        self.weight, self.bias = self.weight * factors, self.bias * factors

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)
