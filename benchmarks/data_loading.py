"""How long a training step waits for its batch: the quickstart recipes, whose steps are short, on built-in data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.measurement import ROOT, Measurements, Row, Settings, compare, in_rounds, seconds
from benchmarks.models import training_step
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data import ImageBatches, load_text, train_tokenizer
from delta_vae_lab.image_run import build_image_model, image_processor, read_images
from delta_vae_lab.sections import ImageRunConfig, TextRunConfig
from delta_vae_lab.text_run import build_text_model

CONFIGS = ROOT / "recipes/configs"
STEPS = 20
AT_MOST = 0.02


def measure(settings: Settings) -> Measurements:
    """A row for text, and one for images."""
    steps = 1 if settings.smoke else STEPS
    text = load_config(TextRunConfig, CONFIGS / "lm1b/quickstart.yaml")
    images = load_config(ImageRunConfig, CONFIGS / "cifar10/quickstart.yaml")
    if settings.smoke:
        text.tokenizer.vocab_size = 300
    rows = [
        _row("a text batch", *_text(text, settings), settings, steps),
        _row("an image batch", *_images(images), settings, steps),
    ]
    return Measurements(
        rows=rows,
        sizes={
            "steps_per_round": steps,
            "text_batch": text.optimization.batch_size,
            "image_batch": images.optimization.batch_size,
        },
        notes=[
            "Waiting for the next batch, over the whole step of the recipe's quickstart model, which is forward,",
            "backward, fused AdamW and zero_grad. The text is tokenised before.",
        ],
    )


def _text(config: TextRunConfig, settings: Settings) -> tuple[Any, Iterator[Any]]:
    text = load_text("builtin")
    limit = 100 if settings.smoke else None
    tokenizer = train_tokenizer(text.training_sentences(limit), config.tokenizer.vocab_size)
    batches = text.training_batches(
        tokenizer, batch_size=config.optimization.batch_size, seed=0, max_length=config.max_length
    )
    return build_text_model(config, tokenizer), (batch for batch, _ in batches.iterate())


def _images(config: ImageRunConfig) -> tuple[Any, Iterator[Any]]:
    images = read_images(config.data)
    processor = image_processor(images, config.data.levels)
    batches = ImageBatches(
        processor.quantize(images.train),
        batch_size=config.optimization.batch_size,
        seed=0,
        horizontal_flips=config.data.horizontal_flips,
    )
    return build_image_model(config, processor), (batch for batch, _ in batches.iterate(None))


def _row(name: str, model: Any, batches: Iterator[Any], settings: Settings, steps: int) -> Row:
    """Both figures are of the same steps: the wait and then the rest of each, added up over a round."""
    model = model.to(settings.device).train()
    taken: list[Any] = []
    waited: list[float] = []
    step = training_step(model, lambda: model(**taken[-1].inputs()).loss, settings.device, torch.float32)

    def take() -> None:
        taken[:] = [next(batches).to(settings.device)]

    def all_steps() -> float:
        waited.clear()
        return sum(_one(take, step, waited, settings.device) for _ in range(steps)) / steps

    measured = in_rounds({"step": all_steps, "waiting": lambda: sum(waited) / steps}, settings.rounds)
    return compare(
        f"waiting for {name}", "ms", 1e3 * measured["waiting"], "the step", 1e3 * measured["step"], at_most=AT_MOST
    )


def _one(take: Callable[[], None], step: Callable[[], None], waited: list[float], device: torch.device) -> float:
    waited.append(seconds(take, device))
    return waited[-1] + seconds(step, device)
