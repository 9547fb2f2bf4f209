"""What latents must be that a user gives to be decoded."""

import torch
from torch import Tensor


def check_latents(latents: Tensor | None, num_sequences: int = 1) -> None:
    """Raise `ValueError` unless something is asked for, of latents that are finite real numbers, if there are any.

    On an accelerator their values are not looked at.
    """
    if num_sequences < 1:
        raise ValueError(f"num_sequences={num_sequences}: ask for 1 or more")
    if latents is None:
        return
    if not latents.is_floating_point():
        raise ValueError(f"latents of dtype {latents.dtype}: give real numbers, as of encode or sample_latents")
    if latents.device.type == "cpu" and not bool(torch.isfinite(latents).all()):
        worst = float(latents[~torch.isfinite(latents)][0])
        raise ValueError(f"latents with a value {worst}: every one must be finite")
