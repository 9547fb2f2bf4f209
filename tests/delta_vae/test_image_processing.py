"""The image processor: from pictures to levels and back, and what it refuses."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from delta_vae import DeltaVaeConfig, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig

H, W = 3, 4


def colours(seed: int = 0, channels: int = 3, count: int = 2) -> np.ndarray:
    """(N, C, H, W), 0 ... 255."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, H, W), dtype=np.uint8)


def levels_of(processor: DeltaVaeImageProcessor, images: Any) -> Tensor:
    pixel_values = processor(images)["pixel_values"]
    assert pixel_values.dtype == torch.uint8
    assert isinstance(pixel_values, Tensor)
    return pixel_values


def test_every_form_of_an_image_gives_the_same_levels() -> None:
    processor, x = DeltaVaeImageProcessor(H, W), colours()
    expected = torch.from_numpy(x)
    last = x.transpose(0, 2, 3, 1)
    pictures = [Image.fromarray(image) for image in last]
    batches = [x, expected, expected.long(), last, torch.from_numpy(last.copy()), list(x), list(expected), pictures]
    for batch in [*batches, [pictures[0], x[1]], x.astype(np.int64)]:
        assert torch.equal(levels_of(processor, batch), expected)
    for image in (x[0], expected[0], last[0], pictures[0]):
        assert torch.equal(levels_of(processor, image), expected[:1])
    assert isinstance(processor(x, return_tensors="np")["pixel_values"], np.ndarray)


def test_a_grey_image_may_have_no_channel_axis() -> None:
    processor, x = DeltaVaeImageProcessor(H, W, channels=1), colours(channels=1)
    expected = torch.from_numpy(x)
    for batch in (x, x.transpose(0, 2, 3, 1), list(x[:, 0]), [Image.fromarray(image[0]) for image in x]):
        assert torch.equal(levels_of(processor, batch), expected)
    assert torch.equal(levels_of(processor, x[0, 0]), expected[:1])


@pytest.mark.parametrize(
    ("levels", "input_levels", "x", "expected"),
    [
        (256, 256, [0, 1, 127, 255], [0, 1, 127, 255]),
        (17, 17, [0, 8, 16], [0, 8, 16]),
        (2, 256, [0, 127, 128, 255], [0, 0, 1, 1]),
        (4, 256, [63, 64, 191, 192, 255], [0, 1, 2, 3, 3]),
        (17, 256, [0, 15, 16, 255], [0, 0, 1, 16]),  # 15 * 17 / 256 = 0.996, 16 * 17 / 256 = 1.06
        (8, 17, [0, 2, 3, 16], [0, 0, 1, 7]),  # 2 * 8 / 17 = 0.94, 3 * 8 / 17 = 1.41
    ],
)
def test_levels_are_quantised_as_computed_by_hand(
    levels: int, input_levels: int, x: list[int], expected: list[int]
) -> None:
    processor = DeltaVaeImageProcessor(levels=levels, input_levels=input_levels)
    for array in (np.array(x), np.array(x, dtype=np.uint8), torch.tensor(x), torch.tensor(x, dtype=torch.uint8)):
        quantised = processor.quantize(array)
        assert quantised.tolist() == expected
        assert type(quantised) is type(array)
        assert str(quantised.dtype).endswith("uint8")


@pytest.mark.parametrize("levels", [2, 4, 8, 17, 256])
def test_every_level_is_used_alike_and_found_again_in_its_picture(levels: int) -> None:
    processor = DeltaVaeImageProcessor(1, levels, channels=1, levels=levels)
    share = np.bincount(processor.quantize(np.arange(256)), minlength=levels)
    assert share.max() - share.min() <= 1
    every = torch.arange(levels, dtype=torch.uint8).view(1, 1, 1, levels)
    [picture] = processor.postprocess(every)
    shown = [round(255 * level / (levels - 1)) for level in range(levels)]
    assert np.abs(np.asarray(picture)[0].astype(int) - shown).max() <= (0 if levels != 17 else 1)
    assert picture.getpixel((levels - 1, 0)) == 255
    assert torch.equal(levels_of(processor, picture), every)


def test_colour_pictures_come_back() -> None:
    processor, x = DeltaVaeImageProcessor(H, W), torch.from_numpy(colours())
    pictures = processor.postprocess(x)
    assert [picture.mode for picture in pictures] == ["RGB", "RGB"]
    assert pictures[0].size == (W, H)
    assert pictures[1].getpixel((2, 1)) == tuple(x[1, :, 1, 2].tolist())
    assert torch.equal(levels_of(processor, pictures), x)
    assert torch.equal(levels_of(processor, processor.postprocess(x[0])), x[:1])


def test_bits_per_dim_are_nats_by_channels_rows_columns_and_ln_2() -> None:
    """A uniform distribution over 256 levels costs 8 bits a dimension."""
    processor = DeltaVaeImageProcessor(H, W)
    assert processor.bits_per_dim(3 * H * W * math.log(256)) == pytest.approx(8)
    torch.testing.assert_close(
        processor.bits_per_dim(torch.tensor([0.0, math.log(2)])), torch.tensor([0, 1 / (3 * H * W)])
    )


