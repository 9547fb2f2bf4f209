"""Drawing images pixel by pixel."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.utils import logging

from delta_vae_core import scaled
from delta_vae_decoders.pixel_likelihoods import PixelLikelihood

LONG = 1024  # pixels, from which a progress bar is of use


def draw_pixels(
    predict: Callable[[Tensor | None], PixelLikelihood],
    height: int,
    width: int,
    levels: int,
    *,
    temperature: float,
    generator: torch.Generator | None,
    progress: bool | None,
) -> Tensor:
    """Levels (B, C, H, W), uint8 where there are at most 256 of them, else int64.

    `predict` is asked for every pixel in raster order, given the value (B, C) in [-1, 1] of the one before, None for
    the first; it answers with a likelihood of 1 x 1 pixels.
    """
    if progress is None:
        progress = height * width >= LONG and sys.stderr.isatty()
    drawn: list[Tensor] = []
    last = None
    with logging.tqdm(total=height * width, desc="sampling", unit=" pixels", disable=not progress) as bar:
        for _ in range(height):
            for _ in range(width):
                drawn.append(predict(last).sample(generator, temperature))
                last = scaled(drawn[-1].flatten(1), levels)
            bar.update(width)
    dtype = torch.uint8 if levels <= 256 else torch.long
    return torch.cat(drawn, dim=-1).unflatten(-1, (height, width)).squeeze(2).to(dtype)


class FullReading:
    """For `draw_pixels`: the next pixel by reading the whole image (B, C, H, W) anew, of which the rest is blank."""

    def __init__(self, read: Callable[[Tensor], PixelLikelihood], blank: Tensor) -> None:
        self.read, self.pixels, self.index = read, blank, 0

    def __call__(self, last: Tensor | None) -> PixelLikelihood:
        width = self.pixels.shape[-1]
        if last is not None:
            row, column = divmod(self.index - 1, width)
            self.pixels[:, :, row, column] = last
        row, column = divmod(self.index, width)
        self.index += 1
        return self.read(self.pixels).pixel(row, column)
