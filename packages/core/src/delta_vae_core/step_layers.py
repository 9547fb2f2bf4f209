"""What a stack that is run a step at a time has in place of its layers, and whether it may: it reads their weights."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_OUTPUTS = 128  # that a thread is worth starting for
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
    """`nn.Linear` of (batch, in), its weight laid out for reading it once, in float32 on a CPU.

    One row is a sum of the weight's rows, laid out as (in, out), or where there are fewer outputs than inputs as many
    dot products, and each thread has its part of the outputs. For several rows oneDNN, which torch is built with, has a
    layout of its own. Elsewhere the weight is read as it is.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, batch: int) -> None:
        self.weight, self.bias, self.parts = weight, bias, 1
        self._times = self._plain
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return
        outputs, inputs = weight.shape
        if batch == 1:
            parts = max(1, min(torch.get_num_threads(), outputs // LEAST_OUTPUTS))
            while outputs % parts:
                parts -= 1
            split = weight.view(parts, outputs // parts, inputs).mT
            self.weight = split.contiguous() if outputs >= inputs else split
            self.bias = None if bias is None else bias.view(parts, 1, -1)
            self.parts, self._times = parts, self._by_parts
        elif torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), batch)
            self._times = self._packed

    @classmethod
    def of(cls, linear: nn.Linear, batch: int) -> Self:
        """That of a layer as it is."""
        return cls(linear.weight, linear.bias, batch)

    def __call__(self, x: Tensor) -> Tensor:
        return self._times(x)

    def _plain(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def _by_parts(self, x: Tensor) -> Tensor:
        x = x.expand(self.parts, 1, -1)
        product = torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)
        return product.view(1, -1)

    def _packed(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product


class StepNorm:
    """`nn.LayerNorm`, without a module's overhead."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.weight, self.bias, self.eps = list(norm.normalized_shape), norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps)
