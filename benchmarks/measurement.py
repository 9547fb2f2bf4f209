"""Measuring in rounds: everything that is compared is timed once in each round, so that a slow minute slows all of it.

A row compares ours with a peer: the medians of both, and the median, least and greatest over the rounds of the ratio
within a round. A row without a peer says how much something takes, and its target is of that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).parents[1]

Values = npt.NDArray[np.float64]
Timers = Mapping[str, Callable[[], float]]


@dataclass(frozen=True)
class Settings:
    """How to measure: `smoke` asks for tiny sizes, which show that everything runs and measure nothing."""

    rounds: int
    device: torch.device
    smoke: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table; ratio is ours / theirs. The target is of the ratio, or without a peer of `ours`."""

    row: str
    ours: float
    ours_min: float
    ours_max: float
    unit: str
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Measurements:
    """What a benchmark answers; `sizes` and `notes` say what was measured."""

    rows: Sequence[Row]
    sizes: Mapping[str, Any]
    notes: Sequence[str]


def seconds(run: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Wall-clock seconds of one of so many calls, all that they started on the device included."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    _wait(device)
    return (time.perf_counter() - start) / calls


def in_rounds(timers: Timers, rounds: int, warm_up: bool = True) -> dict[str, Values]:
    """What each timer says in each round, (rounds,), all of them in turn; before, each is called once in vain."""
    if warm_up:
        for timer in timers.values():
            timer()
    measured = [{name: timer() for name, timer in timers.items()} for _ in range(rounds)]
    return {name: np.array([one[name] for one in measured]) for name in timers}


def compare(
    row: str,
    unit: str,
    ours: Values,
    peer: str,
    theirs: Values,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """The row of two things measured in the same rounds, (rounds,) each."""
    ratio = ours / theirs
    return replace(
        plain(row, unit, ours, at_most=at_most),
        peer=peer,
        theirs=float(np.median(theirs)),
        ratio=float(np.median(ratio)),
        ratio_min=float(ratio.min()),
        ratio_max=float(ratio.max()),
        at_least=at_least,
    )


def plain(row: str, unit: str, ours: Values, *, at_most: float | None = None) -> Row:
    """The row of something without a peer, (rounds,)."""
    return Row(
        row=row,
        ours=float(np.median(ours)),
        ours_min=float(ours.min()),
        ours_max=float(ours.max()),
        unit=unit,
        at_most=at_most,
    )


def in_fresh_process(module: str, arguments: Mapping[str, object], *launcher: str) -> Any:
    """What `python -m MODULE JSON` prints last, as JSON; `launcher` comes between `python` and `-m`."""
    command = [sys.executable, *launcher, "-m", module, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
