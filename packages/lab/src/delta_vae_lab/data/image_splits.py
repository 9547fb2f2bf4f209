"""Images to train on and images to judge by, with the name and fingerprint that every result carries."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.uint8]

HELDOUT_ONE_IN = 20  # every twentieth image, where the data has no held-out part of its own


@dataclass(frozen=True)
class ImageSplits:
    """Levels 0 ... levels - 1 in uint8 arrays (N, C, H, W). Every result carries their `name` and `fingerprint`.

    `readable`: which images of the data these are, training images first; None is all of them.
    """

    train: Levels
    heldout: Levels
    levels: int
    name: str
    fingerprint: dict[str, Any]
    readable: npt.NDArray[np.bool_] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of every image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width


def image_splits(
    train: Levels, heldout: Levels, *, name: str, source: str, levels: int = 256, unreadable: int = 0
) -> ImageSplits:
    """The splits with their fingerprint: the number of images and the SHA-256 of the levels of each."""
    for split, images in (("train", train), ("heldout", heldout)):
        if not len(images):
            raise ValueError(f"data {name!r} has no {split} images ({source}); it needs at least one of each split")
        assert images.dtype == np.uint8
        assert images.shape[1:] == train.shape[1:]
        assert levels == 256 or images.max() < levels
    fingerprint = {"source": source, "train": _digest(train), "heldout": _digest(heldout)}
    return ImageSplits(train, heldout, levels, name, fingerprint | ({"unreadable": unreadable} if unreadable else {}))


def not_resized(images: ImageSplits, size: int | None) -> ImageSplits:
    """The images, if that is the size they have: those that come as levels of one published size keep it."""
    _, height, width = images.shape
    if size is not None and (size, size) != (height, width):
        raise ValueError(f"data.size={size}: {images.name} is {width}x{height} and is not resized; leave data.size out")
    return images


def every_twentieth(count: int) -> tuple[list[int], list[int]]:
    """Which of `count` images to train on, and which to hold out: the 20th, the 40th ..., or the last of fewer.

    Images often lie class by class, where the last 5 % would be one class.
    """
    heldout = list(range(HELDOUT_ONE_IN - 1, count, HELDOUT_ONE_IN)) or list(range(max(count - 1, 0), count))
    return np.delete(np.arange(count), heldout).tolist(), heldout


def _digest(images: Levels) -> dict[str, Any]:
    return {"images": len(images), "sha256": sha256(images.reshape(-1).data).hexdigest()}
