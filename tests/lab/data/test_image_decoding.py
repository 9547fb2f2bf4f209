"""One encoded image: read exactly, or refused with the reason."""

import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_vae_lab.data import image_decoding
from delta_vae_lab.data.image_decoding import EncodedImage, decode_images


@pytest.fixture
def colour(noise: Callable[..., Any]) -> Image.Image:
    return Image.fromarray(noise(4, 6, 3))


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decode(*data: bytes, **options: Any) -> Any:
    images = [EncodedImage(f"image {i}", lambda part=part: part) for i, part in enumerate(data)]
    return decode_images(images, len(images), name="these", **options)


def levels(image: Image.Image) -> Any:
    array = np.asarray(image)
    return array.transpose(2, 0, 1) if array.ndim == 3 else array[None]


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_come_back_level_by_level(colour: Image.Image, file_format: str, options: dict) -> None:
    pixels = decode(encoded(colour, file_format, **options)).pixels
    assert pixels.shape == (1, 3, 4, 6)
    assert np.array_equal(pixels[0], levels(colour))


def test_jpeg_is_what_pillow_makes_of_it(colour: Image.Image) -> None:
    data = encoded(colour, "JPEG")
    assert np.array_equal(decode(data).pixels[0], levels(Image.open(BytesIO(data))))


def test_grey_images_have_one_channel_unless_one_is_coloured(colour: Image.Image) -> None:
    grey = colour.convert("L")
    pixels = decode(encoded(grey), encoded(grey)).pixels
    assert pixels.shape == (2, 1, 4, 6)
    assert np.array_equal(pixels[1], levels(grey))
    for order in ((grey, colour), (colour, grey)):
        mixed = decode(*map(encoded, order)).pixels
        assert mixed.shape == (2, 3, 4, 6)
        assert np.array_equal(mixed[order.index(grey)], levels(grey).repeat(3, axis=0))
        assert np.array_equal(mixed[order.index(colour)], levels(colour))


def test_black_and_white_palettes_and_opaque_alpha_are_exact(colour: Image.Image) -> None:
    sharp = colour.convert("1")
    assert np.array_equal(decode(encoded(sharp)).pixels[0], levels(sharp.convert("L")))
    palette = colour.quantize(4)
    for file_format in ("PNG", "GIF"):
        assert np.array_equal(decode(encoded(palette, file_format)).pixels[0], levels(palette.convert("RGB")))
    for image in (colour, colour.convert("L")):
        assert np.array_equal(decode(encoded(with_alpha(image, 255))).pixels[0], levels(image))


def test_a_photograph_is_turned_upright(colour: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    turned = decode(encoded(colour, exif=exif)).pixels[0]
    assert np.array_equal(turned, np.rot90(levels(colour), k=-1, axes=(1, 2)))


def test_a_cameras_second_picture_is_left_alone(colour: Image.Image) -> None:
    data = encoded(colour, "MPO", save_all=True, append_images=[colour.rotate(180)])
    assert np.array_equal(decode(data).pixels[0], levels(Image.open(BytesIO(data))))


def sixteen_bit_rgb() -> bytes:
    """A PNG of one pixel, written by hand: Pillow does not write these."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = b"\0" + struct.pack(">HHH", 1, 256, 65535)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")


def with_alpha(image: Image.Image, alpha: int) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def animated(image: Image.Image, file_format: str) -> bytes:
    return encoded(image, file_format, save_all=True, append_images=[image.rotate(180)])


NO_IMAGE, CUT, SIXTEEN_BITS = "not an image, or broken at its beginning", "truncated|broken", "of 16 bits a channel"
REFUSED = {
    "16-bit RGB": (lambda image: sixteen_bit_rgb(), SIXTEEN_BITS),
    "16-bit grey": (lambda image: encoded(Image.new("I;16", (4, 4), 300)), SIXTEEN_BITS),
    "CMYK": (lambda image: encoded(image.convert("CMYK"), "JPEG"), "of mode CMYK, which has no exact form in 8 bits"),
    "animated GIF": (lambda image: animated(image, "GIF"), "an animation"),
    "animated PNG": (lambda image: animated(image, "PNG"), "an animation"),
    "animated WebP": (lambda image: animated(image, "WEBP"), "an animation"),
    "alpha": (lambda image: encoded(with_alpha(image, 254)), "partly transparent"),
    "palette": (lambda image: encoded(image.quantize(4), transparency=bytes([255, 0, 255, 255])), "partly transparent"),
    "key colour": (lambda image: encoded(image, transparency=image.getpixel((2, 1))), "partly transparent"),
    "other format": (lambda image: encoded(image, "TIFF"), NO_IMAGE),
    "nothing": (lambda image: b"", NO_IMAGE),
    "text": (lambda image: b"text", NO_IMAGE),
    "cut PNG": (lambda image: encoded(image)[:60], CUT),
    "cut JPEG": (lambda image: encoded(image, "JPEG")[:-40], CUT),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_exact_levels_is_refused_with_the_reason(colour: Image.Image, kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(
        ValueError, match=rf"^1 of 2 images of data 'these' cannot be read, first image 1 \(.*({reason})"
    ):
        decode(encoded(colour), make(colour))


@pytest.mark.parametrize("pixels", [30, 13])
def test_an_image_that_is_large_enough_to_be_an_attack(
    monkeypatch: pytest.MonkeyPatch, colour: Image.Image, pixels: int
) -> None:
    """Beyond Pillow's limit it warns, beyond twice that it raises; here both are refusals."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
    small, large = Image.new("RGB", (3, 4)), Image.new("RGB", (pixels, 1))
    with pytest.raises(ValueError, match=rf"1 of 2 images .* first image 1 \(Image size \({pixels} pixels\) exceeds"):
        decode(encoded(small), encoded(large))


def test_a_warning_filter_is_left_as_it_was(colour: Image.Image) -> None:
    before = list(warnings.filters)
    decode(encoded(colour))
    assert warnings.filters == before


def test_images_that_memory_cannot_hold() -> None:
    vast = encoded(Image.new("1", (1000, 1000)))
    images = (EncodedImage("image", lambda: vast) for _ in range(2**40))
    with pytest.raises(ValueError, match=r"images of 1000x1000 need \d+ GiB of memory, .* data.size=32, or another"):
        decode_images(images, 2**40, name="these")


def test_the_same_images_for_any_number_at_a_time(monkeypatch: pytest.MonkeyPatch, noise: Callable[..., Any]) -> None:
    images = noise(11, 2, 2, 3)
    data = [encoded(Image.fromarray(image)) for image in images]
    data[0] = data[4] = data[10] = b"broken"
    for chunk in (1, 3, 100):
        monkeypatch.setattr(image_decoding, "CHUNK", chunk)
        decoded = decode(*data, skip_unreadable=True)
        assert np.flatnonzero(~decoded.readable).tolist() == [0, 4, 10]
        assert np.array_equal(decoded.pixels, np.delete(images, [0, 4, 10], axis=0).transpose(0, 3, 1, 2))
