"""Training on images: the delta-VAE of the preset `ablation-low` against what the device can do."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.images import ABLATION_LOW, COMPONENTS, SMOKE
from benchmarks.measurement import Measurements, Row, Settings, Timers, compare, in_rounds, seconds
from benchmarks.models import DTYPES, on, parameters, training_step
from benchmarks.operations import SIDE, ceiling, operations
from delta_vae import DeltaVaeConfig, DeltaVaeForImageGeneration
from delta_vae_decoders import ImageDecoderConfig
from delta_vae_encoders import ImageEncoderConfig

OF_CEILING = {"float32": 0.65, "bfloat16": 0.45}
BATCH = 8


def measure(settings: Settings) -> Measurements:
    """In float32, and with autocast to bfloat16."""
    sizes = SMOKE if settings.smoke else ABLATION_LOW
    batch = 2 if settings.smoke else BATCH
    count = batch * _operations(sizes)
    rows = [_row(sizes, batch, count, name, settings) for name in DTYPES]
    return Measurements(
        rows=rows,
        sizes=sizes
        | {"batch": batch, "parameters": parameters(image_model(sizes)), "operations_per_step": count, "dropout": 0},
        notes=["Steps, operations and the most that the device does as in text-training; convolutions as executed."],
    )


def image_model(sizes: dict[str, Any]) -> DeltaVaeForImageGeneration:
    """The delta-VAE of these sizes."""
    decoder = ImageDecoderConfig(**sizes, components=COMPONENTS)
    torch.manual_seed(0)
    return DeltaVaeForImageGeneration(DeltaVaeConfig(encoder=ImageEncoderConfig(**sizes), decoder=decoder))


def images(sizes: dict[str, Any], batch: int) -> torch.Tensor:
    """As many images of random levels."""
    shape = (batch, sizes["channels"], sizes["height"], sizes["width"])
    return torch.randint(sizes["levels"], shape, generator=torch.Generator().manual_seed(0))


def _operations(sizes: dict[str, Any]) -> int:
    model, x = image_model(sizes), images(sizes, 1)
    return operations(lambda: model(x).loss)


def _row(sizes: dict[str, Any], batch: int, count: int, name: str, settings: Settings) -> Row:
    device, dtype = settings.device, DTYPES[name]
    model, x = on(image_model(sizes), device), images(sizes, batch).to(device)
    step = training_step(model, lambda: model(x).loss, device, dtype)
    timers: Timers = {
        "product": ceiling(device, dtype, 64 if settings.smoke else SIDE),
        "step": partial(seconds, step, device),
    }
    measured = in_rounds(timers, settings.rounds)
    return compare(
        f"delta-VAE, {name}",
        "Gop/s",
        count / 1e9 / measured["step"],
        "matrix product",
        1e-9 / measured["product"],
        at_least=OF_CEILING[name],
    )
