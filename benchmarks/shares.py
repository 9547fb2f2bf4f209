"""Where the time goes in training and drawing: what products of matrices, convolutions and attention take of it.

What they take bounds what fewer other operations could win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from benchmarks.image_training import image_model, images
from benchmarks.images import ABLATION_LOW
from benchmarks.images import SMOKE as SMALL_IMAGES
from benchmarks.measurement import Measurements, Row, Settings, plain
from benchmarks.models import DTYPES, LATENT_DIM, SMOKE, TextSize, on, text_model, token_ids, training_step

KINDS = {
    "products of matrices": ("mm", "addmm", "bmm", "baddbmm", "_linear_pointwise"),
    "convolutions": ("mkldnn_convolution", "convolution_backward"),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "copies and casts": ("copy_",),
    "random numbers": ("exponential_", "normal_"),
}
OTHERS, BETWEEN = "other operations", "between operations"
LEAST = 0.01  # what is less is not shown


def measure(settings: Settings) -> Measurements:
    """Rows in per cent of a step, or of a drawing; always on the CPU, in at most 3 rounds."""
    text, tokens, images = (SMOKE, 4, SMALL_IMAGES) if settings.smoke else (TextSize(), 64, ABLATION_LOW)
    runs = _training(text, images) | _drawing(text, tokens, images)
    return Measurements(
        rows=[row for name, run in runs.items() for row in _rows(name, run, min(settings.rounds, 3))],
        sizes={"text": asdict(text), "images": images, "tokens": tokens},
        notes=[
            "Of the delta-VAE's steps as in text-training and image-training, and of what its decoder draws as in",
            "text-generation and image-sampling. Per cent as a profiler of the operations sees it, which makes small",
            "ones, and what is between them, dearer than they are. On the CPU on every device.",
        ],
    )


def _training(text: TextSize, sizes: dict[str, Any]) -> dict[str, Callable[[], object]]:
    cpu, runs = torch.device("cpu"), dict[str, Callable[[], object]]()
    for name, dtype in DTYPES.items():
        sentences, ids = text_model(text, LATENT_DIM), token_ids(text, cpu)
        runs[f"text training, {name}"] = training_step(sentences, partial(_loss, sentences, ids), cpu, dtype)
        pictures, x = on(image_model(sizes), cpu), images(sizes, 2 if text is SMOKE else 8)
        runs[f"image training, {name}"] = training_step(pictures, partial(_loss, pictures, x), cpu, dtype)
    return runs


def _loss(model: Any, x: torch.Tensor) -> Any:
    return model(x).loss


def _drawing(text: TextSize, tokens: int, sizes: dict[str, Any]) -> dict[str, Callable[[], object]]:
    sentences, decoder = text_model(text, LATENT_DIM).eval(), image_model(sizes).decoder.eval()
    plan: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": tokens, "min_new_tokens": tokens}
    runs: dict[str, Callable[[], object]] = {}
    for batch in (1, 16):
        latents = torch.zeros(batch, sizes["height"], sizes["latent_dim"])
        runs[f"drawing text, batch {batch}"] = partial(sentences.generate, num_sequences=batch, **plan)
        runs[f"drawing images, batch {batch}"] = partial(decoder.sample, batch, latents, progress=False)
    return runs


def _rows(name: str, run: Callable[[], object], rounds: int) -> list[Row]:
    run()
    measured = [shares(run) for _ in range(rounds)]
    by_kind = {kind: np.array([100 * one[kind] for one in measured]) for kind in measured[0]}
    shown = {kind: values for kind, values in by_kind.items() if np.median(values) >= 100 * LEAST}
    return [plain(f"{name}: {kind}", "%", values) for kind, values in shown.items()]


def shares(run: Callable[[], object]) -> Mapping[str, float]:
    """What each kind of operation takes of the time that a run takes, and what is between them; they sum to 1."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled, record_function("whole"):
        run()
    spent = dict.fromkeys([*KINDS, OTHERS, BETWEEN], 0.0)
    for event in profiled.key_averages():
        library, _, operation = event.key.partition("::")
        kind = next((kind for kind, names in KINDS.items() if operation in names), OTHERS)
        spent[kind if library in ("aten", "mkldnn") else BETWEEN] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: time / total for kind, time in spent.items()}
