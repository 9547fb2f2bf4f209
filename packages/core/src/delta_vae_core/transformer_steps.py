"""A causal Transformer stack run a step at a time, each step in constant work apart from attention.

A step is so little work that the time goes into starting operations and reading weights, so there are few operations:
keys and values lie in tensors made once, those of the latents are computed for all steps at the beginning, and a turn
of queries and keys is one complex product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delta_vae_core.attention import LatentAttention, SelfAttention
from delta_vae_core.rotary import Rotary
from delta_vae_core.step_layers import StepLinear, StepNorm
from delta_vae_core.transformer import Block, TransformerStack


class TransformerSteps:
    """`TransformerStack.forward` of a causal stack in evaluation mode: every call gives the features of the next step.

    `steps` is the most that will be read; `latents` (B, T, D) are the whole sequence's, T = steps where attention over
    them is causal, of which `latent_mask` (B, T) says what counts where it is full. The features are the stack's own up
    to rounding. There are no gradients: call it under `torch.no_grad`.
    """

    def __init__(
        self,
        stack: TransformerStack,
        batch: int,
        steps: int,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
    ) -> None:
        assert stack.direction == "causal", "a step of any other stack needs the future"
        assert not stack.training, "there is no dropout here: call eval() first"
        stack.check_length(steps)
        self.step = 0
        weight = stack.norm.weight
        every = max(steps, 0 if latents is None else latents.shape[1])
        turn = Rotary(torch.arange(every, device=weight.device), stack.head_size)
        turns = torch.complex(turn.cos, turn.sin)  # (steps, head size / 2)
        self.positions = None if stack.positions is None else stack.positions.weight
        self.blocks = [
            _Block(block, batch, steps, turns, self.positions is None, latents, latent_mask, stack.latents_causal)
            for block in stack.blocks
            if isinstance(block, Block)
        ]
        self.norm = StepNorm(stack.norm)

    def __call__(self, x: Tensor) -> Tensor:
        """Features (B, H) of the next step, given its input (B, H)."""
        if self.positions is not None:
            x = x + self.positions[self.step]
        for block in self.blocks:
            x = block(x, self.step)
        self.step += 1
        return self.norm(x)


class _Block:
    """A `Block`."""

    def __init__(
        self,
        block: Block,
        batch: int,
        steps: int,
        turns: Tensor,
        rotary: bool,
        latents: Tensor | None,
        latent_mask: Tensor | None,
        causal: bool,
    ) -> None:
        self.attention_norm = StepNorm(block.attention_norm)
        self.attention = _OverSteps(block.attention, batch, steps, turns if rotary else None)
        self.over_latents: _OverLatents | None = None
        if latents is not None:
            self.latent_norm = StepNorm(block.latent_norm)
            self.over_latents = _OverLatents(block.latent_attention, latents, latent_mask, turns, causal)
        self.mlp_norm = StepNorm(block.mlp_norm)
        self.inner, self.outer = StepLinear.of(block.mlp.inner, batch), StepLinear.of(block.mlp.output, batch)

    def __call__(self, x: Tensor, step: int) -> Tensor:
        x = self.attention(self.attention_norm(x), step).add_(x)
        if self.over_latents is not None:
            x = self.over_latents(self.latent_norm(x), step).add_(x)
        return self.outer(F.gelu(self.inner(self.mlp_norm(x)), approximate="tanh")).add_(x)


class _OverSteps:
    """`SelfAttention` of a step over itself and those before, whose keys and values are kept.

    For one query two products of matrices are faster than fused attention, with the keys stored (head, steps).
    """

    def __init__(self, attention: SelfAttention, batch: int, steps: int, turns: Tensor | None) -> None:
        hidden, heads = attention.output.in_features, attention.num_heads
        self.shape = (batch, 3, heads, hidden // heads)
        self.turns = turns
        turned = 0 if turns is None else 2
        self.qkv = StepLinear(*_prepared(attention.qkv, 3, heads, queries=1, turned=turned), batch)
        self.output = StepLinear.of(attention.output, batch)
        self.keys = attention.output.weight.new_empty(batch * heads, hidden // heads, steps)
        self.values = attention.output.weight.new_empty(batch * heads, steps, hidden // heads)

    def __call__(self, x: Tensor, step: int) -> Tensor:
        batch, _, heads, size = self.shape
        qkv = self.qkv(x).view(self.shape)
        if self.turns is not None:
            _turn_in_place(qkv[:, :2], self.turns[step])
        q, k, v = qkv.transpose(0, 1).reshape(3, batch * heads, 1, size).unbind()
        self.keys.narrow(2, step, 1).copy_(k.transpose(1, 2))
        self.values.narrow(1, step, 1).copy_(v)
        weights = torch.bmm(q, self.keys.narrow(2, 0, step + 1)).softmax(-1)
        attended = torch.bmm(weights, self.values.narrow(1, 0, step + 1))
        return self.output(attended.view(batch, -1))


class _OverLatents:
    """`LatentAttention` of a step over the latents up to its own, or over all that count."""

    def __init__(
        self, attention: LatentAttention, latents: Tensor, mask: Tensor | None, turns: Tensor, causal: bool
    ) -> None:
        (batch, steps, _), heads = latents.shape, attention.num_heads
        self.size, self.causal, self.turns = attention.output.in_features // heads, causal, turns
        self.query = StepLinear(*_prepared(attention.query, 1, heads, queries=1, turned=1), batch)
        self.output = StepLinear.of(attention.output, batch)
        weight, bias = _prepared(attention.key_value, 2, heads, queries=0, turned=1)
        both = F.linear(latents, weight, bias).view(batch, steps, 2, heads, self.size)
        _turn_in_place(both[:, :, :1], turns[:steps, None, None])
        keys, values = both.permute(2, 0, 3, 1, 4).flatten(1, 2)  # (B heads, T, head size)
        self.keys, self.values = keys.transpose(1, 2).contiguous(), values.contiguous()
        self.unseen: Tensor | None = None
        if mask is not None and not causal:
            self.unseen = ~mask.bool().repeat_interleave(heads, 0)[:, None]

    def __call__(self, x: Tensor, step: int) -> Tensor:
        q = self.query(x).view(len(x), -1, self.size)
        _turn_in_place(q, self.turns[step])
        seen = step + 1 if self.causal else self.values.shape[1]
        scores = torch.bmm(q.view(-1, 1, self.size), self.keys.narrow(2, 0, seen))
        if self.unseen is not None:
            scores = scores.masked_fill_(self.unseen, -torch.inf)
        attended = torch.bmm(scores.softmax(-1), self.values.narrow(1, 0, seen))
        return self.output(attended.view(len(x), -1))


def _prepared(linear: nn.Linear, parts: int, heads: int, *, queries: int, turned: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a projection to parts (parts, heads, head size), for use a step at a time.

    The first `queries` parts are divided by sqrt(head size), as attention would do. In the first `turned` of them what
    turns together, features i and i + head size / 2, is made neighbours: the real and the imaginary part of a complex
    number. Queries and keys are reordered alike, which their products do not notice.
    """
    size = linear.out_features // (parts * heads)
    order = torch.arange(size, device=linear.weight.device).view(2, -1).t().flatten()
    prepared = []
    for values in (linear.weight, linear.bias):
        split = values.detach().clone().view(parts, heads, size, *values.shape[1:])
        split[:turned] = split[:turned, :, order]
        split[:queries] *= size**-0.5
        prepared.append(split.flatten(0, 2))
    weight, bias = prepared
    return weight, bias


def _turn_in_place(x: Tensor, turn: Tensor) -> None:
    """Multiply (..., head size), pairs of neighbours taken as complex numbers, by (..., head size / 2)."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))  # there are no complex numbers of bfloat16
    torch.view_as_complex(exact.view(*x.shape[:-1], -1, 2)).mul_(turn)
    if exact is not x:
        x.copy_(exact)
