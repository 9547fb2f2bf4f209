"""Times with their spread, what they were measured on, and the table and the JSON file that say both."""

from __future__ import annotations

import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from delta_vae_lab.run_folder import commit, describe_device

VERSIONS = ("delta-vae", "transformers")


@dataclass(frozen=True)
class Measurements:
    """What a benchmark answers: `rows` of equal keys, units in the names; `settings` and `notes` say what was timed."""

    rows: Sequence[Mapping[str, float | int | str]]
    settings: Mapping[str, Any]
    notes: Sequence[str]
    device: torch.device


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, all that it started on the device included."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def summary(name: str, times: Sequence[float], factor: float = 1.0) -> dict[str, float]:
    """Median, least and greatest of `factor` times the times, as `NAME`, `NAME_min` and `NAME_max`."""
    scaled = [factor * value for value in times]
    return {name: statistics.median(scaled), f"{name}_min": min(scaled), f"{name}_max": max(scaled)}


def report(name: str, measured: Measurements, output: Path | None = None) -> str:
    """A plain table and its notes; with `output` also a JSON file with all that it takes to measure again."""
    environment = {
        "benchmark": name,
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": commit(),
        "device": describe_device(measured.device, 1),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
        | {package: metadata.version(package) for package in VERSIONS},
    }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        content = environment | {
            "settings": dict(measured.settings),
            "notes": list(measured.notes),
            "rows": [dict(row) for row in measured.rows],
        }
        output.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    lines = [f"{name}: {environment['device']}, {environment['threads']} threads, torch {torch.__version__}"]
    lines += [", ".join(f"{key} {value}" for key, value in measured.settings.items()), "", *_table(measured.rows), ""]
    return "\n".join([*lines, *measured.notes])


def _table(rows: Sequence[Mapping[str, float | int | str]]) -> list[str]:
    """Columns of the rows' keys, flush right, numbers with 4 significant digits."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _cell(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
