"""The image files of a run, drawn by a small untrained model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from delta_vae import DeltaVaeConfig, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig
from delta_vae_encoders import ImageEncoderConfig
from delta_vae_lab.image_grid import Block
from delta_vae_lab.image_samples import COLUMNS, STEPS, Painter, write_image_samples
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

CHANNELS, HEIGHT, WIDTH, LEVELS = 1, 6, 3, 5


def build(
    latent_dim: int = 2, auxiliary: bool = True, channels: int = CHANNELS, likelihood: str = "mixture"
) -> DeltaVaeForImageGeneration:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "channels": channels,
        "height": HEIGHT,
        "width": WIDTH,
        "levels": LEVELS,
        "hidden_size": 8,
        "num_layers": 1,
        "attention_layers": 0,
        "num_heads": 2,
        "latent_dim": latent_dim,
    }
    decoder = ImageDecoderConfig(**sizes, components=2, add_latents=True, likelihood=likelihood)
    if not latent_dim:
        return DeltaVaeForImageGeneration(DeltaVaeConfig(decoder=decoder))
    config = DeltaVaeConfig(
        prior=AR1PriorConfig(latent_dim=latent_dim, alpha=0.9),
        encoder=ImageEncoderConfig(**sizes, statistics_std=0.5),
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=4) if auxiliary else None,
    )
    return DeltaVaeForImageGeneration(config)


def levels(count: int, channels: int = CHANNELS) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, LEVELS, (count, channels, HEIGHT, WIDTH), dtype=np.uint8)


def write(
    folder: Path, model: DeltaVaeForImageGeneration, heldout: npt.NDArray[np.uint8], seed: int = 0
) -> dict[str, bytes]:
    processor = DeltaVaeImageProcessor.for_model(model.config)
    generator = torch.Generator().manual_seed(seed)
    write_image_samples(folder, model, processor, heldout, data="reference", generator=generator, count=16)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_every_kind_of_grid_is_a_picture(channels: int, mode: str, tmp_path: Path) -> None:
    files = write(tmp_path, build(channels=channels).train(), levels(9, channels))
    stems = ("fixed_z", "interpolations", "reconstructions", "samples_auxiliary", "samples_prior")
    assert list(files) == [f"{stem}.png" for stem in stems]
    for name in files:
        with Image.open(tmp_path / name) as image:
            image.load()
            assert image.mode == mode
    assert len(set(files.values())) == len(files)


def test_a_generator_decides_the_grids_and_nothing_else_changes(tmp_path: Path) -> None:
    model, heldout = build().train(), levels(9)
    kept, state = heldout.copy(), torch.random.get_rng_state()
    first, again, other = (write(tmp_path / str(i), model, heldout, seed) for i, seed in enumerate((0, 0, 1)))
    assert first == again
    assert all(first[name] != other[name] for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    np.testing.assert_array_equal(heldout, kept)


def test_models_without_auxiliary_prior_or_latents_draw_what_they_can(tmp_path: Path) -> None:
    without_auxiliary = write(tmp_path / "a", build(auxiliary=False), levels(9))
    assert list(without_auxiliary) == ["fixed_z.png", "interpolations.png", "reconstructions.png", "samples_prior.png"]
    assert list(write(tmp_path / "b", build(latent_dim=0), levels(9))) == ["samples_decoder.png"]


def test_one_held_out_image_has_no_next_to_go_to(tmp_path: Path) -> None:
    files = write(tmp_path, build(), levels(1))
    assert "interpolations.png" not in files
    assert "reconstructions.png" in files


@pytest.fixture
def painter() -> Painter:
    """Of a model that draws one image from a z, whatever the generator, and another one from another z."""
    model = build(latent_dim=4, likelihood="categorical").eval()
    with torch.no_grad():
        model.encoder.statistics.weight *= 30
        model.decoder.latent_embedding.weight *= 10
        model.decoder.head.weight *= 1e5
    return Painter(model, DeltaVaeImageProcessor.for_model(model.config), torch.Generator().manual_seed(0))


def shown(block: Block) -> npt.NDArray[np.uint8]:
    """Its images in levels: (rows, columns, C, H, W)."""
    images = np.stack([[np.asarray(image) for image in row] for row in block.rows])
    return np.rint(images / 255 * (LEVELS - 1)).astype(np.uint8)[:, :, None]


def test_a_row_of_fixed_z_is_decoded_from_the_one_z_of_its_image(painter: Painter) -> None:
    images = levels(4)
    with torch.no_grad():
        held_out, decoded = (shown(block) for block in painter.fixed_z(images))
    np.testing.assert_array_equal(held_out, images[:, None])
    assert decoded.shape[:2] == (4, COLUMNS)
    np.testing.assert_array_equal(decoded, decoded[:, :1].repeat(COLUMNS, axis=1))
    seeded = torch.Generator().manual_seed(0)
    expected = painter.model.reconstruct(torch.from_numpy(images), sample=True, generator=seeded)
    np.testing.assert_array_equal(decoded[:, 0], expected.numpy())
    assert len(np.unique(expected, axis=0)) == 4


def test_reconstructions_stand_beside_what_they_are_of(painter: Painter) -> None:
    images = levels(6)
    with torch.no_grad():
        blocks = [shown(block) for block in painter.reconstructions(images[:4])]
        expected = painter.model.reconstruct(torch.from_numpy(images[:4])).numpy()
    for place, block in enumerate(blocks):
        np.testing.assert_array_equal(block, np.stack([images[place], expected[place]])[None])
    assert len(np.unique(expected, axis=0)) == 4
    with torch.no_grad():
        rows = [len(block.rows) for block in painter.reconstructions(images)]
    assert rows == [2, 2, 1, 1]


def test_an_interpolation_leads_from_each_image_to_the_next(painter: Painter) -> None:
    images = levels(3)
    with torch.no_grad():
        first, way, last = (shown(block) for block in painter.interpolations(images))
    np.testing.assert_array_equal(first, images[:2, None])
    np.testing.assert_array_equal(last, images[1:, None])
    inputs = torch.from_numpy(images)
    for row in range(2):
        expected = painter.model.interpolate(inputs[row], inputs[row + 1], STEPS)
        np.testing.assert_array_equal(way[row], expected.numpy())
    assert len(np.unique(way.reshape(2 * STEPS, -1), axis=0)) > 3


def test_samples_are_of_the_prior_that_was_asked_for(painter: Painter) -> None:
    drawn = {}
    for source in ("prior", "auxiliary"):
        generator = torch.Generator().manual_seed(3)
        (block,) = replace(painter, generator=generator).samples(source, 2 * COLUMNS)
        drawn[source] = shown(block).reshape(2 * COLUMNS, CHANNELS, HEIGHT, WIDTH)
        expected = painter.model.sample(2 * COLUMNS, generator=torch.Generator().manual_seed(3), source=source)
        np.testing.assert_array_equal(drawn[source], expected.numpy())
    assert not np.array_equal(drawn["prior"], drawn["auxiliary"])
