"""A file of benchmark results, one for a device: what was measured, and all that it takes to measure it again."""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.measurement import ROOT, Measurements, Settings
from delta_vae_lab.run_folder import commit, describe_device

VERSIONS = ("delta-vae", "transformers", "accelerate")


def device_name(device: torch.device) -> str:
    """E.g. "x86_64 CPU"."""
    return describe_device(device, 1)


def default_file(device: torch.device) -> Path:
    """E.g. results/benchmarks-x86_64-cpu.json."""
    return ROOT / f"results/benchmarks-{re.sub('[^a-z0-9_]+', '-', device_name(device).lower())}.json"


def entry(measured: Measurements, settings: Settings) -> dict[str, Any]:
    """The JSON of one benchmark."""
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": _commit(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
        | {package: metadata.version(package) for package in VERSIONS},
        "settings": {"rounds": settings.rounds, **measured.sizes},
        "notes": list(measured.notes),
        "rows": [asdict(row) for row in measured.rows],
    }


@cache  # before the first results are written, which change the checkout
def _commit() -> str | None:
    return commit()


def check_device(file: Path, device: torch.device) -> None:
    """Raise `ValueError` if the file holds what another device did."""
    if file.exists() and (before := json.loads(file.read_text())["device"]) != device_name(device):
        raise ValueError(f"{file}: holds results of {before}; write those of {device_name(device)} to another file")


def write(file: Path, device: torch.device, entries: Mapping[str, Any]) -> None:
    """Put the entries into the file, in place of those of the same names, and leave the others as they are."""
    kept = json.loads(file.read_text())["benchmarks"] if file.exists() else {}
    content = {"device": device_name(device), "benchmarks": {**kept, **entries}}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    partial.replace(file)
