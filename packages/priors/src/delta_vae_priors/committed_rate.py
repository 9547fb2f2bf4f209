"""Committed rates in closed form, and the alpha that commits a given rate.

Razavi et al. 2019, section 2.1. For an AR(1) prior z_t = alpha z_{t-1} + e_t with unit marginals and a posterior that
is independent over steps, over all posteriors

    min KL(q || p) = 1/2 sum_k [ (T - 2) ln(1 + alpha_k^2) - ln(1 - alpha_k^2) ],   T >= 2   (0 for T = 1),

attained at mean 0, variance 1 - alpha^2 at both ends and (1 - alpha^2) / (1 + alpha^2) in between.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from delta_vae_core import bits_to_nats, nats_to_bits

# Nearer to 1 a dimension is one number repeated; float32 and the optimiser both lose their grip on its steps.
ALPHA_CEILING = 0.9999
ALPHA_WARNING = 0.995
ALPHA_ADVISED = 0.95


def ar1_committed_rate(alpha: Sequence[float], steps: int) -> float:
    """Committed rate of an AR(1) prior over `steps` latents, one alpha a dimension, in nats."""
    if steps < 2:
        return 0.0
    return 0.5 * sum((steps - 2) * math.log1p(a * a) - math.log1p(-a * a) for a in alpha)


def ar1_best_log_scale(alpha: float) -> tuple[float, float]:
    """Log-scales of the posterior that attains the committed rate: at both ends, and in between."""
    end = 0.5 * math.log1p(-alpha * alpha)
    return end, end - 0.5 * math.log1p(alpha * alpha)


def price_of_information(alpha: float) -> float:
    """Nats of rate that one nat of information costs at the floor, for a signal constant over time.

    (1 - alpha)^2 / (1 + alpha^2): 1 for an ordinary VAE (alpha = 0), 0.0055 at alpha = 0.9. Small-signal limit.
    """
    return (1 - alpha) ** 2 / (1 + alpha**2)


def solve_alpha(rate_nats: float, steps: int, latent_dim: int) -> float:
    """The one alpha in [0, 1) with which `latent_dim` dimensions over `steps` latents commit `rate_nats`.

    Raises `ValueError` where that alpha would be above 0.9999, and warns above 0.995: away from the ends a dimension
    commits less than 1/2 bit a step, and the rest can only come from alpha near 1.
    """
    if not (math.isfinite(rate_nats) and rate_nats >= 0):
        raise ValueError(f"committed rate of {rate_nats} nats: ask for a finite rate of at least 0")
    if latent_dim < 1:
        raise ValueError(f"latent_dim={latent_dim}: a committed rate needs at least one latent dimension")
    if rate_nats == 0:
        return 0.0
    if steps < 2:
        raise ValueError(f"steps={steps}: a single latent step commits nothing; use at least 2 steps")
    # In u = -ln(1 - alpha^2) the rate of one dimension, 1/2 [(T - 2) ln(2 - e^-u) + u], rises with slope >= 1/2;
    # 2 - e^-u is taken as 1 + (1 - e^-u), which keeps its digits near u = 0.
    target = 2 * rate_nats / latent_dim
    low, high = 0.0, target
    while True:
        u = 0.5 * (low + high)
        if u in (low, high):
            break
        if (steps - 2) * math.log1p(-math.expm1(-u)) + u < target:
            low = u
        else:
            high = u
    alpha = math.sqrt(-math.expm1(-u))
    if alpha > ALPHA_WARNING:
        bits = nats_to_bits(rate_nats)
        message = (
            f"committed_rate={bits:.4g} bits ({rate_nats:.4g} nats) needs alpha={_digits(alpha)} "
            f"with {steps} steps and {latent_dim} dimensions; {_remedy(rate_nats, steps, latent_dim)}"
        )
        if alpha > ALPHA_CEILING:
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
    return alpha


def rate_in_nats(bits: float | None, nats: float | None) -> float:
    """The one of the two that was given, in nats."""
    if (bits is None) == (nats is None):
        raise ValueError(f"bits={bits}, nats={nats}: give the committed rate in exactly one of the two units")
    return bits_to_nats(bits) if bits is not None else float(nats)  # type: ignore[arg-type]


def _remedy(rate_nats: float, steps: int, latent_dim: int) -> str:
    dims = math.ceil(rate_nats / ar1_committed_rate([ALPHA_ADVISED], steps))
    tail = -0.5 * math.log1p(-(ALPHA_ADVISED**2))
    more_steps = 2 + math.ceil((rate_nats / latent_dim - tail) / (0.5 * math.log1p(ALPHA_ADVISED**2)))
    return f"use at least {dims} dimensions or {more_steps} steps (alpha={ALPHA_ADVISED}), or ask for less"


def _digits(alpha: float) -> str:
    """Enough digits to tell alpha from 1."""
    return f"{alpha:.{max(4, math.ceil(-math.log10(max(1 - alpha, 1e-15))) + 1)}f}"
