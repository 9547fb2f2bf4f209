"""A recipe for images from the command line to the report: what `recipes/cifar10.py` and `recipes/imagenet32.py` do."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator

from delta_vae import DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.architecture import image_model_config
from delta_vae_lab.auxiliary_fit import fit_to
from delta_vae_lab.data import ImageBatches, ImageSplits, heldout_image_batches, load_images
from delta_vae_lab.image_samples import write_image_samples
from delta_vae_lab.model_folder import save_reader
from delta_vae_lab.publishing import publish
from delta_vae_lab.randomness import generator, seeded
from delta_vae_lab.recipe import begin, life_of
from delta_vae_lab.reporting import HeldoutBound, write_report
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageDataSection, ImageRunConfig
from delta_vae_lab.storage import writing
from delta_vae_lab.tracking import show_results
from delta_vae_lab.training import train

# How many held-out images are judged by during training.
WATCHED_IMAGES = 256


def run_images(arguments: Namespace, recipe: Path) -> None:
    """Parse, load, build, train, evaluate, write: a run of the recipe in this file, with presets of its name."""
    config, run, accelerator = begin(ImageRunConfig, arguments, recipe)
    with life_of(run, accelerator):
        task = image_task(config, accelerator)
        started = time.monotonic()
        model = task.train(run, accelerator, arguments.resume)
        seconds = None if arguments.resume else time.monotonic() - started
        if accelerator.is_main_process:
            with writing("the report", run.path):
                report = write_report(
                    model,
                    list(heldout_image_batches(task.heldout, config.evaluation.batch_size)),
                    config,
                    run,
                    accelerator,
                    {"name": task.images.name, **task.origin},
                    lambda: write_image_samples(
                        run.samples,
                        model,
                        task.processor,
                        task.heldout,
                        data=task.images.name,
                        generator=generator(config.seed, "samples"),
                    ),
                    training_seconds=seconds,
                )
            print(report)
            show_results(accelerator, run)
            if arguments.push_to_hub is not None:
                print(f"Published: {publish(run.path, arguments.push_to_hub)}")


@dataclass(frozen=True)
class ImageTask:
    """What a config asks to be trained: its images, and the model with its initial parameters.

    train_images, heldout: numpy uint8 (N, C, H, W), quantised; of the held-out images those that the evaluation takes.
    """

    config: ImageRunConfig
    images: ImageSplits
    processor: DeltaVaeImageProcessor
    train_images: npt.NDArray[np.uint8]
    heldout: npt.NDArray[np.uint8]
    batches: ImageBatches
    model: DeltaVaeForImageGeneration

    @property
    def origin(self) -> dict[str, Any]:
        """What a resumed run must be given again."""
        return image_fingerprint(self.images, self.processor)

    def train(
        self, run: RunFolder, accelerator: Accelerator, resume: bool, progress: bool = True
    ) -> DeltaVaeForImageGeneration:
        """Start or resume the run, and train it to its end."""
        if accelerator.is_main_process:
            run.start(self.config, resume)
            save_reader(self.processor, run.model)
        size = self.config.evaluation.batch_size
        watched = HeldoutBound(list(heldout_image_batches(self.heldout, size, limit=WATCHED_IMAGES)), self.config.seed)
        return train(self.model, self.batches, self.config, accelerator, run, watched, resume, self.origin, progress)


def image_task(config: ImageRunConfig, accelerator: Accelerator) -> ImageTask:
    """Read the images and build the model. Nothing is written."""
    images = read_images(config.data)
    processor = image_processor(images, config.data.levels)
    train_images = processor.quantize(images.train)
    return ImageTask(
        config=config,
        images=images,
        processor=processor,
        train_images=train_images,
        heldout=processor.quantize(images.heldout[: config.evaluation.examples]),
        batches=ImageBatches(
            train_images,
            batch_size=config.optimization.batch_size,
            seed=config.seed,
            horizontal_flips=config.data.horizontal_flips,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        ),
        model=build_image_model(config, processor),
    )


def read_images(data: ImageDataSection) -> ImageSplits:
    """The images that a config names."""
    return load_images(
        data.name,
        config=data.config,
        revision=data.revision,
        column=data.column,
        size=data.size,
        skip_unreadable=data.skip_unreadable,
    )


def image_processor(images: ImageSplits, levels: int | None) -> DeltaVaeImageProcessor:
    """What turns such images into a model's levels; None keeps the data's own."""
    if levels is not None and levels > images.levels:
        raise ValueError(f"data.levels={levels}: {images.name} has {images.levels}; ask for at most as many")
    channels, height, width = images.train.shape[1:]
    return DeltaVaeImageProcessor(
        height=height, width=width, channels=channels, levels=levels or images.levels, input_levels=images.levels
    )


def image_fingerprint(images: ImageSplits, processor: DeltaVaeImageProcessor) -> dict[str, Any]:
    """The images, and how they are quantised."""
    return {**images.fingerprint, "levels": processor.levels}


def build_image_model(config: ImageRunConfig, processor: DeltaVaeImageProcessor) -> DeltaVaeForImageGeneration:
    """The model with the initial parameters that the seed gives, but for what it takes from a trained one."""
    shape = (processor.channels, processor.height, processor.width)
    architecture, trained = image_model_config(config, shape, processor.levels), config.auxiliary_prior.fit_to
    with seeded(config.seed, "parameters"):
        if trained is not None:
            return fit_to(DeltaVaeForImageGeneration, trained, architecture)
        return DeltaVaeForImageGeneration(architecture)
