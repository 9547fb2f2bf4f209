"""Trials: the models of an experiment, each trained, judged on held-out and training examples, and probed alike.

A trial that an earlier command finished in the same folder is taken as it is; one that was interrupted goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tqdm import tqdm

from delta_vae_lab.configuration import flatten, load_config
from delta_vae_lab.data import heldout_image_batches
from delta_vae_lab.data.labels import labelled_images
from delta_vae_lab.evaluation import evaluate, evaluate_bound
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.image_run import ImageTask, image_task
from delta_vae_lab.probe import BATCH_SIZE, Examples, probe, reference_accuracies
from delta_vae_lab.run_folder import RunFolder, commit, describe_device
from delta_vae_lab.sections import ImageRunConfig, RunConfig, TextRunConfig
from delta_vae_lab.training import build_accelerator

CONFIGS = Path(__file__).parent / "configs"
CONFIG_KINDS: Mapping[str, type[RunConfig]] = {
    "digits": ImageRunConfig,
    "images": ImageRunConfig,
    "text": TextRunConfig,
}

# What of the held-out estimates during training is kept in a result.
_CURVE = ("rate", "committed_rate", "distortion", "auxiliary_rate", "mutual_information", "shuffle_gap")


@dataclass(frozen=True)
class Preset:
    """Where the trials of an experiment start from.

    family: digits, images or text, a folder of `configs` with a file a scale. data: as of the recipes.
    """

    family: str
    scale: str
    data: str

    def config(self, overrides: Sequence[str]) -> Any:
        """The run config with `section.key=value` changed."""
        config: Any = load_config(CONFIG_KINDS[self.family], self.scale, overrides, CONFIGS / self.family)
        config.data.name = self.data
        return config


@dataclass(frozen=True)
class Trial:
    """One model: the preset with some keys changed, at one seed. `name`: what it is called, also by other experiments.

    probe: whether a linear classifier is fitted to its latents; the data must have labels. keep: whether its weights
    are kept.
    """

    name: str
    preset: Preset
    overrides: tuple[str, ...]
    seed: int
    folder: Path
    probe: bool = False

    @property
    def run(self) -> RunFolder:
        """Where it is trained."""
        return RunFolder(self.folder / f"{self.preset.family}-{self.name}-seed-{self.seed}")

    @property
    def config(self) -> Any:
        """Its run config."""
        return self.preset.config([*self.overrides, f"seed={self.seed}"])


def image_preset(request: Request) -> Preset:
    """The digits without `data`; else 32 x 32 images, which the paper's sizes take from the Hub's CIFAR-10."""
    if request.scale == "paper":
        return Preset("images", "paper", request.data or "uoft-cs/cifar10")
    if request.data in (None, "builtin"):
        return Preset("digits", request.scale, "builtin")
    assert request.data is not None
    return Preset("images", request.scale, request.data)


def trials(
    request: Request, preset: Preset, models: Mapping[str, Sequence[str]], *, probe: bool = False
) -> list[Trial]:
    """Every model, a name and its overrides, at every seed; models differ in nothing else."""
    return [
        Trial(name, preset, tuple(overrides), seed, request.output / "models", probe)
        for seed in request.seeds
        for name, overrides in models.items()
    ]


def run_trials(todo: Sequence[Trial], jobs: int) -> list[dict[str, Any]]:
    """The outcome of every trial, in their order, `jobs` of them trained at a time, each in a process of its own."""
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: train 1 or more models at a time")
    if jobs == 1:
        return [outcome(trial) for trial in tqdm(todo, desc="models", delay=5, disable=None)]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,))
    with pool:
        return list(tqdm(pool.map(outcome, todo), total=len(todo), desc="models", disable=None))


def outcome(trial: Trial) -> dict[str, Any]:
    """What came of a trial: read if it was finished with this config, else trained.

    heldout: every estimate of `evaluate`; train: the bound on as many training images; probe: accuracies; curve: held-
    out estimates in the course of training.
    """
    config, file = trial.config, trial.run.path / "outcome.json"
    if file.exists():
        before: dict[str, Any] = json.loads(file.read_text())
        if before["config"] != flatten(config) or (trial.probe and not before["probe"]):
            raise ValueError(f"{trial.run.path}: holds another {trial.name}; choose another output, or remove it")
        return before
    AcceleratorState._reset_state(reset_partial_state=True)  # a trial does not inherit the precision of the last
    accelerator = build_accelerator(config, trial.run)
    found = _judge_images(trial, image_task(config, accelerator), accelerator)
    accelerator.end_training()
    written = json.dumps(found, indent=1, allow_nan=False)
    partial = file.with_suffix(".partial")
    partial.write_text(written + "\n")
    partial.replace(file)
    as_written: dict[str, Any] = json.loads(written)
    return as_written


def _judge_images(trial: Trial, task: ImageTask, accelerator: Accelerator) -> dict[str, Any]:
    config, started = task.config, time.monotonic()
    resumed = trial.run.holds_a_run
    model = task.train(trial.run, accelerator, resume=resumed, progress=False)
    seconds = None if resumed else round(time.monotonic() - started, 1)
    model.save_pretrained(trial.run.model)
    settings, size = config.evaluation, config.evaluation.batch_size
    heldout = evaluate(
        model,
        list(heldout_image_batches(task.heldout, size)),
        seed=config.seed,
        importance_samples=settings.importance_samples,
        importance_examples=settings.importance_examples,
    )
    trained_on = heldout_image_batches(task.train_images, size, limit=len(task.heldout))
    found = {
        "model": trial.name,
        "seed": config.seed,
        "commit": commit(),
        "device": describe_device(accelerator.device, accelerator.num_processes),
        "data": {"name": task.images.name, **task.origin},
        "config": flatten(config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_seconds": seconds,
        "heldout": heldout,
        "train": evaluate_bound(model, trained_on, seed=config.seed),
        "probe": {},
        "curve": _curve(trial.run.metrics()),
    }
    if trial.probe and model.encoder is not None:
        found["probe"], _ = probe(model, *_probed(config, task), config.seed, brief=True)
    return found


def image_references(preset: Preset) -> dict[str, float]:
    """Accuracies of a linear classifier on the pixels, and of the commonest class."""
    config = preset.config([])
    return reference_accuracies(*_probed(config, image_task(config, Accelerator())), 0)


def _probed(config: ImageRunConfig, task: ImageTask) -> tuple[Examples, Examples]:
    """The training and the held-out images with their labels, as a model reads them."""
    images, labels = _labelled(config.data.name)
    assert len(images.train) == len(task.train_images), "labels are of the images that the model is trained on"

    def examples(levels: Any, classes: Any) -> Examples:
        return Examples(list(heldout_image_batches(levels, BATCH_SIZE)), levels, classes, {})

    heldout = len(task.heldout)
    return examples(task.train_images, labels.train), examples(task.heldout, labels.heldout[:heldout])


_labelled = cache(labelled_images)


def _curve(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The held-out estimates in the course of training, in nats."""
    return [
        {"step": row["step"]}
        | {f"{name}_nats": row[f"heldout_{name}_nats"] for name in _CURVE if f"heldout_{name}_nats" in row}
        for row in rows
        if "heldout_distortion_nats" in row
    ]


def shared(outcomes: Sequence[Mapping[str, Any]], preset: Preset) -> dict[str, Any]:
    """What a result says once of all its trials: data, preset, and of each run what is its own."""
    common = {key: value for key, value in flatten(preset.config([])).items() if key != "data.name"}
    runs = [
        {name: value for name, value in one.items() if name not in ("data", "config")}
        | {"overrides": _changed(one["config"], common)}
        for one in outcomes
    ]
    data = outcomes[0]["data"]
    return {"data": data, "preset": {**asdict(preset), "data": data["name"]}, "config": common, "runs": runs}


def _changed(config: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in common if key != "seed" and config[key] != common[key]}
