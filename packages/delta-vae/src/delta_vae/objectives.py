"""What is minimised: the negative ELBO and its rivals, as pure functions in nats a sequence or image.

Rates go in raw and are reported raw; only the objective weighs or thresholds them. All take and give (B,) per sequence
or image; training minimises the mean over the batch.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def negative_elbo(rate: Tensor, distortion: Tensor) -> Tensor:
    """-ELBO = distortion + rate. A delta-VAE needs nothing else."""
    return distortion + rate


def beta_elbo(rate: Tensor, distortion: Tensor, beta: float) -> Tensor:
    """distortion + beta * rate. Higgins et al. 2017; with beta < 1 also Alemi et al. 2018."""
    return distortion + beta * rate


def free_bits(
    kl: Tensor,
    distortion: Tensor,
    floor_nats: float,
    per: Literal["step", "dimension"] = "dimension",
    mask: Tensor | None = None,
) -> Tensor:
    """distortion + sum of max(floor, KL), the floor applied to each step, or to each dimension of each step.

    kl (B, T, D), mask (B, T): a masked step is charged no floor. Kingma et al. 2016, with the threshold on every
    sequence by itself and not on the batch's mean, so that a batch's loss is the mean of its members'.
    """
    if floor_nats < 0:
        raise ValueError(f"floor_nats={floor_nats}: free bits need a floor of at least 0 nats")
    if per not in ("step", "dimension"):
        raise ValueError(f"per={per!r}: apply free bits per 'step' or per 'dimension'")
    charged = (kl.sum(-1, keepdim=True) if per == "step" else kl).clamp_min(floor_nats)
    if mask is not None:
        charged = charged * mask[..., None]
    return distortion + charged.sum((1, 2))


def linear_annealing(step: int, steps: int) -> float:
    """Weight of the rate: rises from 0 to 1 over the first `steps` steps. Bowman et al. 2016."""
    return min(1.0, step / steps) if steps > 0 else 1.0


def cyclical_annealing(step: int, steps: int, cycles: int = 4, ramp: float = 0.5) -> float:
    """Weight of the rate: `cycles` times within `steps`, up from 0 to 1 over a share `ramp` of the cycle, then 1.

    Fu et al. 2019. It stays at 1 once `steps` have passed.
    """
    if step >= steps:
        return 1.0
    position = step * cycles / steps
    return min(1.0, (position - int(position)) / ramp) if ramp > 0 else 1.0
