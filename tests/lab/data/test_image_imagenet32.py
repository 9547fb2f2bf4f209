"""The two published versions of ImageNet 32x32: recognised, never confused, never called whole when they are not."""

import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta_vae_lab.data import imagenet32, load_images

Write = Callable[[Path, Any], list[Path]]


@pytest.fixture
def images(noise: Callable[..., Any]) -> Any:
    """Thirteen to train on and two to hold out."""
    return noise(15, 3, 32, 32)


@pytest.fixture
def oord(tmp_path: Path, images: Any, write_images: Write) -> Path:
    write_images(tmp_path / "oord/train_32x32", images[:13])
    write_images(tmp_path / "oord/valid_32x32", images[13:])
    return tmp_path / "oord"


def write_npz(folder: Path, name: str, images: Any, **arrays: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(1, len(images) + 1)
    np.savez(folder / f"{name}.npz", **{"data": images.reshape(len(images), -1), "labels": labels, **arrays})


@pytest.fixture(params=["flat", "two folders"])
def chrabaszcz(request: pytest.FixtureRequest, tmp_path: Path, images: Any) -> Path:
    """Batches of 1, ..., 1 and 4 images: batch 10 comes after batch 9, not after batch 1."""
    root = tmp_path / "chrabaszcz"
    train, val = (
        (root, root) if request.param == "flat" else (root / "Imagenet32_train_npz", root / "Imagenet32_val_npz")
    )
    for i in range(1, 11):
        write_npz(train, f"train_data_batch_{i}", images[i - 1 : i if i < 10 else 13], mean=np.zeros(3072))
    write_npz(val, "val_data", images[13:])
    return root


def batch(root: Path, name: str) -> Path:
    return next(root.rglob(f"{name}.npz"))


def test_the_png_folders_of_2016(oord: Path, images: Any, digest: Callable[..., Any]) -> None:
    splits = load_images(str(oord))
    assert np.array_equal(splits.train, images[:13])
    assert np.array_equal(splits.heldout, images[13:])
    assert splits.name == "imagenet32-2016-partial"
    assert splits.fingerprint == {
        "source": "ImageNet 32x32 of van den Oord et al. 2016, PNG files, held out: valid_32x32; "
        "13 of its 1,281,149 training and 2 of its 49,999 held-out images",
        "train": digest(images[:13]),
        "heldout": digest(images[13:]),
    }


def test_the_tar_files_of_2016_in_the_order_of_the_folders(oord: Path) -> None:
    """Whatever the order in the archive; what is no image in it is passed over."""
    unpacked = load_images(str(oord))
    (oord / "notes.txt").write_text("no image")
    for part in ("train_32x32", "valid_32x32"):
        with tarfile.open(oord / f"{part}.tar", "w") as tar:
            tar.add(oord / "notes.txt", f"{part}/notes.txt")
            for file in sorted((oord / part).iterdir(), reverse=True):
                tar.add(file, f"{part}/{file.name}")
                file.unlink()
        (oord / part).rmdir()
    packed = load_images(str(oord))
    assert packed.fingerprint == unpacked.fingerprint
    assert packed.name == unpacked.name


def test_the_npz_files_of_2017(chrabaszcz: Path, images: Any, digest: Callable[..., Any]) -> None:
    splits = load_images(str(chrabaszcz))
    assert np.array_equal(splits.train, images[:13])
    assert np.array_equal(splits.heldout, images[13:])
    assert splits.name == "imagenet32-2017-partial"
    assert splits.fingerprint == {
        "source": "ImageNet 32x32 of Chrabaszcz et al. 2017, box-resized, npz files, held out: val_data.npz; "
        "13 of its 1,281,167 training and 2 of its 50,000 held-out images",
        "train": digest(images[:13]),
        "heldout": digest(images[13:]),
    }


def test_only_the_published_counts_carry_the_name(
    oord: Path, chrabaszcz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("OORD_2016", "CHRABASZCZ_2017"):
        monkeypatch.setattr(imagenet32, constant, replace(getattr(imagenet32, constant), train=13, heldout=2))
    for root, name in ((oord, "imagenet32-2016"), (chrabaszcz, "imagenet32-2017")):
        splits = load_images(str(root))
        assert splits.name == name
        assert splits.fingerprint["source"].endswith(("held out: valid_32x32", "held out: val_data.npz"))
    (oord / "train_32x32/0003.png").write_bytes(b"")
    assert load_images(str(oord), skip_unreadable=True).name == "imagenet32-2016-partial"


def test_the_counts_that_were_published() -> None:
    assert (imagenet32.OORD_2016.train, imagenet32.OORD_2016.heldout) == (1_281_149, 49_999)
    assert (imagenet32.CHRABASZCZ_2017.train, imagenet32.CHRABASZCZ_2017.heldout) == (1_281_167, 50_000)


def test_a_broken_png_of_either_kind_is_named(oord: Path) -> None:
    (oord / "train_32x32/0003.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 15 images of data 'imagenet32-2016' .* first .*train_32x32/0003.png"):
        load_images(str(oord))
    with tarfile.open(oord / "train_32x32.tar", "w") as tar:
        tar.add(oord / "train_32x32", "train_32x32")
    (oord / "train_32x32").rename(oord / "elsewhere")
    with pytest.raises(
        ValueError, match=r"1 of 15 images .* first .*train_32x32.tar: train_32x32/0003.png \(not an im"
    ):
        load_images(str(oord))


def test_half_of_the_2016_version(oord: Path) -> None:
    (oord / "valid_32x32").rename(oord / "elsewhere")
    with pytest.raises(ValueError, match="has no valid_32x32; ImageNet 32x32 of 2016 is train_32x32 and valid_32x32"):
        load_images(str(oord))
    (oord / "valid_32x32").mkdir()
    with pytest.raises(ValueError, match=r"valid_32x32 holds no \*.png file; get valid_32x32.tar again"):
        load_images(str(oord))
    (oord / "valid_32x32").rmdir()
    (oord / "valid_32x32.tar").write_bytes(b"no archive" * 1000)
    with pytest.raises(ValueError, match="valid_32x32.tar cannot be read as a .tar archive"):
        load_images(str(oord))


@pytest.mark.parametrize("name", ["val_data", "train_data_batch_1"])
def test_files_of_the_2017_version_that_are_missing(chrabaszcz: Path, name: str) -> None:
    missing = batch(chrabaszcz, name)
    for i in range(1, 11) if name.startswith("train") else ():
        batch(chrabaszcz, f"train_data_batch_{i}").unlink()
    missing.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=f"{missing} is missing; ImageNet 32x32 of 2017 has"):
        load_images(str(chrabaszcz))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.array([b"an object", None], dtype=object), "its data is (2,) of object"),
        (np.zeros((2, 3072), dtype=np.float32), "its data is (2, 3072) of float32"),
        (np.zeros((2, 12288), dtype=np.uint8), "its data is (2, 12288) of uint8"),
    ],
)
def test_arrays_of_another_kind_are_refused_before_they_are_read(
    chrabaszcz: Path, images: Any, data: Any, reason: str
) -> None:
    file = batch(chrabaszcz, "train_data_batch_3")
    write_npz(file.parent, file.stem, images, data=data)
    message = f"{file} cannot be read ({reason}); it must hold an array data of (N, 3072) uint8, without pickle"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_images(str(chrabaszcz))