def test_pictures_of_other_modes_are_converted() -> None:
    red = np.zeros((H, W, 3), dtype=np.uint8)
    red[..., 0] = 200
    picture = Image.fromarray(red)
    processor, grey = DeltaVaeImageProcessor(H, W), DeltaVaeImageProcessor(H, W, channels=1)
    expected = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, H, W)
    for same in (picture, picture.convert("RGBA"), picture.quantize(4), picture.convert("CMYK")):
        assert torch.equal(levels_of(processor, same), expected)
    # ITU-R 601: 0.299 of red.
    assert levels_of(grey, picture).unique().tolist() == [60]
    assert levels_of(processor, Image.new("L", (W, H), 7)).unique().tolist() == [7]
    assert levels_of(processor, Image.new("1", (W, H), 1)).unique().tolist() == [255]


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif, lying = Image.Exif(), colours()[0].transpose(1, 2, 0)
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    Image.fromarray(lying).save(tmp_path / "photograph.png", exif=exif)
    with Image.open(tmp_path / "photograph.png") as picture:
        found = levels_of(DeltaVaeImageProcessor(W, H), picture)
    assert np.array_equal(found[0], np.rot90(lying, k=-1).transpose(2, 0, 1))


def test_a_picture_is_cropped_to_its_centre_and_averaged_where_resizing_is_asked_for() -> None:
    stripes = np.zeros((8, 24), dtype=np.uint8)
    stripes[:, :8], stripes[:, 16:] = 255, 255  # outside the centre of 8 x 8
    stripes[::2, 8:16] = 100
    processor = DeltaVaeImageProcessor(2, 2, channels=1, resize=True)
    found = levels_of(processor, Image.fromarray(stripes))
    assert found.shape == (1, 1, 2, 2)
    assert (found.float() - 50).abs().max() <= 20  # rows of 100 and 0 averaged; picking rows would give 0 or 100
    untouched = colours(channels=1)[:1, :, :2, :2]
    assert levels_of(processor, Image.fromarray(untouched[0, 0])).tolist() == untouched.tolist()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (colours() / 255, r"images of dtype float64: give integers, such as \(x \* 255\).round\(\) of x in \[0, 1\]"),
        (torch.zeros(3, H, W), r"images of dtype torch.float32: give integers"),
        (torch.zeros(3, H, W, dtype=torch.bfloat16), r"images of dtype torch.bfloat16: give integers"),
        (np.zeros((3, H, W), dtype=bool), r"images of dtype bool: give integers"),
        (np.zeros((3, H, W), dtype=np.uint16), r"images of dtype uint16: give 8 bits a channel as uint8, x // 256 of"),
        (np.full((3, H, W), 256), r"value 256 is outside 0 ... 255: the processor has input_levels=256, give values"),
        (np.full((3, H, W), -1), r"value -1 is outside 0 ... 255"),
        (colours(channels=1), r"an image of shape \(1, 3, 4\) for a model of 3 x 3 x 4: give an array of that shape"),
        (colours()[..., 1:], r"an image of shape \(3, 3, 3\) for a model of 3 x 3 x 4"),
        (colours()[0, 0], r"an image of shape \(3, 4\) for a model of 3 x 3 x 4"),
        ([], r"no images were given: give at least one"),
        (Image.new("RGB", (W + 1, H)), r"an image of 5 x 3 pixels for a model of 4 x 3: .* resize=True"),
        (Image.new("I;16", (W, H)), r"a PIL image of mode 'I;16': give one of 8 bits a channel"),
        (Image.new("F", (W, H)), r"a PIL image of mode 'F': give one of 8 bits a channel"),
        (Image.new("RGBA", (W, H), (1, 2, 3, 0)), r"a PIL image of mode 'RGBA' with transparency: paste it on"),
    ],
)
def test_images_that_do_not_fit_are_a_one_line_error(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DeltaVaeImageProcessor(H, W)(images)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0}, "height=0: must be at least 1"),
        ({"levels": 1}, "levels=1 of input_levels=256: "),
        ({"levels": 17, "input_levels": 16}, "levels=17 of input_levels=16: "),
        ({"input_levels": 65536}, "levels=256 of input_levels=65536: "),
        ({"do_resize": True}, "DeltaVaeImageProcessor: unknown key 'do_resize'; known keys: height, width, channels"),
    ],
)
def test_a_processor_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeltaVaeImageProcessor(**arguments)


def test_what_cannot_be_shown_is_refused() -> None:
    processor = DeltaVaeImageProcessor(H, W, levels=4)
    for levels, message in (
        (torch.full((3, H, W), 4), r"value 4 is outside 0 ... 3: the processor has levels=4"),
        (torch.zeros(1, 1, H, W, dtype=torch.long), r"levels of shape \(1, 1, 3, 4\): give \(B, 3, 3, 4\)"),
        (torch.zeros(3, H, W), r"dtype torch.float32: give integers"),
    ):
        with pytest.raises(ValueError, match=message):
            processor.postprocess(levels)
    two = DeltaVaeImageProcessor(H, W, channels=2)
    assert levels_of(two, colours(channels=2)).shape == (2, 2, H, W)
    with pytest.raises(ValueError, match=r"channels=2: PIL images have 1 channel or 3; use arrays \(C, H, W\)"):
        two.postprocess(torch.zeros(2, H, W, dtype=torch.long))


@pytest.mark.slow
def test_it_is_made_for_a_model_and_loads_in_a_fresh_process(tmp_path: Path) -> None:
    decoder = ImageDecoderConfig(height=H, width=W, channels=1, levels=17, hidden_size=8, num_heads=2, latent_dim=0)
    processor = DeltaVaeImageProcessor.for_model(DeltaVaeConfig(decoder=decoder), input_levels=17)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings = {"height": H, "width": W, "channels": 1, "levels": 17, "input_levels": 17, "resize": False}
    assert saved == settings | {"image_processor_type": "DeltaVaeImageProcessor"}
    program = (
        "import sys, delta_vae; from transformers.models.auto.image_processing_auto import AutoImageProcessor;"
        "loaded = AutoImageProcessor.from_pretrained(sys.argv[1], resize=True);"
        "print(type(loaded) is delta_vae.DeltaVaeImageProcessor, loaded.levels, loaded.resize)"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "17", "True"], done.stderr
