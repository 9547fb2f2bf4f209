"""Folders of image files: what is trained on, what is held out, and one bad file among many."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_vae_lab.data import load_images

Write = Callable[[Path, Any], list[Path]]


def test_every_twentieth_image_is_held_out_of_a_plain_folder(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write, digest: Callable[..., Any]
) -> None:
    """In the order of the names, over all classes."""
    images = noise(45, 3, 6, 5)
    write_images(tmp_path / "shapes/circle", images[:25])
    write_images(tmp_path / "shapes/square", images[25:])
    splits = load_images(str(tmp_path / "shapes"))
    assert np.array_equal(splits.heldout, images[[19, 39]])
    assert np.array_equal(splits.train, np.delete(images, [19, 39], axis=0))
    assert (splits.name, splits.levels, splits.shape) == ("shapes", 256, (3, 6, 5))
    assert splits.fingerprint == {
        "source": "45 image files, held out: every 20th",
        "train": digest(splits.train),
        "heldout": digest(splits.heldout),
    }


def test_a_few_images_hold_out_the_last(tmp_path: Path, noise: Callable[..., Any], write_images: Write) -> None:
    images = noise(3, 1, 2, 2)
    write_images(tmp_path, images)
    splits = load_images(str(tmp_path))
    assert np.array_equal(splits.train, images[:2])
    assert np.array_equal(splits.heldout, images[2:])


@pytest.mark.parametrize("heldout", ["heldout", "Heldout-2/x", "val", "valid", "validation/dog", "test/a/b", "testing"])
def test_what_is_named_so_is_held_out(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write, heldout: str
) -> None:
    train, held = noise(3, 3, 2, 2), noise(2, 3, 2, 2)
    write_images(tmp_path / "train/cat", train)
    write_images(tmp_path / heldout, held)
    splits = load_images(str(tmp_path))
    assert np.array_equal(splits.train, train)
    assert np.array_equal(splits.heldout, held)


def test_file_names_count_too(tmp_path: Path, noise: Callable[..., Any], write_images: Write) -> None:
    images = noise(3, 3, 2, 2)
    for file, name in zip(write_images(tmp_path, images), ("train_1.png", "test_1.png", "TEST-2.PNG"), strict=True):
        file.rename(tmp_path / name)
    splits = load_images(str(tmp_path))
    assert np.array_equal(splits.train, images[:1])
    assert sorted(splits.heldout.tolist()) == sorted(images[1:].tolist())


def test_classes_whose_names_only_begin_so_are_trained_on(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    for name in ("testudo", "train", "valley", "validity"):
        write_images(tmp_path / name, noise(1, 3, 2, 2))
    splits = load_images(str(tmp_path))
    assert (len(splits.train), len(splits.heldout)) == (3, 1)
    assert splits.fingerprint["source"] == "4 image files, held out: every 20th"


def test_a_test_set_beside_a_validation_set_is_neither_trained_on_nor_held_out(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    images = noise(3, 3, 2, 2)
    for name, image in zip(("train", "test", "val"), images, strict=True):
        write_images(tmp_path / name, image[None])
    splits = load_images(str(tmp_path))
    assert np.array_equal(splits.train, images[:1])
    assert np.array_equal(splits.heldout, images[2:])
    assert splits.fingerprint["source"] == "2 image files, held out: val*"


def test_hidden_files_and_what_is_no_image_are_passed_over(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    write_images(tmp_path / "data", noise(2, 3, 2, 2))
    (tmp_path / "data/labels.csv").write_text("0,1")
    (tmp_path / "data/folder.png").mkdir()
    for junk in ("data/._0000.png", "data/.cache/0000.png", "data/__MACOSX/0000.png"):
        (tmp_path / junk).parent.mkdir(exist_ok=True)
        (tmp_path / junk).write_bytes(b"no image")
    splits = load_images(str(tmp_path / "data"))
    assert len(splits.train) + len(splits.heldout) == 2


# One bad file among many


def test_the_first_broken_file_is_named_and_all_are_counted(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    files = write_images(tmp_path / "data", noise(60, 3, 2, 2))
    for index in (31, 7, 50):
        files[index].write_bytes(files[index].read_bytes()[:-30])
    with pytest.raises(
        ValueError,
        match=r"^3 of 60 images of data 'data' cannot be read, first .*/data/0007.png \(.+\); "
        r"mend or remove them, or leave them out with data.skip_unreadable=true$",
    ):
        load_images(str(tmp_path / "data"))


def test_broken_files_are_left_out_and_counted_on_request(
    tmp_path: Path,
    noise: Callable[..., Any],
    write_images: Write,
    digest: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others stay on their side, wherever the broken ones lie."""
    images = noise(60, 3, 2, 2)
    files = write_images(tmp_path / "data", images)
    for index in (0, 7, 39):
        files[index].write_bytes(b"")
    splits = load_images(str(tmp_path / "data"), skip_unreadable=True)
    assert np.array_equal(splits.heldout, images[[19, 59]])
    assert np.array_equal(splits.train, np.delete(images, [0, 7, 19, 39, 59], axis=0))
    assert splits.fingerprint["unreadable"] == 3
    assert splits.fingerprint["train"] == digest(splits.train)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("3 of 60 images of data 'data' cannot be read and are left out, first ")
    assert "0000.png (not an image" in record.message


