"""Drawing images: with a cache against a full evaluation of the decoder for every pixel.

The decoder is at its initialisation; what it draws does not change what it costs.
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.images import ABLATION_LOW, COMPONENTS, SMOKE
from benchmarks.measurement import Measurements, Row, Settings, compare, in_rounds, seconds
from benchmarks.models import parameters
from delta_vae_decoders import ImageDecoder, ImageDecoderConfig

AT_LEAST = {1: 180.0, 16: 600.0}


def measure(settings: Settings) -> Measurements:
    """A row for each batch size."""
    sizes = SMOKE if settings.smoke else ABLATION_LOW
    torch.manual_seed(0)
    decoder = ImageDecoder(ImageDecoderConfig(**sizes, components=COMPONENTS)).eval().to(settings.device)
    pixels = decoder.config.height * decoder.config.width
    return Measurements(
        rows=[_row(decoder, batch, settings) for batch in AT_LEAST],
        sizes=sizes | {"batch": list(AT_LEAST), "components": COMPONENTS, "parameters": parameters(decoder)},
        notes=[
            f"The peer is one full evaluation and one draw, timed, times the {pixels} pixels, each of which costs the",
            "same; ours is the drawing of whole images. The images are the same, which the tests check.",
        ],
    )


def _row(decoder: ImageDecoder, batch: int, settings: Settings) -> Row:
    config, device = decoder.config, settings.device
    latents = torch.randn(batch, config.height, config.latent_dim).to(device)
    image = torch.rand(batch, *config.image_shape).to(device) * 2 - 1
    middle = config.height // 2, config.width // 2

    @torch.inference_mode()
    def one_pixel() -> None:
        decoder.read(image, latents).pixel(*middle).sample()

    timers = {
        "cached": partial(seconds, partial(decoder.sample, batch, latents, progress=False), device),
        "pixel": partial(seconds, one_pixel, device),
    }
    measured = in_rounds(timers, settings.rounds)
    pixels = config.height * config.width
    return compare(
        f"with a cache, batch {batch}",
        "images/s",
        batch / measured["cached"],
        "anew for every pixel",
        batch / (pixels * measured["pixel"]),
        at_least=AT_LEAST[batch],
    )