def test_pickled_labels_are_never_looked_at(chrabaszcz: Path, images: Any) -> None:
    file = batch(chrabaszcz, "val_data")
    write_npz(file.parent, file.stem, images[13:], labels=np.array([print], dtype=object))
    assert np.array_equal(load_images(str(chrabaszcz)).heldout, images[13:])


def test_damaged_npz_files(chrabaszcz: Path) -> None:
    file = batch(chrabaszcz, "val_data")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[1000] ^= 255
    for data in (b"", b"no archive", whole[: len(whole) // 2], bytes(flipped)):
        file.write_bytes(data)
        with pytest.raises(
            ValueError, match=rf"{file} cannot be read \(.+\); it must hold an array data of \(N, 3072\)"
        ):
            load_images(str(chrabaszcz))
    np.savez(file, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"val_data.npz cannot be read \(.*data.npy.*\); it must hold"):
        load_images(str(chrabaszcz))


def test_the_pickled_version_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "train_data_batch_1").write_bytes(b"pickle")
    with pytest.raises(
        ValueError, match="is ImageNet 32x32 in Python's pickle, .* Imagenet32_train_npz and Imagenet32_val"
    ):
        load_images(str(tmp_path))


def test_what_is_resized_says_so(oord: Path, chrabaszcz: Path) -> None:
    splits = load_images(str(oord), size=16)
    assert (splits.name, splits.shape) == ("imagenet32-2016-partial-resized-16x16", (3, 16, 16))
    with pytest.raises(ValueError, match="data.size=16: imagenet32-2017-partial is 32x32 and is not resized"):
        load_images(str(chrabaszcz), size=16)
