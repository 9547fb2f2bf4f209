"""Training on text: the delta-VAE against what the device can do and its own parts, its decoder against peers.

`python -m benchmarks.text_training JSON` prints the seconds of a step of GPT-2 in a process as it comes.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measurement import Measurements, Row, Settings, Timers, compare, in_fresh_process, in_rounds, seconds
from benchmarks.models import (
    DTYPES,
    LATENT_DIM,
    SMOKE,
    TextSize,
    adamw,
    forward_backward,
    gpt2,
    llama,
    parameters,
    text_model,
    token_ids,
    training_step,
)
from benchmarks.operations import SIDE, ceiling, operations

OF_CEILING = {"float32": 0.80, "bfloat16": 0.55}


def measure(settings: Settings) -> Measurements:
    """In float32, and with autocast to bfloat16."""
    size = SMOKE if settings.smoke else TextSize()
    rows = [row for name in DTYPES for row in _rows(size, name, settings)]
    counts = {
        "delta_vae_parameters": parameters(text_model(size)),
        "decoder_parameters": parameters(text_model(size, 0)),
        "gpt2_parameters": parameters(gpt2(size)),
        "llama_parameters": parameters(llama(size)),
    }
    return Measurements(
        rows=rows,
        sizes=asdict(size) | {"latent_dim": LATENT_DIM, "operations_per_step": _operations(size)} | counts,
        notes=[
            "A step is forward, backward, fused AdamW and zero_grad, without dropout; bfloat16 is autocast.",
            f"The most that the device does is a matrix product of side {SIDE} in the same precision;",
            "operations are those needed: half of the square in causal attention, nothing that is computed anew.",
            "All run in a process that keeps the memory that it frees, as training with this library does, but for the",
            "GPT-2 of another process, as it comes.",
        ],
    )


def _operations(size: TextSize) -> int:
    model, ids = text_model(size), token_ids(size, "cpu", batch=1)
    return size.batch * operations(lambda: model(ids).loss)


def _rows(size: TextSize, name: str, settings: Settings) -> list[Row]:
    device, dtype = settings.device, DTYPES[name]
    side = 64 if settings.smoke else SIDE
    ids = token_ids(size, device)
    vae, decoder = text_model(size, LATENT_DIM, device), text_model(size, 0, device)
    gpt, other = gpt2(size, device), llama(size, device)
    steps = {
        "vae": training_step(vae, lambda: vae(ids).loss, device, dtype),
        "decoder": training_step(decoder, lambda: decoder(ids).loss, device, dtype),
        "gpt2": training_step(gpt, lambda: gpt(ids[:, :-1], labels=ids[:, :-1]).loss, device, dtype),
        "llama": training_step(other, lambda: other(ids[:, :-1], labels=ids[:, :-1]).loss, device, dtype),
    }
    timers: Timers = {
        "product": ceiling(device, dtype, side),
        **{what: partial(seconds, step, device) for what, step in steps.items()},
        **_parts(size, device, dtype),
        "gpt2 as it comes": partial(
            in_fresh_process,
            __name__,
            asdict(size) | {"device": str(device), "precision": name, "threads": torch.get_num_threads()},
        ),
    }
    measured = in_rounds(timers, settings.rounds)
    tokens, giga = size.batch * size.tokens, _operations(size) / 1e9
    of_parts = measured["encoder alone"] + measured["decoder alone"] + measured["optimizer alone"]
    return [
        compare(
            f"delta-VAE, {name}",
            "Gop/s",
            giga / measured["vae"],
            "matrix product",
            1e-9 / measured["product"],
            at_least=OF_CEILING[name],
        ),
        compare(
            f"decoder without latents, {name}",
            "tokens/s",
            tokens / measured["decoder"],
            "GPT-2",
            tokens / measured["gpt2"],
            at_least=1.10,
        ),
        compare(
            f"decoder without latents, {name}",
            "tokens/s",
            tokens / measured["decoder"],
            "GPT-2 as it comes",
            tokens / measured["gpt2 as it comes"],
        ),
        compare(
            f"decoder without latents, {name}",
            "tokens/s",
            tokens / measured["decoder"],
            "Llama",
            tokens / measured["llama"],
        ),
        compare(
            f"delta-VAE step, {name}",
            "s",
            measured["vae"],
            "encoder, decoder and optimizer alone",
            of_parts,
            at_most=1.05,
        ),
    ]


def gpt2_seconds(size: TextSize, device: torch.device, precision: str) -> float:
    """The median step of three, after two that are not counted."""
    model, ids = gpt2(size, device), token_ids(size, device)[:, :-1]
    step = training_step(model, lambda: model(ids, labels=ids).loss, device, DTYPES[precision])
    return statistics.median([seconds(step, device) for _ in range(5)][2:])


def _parts(size: TextSize, device: torch.device, dtype: torch.dtype) -> Timers:
    """The encoder, the decoder given latents, and the optimizer on the gradients of both: timed in this order."""
    model: Any = text_model(size, LATENT_DIM, device)
    x = token_ids(size, device)[:, 1:]
    latents = torch.randn(*x.shape, LATENT_DIM, device=device, requires_grad=True)
    mask = torch.ones_like(x, dtype=torch.bool)
    optimizer = adamw(model)

    def encoder_loss() -> Tensor:
        return model.encoder(x, mask).statistics.sum()

    def decoder_loss() -> Tensor:
        return -model.decoder(x, latents, mask).log_prob(x).sum()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return {
        "encoder alone": partial(seconds, partial(forward_backward, encoder_loss, device, dtype), device),
        "decoder alone": partial(seconds, partial(forward_backward, decoder_loss, device, dtype), device),
        "optimizer alone": partial(seconds, update, device),
    }


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options.pop("threads"))
    where, bits = torch.device(options.pop("device")), options.pop("precision")
    print(gpt2_seconds(TextSize(**options), where, bits))
