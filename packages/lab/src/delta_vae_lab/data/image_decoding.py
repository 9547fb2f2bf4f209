"""Encoded images decoded into one array of levels; what cannot be read exactly is counted and named."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from textwrap import shorten
from threading import Lock

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from delta_vae_lab.data.image_splits import ImageSplits, Levels, image_splits

# What Pillow may open: not a format that starts another program, nor one whose 16 bits it would cut down unasked.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "P", "PA")
THREADS = min(8, os.cpu_count() or 1)
CHUNK = 4096  # images handed to the threads at a time: bounds the tasks that wait

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """Bytes still to be read, and what an error calls them."""

    where: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class DecodedImages:
    """`pixels` (N, C, H, W): those that could be read, in order. `readable` (count,): which of all that were there.

    `resized` of them had another size than they have now.
    """

    pixels: Levels
    readable: npt.NDArray[np.bool_]
    resized: int

    def splits(self, first_heldout: int, *, name: str, source: str) -> ImageSplits:
        """Train on the images before `first_heldout`, an index among all, judge by the rest; say what was resized."""
        cut = int(self.readable[:first_heldout].sum())
        if self.resized:
            size = f"{self.pixels.shape[3]}x{self.pixels.shape[2]}"
            name, source = f"{name}-resized-{size}", f"{source}; {self.resized} images resized to {size}"
        unreadable = int(np.sum(~self.readable))
        splits = image_splits(self.pixels[:cut], self.pixels[cut:], name=name, source=source, unreadable=unreadable)
        return replace(splits, readable=self.readable)


def decode_images(
    images: Iterable[EncodedImage], count: int, *, name: str, size: int | None = None, skip_unreadable: bool = False
) -> DecodedImages:
    """Decode `count` images, C = 1 if all are grey and otherwise 3, into the one array that is returned.

    All must have one size, unless `size` is given: then those of another are resized (the shorter side to `size`, with
    antialiasing) and cut to the central `size` x `size`. An image is read exactly or not at all: 16 bits a channel,
    CMYK, transparency and animations are as unreadable as a broken file. One that cannot be read is an error, or with
    `skip_unreadable` left out and counted.
    """
    if not count:
        raise ValueError(f"data {name!r} has no images; it needs at least two")
    canvas = _Canvas(count, size)
    start, images = 0, iter(images)
    quiet = None if _first_process() else True  # None: not where there is no terminal
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=count, desc=f"reading {name}", unit="image", delay=5, disable=quiet, leave=False) as progress,
        warnings.catch_warnings(),
    ):
        # Pillow only warns of an image that is large enough to be an attack, up to twice that size.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        while chunk := list(islice(images, CHUNK)):
            for _ in pool.map(canvas.place, range(start, start + len(chunk)), chunk):
                progress.update()
            start += len(chunk)
    assert start == count
    readable = _check_readable(canvas.failures, count, name, skip_unreadable)
    _check_sizes(canvas.sizes, name)
    assert canvas.pixels is not None
    pixels = canvas.pixels if readable.all() else _closed_up(canvas.pixels, readable)
    pixels = pixels if canvas.coloured else np.ascontiguousarray(pixels[:, :1])
    return DecodedImages(pixels, readable, canvas.resized)


class _Canvas:
    """What the threads write to: the array that the first image to be decoded sizes, and what is known of the rest."""

    def __init__(self, count: int, size: int | None) -> None:
        self.count = count
        self.size = size
        self.pixels: Levels | None = None
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.failures: dict[int, str] = {}
        self.coloured = False
        self.resized = 0
        self.lock = Lock()

    def place(self, index: int, image: EncodedImage) -> None:
        try:
            picture = _open(image.read())
            resized = self.size is not None and picture.size != (self.size, self.size)
            if self.size is not None and resized:
                picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.BICUBIC)
            pixels = np.asarray(picture.convert("RGB"))
        except Exception as error:  # noqa: BLE001 - a broken file leads Pillow's decoders to raise almost anything
            with self.lock:
                self.failures[index] = f"{image.where} ({shorten(str(error), 120) or type(error).__name__})"
            return
        with self.lock:
            self.sizes[picture.size] += 1
            self.coloured |= picture.mode != "L"
            self.resized += resized
            if self.pixels is None:
                self.pixels = self._allocate(*pixels.shape)
        if pixels.shape == (*self.pixels.shape[2:], 3):
            self.pixels[index] = pixels.transpose(2, 0, 1)

    def _allocate(self, height: int, width: int, channels: int) -> Levels:
        try:
            return np.empty((self.count, channels, height, width), dtype=np.uint8)
        except MemoryError:
            gibibytes = self.count * channels * height * width / 2**30
            raise ValueError(
                f"{self.count} images of {width}x{height} need {gibibytes:.0f} GiB of memory, more than there is; "
                f"set data.size=32, or another size, to resize them"
            ) from None


def _open(data: bytes) -> Image.Image:
    """The image upright and loaded, in mode L or RGB, or an error that says why not."""
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError("not an image, or broken at its beginning") from None
    if image.format == "PNG" and data[24] == 16:  # Pillow would drop the lower byte of RGB
        raise ValueError("of 16 bits a channel, which 256 levels do not hold")
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise ValueError(f"of mode {image.mode}, which has no exact form in 8 bits of grey or RGB")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's MPO has a preview beside the image
        raise ValueError("an animation")
    mode = "L" if image.mode in GREY_MODES else "RGB"
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema() != (255, 255):
            raise ValueError("partly transparent")
    return upright.convert(mode)


def _check_readable(failures: dict[int, str], count: int, name: str, skip: bool) -> npt.NDArray[np.bool_]:
    readable = np.ones(count, dtype=np.bool_)
    if not failures:
        return readable
    first = failures[min(failures)]
    if len(failures) == count:
        raise ValueError(f"none of the {count} images of data {name!r} can be read, first {first}; check the data")
    if not skip:
        raise ValueError(
            f"{len(failures)} of {count} images of data {name!r} cannot be read, first {first}; "
            f"mend or remove them, or leave them out with data.skip_unreadable=true"
        )
    if _first_process():
        logger.warning(
            "%d of %d images of data %r cannot be read and are left out, first %s", len(failures), count, name, first
        )
    readable[list(failures)] = False
    return readable


def _check_sizes(sizes: Counter[tuple[int, int]], name: str) -> None:
    if len(sizes) > 1:
        listed = ", ".join(f"{count} of {width}x{height}" for (width, height), count in sizes.most_common(3))
        raise ValueError(
            f"data {name!r} has images of {len(sizes)} sizes: {listed}{', ...' if len(sizes) > 3 else ''}; give images "
            f"of one size, or set data.size=32, or another size, to resize them, which makes them another data set"
        )


def _closed_up(pixels: Levels, keep: npt.NDArray[np.bool_]) -> Levels:
    """`pixels[keep]` without a second array of that size."""
    kept: Sequence[int] = np.flatnonzero(keep).tolist()
    for place, index in enumerate(kept):
        pixels[place] = pixels[index]
    return pixels[: len(kept)]


def _first_process() -> bool:
    """Of the processes of a machine, which all read the same images, only the first speaks."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
