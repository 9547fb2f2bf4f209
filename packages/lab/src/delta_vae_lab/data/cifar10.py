"""CIFAR-10's official binary archive, unpacked or as the .tar.gz file that it is published as."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delta_vae_lab.data.image_splits import ImageSplits, Levels, image_splits

NAME = "cifar10"
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]
HELDOUT = "test_batch.bin"
ROWS = 10_000  # of each file
ROW_BYTES = 1 + 3 * 32 * 32  # the label, then the planes of red, green and blue
PICKLED_FOLDER, PICKLED_ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"


def find_cifar10(path: Path) -> Path | None:
    """The folder of the binary files, or the archive, if `path` is or holds one."""
    for folder in (path, path / FOLDER):
        if any((folder / name).is_file() for name in (*TRAIN, HELDOUT)):
            return folder
    if path.name in (PICKLED_FOLDER, PICKLED_ARCHIVE) or (path / PICKLED_FOLDER).is_dir():
        raise ValueError(f"{path} is CIFAR-10 in Python's pickle, which is not read; give the binary version {ARCHIVE}")
    return path if path.is_file() and path.name.endswith((".tar.gz", ".tgz")) else None


def load_cifar10(path: Path) -> ImageSplits:
    """50,000 images to train on and 10,000 to judge by, (3, 32, 32) each; the name says so where there are fewer."""
    files = dict(_archive_files(path) if path.is_file() else _folder_files(path))
    if missing := [name for name in (*TRAIN, HELDOUT) if name not in files]:
        raise ValueError(f"{path} has no {missing[0]}, which is part of CIFAR-10; get the whole {ARCHIVE}")
    rows = {name: _rows(path / name, files[name]) for name in (*TRAIN, HELDOUT)}
    train, heldout = np.concatenate([rows[name] for name in TRAIN]), rows[HELDOUT]
    whole = len(train) == 5 * ROWS and len(heldout) == ROWS
    source = f"CIFAR-10, {'' if whole else 'part of '}the binary version, held out: {HELDOUT}"
    return image_splits(train, heldout, name=NAME if whole else f"{NAME}-partial", source=source)


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in (*TRAIN, HELDOUT):
        if (folder / name).is_file():
            _check_size(folder / name, (folder / name).stat().st_size)
            yield name, (folder / name).read_bytes()


def _archive_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The six files, read from where they lie in the archive: nothing is unpacked."""
    members = {f"{FOLDER}/{name}": name for name in (*TRAIN, HELDOUT)}
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = members.get(member.name.removeprefix("./"))
                if name and member.isreg():
                    _check_size(archive / name, member.size)
                    file = tar.extractfile(member)
                    assert file is not None
                    yield name, file.read()
            while stream.read(2**20):  # to its end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError, OverflowError, MemoryError) as error:
        raise ValueError(f"{archive} cannot be read as a .tar.gz archive ({error}); get {ARCHIVE} again") from error


def _check_size(file: Path, size: int) -> None:
    if not size or size % ROW_BYTES or size > ROWS * ROW_BYTES:
        raise ValueError(
            f"{file} has {size:,} bytes; a CIFAR-10 file has up to {ROWS:,} rows of {ROW_BYTES:,} bytes, "
            f"{ROWS * ROW_BYTES:,} in all; get {ARCHIVE} again"
        )


def _rows(file: Path, data: bytes) -> Levels:
    """Rows of a label and 3,072 levels -> (N, 3, 32, 32)."""
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, ROW_BYTES)
    if (label := rows[:, 0].max()) > 9:
        raise ValueError(f"{file} has a label {label}; the labels of CIFAR-10 are 0 to 9; get {ARCHIVE} again")
    return rows[:, 1:].reshape(-1, 3, 32, 32)
