"""Activation checkpointing: a layer's activations are not kept but computed anew for its gradient."""

from __future__ import annotations

from typing import Any

from torch import nn


class Recomputed(nn.Module):
    """A layer of which `PreTrainedModel.activation_checkpointing_enable` may ask that."""

    gradient_checkpointing = False  # the name that transformers sets, with the function


def run(layer: nn.Module, *inputs: Any) -> Any:
    """`layer(*inputs)`, which keeps nothing but its inputs for the gradient where that is asked for."""
    if layer.training and getattr(layer, "gradient_checkpointing", False):
        return layer._gradient_checkpointing_func(layer, *inputs)  # type: ignore[operator]  # transformers sets it
    return layer(*inputs)
