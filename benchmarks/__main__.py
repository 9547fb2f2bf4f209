"""Run a benchmark by its name, print its table and, with --output, write it as JSON.

python -m benchmarks image-sampling [--threads N] [--output FILE] [options of the benchmark]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import image_sampling
from benchmarks.measurement import report
from delta_vae_lab.console import one_line_errors

BENCHMARKS = {"image-sampling": image_sampling}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = parser.add_subparsers(metavar="NAME", required=True)
    for name, benchmark in BENCHMARKS.items():
        one = benchmarks.add_parser(name, help=(benchmark.__doc__ or "").partition("\n")[0])
        one.add_argument("--threads", type=int, default=1, help="of torch on the CPU (1)")
        one.add_argument("--output", type=Path, help="write the measurements to this JSON file")
        one.add_argument("--debug", action="store_true", help="show where an error was raised")
        benchmark.add_arguments(one)
        one.set_defaults(name=name, benchmark=benchmark)
    arguments = parser.parse_args()
    with one_line_errors(arguments.debug):
        if arguments.threads < 1:
            raise ValueError(f"--threads {arguments.threads}: use at least 1")
        torch.set_num_threads(arguments.threads)
        print(report(arguments.name, arguments.benchmark.measure(arguments), arguments.output))


if __name__ == "__main__":
    main()
