"""Seconds an image: drawing with a cache against evaluating the whole decoder anew for every pixel.

The decoder is that of the `ablation-low` preset, at its initialisation; what it draws does not change what it costs.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from benchmarks.measurement import Measurements, seconds, summary
from delta_vae_decoders import ImageDecoder, ImageDecoderConfig

# Razavi et al. 2019, Table 6: 8 layers of 128, 2 of them followed by attention, 8 latent dimensions.
ABLATION_LOW = {
    "height": 32,
    "width": 32,
    "channels": 3,
    "levels": 256,
    "hidden_size": 128,
    "num_layers": 8,
    "attention_layers": 2,
    "num_heads": 4,
    "latent_dim": 8,
    "components": 10,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own options."""
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=5, help="cached runs, and naive evaluations, of each batch size")
    parser.add_argument("--device", default="cpu")
    for name, value in ABLATION_LOW.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=argparse.SUPPRESS)


def measure(arguments: argparse.Namespace) -> Measurements:
    """A row for each batch size."""
    if min(arguments.repeats, *arguments.batch_sizes) < 1:
        raise ValueError("--repeats and --batch-sizes: use at least 1")
    device = torch.device(arguments.device)
    sizes = {name: getattr(arguments, name) for name in ABLATION_LOW}
    torch.manual_seed(0)
    decoder = ImageDecoder(ImageDecoderConfig(**sizes)).eval().to(device)
    pixels = decoder.config.height * decoder.config.width
    return Measurements(
        rows=[_row(decoder, batch, arguments.repeats) for batch in arguments.batch_sizes],
        settings=sizes | {"parameters": sum(weight.numel() for weight in decoder.parameters())},
        notes=[
            "Seconds an image: medians, with the least and the greatest of the repeats, naive and cached in turn.",
            f"Naive is one full evaluation of the decoder and one draw, timed, times the {pixels} pixels: each pixel",
            "costs the same, whatever came before it. Cached is the drawing of whole images.",
        ],
        device=device,
    )


def _row(decoder: ImageDecoder, batch: int, repeats: int) -> dict[str, float | int | str]:
    config, device = decoder.config, decoder.device
    latents = torch.randn(batch, config.height, config.latent_dim).to(device) if config.latent_dim else None
    image = torch.rand(batch, *config.image_shape).to(device) * 2 - 1
    middle = config.height // 2, config.width // 2

    @torch.inference_mode()
    def naive_pixel() -> None:
        decoder.read(image, latents).pixel(*middle).sample()

    cached_images = partial(decoder.sample, batch, latents, progress=False)
    naive_pixel()
    cached_images()  # both warmed up
    naive, cached = [], []
    for _ in range(repeats):
        naive.append(seconds(naive_pixel, device))
        cached.append(seconds(cached_images, device))
    row: dict[str, float | int | str] = {"batch": batch}
    row |= summary("naive_s", naive, config.height * config.width / batch)
    row |= summary("cached_s", cached, 1 / batch)
    return row | {"times_faster": float(row["naive_s"]) / float(row["cached_s"])}
