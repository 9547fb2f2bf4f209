"""The AR(1) prior: what a step of a long sequence costs beside one of a shorter, and solving for a committed rate."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch

from benchmarks.measurement import Measurements, Row, Settings, compare, in_rounds, plain, seconds
from delta_vae_priors import AR1Prior, AR1PriorConfig

STEPS = (1_000, 10_000, 100_000, 1_000_000)
SMOKE = (10, 20, 40, 80)
DIMENSIONS = (8, 64)
AT_MOST = 1.5
SOLVER_AT_MOST = 0.05


def measure(settings: Settings) -> Measurements:
    """KL, sampling and log-density: over four lengths, and over two numbers of dimensions."""
    steps = SMOKE if settings.smoke else STEPS
    rows = [row for what in ("KL", "sampling", "log-density") for row in _rows(what, steps, settings)]
    solve = partial(AR1PriorConfig.from_committed_rate, bits=20, steps=32, latent_dim=2)
    solver = in_rounds({"solver": partial(seconds, solve, torch.device("cpu"))}, settings.rounds)["solver"]
    return Measurements(
        rows=[*rows, plain("alpha of a committed rate", "s", solver, at_most=SOLVER_AT_MOST)],
        sizes={"batch": 1, "steps": list(steps), "latent_dim": list(DIMENSIONS), "alpha": "linear from .5 to .95"},
        notes=["One sequence, forward alone; nanoseconds a step, or a step and dimension."],
    )


def _rows(what: str, lengths: tuple[int, ...], settings: Settings) -> list[Row]:
    few, many = DIMENSIONS
    timers = {str(steps): _timer(what, steps, few, settings) for steps in lengths}
    timers["wide"] = _timer(what, lengths[-2], many, settings)
    measured = in_rounds(timers, settings.rounds)
    a_step = {steps: 1e9 * measured[str(steps)] / steps for steps in lengths}
    rows = [
        compare(
            f"{what}, {long:,} steps",
            "ns",
            a_step[long],
            f"{short:,} steps",
            a_step[short],
            at_most=AT_MOST if long == lengths[-1] else None,
        )
        for short, long in pairwise(lengths)
    ]
    wide = 1e9 * measured["wide"] / (lengths[-2] * many)
    narrow = a_step[lengths[-2]] / few
    return [*rows, compare(f"{what}, {many} dimensions", "ns", wide, f"{few} dimensions", narrow)]


def _timer(what: str, steps: int, latent_dim: int, settings: Settings) -> partial[float]:
    prior = AR1Prior(AR1PriorConfig(latent_dim=latent_dim))
    generator = torch.Generator(settings.device).manual_seed(0)
    statistics = torch.randn(1, steps, 2 * latent_dim, generator=generator, device=settings.device)
    posterior = prior.posterior(statistics)
    run = {
        "KL": partial(prior.kl, posterior),
        "sampling": partial(prior.sample, 1, steps, generator),
        "log-density": partial(prior.log_prob, posterior.mean),
    }[what]
    calls = max(1, 100_000 // steps) if not settings.smoke else 1  # a short sequence takes less than a clock can tell
    return partial(seconds, run, settings.device, calls)
