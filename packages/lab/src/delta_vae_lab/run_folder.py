"""The folder that a run writes: config.yaml, metrics.jsonl, results.json, and where everything else goes."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from delta_vae_core.versions import FORMAT_KEY, stamp
from delta_vae_lab.configuration import load_config, result_changes, save_config
from delta_vae_lab.folder_lock import check_free, hold, release
from delta_vae_lab.places import check_folder
from delta_vae_lab.redaction import redacted
from delta_vae_lab.sections import RunConfig

logger = logging.getLogger(__name__)

_REPORTED_VERSIONS = ("delta-vae", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """DIR of a run. Only the main process writes to it."""

    path: Path

    def check(self, config: RunConfig, resume: bool) -> None:
        """Raise `ValueError` unless the folder is free or, with `resume`, holds a run that this config goes on with.

        One that another process is at is in no case free.
        """
        check_free(self.path)
        if self.holds_a_run and not resume:
            raise ValueError(
                f"{self.path} already holds a run: add --resume to go on with it, or choose another folder"
            )
        if self.holds_a_run:
            self._check_same_run(config)
            return
        check_folder(self.path)
        ours = (self.results_file, self.model, self.figures, self.samples, self.trackers)
        if taken := [place.name for place in ours if place.exists()]:
            raise ValueError(
                f"{self.path}: is no run's, and has {taken[0]}, which a run writes; choose another folder, or move it"
            )

    def start(self, config: RunConfig, resume: bool) -> None:
        """`check`, hold the folder until `release`, and write the config. The main process alone calls it.

        From here on the folder holds a run, so all else should be built before.
        """
        self.check(config, resume)
        self.path.mkdir(parents=True, exist_ok=True)
        hold(self.path)
        try:
            self.check(config, resume)  # again, as another may have come and gone
        except ValueError:
            self.release()
            raise
        if resume and not any(self.checkpoints.glob("step-*")):
            logger.warning("%s has no checkpoint to resume from: a new run starts", self.path)
        partial = self.path / "config.yaml.partial"
        save_config(config, partial)
        partial.replace(self.config_file)

    def release(self) -> None:
        """Let another process go on with the run. One that ends has done so."""
        release(self.path)

    @property
    def holds_a_run(self) -> bool:
        return self.config_file.exists() or self.metrics_file.exists() or self.checkpoints.exists()

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def trackers(self) -> Path:
        return self.path / "trackers"

    def log(self, metrics: Mapping[str, float | int]) -> None:
        """Append one line to metrics.jsonl and have it on the disk before a checkpoint can claim its step."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(metrics) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that a kill left half written is no line."""
        if not self.metrics_file.exists():
            return []
        *lines, _ = self.metrics_file.read_text().split("\n")
        return [json.loads(line) for line in lines]

    def cut_metrics(self, step: int) -> None:
        """Drop what was logged after `step`, which a resumed run will log again."""
        kept = "".join(json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step)
        partial = self.path / "metrics.jsonl.partial"
        partial.write_text(kept)
        partial.replace(self.metrics_file)

    def write_results(
        self,
        metrics: Mapping[str, float],
        config: RunConfig,
        device: str,
        data: Mapping[str, Any],
        model: Mapping[str, Any],
    ) -> None:
        """Write results.json: the metrics, unit-suffixed, the model's architecture, and what produces them again."""
        origin = provenance(config, device)
        named = {"run": self.path.resolve().name, FORMAT_KEY: stamp()[FORMAT_KEY]}
        results = {**named, **origin, "data": dict(data), "model": dict(model)}
        if (trained := config.auxiliary_prior.fit_to) is not None:
            results["fitted_to"] = trained  # where all but the auxiliary prior is from
        partial = self.path / "results.json.partial"
        partial.write_text(json.dumps(results | {"metrics": dict(metrics)}, indent=2, allow_nan=False) + "\n")
        partial.replace(self.results_file)

    def _check_same_run(self, config: RunConfig) -> None:
        if not self.config_file.exists():
            raise ValueError(f"{self.path} has no config.yaml to resume by: choose another folder")
        saved = load_config(type(config), self.config_file)
        changed = result_changes(saved, config)
        if changed:
            raise ValueError(
                f"{self.path} was started with another config; differing keys: {', '.join(changed)}; "
                "resume with the values in its config.yaml, or choose another folder"
            )


def provenance(config: RunConfig, device: str) -> dict[str, Any]:
    """Where a result comes from: command, commit, seed, device and versions."""
    versions = {name: metadata.version(name) for name in _REPORTED_VERSIONS}
    return {
        "command": shlex.join([_program(), *map(redacted, sys.argv[1:])]),
        "commit": commit(),
        "seed": config.seed,
        "device": device,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)} | versions,
    }


def _program() -> str:
    """What was run: a script as it was named, an installed command by its name alone."""
    program = Path(sys.argv[0])
    return program.name if program.is_absolute() else str(program)


def commit() -> str | None:
    """The commit of the checkout that tracks this file, "-dirty" if anything in it has changed; None without one."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def describe_device(device: torch.device, processes: int) -> str:
    """E.g. "2 x NVIDIA H200" or "x86_64 CPU"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return name if processes == 1 else f"{processes} x {name}"
