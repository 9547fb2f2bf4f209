"""The built-in images: the handwritten digits that scikit-learn carries, 8x8 at 17 levels of grey."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from delta_vae_lab.data.image_splits import ImageSplits, image_splits

NAME = "sklearn-digits"
LEVELS = 17
FIRST_HELDOUT = 1415  # the labels go through one sequence of some 130 digits again and again; a round begins here


def digits() -> ImageSplits:
    """1,415 images to train on and the last 382 to judge by, (1, 8, 8) each."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - it takes two seconds, which no other data should pay

    images = load_digits().images.astype(np.uint8)[:, None]
    train, heldout = images[:FIRST_HELDOUT], images[FIRST_HELDOUT:]
    source = f"sklearn.datasets.load_digits of scikit-learn {version('scikit-learn')}, the last {len(heldout)} held out"
    return image_splits(train, heldout, name=NAME, source=source, levels=LEVELS)
