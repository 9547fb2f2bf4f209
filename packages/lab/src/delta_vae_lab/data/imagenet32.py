"""ImageNet 32x32 in the two versions that were published, which are different data sets: no figure holds for both."""

from __future__ import annotations

import lzma
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from delta_vae_lab.data.image_decoding import EncodedImage, decode_images
from delta_vae_lab.data.image_splits import ImageSplits, Levels, image_splits, not_resized


@dataclass(frozen=True)
class Version:
    """One of the published versions: what it is called, and how many images it has."""

    name: str
    description: str
    train: int
    heldout: int

    def identity(self, train: int, heldout: int) -> tuple[str, str]:
        """Name and source of so many images; only all of them carry the version's own name."""
        if (train, heldout) == (self.train, self.heldout):
            return self.name, self.description
        part = f"{train:,} of its {self.train:,} training and {heldout:,} of its {self.heldout:,} held-out images"
        return f"{self.name}-partial", f"{self.description}; {part}"


OORD_2016 = Version(
    "imagenet32-2016", "ImageNet 32x32 of van den Oord et al. 2016, PNG files, held out: valid_32x32", 1_281_149, 49_999
)
CHRABASZCZ_2017 = Version(
    "imagenet32-2017",
    "ImageNet 32x32 of Chrabaszcz et al. 2017, box-resized, npz files, held out: val_data.npz",
    1_281_167,
    50_000,
)

OORD_PARTS = ("train_32x32", "valid_32x32")
TRAIN_BATCHES = [f"train_data_batch_{i}" for i in range(1, 11)]
VAL_BATCH = "val_data"
NPZ_FOLDERS = ("Imagenet32_train_npz", "Imagenet32_val_npz")


def find_imagenet32(path: Path) -> Version | None:
    """The version that the folder is laid out as, if it is."""
    if any((path / part).is_dir() or (path / f"{part}.tar").is_file() for part in OORD_PARTS):
        return OORD_2016
    batches = [f"{name}.npz" for name in (*TRAIN_BATCHES, VAL_BATCH)]
    if any((path / folder).is_dir() for folder in NPZ_FOLDERS) or any((path / name).is_file() for name in batches):
        return CHRABASZCZ_2017
    if any((path / name).is_file() for name in (*TRAIN_BATCHES, VAL_BATCH)):
        raise ValueError(
            f"{path} is ImageNet 32x32 in Python's pickle, which is not read; give the npz version, "
            f"{NPZ_FOLDERS[0]} and {NPZ_FOLDERS[1]}"
        )
    return None


def load_imagenet32(
    path: Path, version: Version, *, size: int | None = None, skip_unreadable: bool = False
) -> ImageSplits:
    """All the images of that version, in memory as one uint8 array (N, 3, 32, 32): 3.9 GB."""
    if version is CHRABASZCZ_2017:
        return not_resized(_chrabaszcz_2017(path), size)
    return _oord_2016(path, size, skip_unreadable)


def _oord_2016(path: Path, size: int | None, skip_unreadable: bool) -> ImageSplits:
    """The folders, or the .tar files, train_32x32 and valid_32x32, in the order of the files' names."""
    train, heldout = (_oord_part(path, part) for part in OORD_PARTS)
    decoded = decode_images(
        [*train, *heldout],
        len(train) + len(heldout),
        name=OORD_2016.name,
        size=size,
        skip_unreadable=skip_unreadable,
    )
    readable = decoded.readable
    name, source = OORD_2016.identity(int(readable[: len(train)].sum()), int(readable[len(train) :].sum()))
    return decoded.splits(len(train), name=name, source=source)


def _chrabaszcz_2017(path: Path) -> ImageSplits:
    """The npz files train_data_batch_1 to 10 and val_data, in `path` or in the two folders that they unpack to."""
    train = [file for name in TRAIN_BATCHES if (file := _npz_file(path, name)).is_file()]
    val = _npz_file(path, VAL_BATCH)
    if not train or not val.is_file():
        missing = val if train else _npz_file(path, TRAIN_BATCHES[0])
        raise ValueError(
            f"{missing} is missing; ImageNet 32x32 of 2017 has train_data_batch_1 to 10.npz and val_data.npz; get both"
        )
    counts = [_npz_count(file) for file in (*train, val)]
    try:
        images = np.empty((sum(counts), 3, 32, 32), dtype=np.uint8)
    except MemoryError:
        raise ValueError(f"{path}: {sum(counts):,} images need more memory than there is; check its files") from None
    stops = np.cumsum(counts)
    for file, count, stop in zip((*train, val), counts, stops, strict=True):
        images[stop - count : stop] = _npz_images(file)
    first_heldout = sum(counts[:-1])
    name, source = CHRABASZCZ_2017.identity(first_heldout, counts[-1])
    return image_splits(images[:first_heldout], images[first_heldout:], name=name, source=source)


def _oord_part(path: Path, part: str) -> list[EncodedImage]:
    folder, archive = path / part, path / f"{part}.tar"
    if folder.is_dir():
        files = sorted(file for file in folder.rglob("*.png") if not file.name.startswith("."))
        images = [EncodedImage(str(file), file.read_bytes) for file in files]
    elif archive.is_file():
        images = [
            EncodedImage(f"{archive}: {name}", partial(_read_at, archive, offset, size))
            for name, offset, size in sorted(_png_members(archive))
        ]
    else:
        raise ValueError(f"{path} has no {part}; ImageNet 32x32 of 2016 is {OORD_PARTS[0]} and {OORD_PARTS[1]}")
    if not images:
        raise ValueError(f"{folder if folder.is_dir() else archive} holds no *.png file; get {part}.tar again")
    return images


def _png_members(archive: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each: with these, images are read in any order and by several threads."""
    try:
        with tarfile.open(archive, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would remember all 1.3 million
                name = Path(member.name).name
                if member.isreg() and name.endswith(".png") and not name.startswith("."):
                    yield member.name, member.offset_data, member.size
    except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{archive} cannot be read as a .tar archive ({reason}); get it again") from error


def _read_at(archive: Path, offset: int, size: int) -> bytes:
    with archive.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _npz_file(path: Path, name: str) -> Path:
    folder = path / NPZ_FOLDERS[name == VAL_BATCH]
    return (folder if folder.is_dir() else path) / f"{name}.npz"


# What zipfile and numpy raise of a file that is not what its name says; of one that is encrypted, or compressed in a
# way that they do not read, a RuntimeError.
_ZIP_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
)
_ZIP_ERRORS += (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError)


@contextmanager
def _npz_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except _ZIP_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{file} cannot be read ({reason}); it must hold an array data of (N, 3072) uint8, without pickle"
        ) from error


def _npz_count(file: Path) -> int:
    """N of the array data (N, 3072), by its header alone."""
    with _npz_errors(file), zipfile.ZipFile(file) as archive, archive.open("data.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if dtype != np.uint8 or len(shape) != 2 or shape[1] != 3072:
            raise ValueError(f"its data is {shape} of {dtype}")
        size = archive.getinfo("data.npy").file_size
        if not 0 <= 3072 * shape[0] <= size:
            raise ValueError(f"its data is {shape} of {dtype} in {size:,} bytes")
        return shape[0]


def _npz_images(file: Path) -> Levels:
    with _npz_errors(file), np.load(file, allow_pickle=False) as archive:
        return archive["data"].reshape(-1, 3, 32, 32)
