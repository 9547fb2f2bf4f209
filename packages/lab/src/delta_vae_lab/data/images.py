"""Images for a run: what one data spec names, split into training and held-out images, with a fingerprint."""

from __future__ import annotations

from pathlib import Path

from delta_vae_lab.data.cifar10 import ARCHIVE, find_cifar10, load_cifar10
from delta_vae_lab.data.digits import digits
from delta_vae_lab.data.hub_images import load_hub_images
from delta_vae_lab.data.image_files import load_image_files
from delta_vae_lab.data.image_splits import ImageSplits, not_resized
from delta_vae_lab.data.imagenet32 import find_imagenet32, load_imagenet32
from delta_vae_lab.data.spec import check_spec


def load_images(
    spec: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    column: str | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> ImageSplits:
    """Images from the built-in digits, a folder, CIFAR-10's archive or the Hub, all in memory.

    - `builtin`: scikit-learn's digits, 8x8 at 17 levels, on every machine (`./builtin` is a folder of that name).
    - CIFAR-10's binary version: the file `cifar-10-binary.tar.gz`, or the folder that it unpacks to.
    - ImageNet 32x32, by its layout: the PNG files of van den Oord et al. 2016, or the npz files of Chrabaszcz et al.
      2017. They are called `imagenet32-2016` and `imagenet32-2017`, and their figures cannot be compared.
    - a folder of parquet files as `datasets` lays them out, or a data set's name on the Hub with its `config` and
      `revision`: one image a row in `column`, which need not be given where only one column holds images.
    - any other folder of images: what is named `heldout`, or else `val` or `valid`, or else `test` is held out
      (the rest of these is not trained on); failing all, every twentieth image.

    CIFAR-10 and ImageNet 32x32 with images missing are called `...-partial`. Images of other sizes than `size` are
    resized and cropped to `size` x `size`, and then the name says so: they are another data set. With
    `skip_unreadable` images that cannot be read are left out, and the fingerprint counts them as `unreadable`.
    The fingerprint has the number of images and the SHA-256 of the levels of each split.
    """
    check_spec(spec)
    path = Path(spec).expanduser()
    if spec == "builtin":
        return not_resized(digits(), size)
    if (path.is_dir() or path.is_file()) and (archive := find_cifar10(path)):
        return not_resized(load_cifar10(archive), size)
    if path.is_file():
        raise ValueError(f"data {spec!r} is one file; give a folder of images or of *.parquet files, or {ARCHIVE}")
    if version := find_imagenet32(path):
        return load_imagenet32(path, version, size=size, skip_unreadable=skip_unreadable)
    if path.is_dir() and next(path.rglob("*.parquet"), None) is None:
        return load_image_files(path, size=size, skip_unreadable=skip_unreadable)
    return load_hub_images(
        str(path) if path.is_dir() else spec,
        config=config,
        revision=revision,
        column=column,
        size=size,
        skip_unreadable=skip_unreadable,
    )
