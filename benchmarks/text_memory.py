"""Peak memory of a training step at a large vocabulary: our likelihood against one that holds all logits.

Each in a process of its own: `python -m benchmarks.text_memory JSON` prints the bytes of one step.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measurement import Measurements, Settings, compare, in_fresh_process, in_rounds
from benchmarks.models import LATENT_DIM, SMOKE, TextSize, text_model, token_ids, training_step
from delta_vae_decoders import CategoricalLikelihood

STATUS = Path("/proc/self/status")


def measure(settings: Settings) -> Measurements:
    """One row; at most 3 rounds, for bytes hardly vary."""
    size = (
        replace(SMOKE, vocabulary=4000, batch=16, tokens=32)
        if settings.smoke
        else TextSize(vocabulary=32_000, batch=32)
    )
    arguments = asdict(size) | {"device": str(settings.device), "threads": torch.get_num_threads()}
    measured = in_rounds(
        {
            kind: partial(in_fresh_process, __name__, arguments | {"whole": kind == "whole"})
            for kind in ("parts", "whole")
        },
        min(settings.rounds, 3),
        warm_up=False,
    )
    mebibyte = 2**20
    row = compare(
        "step of the delta-VAE, log-likelihood by parts",
        "MiB",
        measured["parts"] / mebibyte,
        "all logits at once",
        measured["whole"] / mebibyte,
        at_most=0.6,
    )
    return Measurements(
        rows=[row],
        sizes=asdict(size) | {"latent_dim": LATENT_DIM},
        notes=["What a step adds at its peak, gradients among it, to the parameters and to what AdamW keeps."],
    )


def step_bytes(size: TextSize, device: torch.device, whole: bool) -> int:
    """The peak of one step above what was held before it, after a step on one sentence."""
    model: Any = text_model(size, LATENT_DIM, device)
    if whole:
        model.decoder.register_forward_hook(_hold_logits)
    batch = [token_ids(size, device, batch=1)]

    def loss() -> Tensor:
        return model(batch[0]).loss

    step = training_step(model, loss, device, torch.float32)
    step()
    batch[0] = token_ids(size, device)
    gc.collect()
    before = _restart_peak(device)
    step()
    return _peak(device) - before


def _hold_logits(module: Any, inputs: Any, likelihood: Any) -> CategoricalLikelihood:
    del module, inputs
    return CategoricalLikelihood(likelihood.logits)


def _restart_peak(device: torch.device) -> int:
    """Bytes held now, from which the peak is measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options.pop("threads"))
    where, all_logits = torch.device(options.pop("device")), options.pop("whole")
    print(step_bytes(TextSize(**options), where, all_logits))
