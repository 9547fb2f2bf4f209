"""CIFAR-10's binary archive, unpacked or not: its rows, its planes, and what is refused in one line."""

import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta_vae_lab.data import cifar10, load_images

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture
def images(noise: Callable[..., Any]) -> Any:
    """Two a file, the last two for the test."""
    return noise(12, 3, 32, 32)


@pytest.fixture
def folder(tmp_path: Path, images: Any) -> Path:
    folder = tmp_path / "somewhere/cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i, name in enumerate(FILES):
        rows = [bytes([label]) + images[2 * i + row].tobytes() for row, label in enumerate((0, 9))]
        (folder / name).write_bytes(b"".join(rows))
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, prefix + folder.name)
    return archive


def test_the_folder_what_holds_it_and_the_archive_are_the_same_images(
    tmp_path: Path, folder: Path, images: Any, digest: Callable[..., Any]
) -> None:
    archive = pack(folder, tmp_path / "cifar-10-binary.tar.gz")
    dotted = pack(folder, tmp_path / "again.tgz", prefix="./")
    for spec in (folder, folder.parent, archive, dotted):
        splits = load_images(str(spec))
        assert np.array_equal(splits.train, images[:10])
        assert np.array_equal(splits.heldout, images[10:])
        assert (splits.name, splits.levels) == ("cifar10-partial", 256)
        assert splits.fingerprint["source"] == "CIFAR-10, part of the binary version, held out: test_batch.bin"
        assert splits.fingerprint["train"] == digest(images[:10])


def test_a_row_is_a_label_and_the_planes_of_red_green_and_blue(folder: Path) -> None:
    row = bytes([3]) + b"".join(bytes([colour]) * 1024 for colour in (10, 20, 30))
    for name in FILES:
        (folder / name).write_bytes(row)
    splits = load_images(str(folder))
    assert splits.train.shape == (5, 3, 32, 32)
    assert [splits.train[:, c].min() for c in range(3)] == [splits.train[:, c].max() for c in range(3)] == [10, 20, 30]


def test_only_all_images_carry_the_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "ROWS", 2)
    splits = load_images(str(folder))
    assert splits.name == "cifar10"
    assert splits.fingerprint["source"] == "CIFAR-10, the binary version, held out: test_batch.bin"


def test_nothing_is_unpacked(tmp_path: Path, folder: Path) -> None:
    """A member that would be written elsewhere is not written at all, nor taken for one of the files."""
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
        evil = tarfile.TarInfo("../escaped.bin")
        evil.size = 4
        tar.addfile(evil, BytesIO(b"evil"))
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    load_images(str(archive))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("size", [0, 3072, 3073 * 2 + 1, 3073 * 10_001])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_the_wrong_size(tmp_path: Path, folder: Path, size: int, packed: bool) -> None:
    (folder / "data_batch_3.bin").write_bytes(bytes(size))
    spec = pack(folder, tmp_path / "cifar.tar.gz") if packed else folder
    with pytest.raises(
        ValueError, match=rf"data_batch_3.bin has {size:,} bytes; .* 10,000 rows of 3,073 bytes, 30,730,000 in all; get"
    ):
        load_images(str(spec))


def test_rows_that_are_none(folder: Path) -> None:
    (folder / "test_batch.bin").write_bytes(bytes([200]) * 3073)
    with pytest.raises(ValueError, match=r"test_batch.bin has a label 200; the labels of CIFAR-10 are 0 to 9"):
        load_images(str(folder))


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_missing(tmp_path: Path, folder: Path, packed: bool) -> None:
    (folder / "data_batch_4.bin").unlink()
    spec = pack(folder, tmp_path / "cifar.tar.gz") if packed else folder
    with pytest.raises(
        ValueError, match="has no data_batch_4.bin, which is part of CIFAR-10; get the whole cifar-10-bin"
    ):
        load_images(str(spec))


def test_a_damaged_archive(tmp_path: Path, folder: Path) -> None:
    archive = pack(folder, tmp_path / "cifar-10-binary.tar.gz")
    whole = archive.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "text": b"text",
        "empty": b"",
        "middle": whole[:5000] + b"xx" + whole[5002:],
    }
    for data in damaged.values():
        archive.write_bytes(data)
        with pytest.raises(
            ValueError, match=r"cannot be read as a .tar.gz archive \(.*get cifar-10-binary.tar.gz again"
        ):
            load_images(str(archive))


def test_the_pickled_version_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    for spec in (tmp_path, tmp_path / "cifar-10-batches-py", tmp_path / "cifar-10-python.tar.gz"):
        with pytest.raises(
            ValueError, match="in Python's pickle, which is not read; give the binary version cifar-10-bi"
        ):
            load_images(str(spec))


def test_it_is_not_resized(folder: Path) -> None:
    assert load_images(str(folder), size=32).name == "cifar10-partial"
    with pytest.raises(
        ValueError, match="data.size=16: cifar10-partial is 32x32 and is not resized; leave data.size out"
    ):
        load_images(str(folder), size=16)
