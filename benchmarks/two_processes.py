"""Training text in two processes of one thread each, with twice the batch, against one process of one thread.

`python -m benchmarks.two_processes JSON`, launched once or by torchrun, prints the seconds of a step.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, replace
from functools import partial

import torch
from accelerate import Accelerator

from benchmarks.measurement import Measurements, Settings, compare, in_fresh_process, in_rounds, seconds
from benchmarks.models import LATENT_DIM, SMOKE, TextSize, adamw, text_model, token_ids
from delta_vae_lab.memory import keep_freed_memory

STEPS = 4
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def measure(settings: Settings) -> Measurements:
    """One row, always on the CPU; at most 3 rounds, for each begins with new processes."""
    size = SMOKE if settings.smoke else replace(TextSize(), batch=8)
    arguments = asdict(size) | {"steps": 1 if settings.smoke else STEPS}
    launchers: dict[str, tuple[str, ...]] = {"one": (), "two": LAUNCHER}
    timers = {name: partial(in_fresh_process, __name__, arguments, *launcher) for name, launcher in launchers.items()}
    measured = in_rounds(timers, min(settings.rounds, 3), warm_up=False)
    tokens = size.batch * size.tokens
    return Measurements(
        rows=[
            compare(
                "two processes, each",
                "tokens/s",
                tokens / measured["two"],
                "one process",
                tokens / measured["one"],
            )
        ],
        sizes=asdict(size) | {"latent_dim": LATENT_DIM, "steps": arguments["steps"]},
        notes=[
            "gloo, one thread a process, a batch for each; the ratio is the efficiency. On the CPU on every device."
        ],
    )


def step_seconds(size: TextSize, steps: int) -> float:
    """The median step of the main process, after one that is not counted."""
    torch.set_num_threads(1)
    keep_freed_memory()
    accelerator = Accelerator(cpu=True)
    bare = text_model(size)
    model, optimizer = accelerator.prepare(bare, adamw(bare))
    ids = token_ids(size, "cpu")

    def step() -> None:
        accelerator.backward(model(ids).loss)
        optimizer.step()
        optimizer.zero_grad()

    times = [seconds(step, accelerator.device) for _ in range(1 + steps)][1:]
    accelerator.end_training()
    return statistics.median(times) if accelerator.is_main_process else 0.0


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    number = options.pop("steps")
    taken = step_seconds(TextSize(**options), number)
    if taken:
        print(taken)
