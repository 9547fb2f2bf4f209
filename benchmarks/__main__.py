"""Measure ours against its peers, and print one table.

python -m benchmarks [NAME ...] [--threads N] [--repeats N] [--device DEVICE] [--save | --output FILE] [--smoke]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import (
    attention,
    data_loading,
    image_sampling,
    image_training,
    prior,
    shares,
    start_up,
    text_generation,
    text_memory,
    text_training,
    two_processes,
)
from benchmarks.measurement import Measurements, Settings
from benchmarks.results import check_device, default_file, device_name, entry, write
from delta_vae_lab.console import one_line_errors
from delta_vae_lab.memory import keep_freed_memory
from delta_vae_lab.result_tables import benchmark_cells

BENCHMARKS: dict[str, Callable[[Settings], Measurements]] = {
    "text-training": text_training.measure,
    "text-generation": text_generation.measure,
    "text-memory": text_memory.measure,
    "attention": attention.measure,
    "image-training": image_training.measure,
    "image-sampling": image_sampling.measure,
    "shares": shares.measure,
    "data-loading": data_loading.measure,
    "prior": prior.measure,
    "start-up": start_up.measure,
    "two-processes": two_processes.measure,
}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all of them, or some of {', '.join(BENCHMARKS)}")
    parser.add_argument("--threads", type=int, default=2, help="of torch on the CPU (2)")
    parser.add_argument("--repeats", type=int, help="rounds (5, with --smoke 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does everything run?")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--save", action="store_true", help="write results/benchmarks-DEVICE.json")
    files.add_argument("--output", type=Path, metavar="FILE", help="write this JSON file instead")
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    arguments = parser.parse_args()
    with one_line_errors(arguments.debug):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure one benchmark after the other; each is printed and written as soon as it is done."""
    settings = _settings(arguments)
    file = default_file(settings.device) if arguments.save else arguments.output
    if file is not None:
        check_device(file, settings.device)
    print(f"{device_name(settings.device)}, {arguments.threads} threads, torch {torch.__version__}")
    for name in arguments.names or BENCHMARKS:
        result = entry(BENCHMARKS[name](settings), settings)
        print(f"\n{name}\n{_table(result)}", flush=True)
        if file is not None:
            write(file, settings.device, {name: result})


def _settings(arguments: argparse.Namespace) -> Settings:
    """What the command line asks for, and torch set to it."""
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        raise ValueError(f"{unknown[0]}: is no benchmark; use {', '.join(BENCHMARKS)}")
    rounds = arguments.repeats if arguments.repeats is not None else 1 if arguments.smoke else 5
    for option, value in (("--threads", arguments.threads), ("--repeats", rounds)):
        if value < 1:
            raise ValueError(f"{option} {value}: use at least 1")
    if arguments.smoke and arguments.save:
        raise ValueError("--save with --smoke, which measures nothing worth keeping: leave one of them out")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {arguments.device}: torch finds no CUDA device here; use cpu")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as training on a CPU does; of the peers too
    return Settings(rounds, torch.device(arguments.device), arguments.smoke)


def _table(result: Mapping[str, Any]) -> str:
    """Columns, and the notes below."""
    cells = [list(line) for line in benchmark_cells(result["rows"])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*lines, *result["notes"]])


if __name__ == "__main__":
    logging.set_verbosity_error()  # the peers warn of settings that are meant
    main()
