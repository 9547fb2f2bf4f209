"""What a stack that is run a step at a time has in place of its layers, and whether it may: it reads their weights."""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4  # rows
_BUILT_OF = ("torch.nn.modules.", "delta_vae_")


def layers_as_built(model: nn.Module) -> bool:
    """Whether reading the weights of every layer is the same as calling it.

    It is not where a layer was replaced, as by an adapter or a quantised one, or where something stands before it: a
    hook, or another `forward`, as of weights that are offloaded.
    """
    return all(
        f"{type(layer).__module__}.".startswith(_BUILT_OF)
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and "forward" not in vars(layer)
        for layer in model.modules()
    )


class StepLinear:
    """`nn.Linear` of (batch, in), its weight laid out for reading it once.

    For a few rows, and at least as many outputs as inputs, a CPU is given it as (in, out); else nothing is copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, batch: int) -> None:
        few = weight.device.type == "cpu" and batch <= FEW and weight.shape[0] >= weight.shape[1]
        self.weight = weight.t().contiguous().t() if few else weight
        self.bias = bias

    @classmethod
    def of(cls, linear: nn.Linear, batch: int) -> Self:
        """That of a layer as it is."""
        return cls(linear.weight, linear.bias, batch)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class StepNorm:
    """`nn.LayerNorm`, without a module's overhead."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.weight, self.bias, self.eps = list(norm.normalized_shape), norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
