"""How long it takes to start: importing the priors beside what they import, and the help of the command."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, run

import torch

from benchmarks.measurement import Measurements, Settings, in_rounds, plain, seconds

PRIORS = "import delta_vae_priors"
# All that it imports that is not ours; a test compares the two.
LIBRARIES = """\
import torch, transformers
from transformers import AutoConfig, AutoModel, Cache, PreTrainedConfig, PreTrainedModel, initialization
from transformers.utils import ModelOutput
"""
HELP = (str(Path(sys.executable).with_name("delta-vae")), "--help")
PYTHON = (sys.executable, "-c")


def measure(settings: Settings) -> Measurements:
    """Two rows of seconds above a peer's, in fresh processes."""
    cpu = torch.device("cpu")
    commands = {
        "priors": (*PYTHON, PRIORS),
        "libraries": (*PYTHON, LIBRARIES),
        "help": HELP,
        "python": (*PYTHON, "pass"),
    }
    timers = {
        name: partial(seconds, partial(run, command, check=True, stdout=DEVNULL), cpu)
        for name, command in commands.items()
    }
    measured = in_rounds(timers, settings.rounds, warm_up=not settings.smoke)
    return Measurements(
        rows=[
            plain(
                "`import delta_vae_priors`, above its libraries alone",
                "s",
                measured["priors"] - measured["libraries"],
                at_most=0.05,
            ),
            plain(
                "`delta-vae --help`, above `python -c pass`", "s", measured["help"] - measured["python"], at_most=1.0
            ),
        ],
        sizes={"libraries": LIBRARIES.splitlines()},
        notes=["Wall-clock seconds of fresh processes, less those of the other in the same round."],
    )