def test_only_the_first_process_warns(
    tmp_path: Path,
    noise: Callable[..., Any],
    write_images: Write,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_images(tmp_path, noise(3, 3, 2, 2))[0].write_bytes(b"")
    monkeypatch.setenv("LOCAL_RANK", "1")
    load_images(str(tmp_path), skip_unreadable=True)
    assert not caplog.records


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"none of the 2 images of data .* can be read, first .*a.png .*; check the data"
    ):
        load_images(str(tmp_path), skip_unreadable=True)


def test_a_held_out_part_of_which_nothing_can_be_read(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    write_images(tmp_path / "train", noise(2, 3, 2, 2))
    write_images(tmp_path / "test", noise(1, 3, 2, 2))[0].write_bytes(b"")
    with pytest.raises(ValueError, match="has no heldout images"):
        load_images(str(tmp_path), skip_unreadable=True)


# Sizes


def test_sizes_that_differ_are_counted_and_the_remedy_given(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    write_images(tmp_path / "train", noise(4, 3, 2, 2))
    write_images(tmp_path / "train/more", noise(2, 3, 2, 3))
    write_images(tmp_path / "test", noise(1, 3, 5, 4))
    with pytest.raises(
        ValueError, match="has images of 3 sizes: 4 of 2x2, 2 of 3x2, 1 of 4x5; give .* or set data.size=32, or another"
    ):
        load_images(str(tmp_path))


def test_resizing_averages_crops_to_the_centre_and_changes_the_name(tmp_path: Path, write_images: Write) -> None:
    """A checkerboard becomes grey, not a choice of its squares; what is left and right of the centre is cut off."""
    board = np.indices((32, 32)).sum(0) % 2 * 200
    wide = np.full((32, 64), 90)
    wide[:, 16:48] = board
    write_images(tmp_path / "boards", np.array([[board]] * 2, dtype=np.uint8))
    write_images(tmp_path / "boards/wide", np.array([[wide]], dtype=np.uint8))
    splits = load_images(str(tmp_path / "boards"), size=8)
    assert splits.shape == (1, 8, 8)
    for image in (*splits.train, *splits.heldout):
        assert np.abs(image[:, 1:-1, 1:-1].astype(int) - 100).max() <= 4
    assert splits.name == "boards-resized-8x8"
    assert splits.fingerprint["source"] == "3 image files, held out: every 20th; 3 images resized to 8x8"


def test_images_that_have_the_size_are_left_as_they_are(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    images = noise(4, 3, 5, 5)
    write_images(tmp_path / "data", images)
    splits = load_images(str(tmp_path / "data"), size=5)
    assert np.array_equal(np.concatenate([splits.train, splits.heldout]), images)
    assert splits.name == "data"
    Image.new("RGB", (9, 7)).save(tmp_path / "data/0004.png")
    splits = load_images(str(tmp_path / "data"), size=5)
    assert np.array_equal(splits.train, images)
    assert splits.name == "data-resized-5x5"
    assert splits.fingerprint["source"].endswith("; 1 images resized to 5x5")


def test_a_folder_around_the_folder_makes_no_difference(
    tmp_path: Path, noise: Callable[..., Any], write_images: Write
) -> None:
    write_images(tmp_path / "outer/cifar/train", noise(5, 3, 2, 2))
    write_images(tmp_path / "outer/cifar/test", noise(3, 3, 2, 2))
    for folder in (tmp_path, tmp_path / "outer", tmp_path / "outer/cifar"):
        splits = load_images(str(folder))
        assert (len(splits.train), len(splits.heldout)) == (5, 3)
