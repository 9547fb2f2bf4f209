"""Randomness as a pure function of where it is used, so that a resumed or re-sharded run draws the same numbers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit seed for one purpose at one place of a run, e.g. `derive_seed(seed, "dropout", step, micro, rank)`."""
    key = ":".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """A generator on the CPU for one purpose at one place of a run."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *indices))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Within, torch's global random state follows from seed and purpose; afterwards it is as before."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(seed, purpose))
        yield


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Within, anything may be drawn or seeded: the global states of torch, numpy and Python are put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state of others, to be left alone
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def latent_noise(mask: Tensor, latent_dim: int, seed: int, step: int, rows: Sequence[int]) -> Tensor:
    """Standard normal noise for z, zero where the (B, T) mask is false: (B, T, D), float32, on the CPU.

    Row b is seeded by its index `rows[b]` in the global batch and drawn for its own length, so neither padding nor the
    number of processes nor accumulation changes it.
    """
    noise = torch.zeros(*mask.shape, latent_dim)
    for b, (row, length) in enumerate(zip(rows, mask.sum(1).tolist(), strict=True)):
        own = generator(seed, "latents", step, row)
        noise[b, :length] = torch.randn(length, latent_dim, generator=own)
    return noise
