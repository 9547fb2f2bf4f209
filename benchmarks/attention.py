"""Causal attention in bfloat16 on the CPU, with gradients: by products of matrices against torch's fused kernel."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measurement import Measurements, Row, Settings, compare, in_rounds, seconds
from delta_vae_core.causal_products import LONGEST, causal_attention

STEPS = (32, 128, LONGEST)
SMOKE = (4, 8)
SIZES = {"batch": 16, "heads": 6, "head_size": 64}


def measure(settings: Settings) -> Measurements:
    """A row for each length up to the longest at which the products are taken."""
    steps = SMOKE if settings.smoke else STEPS
    return Measurements(
        rows=[_row(length, settings) for length in steps],
        sizes=SIZES | {"steps": list(steps)},
        notes=["In bfloat16, the scores in float32 on both sides. On the CPU on every device."],
    )


def _row(steps: int, settings: Settings) -> Row:
    torch.manual_seed(0)
    shape = (SIZES["batch"], SIZES["heads"], steps, SIZES["head_size"])
    q, k, v = (torch.randn(shape).bfloat16().requires_grad_() for _ in range(3))
    upstream = torch.randn(shape).bfloat16()

    def gradients(attended: Tensor) -> None:
        torch.autograd.grad(attended, (q, k, v), upstream)

    runs = {
        "products": lambda: gradients(causal_attention(q, k, v)),
        "fused": lambda: gradients(F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    }
    calls = 1 if settings.smoke else 5
    timers = {name: partial(seconds, run, torch.device("cpu"), calls) for name, run in runs.items()}
    measured = in_rounds(timers, settings.rounds)
    return compare(f"{steps} steps", "calls/s", 1 / measured["products"], "fused kernel", 1 / measured["fused"])
