"""Trials: the models of an experiment, each trained, judged on held-out and training examples, and probed alike.

A trial that an earlier command finished in the same folder is taken as it is; one that was interrupted goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from tqdm import tqdm
from transformers.utils import logging

from delta_vae_lab.configuration import flatten, load_config
from delta_vae_lab.experiments.judging import judge_images, judge_text
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageRunConfig, RunConfig, TextRunConfig
from delta_vae_lab.stopping import Stopped
from delta_vae_lab.training import build_accelerator

CONFIGS = Path(__file__).parent / "configs"
FAMILIES: Mapping[str, type[RunConfig]] = {"digits": ImageRunConfig, "images": ImageRunConfig, "text": TextRunConfig}
# Rows of the images of a family, a latent each: what rates and thresholds are shared out over.
ROWS = {"digits": 8, "images": 32}


@dataclass(frozen=True)
class Preset:
    """Where the trials of an experiment start from.

    family: digits, images or text, a folder of `configs` with a file a scale. data: as of the recipes.
    """

    family: str
    scale: str
    data: str

    def config(self, overrides: Sequence[str] = ()) -> Any:
        """The run config with `section.key=value` changed."""
        config: Any = load_config(FAMILIES[self.family], self.scale, overrides, CONFIGS / self.family)
        config.data.name = self.data
        return config


@dataclass(frozen=True)
class Trial:
    """One model: the preset with some keys changed, at one seed. `name`: what it is called, also by other experiments.

    probed: labelled data that a linear classifier is fitted to its latents of; None: none is.
    """

    name: str
    preset: Preset
    overrides: tuple[str, ...]
    seed: int
    folder: Path
    probed: str | None = None

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
    data, scale = request.data, request.scale
    if scale == "paper" and data == "builtin":
        raise ValueError(
            "data='builtin': the paper's sizes are of 32 x 32 images; leave it out for CIFAR-10 of the Hub"
        )
    if scale == "paper":
        return Preset("images", "paper", data or "uoft-cs/cifar10")
    if data is None or data == "builtin":
        return Preset("digits", scale, "builtin")
    if scale == "smoke":
        raise ValueError(f"data={data!r}: scale smoke is of the built-in digits alone; choose small or paper")
    return Preset("images", scale, data)


def text_preset(request: Request) -> Preset:
    """The built-in text without `data`; the paper's sizes take LM1B from the Hub."""
    default = "billion-word-benchmark/lm1b" if request.scale == "paper" else "builtin"
    return Preset("text", request.scale, request.data or default)


def trials(
    request: Request, preset: Preset, models: Mapping[str, Sequence[str]], *, probed: str | None = None
) -> list[Trial]:
    """Every model, a name and its overrides, at every seed; models differ in nothing else."""
    return [
        Trial(name, preset, tuple(overrides), seed, request.output / "models", probed)
        for seed in request.seeds
        for name, overrides in models.items()
    ]


def run_trials(todo: Sequence[Trial], jobs: int) -> list[dict[str, Any]]:
    """The outcome of every trial, in their order, `jobs` of them trained at a time, each in a process of its own."""
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: train 1 or more models at a time")
    if jobs == 1:
        try:
            return [outcome(trial) for trial in tqdm(todo, desc="models", delay=5, disable=None)]
        except Stopped as stop:
            stop.remedy = "the same command goes on"
            raise
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker, (threads,)) as pool:
        try:
            return list(tqdm(pool.map(outcome, todo), total=len(todo), desc="models", disable=None))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what is in training comes to its end, and is kept
            raise


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    logging.disable_progress_bar()  # several at once overwrite each other


def outcome(trial: Trial) -> dict[str, Any]:
    """What came of a trial: read if it was finished with this config, else trained. See `judging`."""
    config, file, seconds = trial.config, trial.run.path / "outcome.json", None
    if file.exists():
        before: dict[str, Any] = json.loads(file.read_text())
        if before["config"] != _as_written(flatten(config)):
            raise ValueError(f"{trial.run.path}: holds another {trial.name}; choose another output, or remove it")
        if trial.probed is None:
            return before | {"probe": {}}  # what another experiment probed is no part of this one
        is_probed = before["probe"] and before.get("probed", trial.probed) == trial.probed
        if is_probed or "latent_dim" not in before["heldout"]:
            return before
        seconds = before["training_seconds"]
    AcceleratorState._reset_state(reset_partial_state=True)  # a trial does not inherit the precision of the last
    accelerator = build_accelerator(config, trial.run)
    if trial.preset.family == "text":
        judged = judge_text(config, trial.run, accelerator, trial.probed)
    else:
        judged = judge_images(config, trial.run, accelerator, trial.probed, ROWS[trial.preset.family])
    found = _as_written({"model": trial.name, "seed": trial.seed, "probed": trial.probed} | judged)
    if found["training_seconds"] is None:
        found["training_seconds"] = seconds
    accelerator.end_training()
    trial.run.release()
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    partial.replace(file)
    return found


def shared(outcomes: Sequence[Mapping[str, Any]], preset: Preset) -> dict[str, Any]:
    """What a result says once of all its trials: data, preset, and of each run what is its own."""
    base = _as_written(flatten(preset.config()))
    common = {key: value for key, value in base.items() if key not in ("data.name", "seed")}
    runs = [
        {name: value for name, value in one.items() if name not in ("data", "config", "probed")}
        | {"overrides": {key: one["config"][key] for key in common if one["config"][key] != common[key]}}
        for one in outcomes
    ]
    data = outcomes[0]["data"]
    return {"data": data, "preset": {**asdict(preset), "data": data["name"]}, "config": common, "runs": runs}


def _as_written(found: dict[str, Any]) -> dict[str, Any]:
    """As JSON reads it back, where a tuple is a list."""
    read: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return read
