"""Images as integer levels: what is accepted, their scale and their rotation."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(x: Tensor, shape: tuple[int, int, int], levels: int) -> None:
    """Raise `ValueError` unless x is (B, *shape), shape = (C, H, W), of integers in 0 ... levels - 1.

    On an accelerator, or in a compiled model, the range is not looked at: that would wait for the device.
    """
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        channels, height, width = shape
        raise ValueError(
            f"images of shape {tuple(x.shape)} for a model of {channels} x {height} x {width}: "
            "give (batch, channels, height, width), converted and resized beforehand"
        )
    if x.is_floating_point() or x.is_complex():
        raise ValueError(f"images of dtype {x.dtype}: give integer levels 0 ... {levels - 1}, not scaled values")
    if x.device.type == "cpu" and x.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in x.aminmax())
        if low < 0 or high >= levels:
            worst = low if low < 0 else high
            raise ValueError(f"level {worst} is outside 0 ... {levels - 1}: quantise the images to levels={levels}")


def scaled(x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels 0 ... levels - 1 -> evenly spaced reals from -1 to 1."""
    return x.to(dtype) * (2 / (levels - 1)) - 1


def rotate(x: Tensor) -> Tensor:
    """Turn (B, C, H, W) by 180 degrees: the raster order is reversed."""
    return x.flip(2, 3)
