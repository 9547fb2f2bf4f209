"""Learning rates as pure functions of the step: nothing to save, nothing that steps once per process."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "inverse_sqrt"]


def learning_rate_factor(step: int, schedule: Schedule, warmup_steps: int, steps: int) -> float:
    """What the peak learning rate is multiplied by at `step` = 1 ... `steps`: in (0, 1], and 1 at `warmup_steps`.

    Every schedule warms up linearly. Then `constant` stays, `cosine` falls to reach 0 just after the last step, and
    `inverse_sqrt` is sqrt(warmup_steps / step) (Vaswani et al. 2017, section 5.3, scaled to its peak).
    """
    if step <= warmup_steps:
        return step / warmup_steps
    if schedule == "cosine":
        progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps + 1))
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "inverse_sqrt":
        return math.sqrt(max(warmup_steps, 1) / step)
    return 1.0
