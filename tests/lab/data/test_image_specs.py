"""The built-in images, and specs that name no images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta_vae_lab.data import load_images


def test_the_builtin_digits(digest: Callable[..., Any]) -> None:
    splits = load_images("builtin")
    assert (len(splits.train), len(splits.heldout), splits.shape) == (1415, 382, (1, 8, 8))
    assert (splits.name, splits.levels) == ("sklearn-digits", 17)
    assert splits.train.dtype == splits.heldout.dtype == np.uint8
    assert (splits.train.min(), splits.train.max()) == (0, 16)
    assert splits.fingerprint["train"] == digest(splits.train)
    assert splits.fingerprint["source"].startswith("sklearn.datasets.load_digits of scikit-learn 1.")
    # The first digit of the data set is a zero: a ring with nothing in the middle.
    assert splits.train[0, 0, 3].tolist() == [0, 4, 12, 0, 0, 8, 8, 0]


def test_the_digits_are_cut_where_a_round_begins() -> None:
    """The labels go through one sequence again and again, which begins with the ten digits three times over."""
    from sklearn.datasets import load_digits

    labels = load_digits().target.tolist()
    ten = list(range(10))
    starts = [start for start in range(len(labels)) if labels[start : start + 30] == 3 * ten]
    assert len(load_images("builtin").train) in starts


def test_the_builtin_digits_are_not_resized() -> None:
    assert load_images("builtin", size=8).name == "sklearn-digits"
    with pytest.raises(ValueError, match="data.size=32: sklearn-digits is 8x8 and is not resized; leave data.size out"):
        load_images("builtin", size=32)


@pytest.mark.parametrize("spec", ["no/such/folder", "cifar.tar", "./nothing", "/nothing/here", "photo.png"])
def test_a_path_with_a_typo(spec: str) -> None:
    with pytest.raises(ValueError, match=f"^data '{spec}': no such file or folder, and not a name that a Hub data set"):
        load_images(spec)


@pytest.mark.parametrize("spec", ["cifar01", "nobody/nothing"])
def test_a_name_that_cannot_be_reached(spec: str) -> None:
    with pytest.raises(ValueError, match=f"data '{spec}': no such file or folder, and no Hub data set .* network"):
        load_images(spec)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "news.txt").write_text("one\ntwo\n")
    for folder in (tmp_path, tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=rf"{folder} holds no training images; give it image files \(.png, .jpg"):
            load_images(str(folder))
    (tmp_path / "test.png").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no training images"):
        load_images(str(tmp_path))


def test_one_file_is_no_set_of_images(tmp_path: Path) -> None:
    for name in ("photo.png", "news.txt", "train.parquet"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(
            ValueError, match=rf"{name}' is one file; give a folder of images or of \*.parquet files, or c"
        ):
            load_images(str(tmp_path / name))


def test_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no parquet")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_images(str(tmp_path))
