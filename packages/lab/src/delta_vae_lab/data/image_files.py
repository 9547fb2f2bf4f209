"""Image files in a folder: which are training images, which are held out, and how they are read."""

from __future__ import annotations

import re
from pathlib import Path

from delta_vae_lab.data.image_decoding import EncodedImage, decode_images
from delta_vae_lab.data.image_splits import ImageSplits, every_twentieth

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# In the order in which they are held out. A class of images may well be called "valley" or "testudo".
HELDOUT_KINDS = {
    "heldout*": re.compile(r"heldout(?![a-z])"),
    "val*": re.compile(r"val(id(ation)?)?(?![a-z])"),
    "test*": re.compile(r"test(ing)?(?![a-z])"),
}


def load_image_files(folder: Path, *, size: int | None = None, skip_unreadable: bool = False) -> ImageSplits:
    """Images at any depth; the first of heldout*, val* and test* among the folder's files and folders is held out.

    The rest of these is not trained on, all else is. With none of them every twentieth image is held out. A folder that
    holds nothing but another one stands for it.
    """
    train, heldout, source = _split(_root(folder))
    decoded = decode_images(
        (EncodedImage(str(file), file.read_bytes) for file in (*train, *heldout)),
        len(train) + len(heldout),
        name=folder.resolve().name,
        size=size,
        skip_unreadable=skip_unreadable,
    )
    return decoded.splits(len(train), name=folder.resolve().name, source=source)


def _root(folder: Path) -> Path:
    """The folder, or the one at the end of folders that hold one folder and nothing else."""
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    if len(visible) == 1 and visible[0].is_dir():
        return _root(visible[0])
    return folder


def _split(folder: Path) -> tuple[list[Path], list[Path], str]:
    kinds: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = "__MACOSX" in parts or any(part.startswith(".") for part in parts)
        if file.suffix.lower() in SUFFIXES and not hidden and file.is_file():
            kind = next((kind for kind, named in HELDOUT_KINDS.items() if named.match(parts[0].lower())), "train")
            kinds.setdefault(kind, []).append(file)
    train = kinds.pop("train", [])
    if not train:
        raise ValueError(
            f"{folder} holds no training images; give it image files ({', '.join(SUFFIXES)}), *.parquet files, "
            f"or the files of CIFAR-10 or ImageNet 32x32"
        )
    held = next((kind for kind in HELDOUT_KINDS if kind in kinds), None)
    if held is not None:
        return train, kinds[held], f"{len(train) + len(kinds[held])} image files, held out: {held}"
    train_rows, heldout_rows = every_twentieth(len(train))
    source = f"{len(train)} image files, held out: every 20th"
    return [train[row] for row in train_rows], [train[row] for row in heldout_rows], source
