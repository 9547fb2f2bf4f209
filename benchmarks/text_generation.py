"""Drawing text: our decoder, alone and in a delta-VAE, against `generate` of GPT-2 of equal size."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from benchmarks.measurement import Measurements, Row, Settings, compare, in_rounds, seconds
from benchmarks.models import LATENT_DIM, SMOKE, SPECIAL, TextSize, gpt2, text_model

AT_LEAST = {1: 2.5, 16: 1.5}


def measure(settings: Settings) -> Measurements:
    """Rows for batches of 1 and 16."""
    size, tokens = (SMOKE, 4) if settings.smoke else (TextSize(), 64)
    device = settings.device
    models = [text_model(size, 0, device), text_model(size, LATENT_DIM, device), gpt2(size, device)]
    for model in models:
        model.eval()
    rows = [row for batch in AT_LEAST for row in _rows(models, batch, tokens, settings)]
    return Measurements(
        rows=rows,
        sizes=asdict(size) | {"batch": list(AT_LEAST), "tokens": tokens, "latent_dim": LATENT_DIM},
        notes=[f"{tokens} tokens each, drawn from the whole distribution in float32; none may end before."],
    )


def _rows(models: list[Any], batch: int, tokens: int, settings: Settings) -> list[Row]:
    device = settings.device
    decoder, vae, gpt = models
    start = torch.full((batch, 1), SPECIAL["bos_token_id"], device=device)
    plan: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": tokens, "min_new_tokens": tokens}
    calls = {
        "decoder": partial(decoder.generate, num_sequences=batch, **plan),
        "vae": partial(vae.generate, num_sequences=batch, **plan),
        "gpt2": partial(gpt.generate, start, attention_mask=torch.ones_like(start), **plan),
    }
    for name, call in calls.items():
        assert call().shape == (batch, tokens + 1), name
    timers = {name: partial(seconds, call, device) for name, call in calls.items()}
    measured = in_rounds(timers, settings.rounds, warm_up=False)
    rate = {name: batch * tokens / times for name, times in measured.items()}
    least = AT_LEAST[batch]
    return [
        compare(
            f"decoder without latents, batch {batch}",
            "tokens/s",
            rate["decoder"],
            "GPT-2",
            rate["gpt2"],
            at_least=least,
        ),
        compare(f"delta-VAE, z drawn too, batch {batch}", "tokens/s", rate["vae"], "GPT-2", rate["gpt2"]),
    ]
