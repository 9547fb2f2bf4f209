"""Batches of images: in an order that resumes exactly for training, in their own order for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from delta_vae_lab.data.batch import check_position, rows_per_process
from delta_vae_lab.data.image_splits import Levels
from delta_vae_lab.modality import IMAGES, Modality
from delta_vae_lab.randomness import derive_seed


@dataclass(frozen=True)
class ImageBatch:
    """Images of one process, and each one's place.

    pixel_values: (b, C, H, W) uint8 levels. rows: in training the image's index in the global batch, in evaluation its
    index among the held-out images; neither depends on the number of processes.
    """

    pixel_values: Tensor
    rows: list[int]

    @property
    def modality(self) -> Modality:
        return IMAGES

    @property
    def steps(self) -> Tensor:
        """(b, H), all true: one latent a row."""
        batch, _, height, _ = self.pixel_values.shape
        return self.pixel_values.new_ones(batch, height, dtype=torch.bool)

    @property
    def units(self) -> Tensor:
        """(b,), dimensions: C x H x W of each."""
        return self.pixel_values.new_full(self.pixel_values.shape[:1], self.pixel_values[0].numel(), dtype=torch.int64)

    def inputs(self) -> dict[str, Tensor]:
        return {"pixel_values": self.pixel_values}

    def to(self, device: torch.device | str) -> ImageBatch:
        return replace(self, pixel_values=self.pixel_values.to(device, non_blocking=True))

    def part(self, rows: slice) -> ImageBatch:
        """Some of the images, each keeping its index."""
        return ImageBatch(self.pixel_values[rows], self.rows[rows])


class ImageBatches:
    """Endless training batches over images (N, C, H, W).

    An epoch's order follows from (seed, epoch) alone: a random permutation, whose end that fills no batch is left out
    (other images each epoch). With `horizontal_flips` half of them are mirrored, by (seed, epoch, place in the order).
    Of each global batch a process takes every `world_size`-th image, so neither the order nor the flips nor a position
    depends on the number of processes.
    """

    def __init__(
        self,
        images: Levels,
        *,
        batch_size: int,
        seed: int,
        horizontal_flips: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        rows_per_process(batch_size, world_size)
        if len(images) < batch_size:
            raise ValueError(
                f"{len(images)} training images do not fill one batch of batch_size={batch_size}; "
                f"use a smaller batch_size or more images"
            )
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.horizontal_flips = horizontal_flips
        self.rows = list(range(rank, batch_size, world_size))

    @property
    def batches_per_epoch(self) -> int:
        return len(self.images) // self.batch_size

    def iterate(self, position: dict[str, Any] | None = None) -> Iterator[tuple[ImageBatch, dict[str, Any]]]:
        """Batches without end, each with the JSON-serialisable position that resumes after it."""
        order = {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "horizontal_flips": self.horizontal_flips,
            "images": len(self.images),
        }
        position = position or {**order, "epoch": 0, "batch": 0}
        check_position(position, order)
        return self._iterate(position)

    def _iterate(self, position: dict[str, Any]) -> Iterator[tuple[ImageBatch, dict[str, Any]]]:
        first = position["batch"]
        for epoch in count(position["epoch"]):
            chosen, flipped = self._epoch(epoch)
            for index in range(first, self.batches_per_epoch):
                images = self.images[chosen[index, self.rows]]
                mirror = flipped[index, self.rows, None, None, None]
                pixel_values = torch.from_numpy(np.where(mirror, images[..., ::-1], images))
                yield ImageBatch(pixel_values, self.rows), {**position, "epoch": epoch, "batch": index + 1}
            first = 0

    def _epoch(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Which image stands at each place of each batch, and whether it is mirrored: (batches, batch_size) both."""
        shape = (self.batches_per_epoch, self.batch_size)
        order = np.random.default_rng(derive_seed(self.seed, "batches", epoch)).permutation(len(self.images))
        chosen = order[: shape[0] * shape[1]].reshape(shape)
        if not self.horizontal_flips:
            return chosen, np.zeros(shape, dtype=np.bool_)
        return chosen, np.random.default_rng(derive_seed(self.seed, "flips", epoch)).random(shape) < 0.5


def heldout_image_batches(images: Levels, batch_size: int, limit: int | None = None) -> Iterator[ImageBatch]:
    """Every image of the first `limit` exactly once, in order."""
    stop = len(images[:limit])
    for start in range(0, stop, batch_size):
        rows = list(range(start, min(start + batch_size, stop)))
        yield ImageBatch(torch.from_numpy(images[rows]), rows)
