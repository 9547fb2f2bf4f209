"""`DeltaVaeImageProcessor`: from images to the integer levels that a model predicts, and back."""

from __future__ import annotations

import math
import os
from typing import Any, Self, TypedDict, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import BaseImageProcessor, BatchFeature

from delta_vae.configuration_delta_vae import DeltaVaeConfig, is_installed, without_shim
from delta_vae_core.verified import verify_local

Array = TypeVar("Array", np.ndarray, Tensor)
PIL_MODES = {1: "L", 3: "RGB"}
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"}
# What transformers writes into, or passes along with, a processor beyond our own keys.
TRANSFORMERS_KEYS = {"auto_map", "feature_extractor_type", "image_processor_type", "processor_class"}


class DeltaVaeImagesKwargs(TypedDict, total=False):
    """What may be overridden on loading: `AutoImageProcessor.from_pretrained(folder, resize=True)`."""

    height: int
    width: int
    channels: int
    levels: int
    input_levels: int
    resize: bool


class DeltaVaeImageProcessor(BaseImageProcessor):
    """Images of `channels` x `height` x `width` with values 0 ... `input_levels` - 1 <-> levels 0 ... `levels` - 1.

    A model's bits per dimension are about its levels: quantising to fewer of them, or `resize`, which scales and
    centre-crops PIL images of another size, makes another data set with bits per dimension of its own.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - the form transformers reads
    valid_kwargs = DeltaVaeImagesKwargs  # type: ignore[assignment]  # our keys alone, so not a subclass of theirs

    def __init__(
        self,
        height: int = 32,
        width: int = 32,
        channels: int = 3,
        levels: int = 256,
        input_levels: int = 256,
        resize: bool = False,
        **kwargs: Any,
    ) -> None:
        unknown = sorted(kwargs.keys() - TRANSFORMERS_KEYS)
        if unknown:
            known = ", ".join(DeltaVaeImagesKwargs.__annotations__)
            raise ValueError(f"DeltaVaeImageProcessor: unknown key {unknown[0]!r}; known keys: {known}")
        super().__init__(**kwargs)
        for name, value in (("height", height), ("width", width), ("channels", channels)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if not 2 <= levels <= input_levels <= 256:
            raise ValueError(
                f"levels={levels} of input_levels={input_levels}: needs 2 <= levels <= input_levels <= 256"
            )
        self.height, self.width, self.channels = height, width, channels
        self.levels, self.input_levels, self.resize = levels, input_levels, resize

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Self:
        name = pretrained_model_name_or_path
        verify_local(name, kwargs.get("subfolder"), ["preprocessor_config.json"])
        loaded: Self = super().from_pretrained(name, *args, **kwargs)
        return loaded

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoImageProcessor") -> None:
        """For a class of one's own; those of this package are installed, not copied beside what is saved."""
        if not is_installed(cls):
            super().register_for_auto_class(auto_class)

    def to_dict(self) -> dict[str, Any]:
        """preprocessor_config.json, which names no shim."""
        return without_shim(super().to_dict())

    @classmethod
    def for_model(cls, config: DeltaVaeConfig, input_levels: int = 256) -> Self:
        """The processor of an image model, for images with values 0 ... `input_levels` - 1."""
        decoder = config.decoder
        if not hasattr(decoder, "image_shape"):
            raise ValueError(f"decoder.model_type={decoder.model_type!r}: a model of images is needed")
        channels, height, width = decoder.image_shape
        return cls(height, width, channels, decoder.levels, input_levels)

    # type: ignore: theirs also takes what this has no use for (videos, normalisation), which would go unnoticed.
    def __call__(self, images: Any, return_tensors: str | None = "pt") -> BatchFeature:  # type: ignore[override]
        """{"pixel_values": levels (B, C, H, W), uint8} from one image, a list of images, or a batch (B, C, H, W).

        An image is a PIL image, converted to the model's channels, or an integer array or tensor (C, H, W), (H, W, C)
        or (H, W), of the model's channels and size; where C = H = W it is read as (C, H, W).
        """
        if isinstance(images, Image.Image) or (hasattr(images, "ndim") and images.ndim < 4):
            images = [images]
        pixels = [self._pixels(image) for image in images]
        if not pixels:
            raise ValueError("no images were given: give at least one")
        return BatchFeature({"pixel_values": self.quantize(np.stack(pixels))}, tensor_type=return_tensors)

    preprocess = __call__

    def quantize(self, array: Array) -> Array:
        """floor(x * levels / input_levels) of integers x in 0 ... input_levels - 1, in uint8; any shape."""
        self._check_integer(array)
        self._check_range(array, self.input_levels, "input_levels")
        table = (np.arange(self.input_levels) * self.levels // self.input_levels).astype(np.uint8)
        same = self.levels == self.input_levels
        if isinstance(array, Tensor):
            return array.to(torch.uint8) if same else torch.from_numpy(table).to(array.device)[array.long()]
        return array.astype(np.uint8, copy=False) if same else table[array]

    def postprocess(self, levels: Tensor | np.ndarray) -> list[Image.Image]:
        """Levels (B, C, H, W) or (C, H, W) -> PIL images, level l shown as round(l * 255 / (levels - 1))."""
        mode = self._pil_mode()
        self._check_integer(levels)
        array: np.ndarray = levels.cpu().numpy() if isinstance(levels, Tensor) else levels
        array = array[None] if array.ndim == 3 else array
        if array.ndim != 4 or array.shape[1:] != (self.channels, self.height, self.width):
            raise ValueError(f"levels of shape {array.shape}: give (B, {self.channels}, {self.height}, {self.width})")
        self._check_range(array, self.levels, "levels")
        shown = np.rint(np.arange(self.levels) * (255 / (self.levels - 1))).astype(np.uint8)[array]
        return [Image.fromarray(image.transpose(1, 2, 0) if mode == "RGB" else image[0]) for image in shown]

    def bits_per_dim(self, nats: Array | float) -> Array | float:
        """Nats an image in bits a channel of a pixel: nats / (C H W ln 2)."""
        return nats / (self.channels * self.height * self.width * math.log(2))

    def _pixels(self, image: Any) -> np.ndarray:
        """One image as integers (C, H, W)."""
        if isinstance(image, Image.Image):
            return self._from_pil(image)
        image = image if isinstance(image, Tensor) else np.asarray(image)
        self._check_integer(image)
        if image.dtype.itemsize == 2:
            raise ValueError(f"images of dtype {image.dtype}: give 8 bits a channel as uint8, x // 256 of 16 bits")
        array: np.ndarray = image.cpu().numpy() if isinstance(image, Tensor) else image
        channels, height, width = wanted = (self.channels, self.height, self.width)
        if array.shape == wanted:
            return array
        if array.shape == (height, width, channels):
            return array.transpose(2, 0, 1)
        if channels == 1 and array.shape == (height, width):
            return array[None]
        raise ValueError(
            f"an image of shape {array.shape} for a model of {channels} x {height} x {width}: "
            "give an array of that shape, or a PIL image, which is converted, and resized with resize=True"
        )

    def _from_pil(self, image: Image.Image) -> np.ndarray:
        mode = self._pil_mode()
        if image.mode not in EIGHT_BIT_MODES:
            raise ValueError(f"a PIL image of mode {image.mode!r}: give one of 8 bits a channel, such as L or RGB")
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            raise ValueError(f"a PIL image of mode {image.mode!r} with transparency: paste it on a background first")
        image, size = ImageOps.exif_transpose(image).convert(mode), (self.width, self.height)  # upright, as it is seen
        if image.size != size:
            if not self.resize:
                raise ValueError(
                    f"an image of {image.width} x {image.height} pixels for a model of {self.width} x {self.height}: "
                    "resize it beforehand, or have the processor do so with resize=True"
                )
            image = ImageOps.fit(image, size, method=Image.Resampling.BICUBIC)  # averages over what it shrinks
        array = np.asarray(image)
        return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]

    def _pil_mode(self) -> str:
        if self.channels not in PIL_MODES:
            raise ValueError(f"channels={self.channels}: PIL images have 1 channel or 3; use arrays (C, H, W)")
        return PIL_MODES[self.channels]

    def _check_integer(self, array: np.ndarray | Tensor) -> None:
        if isinstance(array, Tensor):
            integer = not (array.is_floating_point() or array.is_complex() or array.dtype == torch.bool)
        else:
            integer = np.issubdtype(array.dtype, np.integer)
        if not integer:
            raise ValueError(
                f"images of dtype {array.dtype}: give integers, such as (x * {self.input_levels - 1}).round() "
                "of x in [0, 1] as uint8"
            )

    @staticmethod
    def _check_range(array: np.ndarray | Tensor, count: int, name: str) -> None:
        low, high = (int(array.min()), int(array.max())) if math.prod(array.shape) else (0, 0)
        if low < 0 or high >= count:
            worst = low if low < 0 else high
            raise ValueError(
                f"value {worst} is outside 0 ... {count - 1}: the processor has {name}={count}, "
                f"give values of that range or another {name}"
            )
