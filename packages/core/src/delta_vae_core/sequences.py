"""Right-padded sequences: lengths, masks and reversal."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths_to_mask(lengths: Tensor, steps: int | None = None) -> Tensor:
    """(B,) -> (B, L) bool, true where a step counts; L is `steps` or the longest length."""
    limit = int(lengths.max()) if steps is None else steps
    return torch.arange(limit, device=lengths.device) < lengths[:, None]


def check_right_padded(mask: Tensor) -> None:
    """Raise `ValueError` unless every row of the (B, L) mask is ones and then zeros."""
    if mask.shape[1] > 1 and bool((mask[:, 1:].bool() & ~mask[:, :-1].bool()).any()):
        row = int((mask[:, 1:].bool() & ~mask[:, :-1].bool()).any(1).nonzero()[0])
        raise ValueError(f"mask row {row} has a one after a zero: pad on the right (tokenizer.padding_side = 'right')")


def flip(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Reverse (B, L, ...) along L, each row within its own length; padding stays where it is."""
    if mask is None or (mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask.all())):
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    length = mask.sum(1, keepdim=True)
    index = torch.where(steps < length, length - 1 - steps, steps)
    return x.gather(1, index.reshape(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))


def check_token_ids(tokens: Tensor, vocab_size: int) -> None:
    """Raise `ValueError` unless every id of (B, L) is in the vocabulary; on an accelerator the kernel checks itself."""
    if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in tokens.aminmax())
        if low < 0 or high >= vocab_size:
            worst = low if low < 0 else high
            raise ValueError(f"token id {worst} is outside vocab_size={vocab_size}: use the model's own tokenizer")
